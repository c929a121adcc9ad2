"""A training run from the command line: what it leaves behind, and how it ends when things go wrong."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from programs import SOURCES
from uniformer_pose.weights.loading import load_model


def test_a_run_directory_holds_config_versions_log_pictures_checkpoints_and_results(trained_run: Path) -> None:
    for name in (
        "config.yaml",
        "versions.json",
        "command.txt",
        "csv/metrics.csv",
        "pictures/training_crops.png",
        "pictures/predictions.png",
        "pictures/predictions_epoch_000.png",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "metrics.json",
        "error_types.json",
        "predictions.json",
    ):
        assert (trained_run / name).is_file(), name


def test_config_log_and_printed_command_say_what_was_done(trained_run: Path) -> None:
    config = yaml.safe_load((trained_run / "config.yaml").read_text())
    assert (config["model"]["depths"], config["data"]["codec"]["height"]) == ([1, 1, 1, 1], 64)
    assert config["run_dir"] == str(trained_run)
    with (trained_run / "csv" / "metrics.csv").open() as file:
        names = set(csv.DictReader(file).fieldnames or [])
    assert {"train/loss", "train/pck", "train/learning_rate"} <= names
    assert {f"val/{n}" for n in ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")} <= names
    path = (trained_run / "stdout.txt").read_text().split("python src/eval.py ckpt_path=")[1].split()[0]
    assert Path(path) == trained_run / "checkpoints" / "best.ckpt"


def test_a_checkpoint_is_self_contained_and_loads_as_plain_data(trained_run: Path) -> None:
    contents = torch.load(trained_run / "checkpoints" / "last.ckpt", weights_only=True)
    assert contents["uniformer_pose"]["skeleton"]["name"] == "coco_17"
    model = load_model(trained_run / "checkpoints" / "last.ckpt")[0]
    assert (model.codec.height, model.codec.width, model.codec.sigma) == (64, 64, 1.5)
    assert model.network(torch.zeros(1, 3, 64, 64)).shape == (1, 17, 16, 16)


def test_the_log_says_everything_once_in_lines_and_advertises_nothing(trained_run: Path) -> None:
    log = (trained_run / "stdout.txt").read_text() + (trained_run / "stderr.txt").read_text()
    assert log.count("(8 crops x 1 devices x 1 accumulated)") == 1
    for noise in ("Tip:", "TPU", "weights_only", "FLOPs 0", "font", "Modules in"):
        assert noise not in log
    assert "\r" not in log
    assert "epoch 1/1" in log
    assert log.count("person_keypoints_train.json, category person: kept ") == 1  # nothing is left out without a word
    assert log.count("val_detections.json, category person: kept ") == 1


def test_the_first_lines_say_weights_size_data_where_the_run_is_and_the_rate(trained_run: Path) -> None:
    lines = (trained_run / "stdout.txt").read_text().splitlines()
    begun = [
        next(number for number, line in enumerate(lines) if line.startswith(start))
        for start in ("weights: random", "network: 0.", "person_keypoints_train", "run directory: ", "learning rate")
    ]
    assert begun == sorted(begun)
    assert "GFLOPs at 64x64" in lines[begun[1]]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("hydra.run.dir=/proc/x", "/proc/x"),
        ("data.codec.height=250", "crop size 250x64"),
        ("data.codec.stride=8", "stride=8"),
    ],
)
def test_what_shows_only_once_it_is_built_is_one_line_too(
    tiny_run: list[str], synthetic_root: Path, run_script, tmp_path: Path, argument: str, words: str
) -> None:
    finished = run_script("train.py", [*tiny_run, f"data.root={synthetic_root}", argument], tmp_path)
    assert finished.returncode == 2
    assert words in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr


def test_without_coco_on_disk_one_line_says_what_is_expected_and_where(run_script, tmp_path: Path) -> None:
    finished = run_script("train.py", ["trainer=cpu", "data.root=nowhere"], tmp_path, COCO_ROOT="")
    assert finished.returncode == 2
    (line,) = [line for line in finished.stderr.splitlines() if line.startswith("error:")]
    assert "nowhere/annotations/person_keypoints_train2017.json does not exist" in line
    assert "COCO_ROOT" in line
    assert "make demo" in line
    assert "Traceback" not in finished.stderr


def test_a_run_continues_from_its_last_checkpoint(
    tiny_run: list[str], synthetic_root: Path, trained_run: Path, run_script, tmp_path: Path
) -> None:
    finished = run_script(
        "train.py",
        [
            *tiny_run,
            f"data.root={synthetic_root}",
            f"hydra.run.dir={tmp_path / 'run'}",
            "trainer.max_epochs=2",
            f"ckpt_path={trained_run / 'checkpoints' / 'last.ckpt'}",
        ],
        tmp_path,
    )
    assert finished.returncode == 0, finished.stderr
    before = torch.load(trained_run / "checkpoints" / "last.ckpt", weights_only=True)
    after = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert (before["epoch"], after["epoch"]) == (0, 1)
    assert after["global_step"] == 2 * before["global_step"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "runs"),
    [
        (["scheduler.per_step.warmup.total_iters=1,2", "data=synthetic_128x96,synthetic_256x192"], 4),
        (["hparams_search=optuna", "hydra.sweeper.n_trials=2"], 2),
    ],
    ids=["grid", "optuna"],
)
def test_a_sweep_gives_separate_runs_and_a_summary(
    tiny_run: list[str], synthetic_root: Path, run_script, tmp_path: Path, search: list[str], runs: int
) -> None:
    sweep = tmp_path / "sweep"
    own = [argument for argument in tiny_run if argument != "data=synthetic_128x96" or runs == 2]
    arguments = ["-m", *own, *search, f"data.root={synthetic_root}", f"hydra.sweep.dir={sweep}"]
    finished = run_script("train.py", arguments, tmp_path)
    assert finished.returncode == 0, finished.stderr
    with (sweep / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["run"] for row in rows} == {str(number) for number in range(runs)}
    for row in rows:
        metrics = json.loads((sweep / row["run"] / "metrics.json").read_text())
        assert float(row["AP"]) == pytest.approx(metrics["AP"], abs=1e-4)
    assert "summary.csv" in finished.stdout
    if runs == 2:
        best = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
        assert "optimizer.lr_per_256" in best["best_params"]


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def on_two_processes(tiny_run: list[str], synthetic_root: Path) -> list[str]:
    arguments = [argument for argument in tiny_run if argument != "trainer=cpu"]
    arguments += ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=4"]
    return [*arguments, f"data.root={synthetic_root}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [pytest.param([], id="Lightning"), pytest.param(TORCHRUN, id="torchrun", marks=pytest.mark.long)]
)
def test_two_processes_train_into_one_run_directory_whoever_starts_them(
    tiny_run: list[str], synthetic_root: Path, tmp_path: Path, launcher: list[str]
) -> None:
    finished = subprocess.run(
        [sys.executable, *launcher, str(SOURCES / "train.py"), *on_two_processes(tiny_run, synthetic_root)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    (run,) = (tmp_path / "runs" / "train").iterdir()
    assert (run / "checkpoints" / "best.ckpt").is_file()
    assert "x 8 / 256 (4 crops x 2 devices x 1 accumulated)" in finished.stderr + finished.stdout
    assert finished.stdout.count("to evaluate it") == 1


def test_a_sweep_of_runs_that_need_two_processes_is_refused_in_one_sentence(
    tiny_run: list[str], synthetic_root: Path, run_script, tmp_path: Path
) -> None:
    arguments = on_two_processes(tiny_run, synthetic_root)
    finished = run_script("train.py", ["-m", *arguments, "seed=1,2"], tmp_path)
    assert finished.returncode != 0
    assert "a sweep (-m) cannot start the 2 processes of each run itself" in finished.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "choice",
    [
        pytest.param(["callbacks=ema"], marks=pytest.mark.long),
        pytest.param(["callbacks=early_stopping", "trainer.gradient_clip_val=1"], marks=pytest.mark.long),
        ["precision=bf16", "augmentation=strong"],
        ["augmentation=rtmpose", "augmentation.stages.weak.last_epochs=1"],
        pytest.param(
            ["optimizer=adam", "augmentation=original", "model.checkpointed_blocks=[1,0,1,0]"], marks=pytest.mark.long
        ),
        pytest.param(
            ["data.codec.method=udp", "model.frozen_batchnorm=true", "model.stage3_attention=window"],
            marks=pytest.mark.long,
        ),
    ],
    ids=lambda choice: choice[0],
)
def test_the_other_choices_train_and_what_they_save_loads(
    tiny_run: list[str], choice: list[str], synthetic_root: Path, run_script, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    finished = run_script(
        "train.py", [*tiny_run, *choice, f"data.root={synthetic_root}", f"hydra.run.dir={run}"], tmp_path
    )
    assert finished.returncode == 0, finished.stderr
    model = load_model(run / "checkpoints" / "last.ckpt")[0]
    assert torch.isfinite(model.network(torch.zeros(1, 3, 64, 64))).all()


@pytest.mark.slow
def test_averaged_weights_are_what_is_saved_as_the_model(
    tiny_run: list[str], synthetic_root: Path, run_script, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = [*tiny_run, "callbacks=ema", "callbacks.ema.decay=0.9999", "trainer.max_epochs=3", "precision=fp32"]
    arguments += [f"data.root={synthetic_root}"]
    finished = run_script("train.py", [*arguments, f"hydra.run.dir={run}"], tmp_path)
    assert finished.returncode == 0, finished.stderr
    contents = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    name = "network.head.final_layer.weight"
    assert not torch.equal(contents["state_dict"][name], contents["current_model_state"][name])

    evaluated = run_script("eval.py", [f"ckpt_path={run / 'checkpoints' / 'best.ckpt'}", "run_dir=evaluated"], tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    for file in ("predictions.json", "error_types.json"):
        assert (tmp_path / "evaluated" / file).read_text() == (run / file).read_text()
