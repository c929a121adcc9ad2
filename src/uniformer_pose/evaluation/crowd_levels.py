"""CrowdPose's AP by how crowded an image is (Li et al., CVPR 2019), beside COCO's numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.coco_matching import precision_recall
from uniformer_pose.evaluation.coco_metrics import Scores, array_metrics
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.evaluation.predictions import PosePredictions

LEVELS = {"easy": (-np.inf, 0.2), "medium": (0.2, 0.8), "hard": (0.8, np.inf)}
"""From this crowdIndex up to, and without, that: those of the published evaluation code (the paper says 0.1)."""


def crowd_metrics(ground_truth: CocoGroundTruth, poses: PosePredictions, scores: Scores) -> dict[str, float]:
    """``array_metrics``, and ``AP_easy``, ``AP_medium`` and ``AP_hard`` of the images of each level.

    These are rounded to 4 decimals, as in the published code, and -1 where a level has nobody. InputError where an
    image has no crowdIndex.
    """
    indices = crowd_indices_of(ground_truth)
    metrics = array_metrics(ground_truth, poses, scores)
    for name, (least, end) in LEVELS.items():
        images = ground_truth.listed_image_ids[(indices >= least) & (indices < end)]
        people, shown = ground_truth.restricted_to(images), np.isin(poses.image_ids, images)
        outcome = precision_recall(people, poses.take(shown), scores[shown], people.skeleton.oks_sigmas)
        metrics[f"AP_{name}"] = round(outcome.average_precision(), 4)
    return metrics


def crowd_indices_of(ground_truth: CocoGroundTruth) -> npt.NDArray[np.float64]:
    """(M,) crowdIndex of the listed images; InputError naming the first that has none."""
    indices = ground_truth.crowd_indices
    without = np.flatnonzero(np.isnan(indices))
    if len(without):
        raise InputError(
            f"{ground_truth.file}: {len(without)} images have no crowdIndex, first image "
            f"{ground_truth.listed_image_ids[without[0]]}, and CrowdPose's metric needs it; give CrowdPose's own file"
        )
    return indices
