"""Heads: backbone features -> a network's output, one for each kind of it."""

from __future__ import annotations

from torch import nn

from uniformer_pose.model.arguments import NetworkArguments
from uniformer_pose.model.heatmap_head import HeatmapHead


def pose_head(arguments: NetworkArguments, in_channels: int) -> nn.Module:
    """The head that the arguments ask for, on features (B, in_channels, H / 32, W / 32)."""
    return HeatmapHead(in_channels, arguments.num_keypoints, arguments.deconv_channels)
