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


def written(folder, name):
    return json.loads((folder / name).read_text())


def test_a_report_is_tables_and_files_that_it_names(tmp_path, evaluation):
    folder = tmp_path / "run" / "report"
    seconds = {"loading": 0.5, "network": 1.0, "matching": 0.25, "total": 2.0}

    text = write_report(folder, replace(evaluation, seconds=seconds), EvaluationProtocol())

    shown = ("error_types.json", "metrics.json", "predictions.json", "report.md")
    unseen = ("metrics_by_keypoint.json", "metrics_by_size.json", "timing.json")
    assert {path.name for path in folder.iterdir()} == {*shown, *unseen}
    assert all(str(folder / name) in text for name in shown)
    lines = text.splitlines()
    assert lines[1].split() == list(METRIC_NAMES)
    assert lines[2].split()[0] == f"{evaluation.metrics['AP']:.4f}"
    assert "(1 poses)" in text
    assert "time                2.0 s for 2 crops (1/s): loading 0.5, network 1.0, matching 0.2" in lines
    assert written(folder, "timing.json") == {"crops": 2, "seconds": seconds}
    metrics = written(folder, "metrics.json")
    assert metrics == evaluation.metrics
    assert (metrics["AR"], metrics["APL"]) == (pytest.approx(0.5), -1)  # nobody is large


def test_ap_and_mistakes_by_person_size_and_by_keypoint_are_shown_and_written(tmp_path, evaluation):
    text = write_report(tmp_path, evaluation, EvaluationProtocol())

    by_size, by_keypoint = written(tmp_path, "metrics_by_size.json"), written(tmp_path, "metrics_by_keypoint.json")
    assert [row["people"] for row in by_size] == [0, 0, 2, 0, 0, 0]  # both have an area of 70 x 70
    assert by_size[2]["AR"] == pytest.approx(0.5)
    assert by_keypoint["nose"]["people"] == 0
    assert by_keypoint["left_eye"]["AR"] == pytest.approx(0.5)
    rows = [line.split() for line in text.splitlines()]
    assert ["64", "to", "128", "px", "2", "0.5050", "0.5050", "0.5050", "0.5000"] in rows
    assert ["512", "and", "more", "px", "0", "-", "-", "-", "-"] in rows
    assert ["left_eye", "2", "0.5050", "0.5050", "0.5050", "0.5000"] in rows
    assert ["nose", "0", "-", "-", "-", "-"] in rows
    kinds = written(tmp_path, "error_types.json")
    assert list(kinds) == [*load_skeleton("coco_17").keypoint_names, "all"]
    assert (sum(kinds["nose"].values()), sum(kinds["all"].values())) == (0, 32)
    assert (kinds["left_eye"]["right"], kinds["left_eye"]["not found"]) == (1, 1)


def test_the_report_of_a_part_says_so_and_has_its_tables_in_markdown(tmp_path, evaluation):
    part = replace(evaluation, complete=False, ground_truth=evaluation.ground_truth.restricted_to([7]))
    text = write_report(tmp_path, part, EvaluationProtocol(nms_mode="none"))

    assert text.startswith("Partial evaluation: 1 of 2 images")
    assert written(tmp_path, "metrics.json") == {**evaluation.metrics, "partial": True, "images": 1, "of": 2}
    markdown = (tmp_path / "report.md").read_text()
    assert markdown.startswith("Partial evaluation: 1 of 2 images")
    assert f"| people.json (1 of 2 images) | {evaluation.metrics['AP']:.4f} |" in markdown
    assert "| 64 to 128 px | 1 | 1.0000 |" in markdown
    assert "| left_eye | 1 | 1.0000 |" in markdown
    assert "nms_mode='none'" in markdown
    assert "artial" not in write_report(tmp_path, evaluation, EvaluationProtocol())


def test_the_predictions_are_those_that_nms_kept_rescored_in_cocos_format(tmp_path, evaluation):
    write_report(tmp_path, evaluation, EvaluationProtocol())

    (pose,) = written(tmp_path, "predictions.json")
    assert (pose["image_id"], pose["category_id"], pose["score"]) == (7, 3, pytest.approx(0.9 * 0.5))
    expected = np.concatenate([evaluation.predictions.keypoints_in_image[0], np.full((17, 1), 0.5)], axis=1)
    np.testing.assert_allclose(np.reshape(pose["keypoints"], (17, 3)), expected)
    write_report(tmp_path, evaluation, EvaluationProtocol(nms_mode="none", score_mode="bbox"))
    assert [pose["score"] for pose in written(tmp_path, "predictions.json")] == pytest.approx([0.9, 0.5])


def test_what_a_network_says_of_visibility_is_judged_rescored_and_in_the_results(tmp_path, evaluation):
    write_report(tmp_path / "plain", evaluation, EvaluationProtocol())
    visibility = np.full((2, 17, 2), [0.9, 0.7])
    visibility[:, 0, 0] = 0.2  # the nose, which is not labelled
    poses = replace(evaluation.predictions, visibility=visibility)
    text = write_report(tmp_path / "known", replace(evaluation, predictions=poses), EvaluationProtocol())

    judged = written(tmp_path / "known", "visibility.json")
    assert (judged["people"], judged["labelled"]["keypoints"], judged["visible"]["keypoints"]) == (1, 17, 16)
    assert (judged["labelled"]["accuracy"], judged["labelled"]["roc_auc"]) == (1, 1)
    assert judged["visible"]["roc_auc"] is None  # nothing is hidden
    assert judged["visible"]["calibration_error"] == pytest.approx(0.3)
    assert judged["AP"] == judged["AP_rescored"] == evaluation.metrics["AP"]  # one pose alone has one rank
    rows = [line.split() for line in text.splitlines()]
    assert ["labelled", "17", "0.9412", "1.0000", "1.0000", "-", "0.1059"] in rows
    assert ["visible", "16", "1.0000", "1.0000", "-", "-", "0.3000"] in rows
    assert "| times P(labelled) |" in (tmp_path / "known" / "report.md").read_text()

    (plain,) = written(tmp_path / "plain", "predictions.json")
    (known,) = written(tmp_path / "known", "predictions.json")
    assert known == plain | {"visibility": visibility[0].tolist()}
    assert not (tmp_path / "plain" / "visibility.json").exists()
    how = (poses, EvaluationProtocol(), evaluation.ground_truth.skeleton)
    write_submission(tmp_path, *how, image_file=Path("x.json"), algorithm="a")
    (pose,) = written(tmp_path, "person_keypoints_x_a_results.json")
    assert set(pose) == {"image_id", "category_id", "keypoints", "score"}


def test_a_report_without_any_prediction_is_written(tmp_path, evaluation):
    nobody = PosePredictions.empty(17)
    with pytest.warns(UserWarning, match="no predictions on any of its 2 evaluated images"):
        metrics = coco_keypoint_metrics(evaluation.ground_truth, nobody)

    write_report(tmp_path, replace(evaluation, metrics=metrics, predictions=nobody), EvaluationProtocol())

    assert written(tmp_path, "predictions.json") == []
    assert written(tmp_path, "metrics.json")["AP"] == 0
    assert written(tmp_path, "error_types.json")["all"]["not found"] == 32


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [("uniformer_b 384x288", "uniformer-b-384x288"), ("../../x", "x"), ("", "algorithm"), ("a/b c", "a-b-c")],
)
@pytest.mark.parametrize("complete", [True, False])
def test_a_submission_has_names_entries_and_zip_that_cocos_server_asks_for(
    tmp_path, evaluation, algorithm, name, complete
):
    folder, images = tmp_path / "run" / "x", Path("annotations/image_info_test-dev2017.json")
    text = write_submission(
        folder,
        evaluation.predictions,
        EvaluationProtocol(),
        evaluation.ground_truth.skeleton,
        image_file=images,
        algorithm=algorithm,
        complete=complete,
    )
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["x"]
    if not complete:
        assert [path.name for path in folder.iterdir()] == ["predictions_partial.json"]
        assert text.startswith("Partial evaluation: nothing to upload.")
        return
    file = folder / f"person_keypoints_test-dev2017_{name}_results.json"
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
