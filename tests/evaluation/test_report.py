import json
from dataclasses import replace

import numpy as np
import pytest

from uniformer_pose.evaluation.coco_metrics import METRIC_NAMES, CocoGroundTruth, coco_keypoint_metrics
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.evaluation.report import Evaluation, write_json, write_report
from uniformer_pose.skeleton import load_skeleton


@pytest.fixture
def evaluation(tmp_path):
    """Two people, category 3; the first predicted exactly and once more as a weaker twin, the second missed.

    The first person's nose is not labelled.
    """
    skeleton = load_skeleton("coco_17")
    points = np.random.default_rng(0).uniform(10, 90, (2, skeleton.num_keypoints, 2)).round(1)
    visibility = np.full((2, skeleton.num_keypoints, 1), 2.0)
    visibility[:, 0] = 0
    annotations = [
        {
            "id": 5 + person,
            "image_id": 7 + person,
            "category_id": 3,
            "bbox": [10.0, 10.0, 80.0, 80.0],
            "area": 6400.0,
            "keypoints": np.concatenate([points[person], visibility[person]], axis=1).ravel().tolist(),
            "num_keypoints": skeleton.num_keypoints - 1,
            "iscrowd": 0,
        }
        for person in range(2)
    ]
    images = [{"id": 7, "height": 100, "width": 100}, {"id": 8, "height": 100, "width": 100}]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "person"}]}
    (tmp_path / "people.json").write_text(json.dumps(content))
    ground_truth = CocoGroundTruth.load(tmp_path / "people.json", skeleton)
    predictions = PosePredictions(
        ids=np.array([0, 1]),
        image_ids=np.array([7, 7]),
        boxes_xywh=np.array([[10.0, 10.0, 80.0, 80.0]] * 2),
        box_scores=np.array([0.9, 0.5]),
        areas=np.array([10000.0, 10000.0]),
        keypoints_in_image=points[[0, 0]],
        keypoint_scores=np.full((2, skeleton.num_keypoints), 0.5),
    )
    metrics = coco_keypoint_metrics(ground_truth, predictions)
    return Evaluation(metrics, predictions, ground_truth, complete=True)


def test_a_report_is_a_table_and_three_files_that_it_names(tmp_path, evaluation):
    folder = tmp_path / "run" / "report"

    text = write_report(folder, evaluation, EvaluationProtocol())

    assert sorted(path.name for path in folder.iterdir()) == [
        "keypoint_errors.json",
        "metrics.json",
        "predictions.json",
    ]
    lines = text.splitlines()
    assert lines[1].split() == list(METRIC_NAMES)
    assert lines[2].split()[0] == f"{evaluation.metrics['AP']:.4f}"
    for name in ("metrics.json", "keypoint_errors.json", "predictions.json"):
        assert str(folder / name) in text
    assert "(1 poses)" in text


def test_the_metrics_file_holds_the_ten_numbers(tmp_path, evaluation):
    write_report(tmp_path, evaluation, EvaluationProtocol())

    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics == evaluation.metrics
    assert list(metrics) == list(METRIC_NAMES)
    assert metrics["AR"] == pytest.approx(0.5)
    assert metrics["APL"] == -1  # nobody is large


def test_the_predictions_are_those_that_nms_kept_rescored_in_cocos_format(tmp_path, evaluation):
    write_report(tmp_path, evaluation, EvaluationProtocol())

    (pose,) = json.loads((tmp_path / "predictions.json").read_text())
    assert pose["image_id"] == 7
    assert pose["category_id"] == 3
    assert pose["score"] == pytest.approx(0.9 * 0.5)
    expected = np.concatenate([evaluation.predictions.keypoints_in_image[0], np.full((17, 1), 0.5)], axis=1)
    np.testing.assert_allclose(np.reshape(pose["keypoints"], (17, 3)), expected)


def test_the_protocol_decides_which_predictions_are_written(tmp_path, evaluation):
    write_report(tmp_path, evaluation, EvaluationProtocol(nms_mode="none", score_mode="bbox"))

    poses = json.loads((tmp_path / "predictions.json").read_text())
    assert [pose["score"] for pose in poses] == pytest.approx([0.9, 0.5])


def test_the_error_of_a_keypoint_that_nobody_has_is_null(tmp_path, evaluation):
    write_report(tmp_path, evaluation, EvaluationProtocol())

    errors = json.loads((tmp_path / "keypoint_errors.json").read_text())
    assert list(errors) == [*load_skeleton("coco_17").keypoint_names, "all"]
    assert errors["nose"]["labelled"] == 0
    assert errors["nose"]["median_error"] is None
    assert errors["left_eye"]["labelled"] == 2
    assert errors["left_eye"]["unmatched"] == 1
    assert errors["left_eye"]["similarity"] == pytest.approx(1.0)
    assert errors["all"]["labelled"] == 32


def test_the_report_of_a_part_says_so(tmp_path, evaluation):
    part = write_report(tmp_path, replace(evaluation, complete=False), EvaluationProtocol())
    whole = write_report(tmp_path, evaluation, EvaluationProtocol())

    assert part.startswith("Only a part of the images was evaluated.")
    assert "Only a part" not in whole


def test_a_report_without_any_prediction_is_written(tmp_path, evaluation):
    nobody = PosePredictions.empty(17)
    with pytest.warns(UserWarning, match="no predictions on any of its 2 evaluated images"):
        metrics = coco_keypoint_metrics(evaluation.ground_truth, nobody)

    write_report(tmp_path, replace(evaluation, metrics=metrics, predictions=nobody), EvaluationProtocol())

    assert json.loads((tmp_path / "predictions.json").read_text()) == []
    assert json.loads((tmp_path / "metrics.json").read_text())["AP"] == 0
    assert json.loads((tmp_path / "keypoint_errors.json").read_text())["all"]["unmatched"] == 32


def test_nan_becomes_null_at_any_depth(tmp_path):
    write_json(tmp_path / "file.json", {"a": float("nan"), "b": {"c": [1.5, float("nan")]}, "d": np.float64("nan")})

    assert json.loads((tmp_path / "file.json").read_text()) == {"a": None, "b": {"c": [1.5, None]}, "d": None}


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "file.json", {"a": 1})

    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file.json", {"a": float("inf")})

    assert json.loads((tmp_path / "file.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def test_the_protocol_is_the_published_one_by_default():
    assert EvaluationProtocol() == EvaluationProtocol(
        flip_test=True,
        score_mode="bbox_keypoint",
        nms_mode="oks_nms",
        keypoint_score_threshold=0.2,
        nms_threshold=0.9,
    )
