"""Stopping and continuing: from any checkpoint a training goes on bit for bit as if nothing had happened."""
