import json
import math

import numpy as np
import pytest

from uniformer_pose.evaluation import CocoGroundTruth, PosePredictions, keypoint_errors
from uniformer_pose.skeleton import Skeleton

SKELETON = Skeleton(
    name="pair",
    keypoint_names=("front", "back"),
    sigmas=(0.05, 0.1),
    colours=((255, 0, 0), (0, 255, 0)),
    left_right_pairs=(),
    upper_body=(),
    lower_body=(),
    limbs=(),
)


def write_people(path, people, images=(1, 2)):
    """COCO file of people given as (image id, area, flat keypoints)."""
    annotations = [
        {"id": n, "image_id": image_id, "category_id": 1, "bbox": [0, 0, 9, 9], "area": area, "keypoints": keypoints}
        for n, (image_id, area, keypoints) in enumerate(people, start=1)
    ]
    path.write_text(json.dumps({"images": [{"id": i} for i in images], "annotations": annotations}))
    return CocoGroundTruth.load(path, SKELETON)


def predict(*poses):
    """Predictions of poses given as (image id, keypoints)."""
    return PosePredictions(
        ids=np.arange(len(poses)),
        image_ids=np.array([image_id for image_id, _ in poses], dtype=np.int64),
        boxes_xywh=np.ones((len(poses), 4)),
        box_scores=np.ones(len(poses)),
        areas=np.full(len(poses), 100.0),
        keypoints_in_image=np.array([keypoints for _, keypoints in poses], dtype=np.float64).reshape(-1, 2, 2),
        keypoint_scores=np.ones((len(poses), 2)),
    )


@pytest.fixture
def one_person(tmp_path):
    return write_people(tmp_path / "people.json", [(1, 10000.0, [10, 10, 2, 50, 50, 1])])


def test_the_numbers_of_a_known_pose_are_those_worked_out_by_hand(one_person):
    # front is off by (3, 4) = 5 pixels, back by 30 pixels; the person's size is sqrt(10000) = 100 pixels.
    table = keypoint_errors(one_person, predict((1, [[13, 14], [50, 80]])), threshold=0.1)
    front, back = math.exp(-25 / (0.02 * 10000)), math.exp(-900 / (0.08 * 10000))
    expected = {"labelled": 1, "unmatched": 0}
    assert table["front"] == pytest.approx(expected | {"similarity": front, "median_error": 0.05, "share_within": 1.0})
    assert table["back"] == pytest.approx(expected | {"similarity": back, "median_error": 0.3, "share_within": 0.0})
    assert table["all"] == pytest.approx(
        {
            "labelled": 2,
            "unmatched": 0,
            "similarity": (front + back) / 2,
            "median_error": 0.175,
            "share_within": 0.5,
        }
    )


def test_each_person_is_compared_with_the_most_similar_pose_of_its_image(one_person):
    far, near, elsewhere = [[90, 90], [90, 90]], [[10, 11], [50, 51]], [[10, 10], [50, 50]]
    table = keypoint_errors(one_person, predict((1, far), (1, near), (2, elsewhere)))
    assert table["all"]["median_error"] == pytest.approx(0.01)


def test_unlabelled_keypoints_count_nowhere(tmp_path):
    ground_truth = write_people(tmp_path / "people.json", [(1, 10000.0, [10, 10, 2, 0, 0, 0])])
    table = keypoint_errors(ground_truth, predict((1, [[10, 10], [999, 999]])))
    assert table["all"]["similarity"] == 1.0
    assert table["back"]["labelled"] == 0
    assert math.isnan(table["back"]["similarity"])


def test_people_without_any_prediction_on_their_image_are_counted_as_unmatched(tmp_path):
    person = [10, 10, 2, 50, 50, 2]
    ground_truth = write_people(tmp_path / "people.json", [(1, 100.0, person), (2, 100.0, person)])
    table = keypoint_errors(ground_truth, predict((2, [[10, 10], [50, 50]])))
    assert (table["front"]["labelled"], table["front"]["unmatched"]) == (2, 1)
    assert table["front"]["similarity"] == 1.0


def test_without_predictions_every_keypoint_is_unmatched(one_person):
    table = keypoint_errors(one_person, [])
    assert (table["all"]["labelled"], table["all"]["unmatched"]) == (2, 2)
    assert math.isnan(table["all"]["median_error"])


def test_ground_truth_without_people_has_nothing_to_compare(tmp_path):
    table = keypoint_errors(write_people(tmp_path / "people.json", []), predict((1, [[1, 1], [2, 2]])))
    assert table["all"]["labelled"] == 0


def test_the_table_lists_the_keypoints_in_skeleton_order_and_all_of_them_last(one_person):
    assert list(keypoint_errors(one_person, [])) == ["front", "back", "all"]
