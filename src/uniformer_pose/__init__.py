"""Top-down 2D human pose estimation with UniFormer; the README has the map."""
