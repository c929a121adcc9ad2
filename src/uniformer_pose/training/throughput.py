"""Does a training wait for its data or for its device? Told once, after its first few hundred batches."""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

from uniformer_pose.ranges import Count

_FEWEST_BATCHES = 10
_WAITING_THAT_MATTERS = 0.1


class _Mark(NamedTuple):
    """One end of a step, by the processor's clock and, on a GPU, by the GPU's."""

    seconds: float
    event: torch.cuda.Event | None

    def until(self, later: _Mark) -> float:
        """Seconds in which the device had nothing to do: where it still had work queued, waiting cost nothing."""
        seconds = later.seconds - self.seconds
        if self.event is None or later.event is None:
            return seconds
        return max(0.0, min(seconds, float(self.event.elapsed_time(later.event)) / 1000))


class ThroughputVerdict(Callback):
    """Says once whether a training waits for data, after ``after_batches`` batches or at its end.

    The first quarter does not count: workers start, kernels are chosen, a compiler may run. Neither do gaps with an
    evaluation, a checkpoint or an epoch's end in them. Nothing here waits for a GPU before the verdict.
    """

    def __init__(self, after_batches: Count = 300) -> None:
        self.after_batches = after_batches
        self.waiting_share: float | None = None
        """Of the time between the measured batches, 0 to 1; None before the verdict."""
        self._batches: list[tuple[int, _Mark, bool]] = []  # its images, its start, whether it follows directly
        self._ends: list[_Mark] = []
        self._follows = False

    def on_train_batch_start(self, _trainer: pl.Trainer, module: pl.LightningModule, batch: Any, _index: int) -> None:
        """The batch is there: the wait is over."""
        if self.waiting_share is None:
            self._batches.append((len(batch["crops"]), _mark(module.device), self._follows))

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """The step is queued; from here the loop waits for the next batch."""
        if self.waiting_share is None and self._batches:
            self._ends.append(_mark(module.device))
            self._follows = True
            if len(self._ends) >= self.after_batches:
                self._judge(trainer)

    def on_train_epoch_end(self, *_: Any) -> None:
        """The next gap belongs to the change of epochs."""
        self._follows = False

    def on_validation_start(self, *_: Any) -> None:
        """The next gap belongs to the evaluation."""
        self._follows = False

    def on_save_checkpoint(self, *_: Any) -> None:
        """The next gap belongs to the disk."""
        self._follows = False

    def on_train_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """A short training gets its verdict here."""
        if self.waiting_share is None and len(self._ends) >= _FEWEST_BATCHES:
            self._judge(trainer)

    def _judge(self, trainer: pl.Trainer) -> None:
        first = len(self._ends) // 4
        batches, ends = self._batches[first : len(self._ends)], self._ends[first:]
        if ends[-1].event is not None:
            ends[-1].event.synchronize()
        gaps = [end.until(start) for end, (_, start, follows) in zip(ends, batches[1:], strict=False) if follows]
        # Gaps that do not count would have cost what the others do.
        waiting = sum(gaps) / max(1, len(gaps)) * len(batches)
        busy = sum(start.until(end) for (_, start, _), end in zip(batches, ends, strict=True))
        self.waiting_share = waiting / (waiting + busy)
        rate = sum(images for images, *_ in batches) / (waiting + busy)
        self._batches, self._ends = [], []
        rank_zero_info(verdict(rate, self.waiting_share, trainer))


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


def _mark(device: torch.device) -> _Mark:
    event = None
    if device.type == "cuda":
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
    return _Mark(time.perf_counter(), event)
