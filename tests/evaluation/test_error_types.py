from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike

from uniformer_pose.evaluation.error_types import ERROR_TYPES, ErrorTypes, error_types
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.skeleton import Skeleton

FACE = Skeleton(
    name="face",
    keypoint_names=("nose", "left_eye", "right_eye"),
    sigmas=(0.05, 0.05, 0.05),
    colours=((0, 0, 0),) * 3,
    left_right_pairs=(("left_eye", "right_eye"),),
    upper_body=(),
    lower_body=(),
    limbs=(),
)
AREA = 10_000.0
# Similarity exp(-d^2 / 200) with these sigmas and this area: 0.85 at 5.7 pixels, 0.5 at 11.8 pixels.
RIGHT, JITTER, FAR = 5.0, 8.0, 13.0
PERSON = [[100.0, 100.0], [150.0, 60.0], [50.0, 60.0]]
NEIGHBOUR = [[400.0, 100.0], [450.0, 60.0], [350.0, 60.0]]


def ground_truth(path: Path, *people: ArrayLike, visibility: int | list[int] = 2, **entries: object) -> CocoGroundTruth:
    """Everybody on image 1; image 2 is empty."""
    annotations = []
    for number, keypoints in enumerate(people, start=1):
        points = np.asarray(keypoints, dtype=float)
        seen = np.broadcast_to(visibility, (3,))[:, None]
        annotations.append(
            {
                "id": number,
                "image_id": 1,
                "category_id": 1,
                "bbox": [0, 0, 140, 140],
                "area": AREA,
                "keypoints": np.concatenate([points, seen], axis=1).ravel().tolist(),
                **entries,
            }
        )
    file = path / "people.json"
    file.write_text(json.dumps({"images": [{"id": 1}, {"id": 2}], "annotations": annotations}))
    return CocoGroundTruth.load(file, FACE)


def predictions(*poses: ArrayLike, image_id: int = 1) -> PosePredictions:
    count = len(poses)
    return PosePredictions(
        ids=np.arange(count),
        image_ids=np.full(count, image_id),
        boxes_xywh=np.ones((count, 4)),
        box_scores=np.ones(count),
        areas=np.full(count, AREA),
        keypoints_in_image=np.asarray(poses, dtype=float).reshape(count, 3, 2),
        keypoint_scores=np.ones((count, 3)),
    )


def names(found: ErrorTypes, person: int = 0) -> list[str]:
    return [ERROR_TYPES[kind] if kind >= 0 else "-" for kind in found.types[person].tolist()]


def moved(keypoints: list[list[float]], keypoint: int, to: list[float]) -> list[list[float]]:
    return [to if index == keypoint else point for index, point in enumerate(keypoints)]


@pytest.mark.parametrize(
    ("distance", "expected"), [(0.0, "right"), (RIGHT, "right"), (JITTER, "jitter"), (FAR, "miss"), (500.0, "miss")]
)
def test_a_keypoint_is_judged_by_its_distance_from_its_own_place(
    tmp_path: Path, distance: float, expected: str
) -> None:
    predicted = moved(PERSON, 0, [100.0, 100.0 + distance])
    assert names(error_types(ground_truth(tmp_path, PERSON), predictions(predicted))) == [expected, "right", "right"]


@pytest.mark.parametrize(
    ("keypoint", "place", "expected"),
    [
        (1, [50.0, 60.0 + RIGHT], "inversion"),
        (0, [50.0, 60.0], "miss"),  # a keypoint of the middle has no partner to be inverted with
        (1, NEIGHBOUR[1], "swap"),
        (1, NEIGHBOUR[2], "swap"),
        (1, NEIGHBOUR[0], "miss"),  # another part of somebody else
    ],
)
def test_a_keypoint_elsewhere_is_judged_by_whose_place_it_is_at(
    tmp_path: Path, keypoint: int, place: list[float], expected: str
) -> None:
    predicted = moved(PERSON, keypoint, place)
    found = error_types(ground_truth(tmp_path, PERSON, NEIGHBOUR), predictions(predicted, NEIGHBOUR))
    assert names(found, 0) == [expected if index == keypoint else "right" for index in range(3)]
    assert names(found, 1) == ["right", "right", "right"]


def test_between_two_people_the_nearer_place_decides_between_inversion_and_swap(tmp_path: Path) -> None:
    # The neighbour's right eye is 10 pixels beside the person's own.
    neighbour = [[95.0, 300.0], [145.0, 260.0], [60.0, 60.0]]
    truth = ground_truth(tmp_path, PERSON, neighbour)
    nearer_own = error_types(truth, predictions(moved(PERSON, 1, [53.0, 60.0]), neighbour))
    nearer_other = error_types(truth, predictions(moved(PERSON, 1, [57.0, 60.0]), neighbour))
    assert names(nearer_own)[1] == "inversion"
    assert names(nearer_other)[1] == "swap"


def test_unlabelled_keypoints_have_no_error_and_lend_nobody_their_place(tmp_path: Path) -> None:
    # The right eye is not labelled, so a left eye there cannot be known to be an inversion.
    truth = ground_truth(tmp_path, PERSON, visibility=[2, 1, 0])
    assert names(error_types(truth, predictions(moved(PERSON, 1, PERSON[2])))) == ["right", "miss", "-"]
    found = error_types(truth, predictions(moved(PERSON, 0, [100.0, 110.0])))
    assert found.oks.tolist() == pytest.approx([(math.exp(-100 / 200) + 1) / 2])


def test_one_pose_serves_one_person_and_of_two_poses_the_more_similar_one_is_the_persons(tmp_path: Path) -> None:
    beside = [[x + 4.0, y] for x, y in PERSON]
    found = error_types(ground_truth(tmp_path, PERSON, beside), predictions(beside))
    assert found.poses.tolist() == [-1, 0]
    assert names(found, 0) == ["not found"] * 3
    assert found.oks.tolist() == [0.0, 1.0]
    worse = [[x + 3.0, y] for x, y in PERSON]
    assert error_types(ground_truth(tmp_path, PERSON), predictions(worse, PERSON)).poses.tolist() == [1]


def test_a_pose_too_unlike_a_person_leaves_the_person_not_found(tmp_path: Path) -> None:
    truth = ground_truth(tmp_path, PERSON)
    elsewhere = predictions([[x, y + 500.0] for x, y in PERSON])
    found = error_types(truth, elsewhere)
    assert names(found) == ["not found"] * 3
    assert found.without("not found").keypoints_in_image.tolist() == elsewhere.keypoints_in_image.tolist()


def test_poses_of_another_image_find_nobody_and_crowds_are_not_diagnosed(tmp_path: Path) -> None:
    truth = ground_truth(tmp_path, PERSON)
    for poses in (predictions(PERSON, image_id=2), PosePredictions.empty(3)):
        assert names(error_types(truth, poses)) == ["not found"] * 3
    assert len(error_types(ground_truth(tmp_path, PERSON, iscrowd=1), predictions(PERSON)).people) == 0
    unlabelled = ground_truth(tmp_path, PERSON, visibility=0, num_keypoints=0)
    assert len(error_types(unlabelled, predictions(PERSON)).people) == 0


def test_counts_add_up_to_the_labelled_keypoints(tmp_path: Path) -> None:
    truth = ground_truth(tmp_path, PERSON, NEIGHBOUR)
    found = error_types(truth, predictions(moved(PERSON, 0, [100.0, 100.0 + JITTER])))
    nothing = dict.fromkeys(ERROR_TYPES, 0)
    assert found.counts() == {
        "nose": nothing | {"jitter": 1, "not found": 1},
        "left_eye": nothing | {"right": 1, "not found": 1},
        "right_eye": nothing | {"right": 1, "not found": 1},
        "all": nothing | {"right": 2, "jitter": 1, "not found": 3},
    }


def test_mending_one_error_type_moves_its_keypoints_and_no_others(tmp_path: Path) -> None:
    predicted = [[100.0, 100.0 + JITTER], [50.0, 60.0], [50.0, 60.0 + RIGHT]]
    found = error_types(ground_truth(tmp_path, PERSON), predictions(predicted))
    assert names(found) == ["jitter", "inversion", "right"]
    assert found.without("inversion").keypoints_in_image.tolist() == [[predicted[0], PERSON[1], predicted[2]]]
    assert found.without("jitter").keypoints_in_image.tolist() == [[PERSON[0], predicted[1], predicted[2]]]
    assert found.predictions.keypoints_in_image.tolist() == [predicted]
