"""A run whose loggers fail and whose environment holds secrets: it ends well, and the secrets are nowhere on disk."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_service_that_does_not_answer_costs_seconds_and_no_secret_is_left_anywhere(
    tiny_run: list[str], synthetic_root: Path, run_program, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    secrets = [f"PLANTED{number}{'abcdef0123456789' * 3}"[:40] for number in range(2)]
    started = time.monotonic()
    finished = run_program(
        "train.py",
        [
            *tiny_run,
            "logger=many",
            f"data.root={synthetic_root}",
            f"hydra.run.dir={run}",
        ],
        tmp_path,
        WANDB_BASE_URL="http://127.0.0.1:9",
        WANDB_API_KEY=secrets[0],
        HF_TOKEN=secrets[1],
        WANDB_MODE="online",
    )
    assert finished.returncode == 0, finished.stderr
    assert time.monotonic() - started < 120
    printed = finished.stdout + finished.stderr
    assert printed.count("recording offline") == 1
    assert "Traceback" not in printed
    with (run / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(row["train/loss"] for row in rows)
    assert any(row["val/AP"] for row in rows)
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))
    pictures = run.glob("wandb/offline-run-*/files/media/images/*.png")
    assert {path.name.split("_")[0] for path in pictures} == {"training", "predictions"}
    assert list((run / "tensorboard").glob("events.out.*"))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"config.yaml", "overrides.yaml", "hydra.yaml", "command.txt", "last.ckpt"} <= {path.name for path in files}
    found = [path.relative_to(tmp_path) for path in files for s in secrets if s.encode() in path.read_bytes()]
    assert found == []
    assert not any(secret in printed for secret in secrets)


def test_a_secret_among_the_arguments_ends_the_run_before_anything_is_written(run_script, tmp_path: Path) -> None:
    finished = run_script("train.py", ["logger=wandb", "logger.wandb.settings.api_key=PLANTED"], tmp_path)
    assert finished.returncode == 2
    assert "WANDB_API_KEY" in finished.stderr
    assert "PLANTED" not in finished.stdout + finished.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_full_disk_under_the_log_is_told_once_and_the_run_ends_well(
    tiny_run: list[str], synthetic_root: Path, run_script, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (run / "csv").mkdir(parents=True)
    (run / "csv" / "metrics.csv").symlink_to("/dev/full")
    finished = run_script("train.py", [*tiny_run, f"data.root={synthetic_root}", f"hydra.run.dir={run}"], tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert (finished.stdout + finished.stderr).count("(No space left on device)") == 1
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert (run / "metrics.json").is_file()
