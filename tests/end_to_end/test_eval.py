"""Scoring a checkpoint from the command line, from nothing but its path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def run_eval(run_script, folder: Path, *arguments: str) -> dict[str, float]:
    finished = run_script("eval.py", ["trainer=cpu", f"hydra.run.dir={folder / 'eval'}", *arguments], folder)
    assert finished.returncode == 0, finished.stderr
    metrics: dict[str, float] = json.loads((folder / "eval" / "metrics.json").read_text())
    return metrics


def test_the_checkpoint_alone_gives_the_numbers_of_its_training(trained_run: Path, run_script, tmp_path: Path) -> None:
    metrics = run_eval(run_script, tmp_path, f"ckpt_path={trained_run / 'checkpoints' / 'best.ckpt'}")
    assert metrics == json.loads((trained_run / "metrics.json").read_text())
    results = json.loads((tmp_path / "eval" / "predictions.json").read_text())
    assert {len(result["keypoints"]) for result in results} == {51}
    assert (tmp_path / "eval" / "pictures" / "predictions.png").is_file()


def test_real_coco_images_are_scored_with_ground_truth_and_with_detector_boxes(
    trained_run: Path, run_script, tmp_path: Path, shared_folder: Path
) -> None:
    checkpoint = f"ckpt_path={trained_run / 'checkpoints' / 'best.ckpt'}"
    data = ["data=coco_256x192", f"data.root={shared_folder / 'coco_mini'}"]
    run_eval(run_script, tmp_path / "gt", checkpoint, *data, "boxes=gt")
    run_eval(run_script, tmp_path / "detections", checkpoint, *data)
    keypoint_errors = json.loads((tmp_path / "gt" / "eval" / "keypoint_errors.json").read_text())
    assert keypoint_errors["nose"]["unmatched"] == 0
    ground_truth_boxes = json.loads((tmp_path / "gt" / "eval" / "predictions.json").read_text())
    detector_boxes = json.loads((tmp_path / "detections" / "eval" / "predictions.json").read_text())
    assert len(ground_truth_boxes) <= 12 < len(detector_boxes) <= 118


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ckpt_path=nowhere.ckpt"], "no checkpoint at nowhere.ckpt"),
        ([], "ckpt_path is required"),
        (["ckpt_path=x", "split=test"], "split='test'"),
    ],
)
def test_a_wrong_command_ends_in_one_line(arguments: list[str], message: str, run_script, tmp_path: Path) -> None:
    finished = run_script("eval.py", arguments, tmp_path)
    assert finished.returncode == 2
    assert message in finished.stderr.replace('"', "'")
    assert "Traceback" not in finished.stderr
