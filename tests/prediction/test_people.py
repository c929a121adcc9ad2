"""The poses of one picture, handed on in other forms."""

from __future__ import annotations

from dataclasses import replace

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


def test_coco_results_say_what_is_visible_only_where_the_network_does() -> None:
    people = two_people(ids=True)
    known = replace(people, visibility=np.random.default_rng(1).random((2, 17, 2)))
    for plain, more, visibility in zip(people.to_coco(1), known.to_coco(1), known.visibility, strict=True):
        assert more == plain | {"visibility": visibility.tolist()}
        assert list(plain) == ["image_id", "category_id", "keypoints", "score", "bbox", "track_id"]


def test_a_keypoint_that_is_more_likely_hidden_than_visible_is_drawn_as_a_ring() -> None:
    image = np.full((400, 400, 3), 90, dtype=np.uint8)
    points = np.full((1, 17, 2), 200.0)
    points[0, 5:7] = [[20, 20], [380, 380]]  # a limb as long as the picture, so that the rings are wide
    visibility = np.full((1, 17, 2), [0.9, 0.8])
    people = replace(two_people(), keypoints=points, scores=np.ones((1, 17)), visibility=visibility)
    seen = people.plot(image)
    assert np.array_equal(seen, replace(people, visibility=None).plot(image))
    visibility[0, 5, 1] = 0.4
    drawn = people.plot(image)
    assert drawn[20, 20].tolist() == [255, 255, 255]
    assert drawn[380, 380].tolist() == list(SKELETON.colours[6])
    assert ((drawn != seen).any(axis=-1)).sum() < 400


def test_plotting_draws_on_a_copy() -> None:
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    assert two_people().plot(image).any()
    assert not image.any()
    assert not two_people().plot(image, score_threshold=1.0).any()
