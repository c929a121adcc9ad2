"""``metrics.csv`` that a resumed training goes on writing, as if it had never stopped."""

from __future__ import annotations

import contextlib
import csv
import os
from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_warn


class ContinuedCSVLogger(CSVLogger):
    """Lightning's CSV logger, which keeps what an earlier start of the run wrote; Lightning's own deletes it."""

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """What writes the file."""
        if self._experiment is None:
            self._experiment = _ContinuedWriter(self.log_dir)
        return self._experiment  # type: ignore[return-value]


class _ContinuedWriter(ExperimentWriter):
    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self._told = False
        file = Path(self.metrics_file_path)
        if file.is_file():
            with file.open(newline="", encoding="utf-8") as stream:
                self.metrics_keys = list(csv.DictReader(stream).fieldnames or [])

    def save(self) -> None:
        """Append what was logged since; where that fails, go back to the whole rows and try again the next time."""
        file = Path(self.metrics_file_path)
        size = file.stat().st_size if file.is_file() else 0
        try:
            super().save()
        except OSError as error:
            if file.is_file():
                with contextlib.suppress(OSError):
                    os.truncate(file, size)
            if not self._told:
                rank_zero_warn(
                    f"{file} could not be written ({error.strerror}); its rows are kept in memory, and training goes on"
                )
            self._told = True

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        file = Path(self.metrics_file_path)
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        _write_rows(file, fieldnames, rows)

    def _check_log_dir_exists(self) -> None:
        """Nothing to delete."""


def cut_log(file: Path, *, last_step: int, evaluation_pending: bool) -> None:
    """Remove the rows of ``file`` that a resumed training writes once more, and a row that a kill left half-written.

    Kept are rows up to ``last_step``; of ``last_step`` itself, with ``evaluation_pending``, not the evaluation's.
    """
    if not file.is_file():
        return
    with file.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        names = list(reader.fieldnames or [])
        rows = [row for row in reader if None not in row and None not in row.values()]
    kept = []
    for row in rows:
        try:
            step = int(row["step"])
        except (KeyError, ValueError):
            continue
        is_evaluation = any(value for name, value in row.items() if name.startswith("val/"))
        if step < last_step or (step == last_step and not (evaluation_pending and is_evaluation)):
            kept.append(row)
    _write_rows(file, names, kept)


def _write_rows(file: Path, names: list[str], rows: list[dict[str, str]]) -> None:
    """Replace a CSV file as a whole, so that a kill leaves the old one or the new one."""
    partial = file.with_name(f".{file.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=names)
        if names:
            writer.writeheader()
        writer.writerows(rows)
    partial.replace(file)
