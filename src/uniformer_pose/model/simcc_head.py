"""SimCC head: features -> for each keypoint a vector over the crop's width and one over its height.

Paper: Li et al., "SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation", ECCV 2022 (arXiv
2107.03332), section 3.1; its bins are those of ``keypoints/simcc_codec.py``. Parameter names and initial values are
those of MMPose 1.3's ``SimCCHead`` (mmpose/models/heads/coord_cls_heads, Apache-2.0). Our own code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import HEATMAP_STRIDE
from uniformer_pose.keypoints.simcc_codec import BINS_PER_PIXEL
from uniformer_pose.model.heatmap_head import HeatmapHead
from uniformer_pose.model.pose_head import PoseHead

_CONV_STD, _LINEAR_STD = 0.001, 0.01


class VectorHead(PoseHead):
    """A head made for crops of one size: its linear layers take all cells of a map, and give all bins of an axis.

    ``crop_height``, ``crop_width`` in pixels; ``stride`` of the features.
    """

    def __init__(self, crop_height: int, crop_width: int, stride: int) -> None:
        super().__init__()
        self.bins_x, self.bins_y = BINS_PER_PIXEL * crop_width, BINS_PER_PIXEL * crop_height
        self._height, self._width, self._stride = crop_height, crop_width, stride

    def keypoints(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w) -> (B, K, bins_x + bins_y): the bins of x, then those of y."""
        height, width = (cells * self._stride for cells in features.shape[2:])
        if (height, width) != (self._height, self._width):
            raise InputError(
                f"crops of {height}x{width} (height x width): the head was made for {self._height}x{self._width} and "
                "takes no others"
            )
        return torch.cat(self.vectors(features), dim=-1)

    def vectors(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the right size -> (B, K, bins_x) and (B, K, bins_y)."""
        raise NotImplementedError

    def cells(self, stride: int) -> int:
        """Of a map of this stride."""
        return (self._height // stride) * (self._width // stride)

    def draw_initial_weights(self) -> None:
        """As MMPose does it for both of its heads of this kind."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.normal_(module.weight, std=_LINEAR_STD if isinstance(module, nn.Linear) else _CONV_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class SimCCHead(VectorHead):
    """One map per keypoint, and a linear layer for each axis on all of its cells.

    ``deconv_channels``: the map is the heatmap head's. None: a 1x1 convolution of the features, which costs little.
    """

    def __init__(
        self,
        in_channels: int,
        num_keypoints: int,
        crop_height: int,
        crop_width: int,
        stride: int,
        deconv_channels: Sequence[int] | None,
    ) -> None:
        super().__init__(crop_height, crop_width, stride)
        if deconv_channels is None:
            self.final_layer = nn.Conv2d(in_channels, num_keypoints, kernel_size=1)
        else:
            self.deconv_head = HeatmapHead(in_channels, num_keypoints, deconv_channels)
        cells = self.cells(stride if deconv_channels is None else HEATMAP_STRIDE)
        self.mlp_head_x = nn.Linear(cells, self.bins_x)
        self.mlp_head_y = nn.Linear(cells, self.bins_y)
        self.draw_initial_weights()

    def vectors(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, C, h, w) -> (B, K, bins_x) and (B, K, bins_y)."""
        maps = self.deconv_head.keypoints(features) if hasattr(self, "deconv_head") else self.final_layer(features)
        cells = maps.flatten(2)
        return self.mlp_head_x(cells), self.mlp_head_y(cells)
