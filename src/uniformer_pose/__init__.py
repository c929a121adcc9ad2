"""UniFormer pose."""
