"""Which crop and heatmap sizes the network has; without torch, so that a wrong one is told at once."""

from __future__ import annotations

from uniformer_pose.errors import InputError

BACKBONE_STRIDE = 32
HEATMAP_STRIDE = 4
"""Crop pixels per heatmap cell of the pose head: three doublings of the backbone's map."""


def check_crop_size(height: int, width: int) -> None:
    """Raise InputError for a crop that the backbone cannot divide evenly."""
    if height <= 0 or width <= 0 or height % BACKBONE_STRIDE or width % BACKBONE_STRIDE:
        raise InputError(
            f"crop size {height}x{width} (height x width): both must be positive multiples of {BACKBONE_STRIDE}, "
            "such as 256x192"
        )


def check_network_stride(stride: int) -> None:
    """Raise InputError for a codec whose heatmaps are not of the size that the pose head gives."""
    if stride != HEATMAP_STRIDE:
        raise InputError(f"heatmap stride {stride}: must be {HEATMAP_STRIDE}, which is what the pose head gives")
