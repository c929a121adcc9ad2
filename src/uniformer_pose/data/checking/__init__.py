"""What is wrong with a dataset, all of it, before anyone trains on it."""
