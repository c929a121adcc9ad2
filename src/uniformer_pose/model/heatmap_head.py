"""Heatmap head: features -> one stride-4 heatmap per keypoint.

Paper: Xiao, Wu and Wei, "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018 (arXiv
1804.06208), as UniFormer's pose estimation uses it (github.com/Sense-X/UniFormer, pose_estimation/,
Apache-2.0). Our own code; parameter names are those of the released weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from uniformer_pose.model.pose_head import PoseHead

_INIT_STD = 0.001


class HeatmapHead(PoseHead):
    """Features -> heatmaps, one per keypoint, of twice their height and width for each of ``deconv_channels``.

    Transposed convolution (doubles the map), BatchNorm, ReLU for each of ``deconv_channels``, three for features of
    stride 32; then one 1x1 convolution. Heatmap values are not bounded; targets lie in [0, 1].
    """

    def __init__(self, in_channels: int, num_keypoints: int, deconv_channels: Sequence[int] = (256, 256, 256)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels_in, channels_out in zip((in_channels, *deconv_channels), deconv_channels, strict=False):
            layers += [
                # BatchNorm follows, so a bias would do nothing.
                nn.ConvTranspose2d(channels_in, channels_out, kernel_size=4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(channels_out),
                nn.ReLU(inplace=True),
            ]
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d((in_channels, *deconv_channels)[-1], num_keypoints, kernel_size=1)
        for module in self.modules():
            if isinstance(module, (nn.ConvTranspose2d, nn.Conv2d)):
                nn.init.normal_(module.weight, std=_INIT_STD)
        if self.final_layer.bias is not None:
            nn.init.zeros_(self.final_layer.bias)

    def keypoints(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w) -> heatmaps (B, K, 8h, 8w), for three ``deconv_channels``."""
        heatmaps: Tensor = self.final_layer(self.deconv_layers(features))
        return heatmaps
