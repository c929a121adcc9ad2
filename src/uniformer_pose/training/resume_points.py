"""Checkpoints from which a training continues as if nothing had happened, and the stop that leaves one."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info

from uniformer_pose.ranges import Count, NotNegative, Positive
from uniformer_pose.training.agreement import Agreement
from uniformer_pose.training.stop_signals import StopSignals, exit_status

# What a process may want; of several the largest counts. A stop is the signal's number on top of one of these.
_SAVE = 1
_STOP = 100
_STOP_UNSAVED = 200


class ResumePoints(Checkpoint):
    """Writes ``periodic.ckpt`` now and then and before each evaluation, ``interrupted.ckpt`` when asked to stop.

    ``every_minutes`` and ``every_n_steps`` (None: never) say how much a kill may cost. SIGTERM, SIGUSR1 or Ctrl-C to
    any one process stops all of them together after the step in hand: they save once and leave with status 143 (130
    after Ctrl-C). During an evaluation nothing is saved: it is repeated from the checkpoint written before it.

    Gradients that are still being accumulated are in no checkpoint, so every save waits for the optimizer's step; a
    stop waits ``grace_seconds`` for it at most, and then leaves with what ``periodic.ckpt`` holds. A second Ctrl-C
    leaves at once.

    After all other callbacks (Lightning puts ``Checkpoint`` ones last), so that what they do to a step is saved too.
    """

    def __init__(
        self,
        folder: str,
        every_minutes: Positive | None = 10.0,
        every_n_steps: Count | None = None,
        grace_seconds: NotNegative = 15.0,
    ) -> None:
        self.periodic = Path(folder) / "periodic.ckpt"
        self.interrupted = Path(folder) / "interrupted.ckpt"
        self.every_minutes, self.every_n_steps = every_minutes, every_n_steps
        self.grace_seconds = grace_seconds
        self._signals = StopSignals()
        self._agreement = Agreement()
        self._wanted = 0
        self._saved_at = 0.0
        self._flush_loggers = False
        self._leaving: tuple[int, Path | None] | None = None
        self._common_evaluation_batches = 0
        self._evaluation_pending = False

    def setup(self, trainer: pl.Trainer, _module: pl.LightningModule, stage: str) -> None:
        """Keep Lightning from its own way of stopping.

        It hangs where one process alone gets the signal, exits with status 0, and makes every step wait for the GPU
        to ask whether there was one (Lightning #20806, #21487).
        """
        if stage == "fit":
            trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    def on_train_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """From here on there is something to lose."""
        self._agreement.start(trainer.world_size, getattr(trainer.strategy, "_timeout", None))
        self._wanted, self._leaving, self._saved_at = 0, None, time.monotonic()
        self._signals.listen()

    def on_train_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """A signal from now on ends the process as it would any other; one that came in the last step does it here."""
        self._signals.restore()
        number = -self._agreement.smallest(-self._signals.received)
        if number:
            self._leaving = (number, self.periodic.with_name("last.ckpt"))
            self._leave_if_due(trainer)

    def on_exception(self, _trainer: pl.Trainer, _module: pl.LightningModule, _error: BaseException) -> None:
        """As at the end; the state in which an error leaves the training is not worth keeping."""
        self._signals.restore()

    def on_train_batch_end(
        self, trainer: pl.Trainer, _module: pl.LightningModule, _outputs: Any, _batch: Any, batch_idx: int
    ) -> None:
        """Save, if any process wants it, and this is a step after which nothing is left to be done."""
        self._wanted = max(self._wanted, self._agreement.exchange(self._mine(trainer)))
        accumulating = (batch_idx + 1) % trainer.accumulate_grad_batches != 0 and not trainer.is_last_batch
        if self.every_n_steps and not accumulating and trainer.global_step % self.every_n_steps == 0:
            self._wanted = max(self._wanted, _SAVE)
        if self._wanted == 0:
            return
        if self._wanted >= _STOP_UNSAVED:
            self._leaving = (self._wanted - _STOP_UNSAVED, None)
        elif not accumulating and not self._evaluation_or_epoch_end_follows(trainer):
            self._save_as_wanted(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, _module: pl.LightningModule, _batch: Any, _index: int) -> None:
        """Leave only here: the numbers of the last step are in the logs by now."""
        if self._flush_loggers:
            _flush(trainer)
            self._flush_loggers = False
        self._leave_if_due(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Nothing will follow in this epoch: save what was put off, and leave if that was wanted."""
        _flush(trainer)
        if self._wanted >= _STOP_UNSAVED:
            self._leaving = (self._wanted - _STOP_UNSAVED, None)
        elif self._wanted:
            self._save_as_wanted(trainer)
        self._leave_if_due(trainer)

    def on_validation_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Save what the evaluation follows, so that a stop or a kill during it costs no training."""
        if not _in_training(trainer):
            return
        self._common_evaluation_batches = self._agreement.smallest(int(sum(trainer.num_val_batches)))
        epoch_loop = trainer.fit_loop.epoch_loop
        done = epoch_loop.batch_progress.current.ready
        if done % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            return
        self._evaluation_pending = True
        try:
            self._save_as_wanted(trainer)
        finally:
            self._evaluation_pending = False
        self._leave_if_due(trainer)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, _module: pl.LightningModule, _outputs: Any, _batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Leave an evaluation where it stands: it is repeated. Processes may have different numbers of batches."""
        if not _in_training(trainer) or batch_idx >= self._common_evaluation_batches:
            return
        self._wanted = max(self._wanted, self._agreement.exchange(self._mine(trainer)))
        if self._wanted >= _STOP:
            number = self._wanted % _STOP
            self._leaving = (number, self.periodic)
            self._leave_if_due(trainer)

    def on_save_checkpoint(self, _trainer: pl.Trainer, _module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say, in the words of Lightning's own progress, that an evaluation has to be run from its beginning."""
        if self._evaluation_pending:
            loops = checkpoint["loops"]["fit_loop"]
            begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            loops["epoch_loop.val_loop.batch_progress"] = {
                **loops["epoch_loop.val_loop.batch_progress"],
                "total": dict(begun),
                "current": dict(begun),
                "is_last_batch": False,
            }

    def _mine(self, trainer: pl.Trainer) -> int:
        if self._signals.received:
            in_time = self._signals.seconds_since() < self.grace_seconds
            return (_STOP if in_time else _STOP_UNSAVED) + self._signals.received
        due = self.every_minutes is not None and time.monotonic() - self._saved_at > 60 * self.every_minutes
        return _SAVE if due and trainer.is_global_zero else 0

    def _evaluation_or_epoch_end_follows(self, trainer: pl.Trainer) -> bool:
        """A checkpoint written now would, on being resumed, skip the evaluation that is due after this batch."""
        fit_loop = trainer.fit_loop
        fetcher = fit_loop._data_fetcher
        return trainer.is_last_batch or (
            fetcher is not None and trainer.enable_validation and fit_loop.epoch_loop._should_check_val_fx(fetcher)
        )

    def _save_as_wanted(self, trainer: pl.Trainer) -> None:
        path = self.interrupted if self._wanted >= _STOP else self.periodic
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            path_written = None
        else:
            _flush(trainer)
            trainer.save_checkpoint(path)
            path_written = path
            self._flush_loggers = True
        if self._wanted >= _STOP:
            self._leaving = (self._wanted - _STOP, path_written)
        self._wanted, self._saved_at = 0, time.monotonic()

    def _leave_if_due(self, trainer: pl.Trainer) -> None:
        if self._leaving is None:
            return
        number, path = self._leaving
        name = signal.Signals(number).name
        if path is None:
            path = self.periodic
            rank_zero_info(f"stopped by {name} before the gradients were complete; what {path.name} holds is kept")
        rank_zero_info(
            f"stopped by {name} after step {trainer.global_step}; "
            f"to go on: the same command with resume=auto, or ckpt_path={path}"
        )
        raise SystemExit(exit_status(number))


def _in_training(trainer: pl.Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def _flush(trainer: pl.Trainer) -> None:
    for logger in trainer.loggers:
        logger.save()
