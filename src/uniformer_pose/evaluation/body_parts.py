"""COCO-WholeBody's numbers (Jin et al., ECCV 2020): those of COCO for each part of the body and for all of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise

import numpy as np

from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.coco_matching import precision_recall
from uniformer_pose.evaluation.coco_metrics import AREA_RANGES, Scores, ten_numbers
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.skeleton import Skeleton


def part_metrics(ground_truth: CocoGroundTruth, poses: PosePredictions, scores: Scores) -> dict[str, dict[str, float]]:
    """Part -> the ten numbers of its keypoints, were they all that people have, and ``wholebody`` those of all.

    Who has none of a part's keypoints labelled is not scored there. The area is the whole person's, the score (N,) the
    whole pose's. A pose's own area, which says whether it counts as wrong among people of a size, is the extent of its
    body's keypoints.
    """
    parts = parts_of(ground_truth.skeleton)
    if len(poses):
        body = poses.keypoints_in_image[:, parts["body"]]
        poses = replace(poses, boxes_xywh=np.concatenate([body.min(axis=1), np.ptp(body, axis=1)], axis=1))
    return {name: _of_part(ground_truth, poses, scores, chosen) for name, chosen in parts.items()}


def parts_of(skeleton: Skeleton) -> dict[str, slice]:
    """Where the keypoints of each part stand: ``body`` and the parts that the annotation's arrays are named after.

    InputError for a skeleton without them.
    """
    if len(skeleton.arrays_in_files) < 2:
        raise InputError(f"skeleton {skeleton.name!r:.80} has no parts; metric body_parts is for coco_wholebody_133")
    ends = accumulate((count for _, count in skeleton.arrays_in_files), initial=0)
    names = ["body" if name == "keypoints" else name.removesuffix("_kpts") for name, _ in skeleton.arrays_in_files]
    parts = {name: slice(*pair) for name, pair in zip(names, pairwise(ends), strict=True)}
    return parts | {"wholebody": slice(0, skeleton.num_keypoints)}


def _of_part(ground_truth: CocoGroundTruth, poses: PosePredictions, scores: Scores, chosen: slice) -> dict[str, float]:
    people, shown = ground_truth.of_keypoints(chosen), poses.of_keypoints(chosen)
    return ten_numbers(precision_recall(people, shown, scores, ground_truth.skeleton.oks_sigmas[chosen], AREA_RANGES))
