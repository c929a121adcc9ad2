"""The poses of one picture, handed on in other forms."""

from __future__ import annotations

import numpy as np
import pytest

from uniformer_pose.prediction.people import People
from uniformer_pose.skeleton import load_skeleton

SKELETON = load_skeleton("coco_17")


def two_people(ids: bool = False) -> People:
    random = np.random.default_rng(0)
    return People(
        keypoints=random.uniform(0, 100, (2, 17, 2)),
        scores=random.uniform(0, 1, (2, 17)),
        boxes=np.array([[0.0, 0, 50, 100], [40, 10, 30, 60]]),
        box_scores=np.array([0.9, 0.5]),
        areas=np.array([7812.5, 2812.5]),
        skeleton=SKELETON,
        ids=np.array([3, 8]) if ids else None,
    )


def test_coco_results_hold_keypoints_scores_and_box() -> None:
    people = two_people()
    first, second = people.to_coco(139)
    assert (first["image_id"], first["category_id"], first["bbox"]) == (139, 1, [0, 0, 50, 100])
    assert first["keypoints"][0:3] == [*people.keypoints[0, 0], people.scores[0, 0]]
    counted = people.scores[1][people.scores[1] > 0.2]
    assert second["score"] == pytest.approx(0.5 * counted.mean())
    assert "track_id" not in first
    assert [result["track_id"] for result in two_people(ids=True).to_coco(1)] == [3, 8]


def test_plotting_draws_on_a_copy() -> None:
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    assert two_people().plot(image).any()
    assert not image.any()
    assert not two_people().plot(image, score_threshold=1.0).any()
