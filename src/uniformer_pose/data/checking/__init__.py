"""What spoils a training or an AP in silence, found in a data set before anyone trains on it, by the reader's rules."""
