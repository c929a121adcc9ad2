"""Progress for people and for log files: Lightning's rich bars in a terminal, plain lines everywhere else."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar

_SHOWN = ("train/loss", "train/pck")


def is_logged(trainer: pl.Trainer, step: int) -> bool:
    """Whether numbers are read after this optimizer step, or the epoch's last; at no other does anything wait for them.

    Steps count from 1. What is logged with ``prog_bar=True`` in a training step is read at every one: do not.
    """
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return bool(every and step % every == 0) or trainer.is_last_batch or trainer.should_stop


def all_steps(trainer: pl.Trainer, epoch: int = 0, batch: int = 0) -> float:
    """Optimizer steps of a whole training, infinite where it has no end.

    Those behind it, at ``batch`` of ``epoch``, count as they were, since other batches may have made more or fewer of
    them. Lightning's own estimate would make the loader for it, before a resumed training knows its epoch.
    """
    its: Any = trainer
    batches, limit = its.datamodule.train_batches, its.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    accumulated = its.accumulate_grad_batches
    ahead = (its.max_epochs - epoch) * -(-batches // accumulated) - batch // accumulated
    whole = math.inf if its.max_epochs == -1 else trainer.global_step + ahead
    return whole if trainer.max_steps == -1 else min(whole, trainer.max_steps)


def progress_callback() -> ProgressBar:
    """Bars when standard error is a terminal, else a line now and then."""
    return Bars(leave=True) if sys.stderr.isatty() else LineProgress()


class _LastLogged(ProgressBar):
    """Shows the numbers of the last logged step."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._logged_step, self._logged = -1, dict[str, Any]()

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        step = trainer.global_step
        if step != self._logged_step and is_logged(trainer, step):
            values = {name: trainer.callback_metrics.get(name) for name in _SHOWN}
            self._logged_step = step
            self._logged = {name: float(value) for name, value in values.items() if value is not None}
        super().on_train_batch_end(trainer, *arguments)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        return self._logged | super().get_metrics(trainer, pl_module)


class Bars(_LastLogged, RichProgressBar):
    """Lightning's rich bars."""


class LineProgress(_LastLogged):
    """One line every ``seconds``, and one at the end of each epoch and evaluation: what a log file can hold."""

    def __init__(self, seconds: float = 15.0) -> None:
        super().__init__()
        self.seconds = seconds
        self._enabled = True
        self._began = self._last_line = 0.0
        self._first_batch: int | None = None  # of this run in this epoch; an epoch resumed half-way does not begin at 0

    def disable(self) -> None:
        """Print nothing: Lightning calls this on all processes but the first."""
        self._enabled = False

    def on_train_epoch_start(self, *_: Any) -> None:  # noqa: D102
        self._first_batch = None

    def on_train_batch_start(self, _trainer: Any, _module: Any, _batch: Any, batch_idx: int) -> None:  # noqa: D102
        if self._first_batch is None:
            self._first_batch, self._began = batch_idx, time.monotonic()
            self._last_line = self._began

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:  # noqa: D102
        super().on_train_batch_end(trainer, *arguments)
        module, _outputs, _batch, batch_idx = arguments
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._batch_done(epoch, batch_idx + 1, self.total_train_batches, self.get_metrics(trainer, module))

    def on_validation_start(self, *_: Any) -> None:  # noqa: D102
        self._first_batch, self._began = 0, time.monotonic()
        self._last_line = self._began

    def on_validation_batch_end(  # noqa: D102
        self, trainer: pl.Trainer, _module: Any, _outputs: Any, _batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        done, total = int(sum(trainer.num_val_batches[:dataloader_idx])) + batch_idx + 1, sum(trainer.num_val_batches)
        if done < total:  # after the last one it is scored
            self._batch_done("evaluation", done, total, {})

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: D102
        self._print(time.monotonic(), "evaluation", "done", self.get_metrics(trainer, pl_module))

    def _batch_done(self, what: str, done: int, total: float, numbers: dict[str, Any]) -> None:
        now = time.monotonic()
        if done == total or now - self._last_line >= self.seconds:
            per_batch = (now - self._began) / (done - (self._first_batch or 0))
            left = f"{per_batch * (total - done):.0f} s left" if done < total else "done"
            self._print(now, f"{what}  batch {done}/{total:.0f}", left, numbers)

    def _print(self, now: float, what: str, state: str, numbers: dict[str, Any]) -> None:
        self._last_line = now
        if self._enabled:
            shown = "".join(f"  {name}={value:.4g}" for name, value in numbers.items() if isinstance(value, float))
            line = f"{what}  {now - self._began:.0f} s, {state}{shown}"
            print(line, file=sys.stderr, flush=True)  # a log file is to have it at once
