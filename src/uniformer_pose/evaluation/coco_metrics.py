"""COCO keypoint AP and AR of predicted poses (cocodataset.org/#keypoints-eval): of all, by size, by keypoint.

The numbers are those of pycocotools, which every paper reports, to the last digit (``coco_matching``). It trusts its
input, and several defects give a wrong number without a word; so what goes in is checked first:

- predictions: NaN (pycocotools would score it AP 1.0), repeats (each costs AP), images that the file lacks;
- annotations: read as for training (``data.coco``), with areas that fit their boxes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.categories import category_names, require_counted
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.coco_matching import ALL_AREAS, PrecisionRecall, precision_recall
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.evaluation.oks import oks_nms, pose_scores, soft_oks_nms
from uniformer_pose.evaluation.predictions import PosePredictions, coco_results_of
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.skeleton import Skeleton

METRIC_NAMES = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
"""COCO's order: over OKS .50:.05:.95, at .50, at .75, of medium, of large people; precision, then recall."""

MEDIUM_AREAS = (32.0**2, 96.0**2)
LARGE_AREAS = (96.0**2, 1e10)
"""Square pixels of the person's segment, both ends included."""

AREA_RANGES = (ALL_AREAS, MEDIUM_AREAS, LARGE_AREAS)

SIZE_EDGES = (0, 32, 64, 128, 256, 512)
"""Pixels: the square root of the area of a person's segment. COCO's medium is 32 to 96, its large 96 and more."""

Scores = npt.NDArray[np.float64]

_AS_THEY_ARE = EvaluationProtocol(score_mode="bbox", nms_mode="none")


def coco_keypoint_metrics(
    ground_truth: str | Path | CocoGroundTruth,
    predictions: PosePredictions | Sequence[Mapping[str, Any]],
    protocol: EvaluationProtocol | None = None,
) -> dict[str, float]:
    """COCO keypoint metrics (``METRIC_NAMES``, 0 to 1) of rescored and NMS-filtered predictions.

    ``ground_truth``: the path of a file with COCO's 17 keypoints, or a ``CocoGroundTruth``, for another skeleton, for
    some of the images, or to spare its reading. ``predictions`` may also be COCO results, what ``json.load`` gives of
    such a file. ``protocol`` None is the published one, and for COCO results, which have been through one, the scores
    that they have and no NMS.

    As in pycocotools, -1 stands for "no such people in the ground truth". No predictions give 0 and a
    warning. Predictions with NaN or infinity, of another number of keypoints, or on unknown images raise
    ``InputError``.
    """
    if isinstance(ground_truth, CocoGroundTruth):
        truth = ground_truth
    else:
        truth = CocoGroundTruth.load(ground_truth)
        for doubt in truth.doubts():
            warnings.warn(doubt, stacklevel=2)
    return array_metrics(truth, *reported_poses(truth, predictions, protocol))


def reported_poses(
    ground_truth: CocoGroundTruth,
    predictions: PosePredictions | Sequence[Mapping[str, Any]],
    protocol: EvaluationProtocol | None,
) -> tuple[PosePredictions, Scores]:
    """The poses that every metric counts, and their scores (N,): checked, rescored, near-copies suppressed.

    Arguments, warning and errors as in ``coco_keypoint_metrics``.
    """
    poses = checked_predictions(ground_truth, predictions)
    if not len(poses):
        warnings.warn(
            f"{ground_truth.file}: no predictions on any of its {len(ground_truth.listed_image_ids)} evaluated images; "
            "every person counts as missed",
            stacklevel=3,
        )
    if protocol is None:
        protocol = EvaluationProtocol() if isinstance(predictions, PosePredictions) else _AS_THEY_ARE
    return select_poses(poses, protocol, ground_truth.skeleton.oks_sigmas)


def select_poses(
    predictions: PosePredictions, protocol: EvaluationProtocol, sigmas: npt.NDArray[np.float64]
) -> tuple[PosePredictions, npt.NDArray[np.float64]]:
    """Poses to report and their scores (N,): rescored, near-copies suppressed.

    ``oks_nms`` drops a pose whose OKS with a better one is above the threshold; ``soft_oks_nms`` keeps the 20
    of an image that win while the scores of their like decay (the reported scores do not); ``none`` keeps
    all. By image id; ``sigmas`` (K,) are the OKS constants. Predictions must be finite
    (``PosePredictions.reject_unusable``).
    """
    if not len(predictions):
        return predictions, np.zeros(0)
    poses = predictions.sorted_by_image()
    scores = pose_scores(
        poses.box_scores, poses.keypoint_scores, protocol.score_mode, protocol.keypoint_score_threshold
    )
    if protocol.nms_mode == "none":
        return poses, scores
    suppress = oks_nms if protocol.nms_mode == "oks_nms" else soft_oks_nms
    kept = suppress(poses.keypoints_in_image, scores, poses.areas, sigmas, protocol.nms_threshold, poses.image_ids)
    return poses.take(kept), scores[kept]


def checked_predictions(
    ground_truth: CocoGroundTruth, predictions: PosePredictions | Sequence[Mapping[str, Any]]
) -> PosePredictions:
    """Predictions that can be scored against this ground truth; raises ``InputError`` for any that cannot.

    COCO results of categories that do not count are left out, with a warning; where that are all, it is an error.
    """
    if not isinstance(predictions, PosePredictions):
        results, counted = coco_results_of(predictions), ground_truth.categories
        if counted:
            require_counted((r.category_id for r in results), counted, ground_truth.file, "COCO results")
            others = [result for result in results if result.category_id not in counted]
            if others:
                warnings.warn(
                    f"{len(others)} of {len(results)} results are of categories that do not count in "
                    f"{ground_truth.file} and left out; {category_names(counted)} counts",
                    stacklevel=3,
                )
                results = [result for result in results if result.category_id in counted]
        predictions = PosePredictions.from_results(results)
    require_usable(predictions, ground_truth.skeleton)
    ground_truth.require_images(predictions.image_ids)
    return predictions


def require_usable(poses: PosePredictions, skeleton: Skeleton) -> None:
    """``InputError`` for predictions of another skeleton, and for any that are not finite."""
    if len(poses) and poses.num_keypoints != skeleton.num_keypoints:
        raise InputError(
            f"the predictions have {poses.num_keypoints} keypoints, skeleton {skeleton.name!r} has "
            f"{skeleton.num_keypoints}; name the skeleton they were made with"
        )
    poses.reject_unusable()


def array_metrics(ground_truth: CocoGroundTruth, poses: PosePredictions, scores: Scores) -> dict[str, float]:
    """The ten numbers of poses that are to be reported, with their scores (N,), by ``coco_matching``."""
    outcome = precision_recall(ground_truth, poses, scores, ground_truth.skeleton.oks_sigmas, AREA_RANGES)
    return ten_numbers(outcome)


def ten_numbers(outcome: PrecisionRecall) -> dict[str, float]:
    """COCO's numbers of an outcome for ``AREA_RANGES``."""
    values = [
        value
        for mean in (outcome.average_precision, outcome.average_recall)
        for value in (mean(0), mean(0, 0.5), mean(0, 0.75), mean(1), mean(2))
    ]
    return dict(zip(METRIC_NAMES, values, strict=True))


def metrics_by_size(ground_truth: CocoGroundTruth, poses: PosePredictions, scores: Scores) -> list[dict[str, Any]]:
    """One row per range of person sizes, from the smallest, with AP, AP50, AP75 and AR of the people in it.

    ``from_pixels`` and ``to_pixels`` (None for no end) bound the square root of the person's area; the end belongs to
    the next range, so that ``people`` add up to all that are scored. ``poses`` are those to report, ``scores`` (N,)
    theirs (``select_poses``). As with COCO's medium and large, people of other sizes do not count, nor do poses
    without a match whose box has another size. -1 where there is nobody.
    """
    ends = [*SIZE_EDGES[1:], 100_000]
    # Ranges include their ends; the last double below an edge keeps a person out of the next range.
    ranges = [(float(start**2), float(np.nextafter(end**2, 0))) for start, end in zip(SIZE_EDGES, ends, strict=True)]
    outcome = precision_recall(ground_truth, poses, scores, ground_truth.skeleton.oks_sigmas, ranges)
    return [
        {"from_pixels": start, "to_pixels": end if end in SIZE_EDGES else None, **_row(outcome, index)}
        for index, (start, end) in enumerate(zip(SIZE_EDGES, ends, strict=True))
    ]


def metrics_by_keypoint(
    ground_truth: CocoGroundTruth, poses: PosePredictions, scores: Scores
) -> dict[str, dict[str, Any]]:
    """Keypoint name -> AP, AP50, AP75 and AR, were it the only keypoint that people have.

    That is what COCO's evaluation gives for a file and results reduced to this keypoint, its sigma the only one: the
    OKS is the similarity of the one keypoint, ``people`` are those where it is labelled, and a pose that has no such
    person left may go to someone where it is not, if it lies in or near that box, and is then neither right nor wrong.
    Rescoring and NMS are still those of whole poses: arguments as in ``metrics_by_size``.
    """
    table = {}
    for index, name in enumerate(ground_truth.skeleton.keypoint_names):
        one = slice(index, index + 1)
        people, shown = ground_truth.of_keypoints(one), poses.of_keypoints(one)
        table[name] = _row(precision_recall(people, shown, scores, ground_truth.skeleton.oks_sigmas[one]), 0)
    return table


def _row(outcome: PrecisionRecall, index: int) -> dict[str, Any]:
    return {
        "people": int(outcome.num_people[index]),
        "AP": outcome.average_precision(index),
        "AP50": outcome.average_precision(index, threshold=0.5),
        "AP75": outcome.average_precision(index, threshold=0.75),
        "AR": outcome.average_recall(index),
    }
