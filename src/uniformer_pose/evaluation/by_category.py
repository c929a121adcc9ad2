"""COCO's numbers over several categories, as for AP-10K's species (Yu et al., NeurIPS 2021)."""

from __future__ import annotations

import numpy as np

from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.coco_matching import PrecisionRecall, precision_recall
from uniformer_pose.evaluation.coco_metrics import AREA_RANGES, Scores, ten_numbers
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.evaluation.predictions import PosePredictions


def mean_over_categories(ground_truth: CocoGroundTruth, poses: PosePredictions, scores: Scores) -> dict[str, float]:
    """The ten numbers, each the mean over the categories that are annotated.

    Poses, the 20 best of an image and category, compete for the animals of their own category (``category_ids``, that
    of the box) alone.
    """
    if len(poses) and poses.category_ids is None:
        raise InputError("the mean over categories needs the category_id of every prediction: that of its box")
    outcomes = [
        _of_category(ground_truth, poses, scores, number) for number in np.unique(ground_truth.category_ids).tolist()
    ]
    if not outcomes:
        return ten_numbers(precision_recall(ground_truth, poses, scores, ground_truth.skeleton.oks_sigmas, AREA_RANGES))
    return ten_numbers(
        PrecisionRecall(  # with the categories as a further last axis, over which the means go too
            precision=np.stack([outcome.precision for outcome in outcomes], axis=-1),
            recall=np.stack([outcome.recall for outcome in outcomes], axis=-1),
            num_people=np.sum([outcome.num_people for outcome in outcomes], axis=0),
        )
    )


def _of_category(ground_truth: CocoGroundTruth, poses: PosePredictions, scores: Scores, number: int) -> PrecisionRecall:
    people = ground_truth.people_at(ground_truth.category_ids == number)
    shown = np.flatnonzero(poses.category_ids == number) if poses.category_ids is not None else np.zeros(0, np.int64)
    return precision_recall(people, poses.take(shown), scores[shown], ground_truth.skeleton.oks_sigmas, AREA_RANGES)
