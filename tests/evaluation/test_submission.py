import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.evaluation.submission import write_submission
from uniformer_pose.skeleton import load_skeleton


@pytest.fixture
def predictions():
    """A pose, its weaker twin, and a pose on another image."""
    points = np.random.default_rng(0).uniform(0, 90, (2, 17, 2))
    return PosePredictions(
        ids=np.arange(3),
        image_ids=np.array([4, 4, 9]),
        boxes_xywh=np.array([[0.0, 0.0, 90.0, 90.0]] * 3),
        box_scores=np.array([0.9, 0.5, 0.7]),
        areas=np.full(3, 8100.0),
        keypoints_in_image=points[[0, 0, 1]],
        keypoint_scores=np.full((3, 17), 0.5),
    )


def submit(folder, predictions, **settings):
    arguments = {"image_file": Path("annotations/image_info_test-dev2017.json"), "algorithm": "uniformer_b 384x288"}
    return write_submission(
        folder, predictions, EvaluationProtocol(), load_skeleton("coco_17"), **(arguments | settings)
    )


def test_the_names_are_those_that_cocos_server_asks_for(tmp_path, predictions):
    text = submit(tmp_path / "run", predictions)
    name = "person_keypoints_test-dev2017_uniformer-b-384x288_results"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [f"{name}.json", f"{name}.zip"]
    assert text.splitlines() == [
        f"predictions         {tmp_path / 'run' / name}.json (2 poses)",
        f"to upload           {tmp_path / 'run' / name}.zip",
    ]


def test_the_zip_holds_the_file_alone(tmp_path, predictions):
    submit(tmp_path, predictions)
    (archive,) = tmp_path.glob("*.zip")
    (file,) = tmp_path.glob("*.json")
    with zipfile.ZipFile(archive) as zipped:
        assert zipped.namelist() == [file.name]
        assert zipped.read(file.name) == file.read_bytes()


def test_results_have_the_four_entries_of_the_format_and_are_those_that_nms_kept(tmp_path, predictions):
    submit(tmp_path, predictions)
    (file,) = tmp_path.glob("*.json")
    results = json.loads(file.read_text())
    assert [set(result) for result in results] == [{"image_id", "category_id", "keypoints", "score"}] * 2
    assert [result["image_id"] for result in results] == [4, 9]
    assert [result["score"] for result in results] == pytest.approx([0.45, 0.35])
    assert {result["category_id"] for result in results} == {1}


def test_a_part_of_the_images_is_nothing_to_upload(tmp_path, predictions):
    text = submit(tmp_path, predictions, complete=False)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions_partial.json"]
    assert text.startswith("Only a part of the images was looked at: nothing to upload.")


@pytest.mark.parametrize(("algorithm", "expected"), [("../../x", "x"), ("", "algorithm"), ("a/b c", "a-b-c")])
def test_the_name_of_the_algorithm_never_leaves_the_folder(tmp_path, predictions, algorithm, expected):
    submit(tmp_path / "run", predictions, algorithm=algorithm)
    assert (tmp_path / "run" / f"person_keypoints_test-dev2017_{expected}_results.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
