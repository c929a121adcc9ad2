"""The pose network: UniFormer backbone and heatmap head in one module, described by a few plain numbers."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from uniformer_pose.model.arguments import NetworkArguments
from uniformer_pose.model.heatmap_head import HeatmapHead
from uniformer_pose.model.uniformer import UniFormer


class PoseNetwork(nn.Module):
    """Normalised RGB person crops -> keypoint heatmaps at a quarter of their height and width.

    The arguments are those of ``NetworkArguments``, such as ``PoseNetwork(17, depths=[3, 4, 8, 3])``. ``arguments``
    holds them as plain numbers, strings and lists for a checkpoint: ``PoseNetwork(**network.arguments)`` has the same
    parameters.

    UniFormer-S is ``depths=[3, 4, 8, 3]``, UniFormer-B ``depths=[5, 8, 20, 7]``, all else by default; S-dagger is
    ``depths=[3, 5, 9, 3]`` with ``stem="convolution"`` and ``head_dim=32``.
    """

    # The arguments are written once, in the dataclass; a configuration is checked against them.
    __signature__ = inspect.signature(NetworkArguments, eval_str=True)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__()
        given = NetworkArguments(*arguments, **named)
        self.backbone = UniFormer(given)
        self.head = HeatmapHead(given.embed_dims[-1], given.num_keypoints, given.deconv_channels)
        self.arguments: dict[str, Any] = given.to_dict()

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> heatmaps (B, K, H/4, W/4); H and W must be multiples of 32 or InputError."""
        heatmaps: Tensor = self.head(self.backbone(images))
        return heatmaps
