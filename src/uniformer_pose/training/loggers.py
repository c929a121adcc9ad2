"""Loggers of a run that may be stopped and resumed, on a disk that may be full and a network that may be down."""

from __future__ import annotations

import csv
import os
import secrets
from pathlib import Path
from typing import Any

import requests
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from uniformer_pose.files import write_text, write_whole


class MetricsLog(CSVLogger):
    """Lightning's CSV logger, writing ``<save_dir>/csv/metrics.csv``, which a resumed run continues.

    Lightning's own deletes what an earlier start wrote: here that is logged once more. ``num_rows`` counts all rows.
    What cannot be written (disk full) stays in memory until it can.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="csv")
        self.file = Path(self.log_dir) / "metrics.csv"
        self.num_rows = 0
        self._take_up()

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
            rank_zero_warn(f"{self.file} could not be written ({error.strerror}); training goes on")

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


def wandb_logger(
    save_dir: str,
    project: str = "uniformer-pose",
    entity: str | None = None,
    name: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    offline: bool = False,
) -> WandbLogger:
    """Lightning's logger for Weights & Biases; a run directory is one run there, however often it is resumed.

    Recorded offline where the service does not answer, which the library itself takes a minute and a half to find out;
    ``wandb sync <folder>`` uploads that later.
    """
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        return WandbLogger(save_dir=save_dir, offline=True)  # which begins on the first process only
    file = Path(save_dir) / "wandb_run_id.txt"
    if not file.is_file():
        write_text(file, secrets.token_hex(4) + "\n")
    settings: dict[str, Any] = {"project": project, "entity": entity, "name": name, "group": group, "tags": tags}
    settings |= {"id": file.read_text(encoding="utf-8").strip(), "resume": "allow"}
    if not offline and os.environ.get("WANDB_MODE") in (None, "online") and not _answers():
        settings["mode"] = "offline"  # of this run only: offline=True would set an environment variable
        rank_zero_warn(
            "Weights & Biases does not answer; recording offline, to be uploaded with: "
            f"wandb sync {save_dir}/wandb/offline-run-*"
        )
    return WandbLogger(save_dir=save_dir, offline=offline, **settings)


def _answers() -> bool:
    import wandb

    try:
        return requests.get(f"{wandb.setup().settings.base_url}/healthz", timeout=10).status_code < 500
    except (requests.RequestException, ValueError):
        return False
