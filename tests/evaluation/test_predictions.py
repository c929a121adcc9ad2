import warnings
from dataclasses import replace

import numpy as np
import pytest

from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.predictions import PosePredictions

ARRAYS = (
    "ids",
    "image_ids",
    "boxes_xywh",
    "box_scores",
    "areas",
    "keypoints_in_image",
    "keypoint_scores",
)


def make_predictions(image_ids, ids, num_keypoints=3, seed=0):
    generator = np.random.default_rng(seed)
    count = len(ids)
    return PosePredictions(
        ids=np.asarray(ids),
        image_ids=np.asarray(image_ids),
        boxes_xywh=generator.uniform(1, 50, (count, 4)),
        box_scores=generator.random(count),
        areas=generator.uniform(100, 900, count),
        keypoints_in_image=generator.uniform(0, 100, (count, num_keypoints, 2)),
        keypoint_scores=generator.random((count, num_keypoints)),
    )


def assert_same(predictions, expected):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(predictions, name), getattr(expected, name), err_msg=name)


def test_arrays_are_kept_in_one_type_each():
    predictions = PosePredictions(
        ids=np.zeros(1, np.int32),
        image_ids=np.ones(1, np.uint8),
        boxes_xywh=np.zeros((1, 4), np.float32),
        box_scores=np.zeros(1, np.float16),
        areas=np.ones(1, np.int64),
        keypoints_in_image=np.zeros((1, 3, 2), np.float32),
        keypoint_scores=np.zeros((1, 3), np.float32),
    )
    assert {getattr(predictions, name).dtype.name for name in ARRAYS[:2]} == {"int64"}
    assert {getattr(predictions, name).dtype.name for name in ARRAYS[2:]} == {"float64"}


def test_arrays_of_unequal_length_or_without_whole_numbers_for_ids_are_refused():
    predictions = make_predictions([1, 2], [0, 1])
    with pytest.raises(ValueError, match=r"box_scores has shape \(1,\); 2 ids ask for \(2,\)"):
        replace(predictions, box_scores=np.ones(1))
    with pytest.raises(ValueError, match="image_ids must hold integers, not float64"):
        replace(predictions, image_ids=np.ones(2))


def test_concatenated_predictions_keep_their_order():
    first, second = make_predictions([5, 1], [0, 1], seed=1), make_predictions([2], [2], seed=2)
    joined = PosePredictions.concatenate([first, second])
    assert joined.image_ids.tolist() == [5, 1, 2]
    assert_same(joined.take(np.array([2])), second)


def test_a_part_without_poses_adds_nothing():
    part = make_predictions([5], [0])
    assert_same(PosePredictions.concatenate([PosePredictions.empty(17), part]), part)
    assert len(PosePredictions.concatenate([])) == 0
    assert PosePredictions.concatenate([PosePredictions.empty(5)]).num_keypoints == 5


def test_predictions_of_two_skeletons_are_not_joined():
    parts = [make_predictions([1], [0], num_keypoints=3), make_predictions([1], [1], num_keypoints=5)]
    with pytest.raises(InputError, match="3 and 5 keypoints"):
        PosePredictions.concatenate(parts)


def test_repeated_poses_are_dropped_and_the_rest_sorted_by_image_and_id():
    predictions = make_predictions([9, 2, 2, 9], [1, 3, 1, 0])
    doubled = PosePredictions.concatenate([predictions, predictions.take(np.array([3, 1]))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unique = doubled.sorted_unique()
    assert_same(unique, predictions.take(np.array([2, 1, 3, 0])))
    assert len(PosePredictions.empty(17).sorted_unique()) == 0


def test_different_poses_under_one_name_are_reported_and_the_first_stays():
    first, second = make_predictions([1], [6], seed=1), make_predictions([1], [6], seed=2)
    with pytest.warns(UserWarning, match="1 predictions repeat .* first image 1 id 6"):
        unique = PosePredictions.concatenate([first, second]).sorted_unique()
    assert_same(unique, first)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("name", ARRAYS[2:])
def test_a_value_that_is_not_finite_is_refused_by_name(name, value):
    predictions = make_predictions([3, 4], [0, 8])
    getattr(predictions, name)[1] = value
    with pytest.raises(InputError, match="1 of 2 predictions hold NaN or infinity, first image 4 id 8"):
        predictions.reject_unusable()


def test_an_area_that_is_not_positive_is_refused():
    predictions = make_predictions([3, 4], [0, 8])
    predictions.areas[:] = [0.0, -1.0]
    with pytest.raises(InputError, match=r"2 of 2 predictions .* not positive, first image 3 id 0"):
        predictions.reject_unusable()
