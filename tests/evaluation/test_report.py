import json
from dataclasses import replace

import numpy as np
import pytest

from uniformer_pose.evaluation.coco_metrics import METRIC_NAMES, CocoGroundTruth, coco_keypoint_metrics
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.evaluation.report import (
    Evaluation,
    markdown_table,
    metrics_table,
    text_table,
    write_json,
    write_report,
)
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
            "area": 4900.0,
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


def test_a_report_is_tables_and_files_that_it_names(tmp_path, evaluation):
    folder = tmp_path / "run" / "report"

    text = write_report(folder, evaluation, EvaluationProtocol())

    assert sorted(path.name for path in folder.iterdir()) == [
        "keypoint_errors.json",
        "metrics.json",
        "metrics_by_keypoint.json",
        "metrics_by_size.json",
        "predictions.json",
        "report.md",
    ]
    lines = text.splitlines()
    assert lines[1].split() == list(METRIC_NAMES)
    assert lines[2].split()[0] == f"{evaluation.metrics['AP']:.4f}"
    for name in ("metrics.json", "keypoint_errors.json", "predictions.json", "report.md"):
        assert str(folder / name) in text
    assert "(1 poses)" in text


def test_ap_by_person_size_and_by_keypoint_are_shown_and_written(tmp_path, evaluation):
    text = write_report(tmp_path, evaluation, EvaluationProtocol())

    by_size = json.loads((tmp_path / "metrics_by_size.json").read_text())
    assert [row["people"] for row in by_size] == [0, 0, 2, 0, 0, 0]  # both have an area of 70 x 70
    assert by_size[2]["AR"] == pytest.approx(0.5)
    by_keypoint = json.loads((tmp_path / "metrics_by_keypoint.json").read_text())
    assert by_keypoint["nose"]["people"] == 0
    assert by_keypoint["left_eye"]["AR"] == pytest.approx(0.5)
    rows = [line.split() for line in text.splitlines()]
    assert ["64", "to", "128", "px", "2", "0.5050", "0.5050", "0.5050", "0.5000"] in rows
    assert ["left_eye", "2", "0.5050", "0.5050", "0.5050", "0.5000"] in rows
    assert ["nose", "0", "-", "-", "-", "-"] in rows


def test_the_time_is_shown_in_one_line_and_written_where_it_was_taken(tmp_path, evaluation):
    seconds = {"loading": 0.5, "network": 1.0, "matching": 0.25, "total": 2.0}
    timed = write_report(tmp_path / "timed", replace(evaluation, seconds=seconds), EvaluationProtocol())
    untimed = write_report(tmp_path / "untimed", evaluation, EvaluationProtocol())

    line = "time                2.0 s for 2 crops (1/s): loading 0.5, network 1.0, matching 0.2"
    assert line in timed.splitlines()
    assert json.loads((tmp_path / "timed" / "timing.json").read_text()) == {"crops": 2, "seconds": seconds}
    assert "time   " not in untimed
    assert not (tmp_path / "untimed" / "timing.json").exists()


def test_the_report_in_markdown_has_a_table_of_metrics_sizes_and_keypoints(tmp_path, evaluation):
    part = replace(evaluation, complete=False, ground_truth=replace(evaluation.ground_truth, images_in_file=3))
    write_report(tmp_path, part, EvaluationProtocol(nms_mode="none"))

    text = (tmp_path / "report.md").read_text()
    assert text.startswith("Partial evaluation: 2 of 3 images")
    assert f"| people.json (2 of 3 images) | {evaluation.metrics['AP']:.4f} |" in text
    assert "| 64 to 128 px | 2 | 0.5050 |" in text
    assert "| left_eye | 2 | 0.5050 |" in text
    assert "nms_mode='none'" in text


def test_columns_of_a_table_are_as_wide_as_they_need():
    rows = metrics_table({"gt": dict.fromkeys(METRIC_NAMES, 0.5), "a longer name": dict.fromkeys(METRIC_NAMES, -1.0)})

    lines = text_table(rows).splitlines()

    assert len({len(line) for line in lines}) == 1
    assert lines[1].startswith("gt             0.5000  0.5000")
    assert lines[2].split()[3:] == ["-"] * 10
    assert markdown_table([["a", "b"], ["c", "1"]]) == "| a | b |\n|---|---:|\n| c | 1 |"


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


def test_report_and_metrics_of_a_part_say_so(tmp_path, evaluation):
    ground_truth = evaluation.ground_truth.restricted_to([7])
    part = write_report(tmp_path, replace(evaluation, ground_truth=ground_truth, complete=False), EvaluationProtocol())
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    whole = write_report(tmp_path, evaluation, EvaluationProtocol())

    assert part.startswith("Partial evaluation: 1 of 2 images")
    assert metrics == {**evaluation.metrics, "partial": True, "images": 1, "of": 2}
    assert "artial" not in whole


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
