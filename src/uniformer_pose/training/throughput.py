"""Does a training wait for its data or for its device? Told once, after its first few hundred batches."""

from __future__ import annotations

import os
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

from uniformer_pose.ranges import Count

_FEWEST_BATCHES = 10
_WAITING_THAT_MATTERS = 0.1


class ThroughputVerdict(Callback):
    """Says once whether a training waits for data, after ``after_batches`` batches or at its end.

    The first quarter does not count: workers start, kernels are chosen, a compiler may run. Neither does a batch with
    an evaluation, a checkpoint or an epoch's end before it. By the processor's clock: it runs at most a step ahead of a
    GPU (``StopOnNonFinite``), so where the GPU is the bottleneck, the next batch is there when it is asked for.
    """

    def __init__(self, after_batches: Count = 300) -> None:
        self.after_batches = after_batches
        self._told = False
        self._batches: list[tuple[int, float, float]] = []  # images, seconds waited for them, and of their step
        self._began = 0.0
        self._ended: float | None = None  # the step before, if nothing came between

    def on_train_batch_start(self, *_: Any) -> None:
        """The batch is there: the wait is over."""
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, _module: pl.LightningModule, _outputs: Any, batch: Any, _index: int
    ) -> None:
        """The step is done or queued; from here the loop waits for the next batch."""
        now = time.perf_counter()
        if self._ended is not None:
            self._batches.append((len(batch["crops"]), self._began - self._ended, now - self._began))
        self._ended = now
        if len(self._batches) >= self.after_batches:
            self._judge(trainer)

    def on_train_epoch_end(self, *_: Any) -> None:
        """The next wait belongs to the change of epochs."""
        self._ended = None

    def on_validation_start(self, *_: Any) -> None:
        """The next wait belongs to the evaluation."""
        self._ended = None

    def on_save_checkpoint(self, *_: Any) -> None:
        """The next wait belongs to the disk."""
        self._ended = None

    def on_train_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """A short training gets its verdict here."""
        if len(self._batches) >= _FEWEST_BATCHES:
            self._judge(trainer)

    def _judge(self, trainer: pl.Trainer) -> None:
        images, waited, busy = (sum(column) for column in zip(*self._batches[len(self._batches) // 4 :], strict=True))
        self._batches = []
        if not self._told:
            rank_zero_info(verdict(images / (waited + busy), waited / (waited + busy), trainer))
        self._told = True


def verdict(rate: float, waiting_share: float, trainer: pl.Trainer) -> str:
    """One line: images a second per device, the share of waiting, and what to change where that is much."""
    line = f"throughput: {rate:.0f} images/s per device, {waiting_share:.0%} of the time waiting for data"
    if waiting_share < _WAITING_THAT_MATTERS:
        return f"{line}: the device is the bottleneck"
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    cores = max(1, len(os.sched_getaffinity(0)) // max(1, trainer.num_devices))
    more = f"raise data.num_workers ({data.num_workers}; {cores} cores)" if data.num_workers < cores else ""
    prepared = "" if data.prepared else "train on prepared crops (python src/prepare.py)"
    return (
        f"{line}: the loader is the bottleneck; {' or '.join(filter(None, [more, prepared])) or 'give it more cores'}"
    )
