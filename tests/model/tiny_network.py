"""The smallest UniFormer that has every kind of block, and what it is fed with."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from uniformer_pose.model.network import PoseNetwork

TINY: dict[str, Any] = {
    "num_keypoints": 5,
    "depths": [2, 1, 4, 1],
    "embed_dims": [8, 12, 16, 24],
    "head_dim": 8,
    "mlp_ratio": 1.5,
    "deconv_channels": [8, 8, 8],
}
VARIANTS: dict[str, dict[str, Any]] = {
    "S and B": {},
    "S-dagger": {"stem": "convolution"},
    "B with layer scale": {"layer_scale": 1e-6},
    "L": {"layer_scale": 1e-6, "layer_scale_blocks": "all"},
    "everything": {"stem": "convolution", "layer_scale": 1e-6, "layer_scale_blocks": "all"},
}


def tiny(**arguments: Any) -> PoseNetwork:
    torch.manual_seed(0)
    return PoseNetwork(**{**TINY, **arguments})


def images(count: int = 2, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def gradients(network: nn.Module, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)  # the draws of stochastic depth
    network(inputs).square().mean().backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
