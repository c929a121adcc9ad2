"""Progress for people and for log files: Lightning's rich bars in a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar


def progress_callback() -> ProgressBar:
    """Bars when standard error is a terminal, else a line now and then."""
    return RichProgressBar(leave=True) if sys.stderr.isatty() else LineProgress()


class LineProgress(ProgressBar):
    """One line every ``seconds``, and one at the end of each epoch and evaluation: what a log file can hold."""

    def __init__(self, seconds: float = 15.0) -> None:
        super().__init__()
        self.seconds = seconds
        self._enabled = True
        self._since = self._evaluating_since = self._last_line = 0.0
        self._first_batch: int | None = None  # of this run in this epoch; an epoch resumed half-way does not begin at 0

    def disable(self) -> None:
        """Print nothing: Lightning calls this on all processes but the first."""
        self._enabled = False

    def on_train_epoch_start(self, *_: Any) -> None:  # noqa: D102
        self._first_batch = None

    def on_train_batch_start(self, _trainer: Any, _module: Any, _batch: Any, batch_idx: int) -> None:  # noqa: D102
        if self._first_batch is None:
            self._first_batch, self._since = batch_idx, time.monotonic()
            self._last_line = self._since

    def on_train_batch_end(  # noqa: D102
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, _outputs: Any, _batch: Any, batch_idx: int
    ) -> None:
        done, total = batch_idx + 1, self.total_train_batches
        if done == total or time.monotonic() - self._last_line >= self.seconds:
            seconds = time.monotonic() - self._since
            per_batch = seconds / (done - (self._first_batch or 0))
            rest = f"{per_batch * (total - done):.0f} s left" if done < total else "done"
            where = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  batch {done}/{total}"
            self._print(f"{where}  {seconds:.0f} s, {rest}  {self._numbers(trainer, pl_module)}")

    def on_validation_start(self, *_: Any) -> None:  # noqa: D102
        self._evaluating_since = self._last_line = time.monotonic()

    def on_validation_batch_end(  # noqa: D102
        self, trainer: pl.Trainer, _module: Any, _outputs: Any, _batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if time.monotonic() - self._last_line >= self.seconds:
            self._print(f"evaluation  batch {batch_idx + 1}/{sum(trainer.num_val_batches):.0f}")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: D102
        seconds = time.monotonic() - self._evaluating_since
        self._print(f"evaluation done in {seconds:.0f} s  {self._numbers(trainer, pl_module)}")

    def _numbers(self, trainer: pl.Trainer, module: pl.LightningModule) -> str:
        metrics = self.get_metrics(trainer, module)
        return "  ".join(f"{name}={value:.4g}" for name, value in metrics.items() if isinstance(value, float))

    def _print(self, line: str) -> None:
        self._last_line = time.monotonic()
        if self._enabled:
            print(line, file=sys.stderr, flush=True)  # a log file is to have it at once
