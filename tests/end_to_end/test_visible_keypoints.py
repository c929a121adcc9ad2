"""head.visibility=true from the command line: trained on rendered people, resumed, evaluated, used for predictions."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from programs import RunProgram, made_once, run_here
from uniformer_pose.synthetic import write_synthetic_dataset

pytestmark = pytest.mark.slow

SETTINGS = [
    "head.visibility=true",
    "augmentation=none",
    "data.batch_size=16",
    "optimizer.lr_per_256=2e-2",
    "scheduler.per_step.warmup.total_iters=10",
]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"num_train_images": 120, "num_val_images": 40, "image_height": 128, "image_width": 160}
    return made_once(tmp_path_factory, "visibility_people", lambda root: write_synthetic_dataset(root, **sizes))


def train(tiny_run: list[str], people: Path, run: Path, *arguments: str) -> None:
    given = [*tiny_run, *SETTINGS, f"data.root={people}", "resume=auto", f"run_dir={run}", *arguments]
    finished = run_here("train.py", given, run.parent)
    assert finished.returncode == 0, finished.stderr


@pytest.fixture(scope="module")
def run(tiny_run: list[str], people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs: ROC-AUC of "visible" 0.66, a calibration error of 0.11 and AP 0 when this was written."""
    run = tmp_path_factory.mktemp("visibility") / "run"
    train(tiny_run, people, run, "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=2")
    return run


def test_a_training_of_seconds_tells_hidden_from_visible_keypoints_and_says_so(run: Path) -> None:
    judged = json.loads((run / "visibility.json").read_text())
    assert judged["people"] >= 40
    assert 0.6 < judged["visible"]["share"] < 0.9
    assert judged["visible"]["roc_auc"] > 0.6
    assert judged["visible"]["calibration_error"] < 0.15
    with (run / "csv" / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row.get("val/AP")]
    assert len(logged) == 2  # after the last epoch, and of the best weights, which are the same
    metrics = json.loads((run / "metrics.json").read_text())
    for name in ("accuracy", "roc_auc", "roc_auc_of_same", "calibration_error"):
        for question in ("labelled", "visible"):
            assert metrics[f"visibility_{question}_{name}"] == judged[question][name]
            assert 0 <= float(logged[-1][f"val/visibility_{question}_{name}"]) <= 1
    assert "| visible |" in (run / "report.md").read_text()


def test_a_resumed_training_has_the_weights_of_a_straight_one(
    tiny_run: list[str], people: Path, run: Path, tmp_path: Path
) -> None:
    for epochs in (1, 2):
        train(tiny_run, people, tmp_path / "run", f"trainer.max_epochs={epochs}", "trainer.check_val_every_n_epoch=2")
    straight, resumed = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (run, tmp_path / "run")
    )
    assert any("visibility" in name for name in straight)
    assert all(torch.equal(entry, resumed[name]) for name, entry in straight.items())


def test_evaluation_and_prediction_say_the_same_of_the_same_boxes(
    run: Path, people: Path, tmp_path: Path, run_script: RunProgram
) -> None:
    checkpoint = f"ckpt_path={run / 'checkpoints' / 'best.ckpt'}"
    evaluated = run_script(
        "eval.py",
        [checkpoint, "boxes=gt", "evaluation.flip_test=false", "trainer=cpu", f"run_dir={tmp_path / 'eval'}"],
        tmp_path,
    )
    assert evaluated.returncode == 0, evaluated.stderr
    predicted = run_script(
        "predict.py",
        [
            f"source={people / 'images' / 'val'}",
            checkpoint,
            f"boxes={people / 'annotations' / 'person_keypoints_val.json'}",
            f"output={tmp_path / 'out'}",
            "device=cpu",
        ],
        tmp_path,
    )
    assert predicted.returncode == 0, predicted.stderr
    said = {key(pose): pose["visibility"] for pose in json.loads((tmp_path / "out" / "poses.json").read_text())}
    results = json.loads((tmp_path / "eval" / "predictions.json").read_text())
    same = [result for result in results if key(result) in said]  # others' boxes are cut at the picture's edge
    assert len(same) >= 40
    for result in same:
        assert np.shape(result["visibility"]) == (17, 2)
        np.testing.assert_allclose(said[key(result)], result["visibility"], atol=1e-4)
    with (tmp_path / "out" / "poses.csv").open(newline="") as file:
        assert next(csv.reader(file))[-2:] == ["labelled", "visible"]


def key(pose: dict[str, Any]) -> tuple[int, ...]:
    return (pose["image_id"], *np.round(pose["bbox"], 1).tolist())
