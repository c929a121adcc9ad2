"""Boxes of people are checked, and those not worth a pose are taken out, each for a reason that is counted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniformer_pose.errors import InputError
from uniformer_pose.prediction.detection import (
    Image,
    PersonBoxes,
    boxes_from_corners,
    check_pictures,
    detected_people,
    kept_boxes,
)

PICTURE = np.zeros((240, 320, 3), dtype=np.uint8)


def people(*rows: Sequence[float]) -> PersonBoxes:
    """Of rows x, y, width, height, score."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    return PersonBoxes(table[:, :4], table[:, 4])


def kept(found: PersonBoxes, **arguments: Any) -> tuple[list[list[float]], dict[str, int]]:
    left = kept_boxes(found, height=240, width=320, **arguments)
    return left.boxes_xywh.tolist(), dict(left.removed)


# -- PersonBoxes ------------------------------------------------------------------------------------------------------


def test_boxes_are_copied_as_float64_and_cannot_be_written_to() -> None:
    source = np.array([[1, 2, 3, 4]])
    boxes = PersonBoxes(source, np.array([0.5], dtype=np.float32))  # type: ignore[arg-type]
    source[:] = 0
    assert boxes.boxes_xywh.tolist() == [[1, 2, 3, 4]]
    assert (boxes.boxes_xywh.dtype, boxes.scores.dtype) == (np.float64, np.float64)
    with pytest.raises(ValueError, match="read-only"):
        boxes.boxes_xywh[0, 0] = 5


def test_nobody_is_no_rows_whatever_the_empty_lists_look_like() -> None:
    assert PersonBoxes.empty().boxes_xywh.shape == (0, 4)
    boxes = PersonBoxes([], [])  # type: ignore[arg-type]
    assert (boxes.boxes_xywh.shape, boxes.scores.shape, len(boxes)) == ((0, 4), (0,), 0)


@pytest.mark.parametrize(
    ("boxes", "scores", "said"),
    [
        (
            [[0, 0, 9, float("nan")]],
            [1],
            r"person box 0 is \[0.0, 0.0, 9.0, nan\] with score 1.0: every number must be",
        ),
        ([[0, 0, 9, 9], [0, 0, 0, 9]], [1, 1], r"person box 1 is \[0.0, 0.0, 0.0, 9.0\]"),
        ([[0, 0, -9, 9]], [1], "width and height positive"),
        ([[0, 0, 9, 9]], [float("inf")], "with score inf"),
        ([[0, 0, 9]], [1], r"shape \(1, 3\) with scores of shape \(1,\): give boxes \(P, 4\)"),
        ([[0, 0, 9, 9]], [1, 1], r"scores of shape \(2,\)"),
        ([[0, 0, 9, 9]], [], r"scores of shape \(0,\)"),
        ([["a", 0, 9, 9]], [1], "not arrays of numbers"),
        ([[0, 0, 9, 9], [0, 0]], [1, 1], "not arrays of numbers"),
    ],
)
def test_boxes_that_cannot_be_are_one_line(boxes: Any, scores: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        PersonBoxes(boxes, scores)
    assert str(caught.value).isprintable()


def test_corners_become_sizes_and_padding_rows_go() -> None:
    boxes = boxes_from_corners(np.array([[10, 20, 40, 80], [0, 0, 0, 0], [5, 5, 4, 9]]), np.array([0.9, 0.5, 0.4]))
    assert boxes.boxes_xywh.tolist() == [[10, 20, 30, 60]]
    assert boxes.scores.tolist() == [0.9]


def test_corners_that_are_not_finite_are_told_and_not_taken_for_padding() -> None:
    with pytest.raises(InputError, match="every number must be finite"):
        boxes_from_corners(np.array([[0, 0, np.nan, 9]]), np.array([0.9]))


# -- kept_boxes -------------------------------------------------------------------------------------------------------


def test_boxes_stay_best_first_and_unchanged() -> None:
    found = people((10, 10, 50, 90, 0.5), (200, 10, 50, 90, 0.8))
    left = kept_boxes(found, height=240, width=320)
    assert left.boxes_xywh.tolist() == [[200, 10, 50, 90], [10, 10, 50, 90]]
    assert left.scores.tolist() == [0.8, 0.5]
    assert left.removed == {}


def test_low_scores_go_and_the_threshold_itself_stays() -> None:
    found = people((10, 10, 50, 90, 0.3), (200, 10, 50, 90, 0.299))
    assert kept(found, min_score=0.3) == ([[10, 10, 50, 90]], {"low score": 1})


def test_a_box_without_a_part_in_the_picture_goes() -> None:
    found = people((-60, 10, 60, 90, 0.9), (320, 10, 60, 90, 0.9), (10, 240, 60, 90, 0.9), (10, -90, 60, 90, 0.9))
    assert kept(found) == ([], {"outside the picture": 4})


def test_a_box_that_reaches_beyond_the_picture_stays_as_it_is() -> None:
    found = people((-30, -20, 400, 500, 0.9))
    assert kept(found) == ([[-30, -20, 400, 500]], {})


def test_a_huge_box_is_handled_without_a_warning() -> None:
    found = people((-1e308, -1e308, 1.7e308, 1.7e308, 0.9), (1e308, 0, 1e308, 9, 0.9))
    assert kept(found) == ([[-1e308, -1e308, 1.7e308, 1.7e308]], {"outside the picture": 1})


def test_the_size_that_counts_is_the_part_in_the_picture() -> None:
    found = people((10, 10, 50, 7, 0.9), (10, 60, 3, 90, 0.9), (100, 237, 60, 90, 0.9), (200, 10, 50, 90, 0.9))
    assert kept(found) == ([[200, 10, 50, 90]], {"too small": 3})
    assert len(kept(found, min_height=0, min_width=0)[0]) == 4


def test_of_two_boxes_around_one_person_the_better_stays() -> None:
    found = people((10, 10, 100, 100, 0.6), (12, 10, 100, 100, 0.9))
    assert kept(found) == ([[12, 10, 100, 100]], {"overlap": 1})
    assert len(kept(found, nms_iou=None)[0]) == 2


def test_the_overlap_that_counts_is_intersection_over_union() -> None:
    found = people((0, 0, 100, 100, 0.9), (50, 0, 100, 100, 0.8))  # 5000 of 15000 pixels
    assert len(kept(found, nms_iou=0.34)[0]) == 2
    assert len(kept(found, nms_iou=0.33)[0]) == 1


def test_a_removed_box_removes_no_other() -> None:
    found = people((0, 0, 100, 100, 0.9), (40, 0, 100, 100, 0.8), (80, 0, 100, 100, 0.7))
    assert kept(found, nms_iou=0.4)[0] == [[0, 0, 100, 100], [80, 0, 100, 100]]


def test_of_equal_scores_the_earlier_is_first_and_wins_an_overlap() -> None:
    found = people(*[(index, 0, 100, 100, 0.5) for index in range(40)])
    assert kept(found)[0] == [[0, 0, 100, 100], [22, 0, 100, 100]]
    assert [box[0] for box in kept(found, nms_iou=None)[0]] == list(range(40))


def test_only_so_many_people_stay_and_they_are_the_best() -> None:
    found = people((0, 0, 50, 90, 0.5), (100, 0, 50, 90, 0.7), (200, 0, 50, 90, 0.6))
    assert kept(found, max_people=2) == ([[100, 0, 50, 90], [200, 0, 50, 90]], {"too many": 1})


def test_each_box_is_counted_once_under_the_first_reason() -> None:
    found = people(
        (500, 0, 1, 1, 0.1), (500, 0, 1, 1, 0.9), (0, 0, 1, 1, 0.9), (0, 0, 90, 90, 0.9), (0, 0, 90, 90, 0.8)
    )
    assert kept(found)[1] == {"low score": 1, "outside the picture": 1, "too small": 1, "overlap": 1}


def test_nobody_stays_nobody() -> None:
    assert kept(PersonBoxes.empty(), max_people=3) == ([], {})


@given(
    rows=st.lists(
        st.tuples(
            st.floats(-400, 400), st.floats(-400, 400), st.floats(0.1, 500), st.floats(0.1, 500), st.floats(0, 1)
        ),
        max_size=12,
    ),
    iou=st.floats(0.05, 1),
)
def test_what_stays_was_found_falls_in_score_and_does_not_overlap(rows: list[tuple[float, ...]], iou: float) -> None:
    found = people(*rows)
    left = kept_boxes(found, height=240, width=320, nms_iou=iou)
    assert len(left) + sum(left.removed.values()) == len(found)
    assert (np.diff(left.scores) <= 0).all()
    assert {tuple(box) for box in left.boxes_xywh} <= {tuple(box) for box in found.boxes_xywh}
    for index, first in enumerate(left.boxes_xywh):
        for second in left.boxes_xywh[index + 1 :]:
            sides = np.minimum(first[:2] + first[2:], second[:2] + second[2:]) - np.maximum(first[:2], second[:2])
            shared = max(sides[0], 0) * max(sides[1], 0)
            assert shared / (first[2] * first[3] + second[2] * second[3] - shared) <= iou + 1e-9


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"min_score": float("nan")}, "min_score=nan: give the lowest score"),
        ({"nms_iou": 0}, "nms_iou=0: give an overlap above 0"),
        ({"nms_iou": 1.5}, "nms_iou=1.5: "),
        ({"min_height": -1}, "min_height=-1: give image pixels"),
        ({"min_width": float("inf")}, "min_width=inf: "),
        ({"max_people": 0}, "max_people=0: give 1 or more"),
    ],
)
def test_a_threshold_that_makes_no_sense_is_one_line(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        kept_boxes(PersonBoxes.empty(), height=240, width=320, **arguments)


# -- any callable is a detector ---------------------------------------------------------------------------------------


def test_any_callable_is_a_detector() -> None:
    def upper_half(images: Sequence[Image]) -> list[PersonBoxes]:
        return [people((0, 0, image.shape[1], image.shape[0] / 2, 0.9)) for image in images]

    found = detected_people(upper_half, [PICTURE, PICTURE[:100]])
    assert [boxes.boxes_xywh.tolist() for boxes in found] == [[[0, 0, 320, 120]], [[0, 0, 320, 50]]]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([], "gave 0 results for 1 pictures"),
        (None, "gave a NoneType for 1 pictures"),
        ([[0, 0, 9, 9]], r"gave a list for a picture; give PersonBoxes\(boxes_xywh, scores\)"),
    ],
)
def test_a_callable_that_answers_otherwise_is_one_line(answer: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        detected_people(lambda images: answer, [PICTURE])


@pytest.mark.parametrize(
    "picture", [PICTURE[..., 0], PICTURE.astype(np.float32), PICTURE[:0], np.zeros((4, 4, 4), np.uint8), "photo.jpg"]
)
def test_what_is_no_rgb_picture_is_one_line(picture: Any) -> None:
    with pytest.raises(InputError, match=re.escape("picture 1 of 2: ")):
        check_pictures([PICTURE, picture])
