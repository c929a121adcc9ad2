"""Loggers that fail, at their beginning or later, and training that does not notice."""

from __future__ import annotations

import inspect
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger

from uniformer_pose.errors import InputError
from uniformer_pose.training import safe_logging
from uniformer_pose.training.safe_logging import FallbackWandbLogger, failures_of, forgiving


class BrokenLogger(Logger):
    """Fails in everything that Lightning calls, or only when it begins."""

    def __init__(self, *, only_at_the_beginning: bool = False) -> None:
        super().__init__()
        self.only_at_the_beginning = only_at_the_beginning
        self.logged: list[Any] = []

    @property
    def name(self) -> str:
        return "broken"

    @property
    def version(self) -> str:
        return "0"

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        raise ConnectionError("no service")

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if not self.only_at_the_beginning:
            raise OSError(28, "No space left on device")
        self.logged.append(metrics)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    def save(self) -> None:
        raise OSError(28, "No space left on device")

    def finalize(self, status: str) -> None:
        raise RuntimeError(f"finalize({status})")

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        raise RuntimeError("after_save_checkpoint")


class LogsItsLoss(BoringModel):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        output = super().training_step(batch, batch_idx)
        self.log("loss", output["loss"])
        return output


def trained(folder: Path, *loggers: Logger) -> pl.Trainer:
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=4,
        limit_val_batches=1,
        log_every_n_steps=1,
        logger=list(loggers),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(LogsItsLoss())
    return trainer


@pytest.mark.filterwarnings("ignore")
def test_a_logger_that_fails_in_everything_ends_no_training_and_the_csv_beside_it_is_whole(tmp_path: Path) -> None:
    trainer = trained(tmp_path, forgiving(BrokenLogger()), forgiving(CSVLogger(tmp_path, name="", version="csv")))
    assert trainer.global_step == 4
    assert len((tmp_path / "csv" / "metrics.csv").read_text().splitlines()) == 5


def test_failures_are_told_once(tmp_path: Path) -> None:
    logger = forgiving(BrokenLogger())
    with pytest.warns(UserWarning, match=r"BrokenLogger failed \(OSError: .*No space left.*training goes on"):
        logger.log_metrics({"loss": 1.0}, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logger.log_metrics({"loss": 1.0}, 1)
        logger.finalize("success")


def test_a_logger_that_could_not_begin_is_not_tried_again() -> None:
    logger = forgiving(BrokenLogger(only_at_the_beginning=True))
    with pytest.warns(UserWarning, match="no service"):
        logger.experiment.add_image("picture")
    logger.log_metrics({"loss": 1.0}, 0)
    assert logger.logged == []


def test_a_sound_logger_logs_as_before_and_keeps_its_kind(tmp_path: Path) -> None:
    logger = forgiving(CSVLogger(tmp_path, name="", version="csv"))
    assert isinstance(logger, CSVLogger)
    assert type(logger).__name__ == "CSVLogger"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logger.log_metrics({"loss": 0.5}, 3)
        logger.save()
    assert (tmp_path / "csv" / "metrics.csv").read_text().splitlines() == ["loss,step", "0.5,3"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_tensorboard_without_space_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = forgiving(TensorBoardLogger(tmp_path, name="", version="tensorboard"))
    from tensorboard.summary.writer.record_writer import RecordWriter

    def without_space(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    logger.log_metrics({"loss": 0.5}, 0)
    monkeypatch.setattr(RecordWriter, "write", without_space)
    monkeypatch.setattr(RecordWriter, "flush", without_space)
    with pytest.warns(UserWarning, match="TensorBoardLogger failed"):
        log_until_it_fails(logger)


def log_until_it_fails(logger: Logger) -> None:
    """TensorBoard writes in a thread: that there is no space shows some calls later."""
    for step in range(1, 30):
        logger.log_metrics({"loss": 0.5}, step)
        time.sleep(0.01)
    with failures_of(logger):
        logger.experiment.add_image("picture", torch.zeros(4, 4, 3), 0, dataformats="HWC")
    logger.finalize("success")


def test_a_setting_that_is_wrong_is_no_failure_to_forgive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = forgiving(FallbackWandbLogger(project="pose", entitty="me"))
    with pytest.raises(InputError, match=r"logger\.wandb\.entitty: .*did you mean entity"):
        _ = logger.experiment


@pytest.fixture
def begun_with(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What ``wandb.init`` is called with; nothing is begun."""
    import wandb

    calls: list[dict[str, Any]] = []
    real = wandb.init

    def init(**arguments: Any) -> object:
        calls.append({**arguments})
        return object()

    init.__signature__ = inspect.signature(real)  # type: ignore[attr-defined]
    monkeypatch.setattr(wandb, "init", init)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_without_a_service_recording_is_offline_from_the_start_and_soon(
    tmp_path: Path, begun_with: list[dict[str, Any]]
) -> None:
    settings = {"api_key": "a" * 40, "base_url": "http://127.0.0.1:9"}
    logger = FallbackWandbLogger(project="pose", save_dir=tmp_path, settings=settings)
    started = time.monotonic()
    with pytest.warns(UserWarning, match="cannot be reached; recording offline"):
        _ = logger.experiment
    assert time.monotonic() - started < safe_logging.SECONDS_TO_REACH
    assert begun_with[0]["mode"] == "offline"
    assert isinstance(logger, WandbLogger)


def test_without_an_account_recording_is_offline(
    tmp_path: Path, begun_with: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe_logging, "_why_unreachable", lambda _: "there is no account")
    with pytest.warns(UserWarning, match="there is no account; recording offline"):
        _ = FallbackWandbLogger(project="pose", save_dir=tmp_path).experiment
    assert begun_with[0]["mode"] == "offline"


def test_with_a_service_nothing_is_changed_but_the_time_to_finish(
    tmp_path: Path, begun_with: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe_logging, "_why_unreachable", lambda _: None)
    _ = FallbackWandbLogger(project="pose", save_dir=tmp_path, settings={"console": "off"}).experiment
    assert "mode" not in begun_with[0]
    assert begun_with[0]["settings"] == {"finish_timeout": safe_logging.SECONDS_TO_FINISH, "console": "off"}
