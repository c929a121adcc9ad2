"""Crops as they leave the loader become what the network takes."""

from __future__ import annotations

import torch
from torch import nn


class CropNormalization(nn.Module):
    """uint8 RGB crops (B, H, W, 3), 0 to 255 -> normalised images (B, 3, H, W), float32, channels-last in memory.

    It runs on the device: a uint8 batch is a quarter of the bytes to copy there.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        # Not weights: a checkpoint keeps them beside the codec, in plain numbers.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Normalised images; the permuted view is already in channels-last order, so nothing is copied for it.

        Row by row: a processor does three colours a step slowly, a row of them in one go, with the same numbers.
        """
        width = crops.shape[2]
        rows = crops.flatten(2).to(torch.float32, copy=True)
        rows = rows.sub_(self.mean.repeat(width)).div_(self.std.repeat(width))
        return rows.view(crops.shape).permute(0, 3, 1, 2)
