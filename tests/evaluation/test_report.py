import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from uniformer_pose.evaluation.coco_metrics import METRIC_NAMES, coco_keypoint_metrics
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.evaluation.report import Evaluation, write_report
from uniformer_pose.evaluation.results import write_submission
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
        "error_types.json",
        "metrics.json",
        "metrics_by_keypoint.json",
        "metrics_by_size.json",
        "predictions.json",
        "report.md",
    ]
    lines = text.splitlines()
    assert lines[1].split() == list(METRIC_NAMES)
    assert lines[2].split()[0] == f"{evaluation.metrics['AP']:.4f}"
    for name in ("metrics.json", "error_types.json", "predictions.json", "report.md"):
        assert str(folder / name) in text
    assert "(1 poses)" in text
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == evaluation.metrics
    assert metrics["AR"] == pytest.approx(0.5)
    assert metrics["APL"] == -1  # nobody is large


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


def test_the_predictions_are_those_that_nms_kept_rescored_in_cocos_format(tmp_path, evaluation):
    write_report(tmp_path, evaluation, EvaluationProtocol())

    (pose,) = json.loads((tmp_path / "predictions.json").read_text())
    assert pose["image_id"] == 7
    assert pose["category_id"] == 3
    assert pose["score"] == pytest.approx(0.9 * 0.5)
    expected = np.concatenate([evaluation.predictions.keypoints_in_image[0], np.full((17, 1), 0.5)], axis=1)
    np.testing.assert_allclose(np.reshape(pose["keypoints"], (17, 3)), expected)
    write_report(tmp_path, evaluation, EvaluationProtocol(nms_mode="none", score_mode="bbox"))
    poses = json.loads((tmp_path / "predictions.json").read_text())
    assert [pose["score"] for pose in poses] == pytest.approx([0.9, 0.5])


def test_the_kinds_of_mistakes_are_those_of_the_reported_poses(tmp_path, evaluation):
    write_report(tmp_path, evaluation, EvaluationProtocol())

    kinds = json.loads((tmp_path / "error_types.json").read_text())
    assert list(kinds) == [*load_skeleton("coco_17").keypoint_names, "all"]
    assert sum(kinds["nose"].values()) == 0
    assert (kinds["left_eye"]["right"], kinds["left_eye"]["not found"]) == (1, 1)
    assert sum(kinds["all"].values()) == 32


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
    assert json.loads((tmp_path / "error_types.json").read_text())["all"]["not found"] == 32


def submit(folder, evaluation, **settings):
    arguments = {"image_file": Path("annotations/image_info_test-dev2017.json"), "algorithm": "uniformer_b 384x288"}
    skeleton = evaluation.ground_truth.skeleton
    return write_submission(folder, evaluation.predictions, EvaluationProtocol(), skeleton, **(arguments | settings))


def test_a_submission_has_names_entries_and_zip_that_cocos_server_asks_for(tmp_path, evaluation):
    text = submit(tmp_path / "run", evaluation)
    file = tmp_path / "run" / "person_keypoints_test-dev2017_uniformer-b-384x288_results.json"
    assert text.splitlines() == [
        f"predictions         {file} (1 poses)",
        f"to upload           {file.with_suffix('.zip')}",
    ]
    (pose,) = json.loads(file.read_text())
    assert set(pose) == {"image_id", "category_id", "keypoints", "score"}
    assert (pose["image_id"], pose["category_id"], pose["score"]) == (7, 1, pytest.approx(0.45))
    with zipfile.ZipFile(file.with_suffix(".zip")) as zipped:
        assert zipped.namelist() == [file.name]
        assert zipped.read(file.name) == file.read_bytes()


def test_a_part_of_the_images_is_nothing_to_upload(tmp_path, evaluation):
    text = submit(tmp_path / "run", evaluation, complete=False)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["predictions_partial.json"]
    assert text.startswith("Partial evaluation: nothing to upload.")


@pytest.mark.parametrize(("algorithm", "expected"), [("../../x", "x"), ("", "algorithm"), ("a/b c", "a-b-c")])
def test_the_name_of_the_algorithm_never_leaves_the_folder(tmp_path, evaluation, algorithm, expected):
    submit(tmp_path / "run" / "x", evaluation, algorithm=algorithm)
    assert (tmp_path / "run" / "x" / f"person_keypoints_test-dev2017_{expected}_results.json").is_file()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["x"]
