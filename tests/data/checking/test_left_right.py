"""Left and right exchanged in people whose geometry is known."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformer_pose.data.checking.left_right import left_right_suspicions
from uniformer_pose.skeleton import load_skeleton

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


def people(number: int = 60, *, turned_degrees: float = 0.0, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    angle = np.deg2rad(turned_degrees)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    figures = FIGURE + rng.normal(0, 2, (number, 17, 2))
    figures[:, :3] = FIGURE[:3]
    return scale * figures @ rotation + 200


def suspicions(keypoints: np.ndarray, visibility: np.ndarray | None = None) -> list[str]:
    seen = np.full(keypoints.shape[:2], 2.0) if visibility is None else visibility
    low, size = keypoints.min(axis=1), np.ptp(keypoints, axis=1)
    return left_right_suspicions(keypoints, seen, np.concatenate([low, np.maximum(size, 1)], axis=1), COCO)


def swap(keypoints: np.ndarray, name: str, people: slice = slice(None)) -> None:
    left, right = COCO.indices([f"left_{name}", f"right_{name}"])
    keypoints[people, [left, right]] = keypoints[people, [right, left]]


@settings(max_examples=40, deadline=None)
@given(degrees=st.floats(-180, 180), scale=st.floats(0.7, 5))
def test_sound_people_are_not_suspected_whichever_way_they_lie(degrees: float, scale: float) -> None:
    assert suspicions(people(turned_degrees=degrees, scale=scale)) == []


@settings(max_examples=40, deadline=None)
@given(degrees=st.floats(-180, 180), pair=st.sampled_from(["shoulder", "elbow", "wrist", "hip", "knee", "ankle"]))
def test_a_pair_whose_names_are_exchanged_in_the_whole_file_is_named(degrees: float, pair: str) -> None:
    keypoints = people(turned_degrees=degrees)
    swap(keypoints, pair)
    assert suspicions(keypoints) == [f"left_{pair} and right_{pair} agree with the other pairs in 0% of people"]


def test_people_all_of_whose_pairs_are_exchanged_are_given_away_by_their_faces() -> None:
    keypoints = people()[:, COCO.mirror_permutation]
    assert suspicions(keypoints) == ["the left eye is on the left of 0% of 60 faces: exchange all pairs"]
    hidden = np.full((60, 17), 2.0)
    hidden[:, :3] = 1  # as of people who are seen from behind
    assert suspicions(keypoints, hidden) == []
    assert suspicions(0.1 * keypoints) == []  # faces too small to tell


def test_some_crossed_ankles_and_too_few_people_say_nothing() -> None:
    keypoints = people()
    swap(keypoints, "ankle", slice(0, 60, 3))
    assert suspicions(keypoints) == []
    keypoints = people(number=19)
    swap(keypoints, "hip")
    assert suspicions(keypoints) == []
