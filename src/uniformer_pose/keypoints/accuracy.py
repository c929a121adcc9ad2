"""How many predicted peaks lie near the target's: the cheap accuracy to watch while training."""

from __future__ import annotations

import torch
from torch import Tensor

from uniformer_pose.keypoints.heatmap_codec import find_peaks


def pck(predicted_heatmaps: Tensor, target_heatmaps: Tensor, weights: Tensor, threshold: float = 0.05) -> Tensor:
    """Share of labelled keypoints whose peak is right (PCK), as a scalar tensor on the heatmaps' device.

    Heatmaps are (B, K, h, w), ``weights`` (B, K); above zero means labelled. A peak is right when its
    distance to the target's peak, with x divided by the heatmap's height and y by its width, is below
    ``threshold``. That is the normalisation of MMPose's ``pose_pck_accuracy``, kept so that the number
    compares with its training logs. The mean is first over the samples of a keypoint, then over the keypoints
    with a labelled sample; 0 when there is none. A prediction that is not finite is wrong.
    """
    height, width = predicted_heatmaps.shape[2:]
    predicted_x, predicted_y, predicted_value = find_peaks(predicted_heatmaps.detach().float())
    target_x, target_y, _ = find_peaks(target_heatmaps.detach().float())
    distance = torch.hypot((predicted_x - target_x) / height, (predicted_y - target_y) / width)
    labelled = weights > 0
    right = labelled & (distance < threshold) & predicted_value.isfinite()
    samples = labelled.sum(dim=0)
    per_keypoint = right.sum(dim=0) / samples.clamp(min=1)
    return per_keypoint.sum() / (samples > 0).sum().clamp(min=1)
