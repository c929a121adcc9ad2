"""What one training step computes before the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from uniformer_pose.data.tensors import CropNormalization
from uniformer_pose.keypoints.codec import Codec
from uniformer_pose.training.loss import Loss


def loss_and_output(
    network: torch.nn.Module,
    normalize: CropNormalization,
    codec: Codec,
    loss: Loss,
    crops: Tensor,
    keypoints_in_crop: Tensor,
    visibility: Tensor,
) -> tuple[Tensor, Tensor]:
    """Loss of a batch, a scalar to differentiate, and the network's output, to look at; waits for no device.

    ``crops`` (B, H, W, 3) uint8 RGB, ``keypoints_in_crop`` (B, K, 2), ``visibility`` (B, K).
    """
    targets, weights = codec.encode(keypoints_in_crop, visibility)
    output = network(normalize(crops))
    return loss(codec, output, targets, weights), output.detach()
