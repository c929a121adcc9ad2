"""What one training step computes before the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from uniformer_pose.data.tensors import CropNormalization
from uniformer_pose.keypoints.accuracy import pck
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec


def keypoint_mse(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean squared error over all (B, K, h, w) cells, those of keypoints with weight 0 counted as zero.

    In fp32 whatever the heatmaps' type: typical values are 1e-3, and fp16 would lose their differences. Both the
    original ``JointsMSELoss`` and MMPose's ``KeypointMSELoss`` reduce to this for weights 0 and 1.
    """
    squared = (heatmaps.float() - targets).square()
    return (squared * weights[:, :, None, None]).mean()


def loss_and_accuracy(
    network: torch.nn.Module,
    normalize: CropNormalization,
    codec: HeatmapCodec,
    crops: Tensor,
    keypoints_in_crop: Tensor,
    visibility: Tensor,
) -> tuple[Tensor, Tensor]:
    """Loss, to differentiate, and PCK of a batch, as scalars on its device; nothing here waits for the device.

    ``crops`` (B, H, W, 3) uint8 RGB, ``keypoints_in_crop`` (B, K, 2), ``visibility`` (B, K).
    """
    targets, weights = codec.encode(keypoints_in_crop, visibility)
    heatmaps = network(normalize(crops))
    loss = keypoint_mse(heatmaps, targets, weights)
    with torch.no_grad():
        accuracy = pck(heatmaps, targets, weights)
    return loss, accuracy
