"""Measurements of the product by itself: both sides of every comparison in turn, on the same machine."""
