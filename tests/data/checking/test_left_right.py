"""Left and right exchanged in people whose geometry is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformer_pose.data.checking.left_right import LeftRightSuspicions, left_right_suspicions
from uniformer_pose.skeleton import Skeleton, load_skeleton

COCO = load_skeleton("coco_17")
# A figure that faces the viewer, its left side at larger x; nose, eyes, ears, then pairs from shoulders to ankles.
FIGURE = np.array(
    [[0, -90], [6, -96], [-6, -96], [12, -94], [-12, -94]]
    + [
        [side * width, y]
        for y, width in ((-60, 25), (-30, 32), (0, 35), (5, 18), (50, 18), (95, 18))
        for side in (1, -1)
    ],
    dtype=float,
)


def people(number: int = 60, *, turned_degrees: float = 0.0, scale: float = 1.0, jitter: float = 2.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    angle = np.deg2rad(turned_degrees)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    figures = FIGURE + rng.normal(0, jitter, (number, 17, 2)) * np.array([1, 1])
    figures[:, :3] = FIGURE[:3]
    return scale * figures @ rotation + 200


def suspicions(keypoints: np.ndarray, visibility: np.ndarray | None = None) -> LeftRightSuspicions:
    seen = np.full(keypoints.shape[:2], 2.0) if visibility is None else visibility
    low, size = keypoints.min(axis=1), np.ptp(keypoints, axis=1)
    return left_right_suspicions(keypoints, seen, np.concatenate([low, size], axis=1), COCO)


def swap(keypoints: np.ndarray, person: int, *names: str) -> None:
    indices = COCO.indices([f"{side}_{name}" for name in names for side in ("left", "right")])
    exchanged = COCO.indices([f"{side}_{name}" for name in names for side in ("right", "left")])
    keypoints[person, indices] = keypoints[person, exchanged]


@settings(max_examples=40, deadline=None)
@given(degrees=st.floats(-180, 180), scale=st.floats(0.7, 5))
def test_sound_people_are_not_suspected_whichever_way_they_lie(degrees: float, scale: float) -> None:
    found = suspicions(people(turned_degrees=degrees, scale=scale))
    assert not found.face.any()
    assert not found.pairs.any()
    assert not found.throughout.any()
    assert np.nanmin(found.agreement) == 1


@settings(max_examples=40, deadline=None)
@given(degrees=st.floats(-180, 180), pair=st.sampled_from(["shoulder", "elbow", "wrist", "hip", "knee", "ankle"]))
def test_a_pair_swapped_in_one_person_is_found_there(degrees: float, pair: str) -> None:
    keypoints = people(turned_degrees=degrees)
    swap(keypoints, 7, pair)
    found = suspicions(keypoints)
    assert np.argwhere(found.pairs).tolist() == [[7, COCO.left_right_pairs.index((f"left_{pair}", f"right_{pair}"))]]
    assert not found.throughout.any()


@settings(max_examples=40, deadline=None)
@given(degrees=st.floats(-180, 180))
def test_a_person_all_of_whose_pairs_are_swapped_is_given_away_by_the_face(degrees: float) -> None:
    keypoints = people(turned_degrees=degrees)
    keypoints[3] = keypoints[3, COCO.mirror_permutation]
    found = suspicions(keypoints)
    assert np.flatnonzero(found.face).tolist() == [3]
    assert not found.pairs.any()


def test_seen_from_behind_nobody_is_suspected() -> None:
    keypoints, visibility = people(), np.full((60, 17), 2.0)
    keypoints[::2] = keypoints[::2, COCO.mirror_permutation]
    visibility[::2, :3] = 1  # nose and eyes are hidden
    found = suspicions(keypoints, visibility)
    assert not found.face.any()
    assert not found.pairs.any()
    assert not found.throughout.any()


def test_a_pair_whose_names_are_exchanged_in_the_whole_file_is_found_once_for_all() -> None:
    keypoints = people()
    for person in range(60):
        swap(keypoints, person, "hip")
    found = suspicions(keypoints)
    assert [COCO.left_right_pairs[p] for p in np.flatnonzero(found.throughout)] == [("left_hip", "right_hip")]
    assert not found.pairs.any()


def test_a_pair_that_often_crosses_is_suspected_in_nobody() -> None:
    keypoints = people()
    for person in range(0, 60, 5):
        swap(keypoints, person, "ankle")
    assert not suspicions(keypoints).pairs.any()


def test_too_few_people_allow_no_statement_about_pairs() -> None:
    keypoints = people(number=19)
    swap(keypoints, 7, "hip")
    found = suspicions(keypoints)
    assert not found.pairs.any()
    assert np.isnan(found.agreement).all()


def test_a_tiny_face_says_nothing() -> None:
    keypoints = people(scale=0.3)
    keypoints[3] = keypoints[3, COCO.mirror_permutation]
    assert not suspicions(keypoints).face.any()


@pytest.mark.parametrize("pairs", [(), (("a", "b"),)])
def test_a_skeleton_without_face_and_with_few_pairs_raises_no_suspicion(pairs: tuple[tuple[str, str], ...]) -> None:
    skeleton = Skeleton("two", ("a", "b"), (0.1, 0.1), ((0, 0, 0),) * 2, pairs, (), (), ())
    keypoints = np.tile([[0.0, 0.0], [10.0, 0.0]], (30, 1, 1))
    found = left_right_suspicions(keypoints, np.full((30, 2), 2.0), np.tile([0.0, 0.0, 10.0, 10.0], (30, 1)), skeleton)
    assert found.pairs.shape == (30, len(pairs))
    assert not found.face.any()
    assert not found.pairs.any()
