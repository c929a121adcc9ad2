"""Boxes of people are checked, and those not worth a pose are left out, each for a reason that is counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from uniformer_pose.errors import InputError
from uniformer_pose.prediction.boxes import DetectedBoxes, FullPictures, PersonBoxes

PICTURE = np.zeros((240, 320, 3), dtype=np.uint8)


def people(*rows: Sequence[float]) -> PersonBoxes:
    """Of rows x, y, width, height, score."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    return PersonBoxes(table[:, :4], table[:, 4])


def kept(found: PersonBoxes, **thresholds: Any) -> tuple[list[list[float]], str]:
    """The boxes that stay, and what is said of the others."""
    finder = DetectedBoxes(lambda images: [found] * len(images), **thresholds)
    (left,) = finder(["a"], [PICTURE])
    return left.boxes_xywh.tolist(), finder.remarks()[0].partition(" boxes")[2]


@pytest.mark.parametrize(
    ("boxes", "scores", "said"),
    [
        ([[0, 0, 9, float("nan")]], [1], r"\[0.0, 0.0, 9.0, nan\]"),
        ([[0, 0, 9, 9], [0, 0, 0, 9]], [1, 1], r"they are \[\[0.0, 0.0, 0.0, 9.0\]\]"),
        ([[0, 0, 9, 9]], [float("inf")], "with scores .*inf"),
        ([[0, 0, 1e9, 9]], [1], "1000000000.0"),
        ([[0, 0, 9, 9]], [1, 1, 1], r"scores \(P,\)"),
        ([["a", 0, 9, 9]], [1], "could not convert"),
        ([[0, 0, 9, 9], [0, 0]], [1, 1], r"give boxes \(P, 4\)"),
    ],
)
def test_boxes_that_cannot_be_are_one_line(boxes: Any, scores: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        PersonBoxes(boxes, scores)
    assert str(caught.value).isprintable()


def test_corners_become_sizes_padding_goes_and_what_is_not_finite_is_told() -> None:
    corners = torch.tensor([[10, 20, 40, 80], [0, 0, 0, 0], [5, 5, 4, 9]])
    boxes = PersonBoxes.from_corners(corners, torch.tensor([0.9, 0.5, 0.4]))
    assert boxes.boxes_xywh.tolist() == [[10, 20, 30, 60]]
    with pytest.raises(InputError, match="all finite"):
        PersonBoxes.from_corners(torch.tensor([[0, 0, float("nan"), 9]]), torch.tensor([0.9]))


@pytest.mark.parametrize(
    ("rows", "thresholds", "left", "said"),
    [
        ([(10, 10, 50, 90, 0.5), (200, 10, 50, 90, 0.8)], {}, [1, 0], ""),
        ([(10, 10, 50, 90, 0.3), (200, 10, 50, 90, 0.299)], {"min_score": 0.3}, [0], "1 low score"),
        ([(-60, 10, 60, 90, 0.9), (320, 10, 60, 90, 0.9), (10, 240, 60, 90, 0.9)], {}, [], "3 outside or too small"),
        ([(-30, -20, 400, 500, 0.9)], {}, [0], ""),
        ([(10, 10, 50, 7, 0.9), (10, 60, 3, 90, 0.9), (100, 237, 60, 90, 0.9)], {}, [], "3 outside or too small"),
        ([(10, 10, 100, 100, 0.6), (12, 10, 100, 100, 0.9)], {}, [1], "1 overlap"),
        ([(10, 10, 100, 100, 0.6), (12, 10, 100, 100, 0.9)], {"nms_iou": 1.0}, [1, 0], ""),
        ([(0, 0, 100, 100, 0.9), (50, 0, 100, 100, 0.8)], {"nms_iou": 0.34}, [0, 1], ""),  # 5000 of 15000 pixels
        ([(0, 0, 100, 100, 0.9), (50, 0, 100, 100, 0.8)], {"nms_iou": 0.33}, [0], "1 overlap"),
        ([(0, 0, 99, 99, 0.9), (40, 0, 99, 99, 0.8), (80, 0, 99, 99, 0.7)], {"nms_iou": 0.4}, [0, 2], "1 overlap"),
        ([(0, 0, 50, 90, 0.5), (99, 0, 50, 90, 0.7), (200, 0, 50, 90, 0.6)], {"max_people": 2}, [1, 2], "1 too many"),
        ([(500, 0, 1, 1, 0.1), (500, 0, 1, 1, 0.9)], {}, [], "1 low score, 1 outside or too small"),
        ([(0, 0, 99, 99, 0.5), (200, 0, 99, 99, 0.5)], {}, [0, 1], ""),  # of equal scores the earlier is first
        ([], {"max_people": 3}, [], ""),
    ],
)
def test_boxes_worth_a_pose_stay_best_first_and_unchanged(
    rows: list[Any], thresholds: dict[str, Any], left: list[int], said: str
) -> None:
    boxes, remark = kept(people(*rows), **thresholds)
    assert boxes == [list(map(float, rows[index][:4])) for index in left]
    assert remark == (f" (left out: {said})" if said else "")


def test_any_callable_is_a_detector_and_one_that_answers_otherwise_is_one_line() -> None:
    upper = DetectedBoxes(lambda images: [people((0, 0, i.shape[1], i.shape[0] / 2, 0.9)) for i in images])
    assert [boxes.boxes_xywh.tolist() for boxes in upper(["a", "b"], [PICTURE, PICTURE[:100]])] == [
        [[0, 0, 320, 120]],
        [[0, 0, 320, 50]],
    ]
    for answer in ([], None, [[0, 0, 9, 9]]):
        with pytest.raises(InputError, match="for 1 pictures; it must give a list with one PersonBoxes"):
            DetectedBoxes(lambda _, answer=answer: answer)(["a"], [PICTURE])  # type: ignore[misc]


def test_a_full_picture_is_one_person() -> None:
    (found,) = FullPictures()(["a"], [PICTURE])
    assert found.boxes_xywh.tolist() == [[0, 0, 320, 240]]
