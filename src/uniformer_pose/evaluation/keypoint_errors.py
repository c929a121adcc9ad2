"""Where a pose network errs: agreement with the ground truth keypoint by keypoint.

AP is one number for 17 keypoints; a left-right swap in the training data or a crop that cuts off feet shows
here. Scores and NMS play no part: each person is compared with the most similar pose of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uniformer_pose.evaluation.coco_metrics import CocoGroundTruth, checked_predictions, loaded_ground_truth
from uniformer_pose.evaluation.oks import Array, keypoint_similarities
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.skeleton import Skeleton


def keypoint_errors(
    annotation_file: str | Path | CocoGroundTruth,
    predictions: PosePredictions | Sequence[Mapping[str, Any]],
    *,
    skeleton: Skeleton | None = None,
    threshold: float = 0.1,
) -> dict[str, dict[str, float]]:
    """Keypoint name -> its numbers over all people, plus ``all`` for the keypoints together.

    Every person with labelled keypoints, an area and no crowd mark is compared with the prediction of its
    image that has the highest OKS with it; one prediction may serve two people. The numbers:

    - ``labelled``: how many labelled keypoints there are; ``unmatched``: how many of them belong to a person
      on whose image nothing was predicted. The rest follow from the others, and are NaN where there are none:
    - ``similarity``: mean of exp(-d^2 / (2 (2 sigma)^2 area)), the keypoint's share of the OKS, 0 to 1;
    - ``median_error``: median distance, divided by the square root of the person's area;
    - ``share_within``: share of distances up to ``threshold`` of that square root (PCK by person size).

    Input and its errors as in ``coco_keypoint_metrics``.
    """
    ground_truth = loaded_ground_truth(annotation_file, skeleton)
    poses = checked_predictions(ground_truth, predictions).sorted_unique()
    people = np.flatnonzero(ground_truth.is_scored & (ground_truth.areas > 0))
    labelled = ground_truth.visibility[people] > 0
    matched_keypoints = np.full((len(people), *ground_truth.keypoints_in_image.shape[1:]), np.nan)
    starts = np.searchsorted(poses.image_ids, ground_truth.image_ids[people], side="left")
    stops = np.searchsorted(poses.image_ids, ground_truth.image_ids[people], side="right")
    is_matched = stops > starts
    for row in np.flatnonzero(is_matched):
        candidates = poses.keypoints_in_image[starts[row] : stops[row]]
        similarities = _similarities(ground_truth, people[row], candidates)
        matched_keypoints[row] = candidates[np.argmax(similarities[:, labelled[row]].sum(axis=1))]
    similarities = _similarities(ground_truth, people, matched_keypoints)
    distances = np.linalg.norm(matched_keypoints - ground_truth.keypoints_in_image[people], axis=-1)
    errors = distances / np.sqrt(ground_truth.areas[people, None])

    table: dict[str, dict[str, float]] = {}
    for index, name in enumerate([*ground_truth.skeleton.keypoint_names, "all"]):
        columns = slice(None) if name == "all" else slice(index, index + 1)
        counted = labelled[:, columns]
        found = counted & is_matched[:, None]
        near = errors[:, columns][found] <= threshold
        table[name] = {
            "labelled": int(counted.sum()),
            "unmatched": int(counted.sum() - found.sum()),
            "similarity": _mean(similarities[:, columns][found]),
            "median_error": float(np.median(errors[:, columns][found])) if found.any() else float("nan"),
            "share_within": _mean(near.astype(np.float64)),
        }
    return table


def _similarities(ground_truth: CocoGroundTruth, people: Any, keypoints: Array) -> Array:
    return keypoint_similarities(
        keypoints,
        ground_truth.keypoints_in_image[people],
        ground_truth.areas[people],
        ground_truth.skeleton.oks_sigmas,
    )


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else float("nan")
