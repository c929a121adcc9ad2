"""Loggers of a run that may be stopped and resumed, on a disk that may be full and a network that may be down."""

from __future__ import annotations

import csv
import inspect
import os
import secrets
import threading
from pathlib import Path
from typing import Any

import requests
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from uniformer_pose.errors import InputError
from uniformer_pose.files import write_text, write_whole
from uniformer_pose.nearest_name import did_you_mean

SECONDS_TO_REACH = 10.0
"""For the whole question whether Weights & Biases answers, names looked up and all."""


class MetricsLog(CSVLogger):
    """Lightning's CSV logger, writing ``<save_dir>/csv/metrics.csv``, which a resumed run continues.

    Lightning's own deletes what an earlier start wrote: here that is logged once more. ``num_rows`` counts all rows.
    What cannot be written (disk full) stays in memory until it can.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="csv")
        self.num_rows = 0
        self._told = False
        self._take_up()

    @property
    def file(self) -> Path:
        """Where the rows are."""
        return Path(self.log_dir) / "metrics.csv"

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Add a row."""
        self.num_rows += 1
        super().log_metrics(metrics, step)

    def save(self) -> None:
        """Append what was logged since; where that fails, go back to the whole rows and try again the next time."""
        size = self.file.stat().st_size if self.file.is_file() else 0
        try:
            super().save()
        except OSError as error:
            if self.file.is_file():
                os.truncate(self.file, size)
            if not self._told:
                line = f"{self.file} could not be written ({error.strerror}); training goes on"
                rank_zero_warn(line)
            self._told = True

    def keep(self, num_rows: int) -> None:
        """Drop the rows after the first ``num_rows``: a resumed training writes them once more."""
        self.save()
        if num_rows < self.num_rows and self.file.is_file():
            rows = _rows_of(self.file)
            with write_whole(self.file) as part, part.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else [])
                writer.writeheader()
                writer.writerows(rows[:num_rows])
            self.num_rows = num_rows

    @rank_zero_only
    def _take_up(self) -> None:
        aside = Path(self.save_dir) / "metrics_before.csv"
        if self.file.is_file():
            self.file.replace(aside)
        if aside.is_file():  # also after a kill at this very place
            for row in _rows_of(aside):
                self.log_metrics({name: value for name, value in row.items() if value}, int(row.pop("step")))
            self.experiment.save()
            aside.unlink()


def _rows_of(file: Path) -> list[dict[str, str]]:
    """The rows of a log, without one that a kill left half-written."""
    with file.open(newline="", encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if None not in row and None not in row.values()]


def wandb_logger(save_dir: str, offline: bool = False, **settings: Any) -> WandbLogger:
    """Lightning's logger for Weights & Biases; a run directory is one run there, however often it is resumed.

    Recorded offline where the service does not answer, which the library itself takes a minute and a half to find out;
    ``wandb sync <folder>`` uploads that later. Raises InputError for settings that ``wandb.init`` does not know.
    """
    import wandb

    known = inspect.signature(wandb.init).parameters.keys() | inspect.signature(WandbLogger).parameters.keys()
    for name in settings.keys() - known:
        raise InputError(f"logger.wandb.{name}: no argument of wandb.init; {did_you_mean(name, known)}")
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        return WandbLogger(save_dir=save_dir, offline=True)  # which begins on the first process only
    file = Path(save_dir) / "wandb_run_id.txt"
    if not file.is_file():
        write_text(file, secrets.token_hex(4) + "\n")
    own = {"id": file.read_text(encoding="utf-8").strip(), "resume": "allow"}
    if not offline and os.environ.get("WANDB_MODE") in (None, "online") and not _answers():
        own["mode"] = "offline"  # of this run only: offline=True would set an environment variable
        rank_zero_warn(
            "Weights & Biases does not answer; recording offline, to be uploaded with: "
            f"wandb sync {save_dir}/wandb/offline-run-*"
        )
    return WandbLogger(save_dir=save_dir, offline=offline, **own | settings)


def _base_url() -> str:
    import wandb

    return str(wandb.setup().settings.base_url)


def _answers() -> bool:
    """Whether Weights & Biases can be reached."""
    answers: list[bool] = []
    address = f"{_base_url()}/healthz"

    def ask() -> None:
        try:
            answers.append(requests.get(address, timeout=SECONDS_TO_REACH).status_code < 500)
        except (requests.RequestException, ValueError):
            answers.append(False)

    # In a thread because looking up a name may take a minute, and no argument limits that.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS_TO_REACH)
    return answers == [True]
