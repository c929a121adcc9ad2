"""Annotations in other formats -> the layout and the data config that training reads."""
