"""Checkpoints from which a training continues as if nothing had happened, and the stop that leaves one."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import torch.distributed
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info

from uniformer_pose.errors import InputError
from uniformer_pose.ranges import Count, Positive
from uniformer_pose.training.loggers import MetricsLog
from uniformer_pose.training.resume.agreement import Agreement
from uniformer_pose.training.resume.random_state import random_state, set_random_state
from uniformer_pose.training.resume.stop_signals import StopSignals

# What a process may want; of several the largest counts. A stop is the signal's number on top of this.
_SAVE = 1
_STOP = 100


class ResumeCheckpoints(Checkpoint):
    """Writes ``periodic.ckpt`` now and then and before each evaluation, ``interrupted.ckpt`` when asked to stop.

    ``every_minutes`` and ``every_n_steps`` (None: never) say how much a kill may cost. SIGTERM, SIGUSR1 or Ctrl-C to
    any one process stops all of them together between two optimizer steps: they save once and leave with status 143
    (130 after Ctrl-C); a second Ctrl-C leaves at once. During an evaluation nothing is saved: it is repeated from the
    checkpoint written before it. The last of ``max_epochs`` is always evaluated.

    Every checkpoint of the training holds the random generators of all processes, and how long ``metrics.csv`` was.
    """

    def __init__(self, folder: str, every_minutes: Positive | None = 10.0, every_n_steps: Count | None = None) -> None:
        self.folder = Path(folder)
        self.every_minutes, self.every_n_steps = every_minutes, every_n_steps
        self._signals = StopSignals()
        self._agreement: Agreement
        self._wanted, self._saved_at = 0, 0.0
        self._common_evaluation_batches: list[int] = []  # of each set
        self._saving: Literal["at a batch's start", "before an evaluation", "at an epoch's end"] | None = None
        self._logs: list[MetricsLog] = []
        self._restored: dict[str, Any] = {}

    def setup(self, trainer: pl.Trainer, _module: pl.LightningModule, stage: str) -> None:
        """Keep Lightning from its own way of stopping.

        It hangs where one process alone gets the signal, exits with status 0, and makes every step wait for the GPU
        to ask whether there was one (Lightning #20806, #21487); there is no setting against it.
        """
        self._logs = [logger for logger in trainer.loggers if isinstance(logger, MetricsLog)]
        if stage == "fit":
            trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    # ------------------------------------------------------------------------------------------------ when to save

    def on_train_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Take up what a checkpoint held; from here on there is something to lose.

        InputError where processes found different checkpoints: they cannot go on together.
        """
        first, last = (_of_all_processes(trainer, which, trainer.global_step) for which in ("min", "max"))
        if first != last:
            raise InputError(
                f"the processes start at different steps, {first} to {last}: give a run directory on a disk that all "
                "of them share, and start again"
            )
        restored, self._restored = self._restored, {}
        states = restored.get("processes", [])
        if len(states) == trainer.world_size:  # with another number of them there is nothing to continue
            set_random_state(states[trainer.global_rank])
        for log in self._logs:
            log.keep(restored.get("log_rows", log.num_rows))
        if restored.get("evaluation_follows"):  # elsewhere the progress is still that of the epoch before
            _evaluate_last_epoch(trainer)
        self._agreement = Agreement(trainer.world_size)
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
        _evaluate_last_epoch(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Save what was put off."""
        self._ask(trainer)
        self._save_if_wanted(trainer, "at an epoch's end")

    def on_validation_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Save what the evaluation follows, so that a stop or a kill during it costs no training."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        of_sets = [int(number) for number in trainer.num_val_batches]
        self._common_evaluation_batches = [_of_all_processes(trainer, "min", number) for number in of_sets]
        if (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch:
            self._wanted = max(self._wanted, _SAVE)
            self._save_if_wanted(trainer, "before an evaluation")

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        _module: pl.LightningModule,
        _outputs: Any,
        _batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Leave an evaluation where it stands: it is repeated. Processes may have different numbers of batches."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if batch_idx >= self._common_evaluation_batches[dataloader_idx]:  # all must ask equally often
            return
        self._ask(trainer)
        if self._wanted >= _STOP:
            self._leave(trainer, self.folder / "periodic.ckpt")

    def on_train_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """A signal from now on ends the process as it would any other; one that came in the last step does it here."""
        self._signals.restore()
        number = _of_all_processes(trainer, "max", self._signals.received)
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
        trainer.strategy.checkpoint_io.teardown()  # when the file is there
        number = self._wanted - _STOP
        rank_zero_info(
            f"stopped by {signal.Signals(number).name} after step {trainer.global_step}; "
            f"to go on: the same command with resume=auto, or ckpt_path={path}"
        )
        raise SystemExit(128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM))

    def state_dict(self) -> dict[str, Any]:
        """What every checkpoint of the training holds; every process must call it."""
        states: list[Any] = [random_state()]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            states = states * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(states, states[0])
        for log in self._logs:
            log.save()
        log_rows = max((log.num_rows for log in self._logs), default=0)
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


def _evaluate_last_epoch(trainer: pl.Trainer) -> None:
    """Have Lightning evaluate at the end of the last epoch too: it does so at multiples of the interval only."""
    if trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs and trainer.check_val_every_n_epoch:
        trainer.check_val_every_n_epoch = 1


def _of_all_processes(trainer: pl.Trainer, which: str, mine: int) -> int:
    """The smallest or largest of all processes' numbers; waits for them."""
    strategy = trainer.strategy
    return int(strategy.reduce(torch.tensor(mine, device=strategy.root_device), reduce_op=which))
