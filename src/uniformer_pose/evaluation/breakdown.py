"""AP for people of one size, and for one keypoint: where the one number comes from.

Both are COCO's own evaluation (``coco_matching``) of the same reported poses, with the annotation narrowed down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.evaluation.coco_matching import PrecisionRecall, precision_recall
from uniformer_pose.evaluation.coco_metrics import CocoGroundTruth, people_of, poses_of
from uniformer_pose.evaluation.predictions import PosePredictions

SIZE_EDGES = (0, 32, 64, 128, 256, 512)
"""Pixels: the square root of the area of a person's segment. COCO's medium is 32 to 96, its large 96 and more."""


def metrics_by_size(
    ground_truth: CocoGroundTruth, poses: PosePredictions, scores: npt.NDArray[np.float64]
) -> list[dict[str, Any]]:
    """One row per range of person sizes, from the smallest, with AP, AP50, AP75 and AR of the people in it.

    ``from_pixels`` and ``to_pixels`` (None for no end) bound the square root of the person's area; the end belongs to
    the next range, so that ``people`` add up to all that are scored. ``poses`` are those to report, ``scores`` (N,)
    theirs (``select_poses``). As with COCO's medium and large, people of other sizes are passed over, and so are poses
    without a match whose box has another size. -1 where there is nobody.
    """
    ends = [*SIZE_EDGES[1:], 100_000]
    # Ranges include their ends; the last double below an edge keeps a person out of the next range.
    ranges = [(float(start**2), float(np.nextafter(end**2, 0))) for start, end in zip(SIZE_EDGES, ends, strict=True)]
    outcome = precision_recall(
        people_of(ground_truth), poses_of(poses, scores), ground_truth.skeleton.oks_sigmas, ranges
    )
    return [
        {"from_pixels": start, "to_pixels": end if end in SIZE_EDGES else None, **_row(outcome, index)}
        for index, (start, end) in enumerate(zip(SIZE_EDGES, ends, strict=True))
    ]


def metrics_by_keypoint(
    ground_truth: CocoGroundTruth, poses: PosePredictions, scores: npt.NDArray[np.float64]
) -> dict[str, dict[str, Any]]:
    """Keypoint name -> AP, AP50, AP75 and AR, were it the only keypoint that people have.

    That is what COCO's evaluation gives for a file and results reduced to this keypoint, its sigma the only one: the
    OKS is the similarity of the one keypoint, ``people`` are those where it is labelled, and a pose that has no such
    person left may go to someone where it is not, if it lies in or near that box, and is then neither right nor wrong.
    Rescoring and NMS are still those of whole poses: arguments as in ``metrics_by_size``.
    """
    people, predicted = people_of(ground_truth), poses_of(poses, scores)
    table = {}
    for index, name in enumerate(ground_truth.skeleton.keypoint_names):
        one = slice(index, index + 1)
        labelled = people.labelled[:, one]
        outcome = precision_recall(
            replace(
                people,
                keypoints=people.keypoints[:, one],
                labelled=labelled,
                is_scored=labelled[:, 0] & ~people.is_crowd,
            ),
            replace(predicted, keypoints=predicted.keypoints[:, one]),
            ground_truth.skeleton.oks_sigmas[one],
        )
        table[name] = _row(outcome, 0)
    return table


def _row(outcome: PrecisionRecall, index: int) -> dict[str, Any]:
    return {
        "people": int(outcome.num_people[index]),
        "AP": outcome.average_precision(index),
        "AP50": outcome.average_precision(index, threshold=0.5),
        "AP75": outcome.average_precision(index, threshold=0.75),
        "AR": outcome.average_recall(index),
    }


_COLUMNS = ("AP", "AP50", "AP75", "AR")


def size_table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Header and rows of text of what ``metrics_by_size`` gave."""
    lines = [["person size", "people", *_COLUMNS]]
    for row in rows:
        end = "" if row["to_pixels"] is None else f" to {row['to_pixels']}"
        lines.append([f"{row['from_pixels']}{end or ' and more'} px", str(row["people"]), *_numbers(row)])
    return lines


def keypoint_table(rows: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Header and rows of text of what ``metrics_by_keypoint`` gave."""
    return [
        ["keypoint", "people", *_COLUMNS],
        *([name, str(row["people"]), *_numbers(row)] for name, row in rows.items()),
    ]


def _numbers(row: Mapping[str, Any]) -> list[str]:
    return [f"{row[name]:.4f}" if row[name] >= 0 else "-" for name in _COLUMNS]
