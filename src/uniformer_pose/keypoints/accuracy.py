"""How many predicted peaks lie near the target's: the cheap accuracy to watch while training."""

from __future__ import annotations

import torch
from torch import Tensor

from uniformer_pose.keypoints.codec import Codec


def pck(codec: Codec, output: Tensor, targets: Tensor, weights: Tensor, threshold: float = 0.05) -> Tensor:
    """Share of labelled keypoints whose peak is right (PCK), as a scalar tensor on the output's device.

    ``output`` and ``targets`` are (B, K, ...), ``weights`` (B, K); above zero means labelled. A peak is right when its
    distance to the target's peak, with x divided by the crop's height and y by its width, is below ``threshold``. That
    is the normalisation of MMPose's ``pose_pck_accuracy`` and ``simcc_pck_accuracy``, kept so that the number compares
    with its training logs. The mean is first over the samples of a keypoint, then over the keypoints with a labelled
    sample; 0 when there is none. A prediction that is not finite is wrong.
    """
    places, values = codec.peaks(output.detach())
    x, y = (places - codec.peaks(targets)[0]).unbind(-1)
    distance = torch.hypot(x / codec.height, y / codec.width)
    labelled = weights > 0
    right = labelled & (distance < threshold) & values.isfinite()
    samples = labelled.sum(dim=0)
    per_keypoint = right.sum(dim=0) / samples.clamp(min=1)
    return per_keypoint.sum() / (samples > 0).sum().clamp(min=1)
