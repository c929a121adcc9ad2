"""Checkpoints from which a training continues as if nothing had happened, and the stop that leaves one."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch.distributed
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info

from uniformer_pose.ranges import Count, Positive
from uniformer_pose.training.loggers import MetricsLog
from uniformer_pose.training.resume.agreement import Agreement
from uniformer_pose.training.resume.random_state import random_state, set_random_state
from uniformer_pose.training.resume.stop_signals import StopSignals, exit_status

# What a process may want; of several the largest counts. A stop is the signal's number on top of this.
_SAVE = 1
_STOP = 100


class ResumeCheckpoints(Checkpoint):
    """Writes ``periodic.ckpt`` now and then and before each evaluation, ``interrupted.ckpt`` when asked to stop.

    ``every_minutes`` and ``every_n_steps`` (None: never) say how much a kill may cost. SIGTERM, SIGUSR1 or Ctrl-C to
    any one process stops all of them together between two optimizer steps: they save once and leave with status 143
    (130 after Ctrl-C); a second Ctrl-C leaves at once. During an evaluation nothing is saved: it is repeated from the
    checkpoint written before it. With this callback a training ends with an evaluation, whatever their interval.

    Every checkpoint of the training holds the random generators of all processes, and how long ``metrics.csv`` was.
    """

    def __init__(self, folder: str, every_minutes: Positive | None = 10.0, every_n_steps: Count | None = None) -> None:
        self.folder = Path(folder)
        self.every_minutes, self.every_n_steps = every_minutes, every_n_steps
        self._signals, self._agreement = StopSignals(), Agreement()
        self._wanted, self._saved_at = 0, 0.0
        self._common_evaluation_batches = 0
        self._saving: Literal["at a batch's start", "before an evaluation", "at an epoch's end"] | None = None
        self._intervals: tuple[int | None, int | float | None] | None = None
        self._loggers: list[Any] = []
        self._restored: dict[str, Any] = {}

    def setup(self, trainer: pl.Trainer, _module: pl.LightningModule, stage: str) -> None:
        """Keep Lightning from its own way of stopping.

        It hangs where one process alone gets the signal, exits with status 0, and makes every step wait for the GPU
        to ask whether there was one (Lightning #20806, #21487); there is no setting against it.
        """
        self._loggers = trainer.loggers
        if stage == "fit":
            trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    # ------------------------------------------------------------------------------------------------ when to save

    def on_train_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Take up what a checkpoint held; from here on there is something to lose."""
        states = self._restored.get("processes", [])
        if len(states) == trainer.world_size:  # with another number of them there is nothing to continue
            set_random_state(states[trainer.global_rank])
        if trainer.is_global_zero and "log_rows" in self._restored:
            for logger in self._logs():
                logger.keep(self._restored["log_rows"])
        if self._restored.get("evaluation_follows"):  # elsewhere the progress is still that of the epoch before
            self._evaluate_if_last(trainer)
        self._restored = {}
        self._agreement.start(trainer.world_size)
        self._wanted, self._saved_at = 0, time.monotonic()
        self._signals.listen()

    def on_train_batch_start(self, trainer: pl.Trainer, _module: pl.LightningModule, _batch: Any, index: int) -> None:
        """Save, if any process wants it: what belongs to the batches before is done and logged.

        Not amid accumulated gradients, which are in no checkpoint; the first batch of an epoch is too late for it.
        """
        self._ask(trainer)
        if index > 0 and index % trainer.accumulate_grad_batches == 0:
            if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
                self._wanted = max(self._wanted, _SAVE)
            self._save_if_wanted(trainer, "at a batch's start")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Lightning is about to ask whether an evaluation is due."""
        self._evaluate_if_last(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Save what was put off."""
        self._ask(trainer)
        self._save_if_wanted(trainer, "at an epoch's end")

    def on_validation_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Save what the evaluation follows, so that a stop or a kill during it costs no training."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._restore_intervals(trainer)
        self._common_evaluation_batches = self._agreement.smallest(int(sum(trainer.num_val_batches)))
        if (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch:
            self._wanted = max(self._wanted, _SAVE)
            self._save_if_wanted(trainer, "before an evaluation")

    def on_validation_batch_end(
        self, trainer: pl.Trainer, _module: pl.LightningModule, _outputs: Any, _batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Leave an evaluation where it stands: it is repeated. Processes may have different numbers of batches."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or batch_idx >= self._common_evaluation_batches:
            return
        self._ask(trainer)
        if self._wanted >= _STOP:
            self._leave(trainer, self.folder / "periodic.ckpt")

    def on_train_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """A signal from now on ends the process as it would any other; one that came in the last step does it here."""
        self._signals.restore()
        self._restore_intervals(trainer)
        number = -self._agreement.smallest(-self._signals.received)
        if number:
            self._wanted = _STOP + number
            self._leave(trainer, self.folder / "last.ckpt")

    def on_exception(self, *_: Any) -> None:
        """As at the end; the state in which an error leaves the training is not worth keeping."""
        self._signals.restore()

    def _ask(self, trainer: pl.Trainer) -> None:
        """Find out what any process wants."""
        due = self.every_minutes is not None and time.monotonic() - self._saved_at > 60 * self.every_minutes
        mine = _SAVE if due and trainer.is_global_zero else 0
        mine = _STOP + self._signals.received if self._signals.received else mine
        self._wanted = max(self._wanted, self._agreement.exchange(mine))

    def _evaluate_if_last(self, trainer: pl.Trainer) -> None:
        """Have Lightning evaluate after the last step: it does so at multiples of the interval only.

        A training could else end without a score and without a best checkpoint.
        """
        limits = (trainer.max_epochs, trainer.current_epoch + 1), (trainer.max_steps, trainer.global_step)
        epochs_done, steps_done = (limit is not None and 0 <= limit <= done for limit, done in limits)
        stops = trainer.should_stop and trainer.current_epoch >= (trainer.min_epochs or 0)
        stops = stops and trainer.global_step >= (trainer.min_steps or 0)
        if self._intervals is None and (steps_done or stops or (epochs_done and trainer.is_last_batch)):
            self._intervals = trainer.check_val_every_n_epoch, trainer.val_check_batch
            trainer.check_val_every_n_epoch = trainer.val_check_batch = 1

    def _restore_intervals(self, trainer: pl.Trainer) -> None:
        if self._intervals is not None:
            trainer.check_val_every_n_epoch, trainer.val_check_batch = self._intervals
            self._intervals = None

    # ------------------------------------------------------------------------------------------------- what is saved

    def _save_if_wanted(self, trainer: pl.Trainer, moment: Any) -> None:
        if not self._wanted:
            return
        path = self.folder / ("interrupted.ckpt" if self._wanted >= _STOP else "periodic.ckpt")
        self._saving = moment
        try:
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]
                trainer.save_checkpoint(path, weights_only=False)
        finally:
            self._saving = None
        self._saved_at = time.monotonic()
        if self._wanted >= _STOP:
            self._leave(trainer, path)
        self._wanted = 0

    def _leave(self, trainer: pl.Trainer, path: Path) -> None:
        number = self._wanted - _STOP
        rank_zero_info(
            f"stopped by {signal.Signals(number).name} after step {trainer.global_step}; "
            f"to go on: the same command with resume=auto, or ckpt_path={path}"
        )
        raise SystemExit(exit_status(number))

    def state_dict(self) -> dict[str, Any]:
        """What every checkpoint of the training holds; every process must call it."""
        states: list[Any] = [random_state()]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            states = states * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(states, states[0])
        for logger in self._loggers:
            logger.save()
        log_rows = max((log.num_rows for log in self._logs()), default=0)
        evaluation_follows = self._saving == "before an evaluation"
        return {"processes": states, "log_rows": log_rows, "evaluation_follows": evaluation_follows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember it until training starts, since building and loading a model draws numbers too."""
        self._restored = dict(state_dict)

    def on_save_checkpoint(self, _trainer: pl.Trainer, _module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say where the training stands as Lightning's own progress does where it saves itself."""
        loops = checkpoint["loops"]["fit_loop"]
        if self._saving == "at a batch's start":  # as at the end of the batch before, which Lightning knows to continue
            progress = loops["epoch_loop.batch_progress"]
            for counts in (progress["total"], progress["current"]):
                counts["ready"] -= 1
                counts["completed"] -= 1
            progress["is_last_batch"] = False
            loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
        elif self._saving == "before an evaluation":  # which is to be run from its beginning
            begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            evaluation = loops["epoch_loop.val_loop.batch_progress"]
            evaluation |= {"total": dict(begun), "current": dict(begun), "is_last_batch": False}

    def _logs(self) -> list[MetricsLog]:
        return [logger for logger in self._loggers if isinstance(logger, MetricsLog)]
