"""Weights: a file or an address -> a network that is complete, and back to files that other programs read."""
