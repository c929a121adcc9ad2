from dataclasses import fields, replace

import numpy as np
import pytest

from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol

ARRAYS = tuple(field.name for field in fields(PosePredictions))
INTEGERS = ("ids", "image_ids", "category_ids")


def make_predictions(image_ids, ids):
    generator = np.random.default_rng(0)
    count = len(ids)
    return PosePredictions(
        ids=np.asarray(ids, dtype=np.int32),
        image_ids=np.asarray(image_ids),
        boxes_xywh=generator.uniform(1, 50, (count, 4)).astype(np.float32),
        box_scores=generator.random(count),
        areas=generator.integers(100, 900, count),
        keypoints_in_image=generator.uniform(0, 100, (count, 3, 2)),
        keypoint_scores=generator.random((count, 3)),
        visibility=generator.random((count, 3, 2)).astype(np.float32),
        category_ids=np.asarray(ids) + 7,
    )


def test_arrays_are_kept_in_one_type_each_and_must_fit_each_other():
    predictions = make_predictions([1, 2], [0, 1])
    assert {getattr(predictions, name).dtype.name for name in INTEGERS} == {"int64"}
    assert {getattr(predictions, name).dtype.name for name in ARRAYS if name not in INTEGERS} == {"float64"}
    for name in (name for name in ARRAYS if name not in ("ids", "image_ids")):
        with pytest.raises(ValueError, match=f"{name} has shape"):
            replace(predictions, **{name: getattr(predictions, name)[:1]})
    assert replace(predictions, visibility=None).take(np.array([1])).visibility is None
    with pytest.raises(TypeError, match="float64"):
        replace(predictions, image_ids=np.ones(2))


def test_poses_are_sorted_by_image_and_id():
    predictions = make_predictions([9, 2, 2, 9], [1, 3, 1, 0])
    for name in ARRAYS:
        sorted_array = getattr(predictions.sorted_by_image(), name)
        np.testing.assert_array_equal(sorted_array, getattr(predictions, name)[[2, 1, 3, 0]])


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("name", [name for name in ARRAYS if name not in INTEGERS])
def test_a_value_that_is_not_finite_is_refused(name, value):
    predictions = make_predictions([3, 4], [0, 8])
    getattr(predictions, name)[1] = value
    with pytest.raises(InputError, match=r"1 of 2 predictions hold NaN or infinity.*first image 4 id 8"):
        predictions.reject_unusable()


def test_an_area_that_is_not_positive_and_a_repeated_pose_are_refused():
    predictions = make_predictions([3, 4, 4, 3], [0, 8, 9, 0])
    with pytest.raises(InputError, match=r"1 of 4 predictions repeat the image id and id .* first image 3 id 0"):
        predictions.reject_unusable()
    predictions.areas[:] = [0.0, -1.0, 1.0, 1.0]
    with pytest.raises(InputError, match=r"2 of 4 predictions .* not positive, first image 3 id 0"):
        predictions.reject_unusable()


def test_the_default_protocol_is_the_published_one():
    protocol = EvaluationProtocol()
    assert (protocol.flip_test, protocol.score_mode, protocol.nms_mode) == (True, "bbox_keypoint", "oks_nms")
    assert (protocol.keypoint_score_threshold, protocol.nms_threshold) == (0.2, 0.9)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"score_mode": "box"}, "score_mode is 'box'; choose one of bbox_keypoint, bbox, keypoint, bbox_rle"),
        ({"nms_mode": "nms"}, "nms_mode is 'nms'; choose one of oks_nms, none, soft_oks_nms"),
        ({"nms_threshold": 0.0}, "nms_threshold is 0.0"),
        ({"nms_threshold": 1.5}, "nms_threshold is 1.5"),
    ],
)
def test_a_choice_that_there_is_not_is_refused(choice, message):
    with pytest.raises(InputError, match=message):
        EvaluationProtocol(**choice)
