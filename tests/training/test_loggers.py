"""Loggers of a run that is resumed, on a full disk, and without a network."""

from __future__ import annotations

import csv
import inspect
import time
from pathlib import Path
from typing import Any

import pytest
import wandb
from lightning.pytorch.loggers import WandbLogger

from uniformer_pose.training import loggers
from uniformer_pose.training.loggers import MetricsLog, wandb_logger


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "csv" / "metrics.csv").open(newline="") as stream:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(stream)]


def begun(folder: Path) -> MetricsLog:
    log = MetricsLog(str(folder))
    log.log_metrics({"train/loss": 1.0}, step=0)
    log.log_metrics({"train/loss": 0.5}, step=1)
    log.log_metrics({"val/AP": 0.25}, step=1)
    log.save()
    return log


@pytest.mark.parametrize("killed", [False, True], ids=["", "while it was taken up"])
def test_a_second_start_continues_what_the_first_one_logged(tmp_path: Path, killed: bool) -> None:
    begun(tmp_path)
    first = (tmp_path / "csv" / "metrics.csv").read_text()
    if killed:
        (tmp_path / "csv" / "metrics.csv").rename(tmp_path / "metrics_before.csv")
    second = MetricsLog(str(tmp_path))
    assert (tmp_path / "csv" / "metrics.csv").read_text() == first
    second.log_metrics({"train/loss": 0.125}, step=2)
    second.save()

    assert second.num_rows == 4
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "1", "2"]
    assert rows(tmp_path)[-1] == {"step": "2", "train/loss": "0.125"}
    assert [path.name for path in tmp_path.iterdir()] == ["csv"]


def test_rows_that_a_resumed_training_writes_again_and_half_rows_are_dropped(tmp_path: Path) -> None:
    begun(tmp_path)
    with (tmp_path / "csv" / "metrics.csv").open("a") as file:
        file.write("2,0.4,\n3,0.")

    log = MetricsLog(str(tmp_path))
    assert log.num_rows == 4
    log.keep(2)
    log.log_metrics({"val/AP": 0.75}, step=1)
    log.save()
    assert rows(tmp_path) == [
        {"step": "0", "train/loss": "1.0"},
        {"step": "1", "train/loss": "0.5"},
        {"step": "1", "val/AP": "0.75"},
    ]


def test_rows_on_a_full_disk_are_kept_until_there_is_space_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = begun(tmp_path)
    whole = log.file.read_text()
    log.log_metrics({"train/loss": 0.5}, step=2)

    def half_a_row(writer: Any, rows: Any) -> None:
        writer.writer.writerow([1])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(csv.DictWriter, "writerows", half_a_row)
        with pytest.warns(UserWarning, match="No space left.*training goes on"):
            log.save()
    assert log.file.read_text() == whole

    log.save()
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "1", "2"]


@pytest.fixture
def begun_with(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What ``wandb.init`` is called with; nothing is begun."""
    calls: list[dict[str, Any]] = []
    real = wandb.init

    def init(**arguments: Any) -> object:
        calls.append({**arguments})
        return object()

    init.__signature__ = inspect.signature(real)  # type: ignore[attr-defined]
    monkeypatch.setattr(wandb, "init", init)
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_without_a_service_recording_is_offline_from_the_start_and_soon(
    tmp_path: Path, begun_with: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.warns(UserWarning, match="does not answer; recording offline"):
        logger = wandb_logger(str(tmp_path), project="pose")
    _ = logger.experiment
    assert time.monotonic() - started < 10
    assert begun_with[0]["mode"] == "offline"
    assert isinstance(logger, WandbLogger)


def test_a_run_directory_is_one_run_of_the_service(
    tmp_path: Path, begun_with: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "_answers", lambda: True)
    for _ in range(2):
        _ = wandb_logger(str(tmp_path), project="pose").experiment
    assert begun_with[0]["id"] == begun_with[1]["id"]
    assert begun_with[1]["resume"] == "allow"
    assert begun_with[0].get("mode") in (None, "online")
