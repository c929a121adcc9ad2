"""What one training step computes before the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from uniformer_pose.data.tensors import CropNormalization
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec


def keypoint_mse(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean squared error over all (B, K, h, w) cells, those of keypoints with weight 0 counted as zero.

    In fp32 whatever the heatmaps' type: typical values are 1e-3, and fp16 would lose their differences. Both the
    original ``JointsMSELoss`` and MMPose's ``KeypointMSELoss`` reduce to this for weights 0 and 1.
    """
    squared = (heatmaps.float() - targets).square()
    return (squared * weights[:, :, None, None]).mean()


def loss_and_heatmaps(
    network: torch.nn.Module,
    normalize: CropNormalization,
    codec: HeatmapCodec,
    crops: Tensor,
    keypoints_in_crop: Tensor,
    visibility: Tensor,
) -> tuple[Tensor, Tensor]:
    """Loss of a batch, a scalar to differentiate, and its heatmaps (B, K, h, w), to look at; waits for no device.

    ``crops`` (B, H, W, 3) uint8 RGB, ``keypoints_in_crop`` (B, K, 2), ``visibility`` (B, K).
    """
    targets, weights = codec.encode(keypoints_in_crop, visibility)
    heatmaps = network(normalize(crops))
    return keypoint_mse(heatmaps, targets, weights), heatmaps.detach()
