"""What one training step computes before the backward pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from uniformer_pose.data.tensors import CropNormalization
from uniformer_pose.keypoints.codec import Codec, parts_of
from uniformer_pose.training.loss import Loss
from uniformer_pose.training.teacher import Teacher

# What a visibility head's cross-entropies count beside the keypoints' loss, as in MMPose's configs with such a head:
# the mean squared error of heatmaps is about as small, and Adam's steps of the head itself do not depend on it.
_VISIBILITY_WEIGHT = 1e-3


def loss_and_output(
    network: torch.nn.Module,
    normalize: CropNormalization,
    codec: Codec,
    loss: Loss,
    crops: Tensor,
    keypoints_in_crop: Tensor,
    visibility: Tensor,
    keypoint_weights: Tensor | None = None,
    teacher: Teacher | None = None,
    in_set: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss of a batch, a scalar to differentiate, and the network's output, to look at; waits for no device.

    ``crops`` (B, H, W, 3) uint8 RGB, ``keypoints_in_crop`` (B, K, 2), ``visibility`` (B, K).
    ``keypoint_weights`` (B, K), where people have them, multiply the codec's. ``teacher`` adds its own loss.
    ``in_set`` (B, K): which keypoints people could have been labelled with; None: all.
    """
    targets, weights = codec.encode(keypoints_in_crop, visibility)
    if keypoint_weights is not None:
        weights = weights * keypoint_weights
    images = normalize(crops)
    output, visibility_logits = parts_of(network(images))
    value = loss(codec, output, targets, weights)
    if visibility_logits is not None:
        value = value + _VISIBILITY_WEIGHT * visibility_loss(visibility_logits, visibility, in_set)
    if teacher is not None:
        value = value + teacher(images, output)
    return value, output.detach()


def visibility_loss(logits: Tensor, visibility: Tensor, in_set: Tensor | None = None) -> Tensor:
    """Binary cross-entropies of logits (B, K, 2): that v (B, K) is above 0, and where it is, that it is 2; in fp32.

    What is not ``in_set`` (B, K) does not count: nobody could have labelled it, so that its v says nothing.
    """
    labelled, visible = visibility > 0, visibility == 2
    targets = torch.stack([labelled, visible], dim=-1).float()
    entropies = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    of_labelled = (entropies[..., 1] * labelled).sum() / labelled.sum().clamp(min=1)
    if in_set is None:
        return entropies[..., 0].mean() + of_labelled
    return (entropies[..., 0] * in_set).sum() / in_set.sum().clamp(min=1) + of_labelled
