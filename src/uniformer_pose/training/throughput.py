"""Which of loader and step holds a training up, told once, after its first few hundred batches."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

from uniformer_pose.ranges import Count, CountOrNone

# A share of the time below this is the noise of a loop that keeps its device busy.
_WAITING_THAT_MATTERS = 0.05
_FEWEST_BATCHES = 10


@dataclass(frozen=True)
class Throughput:
    """Where the time of a stretch of training went, for one device.

    ``images_per_second`` is what was reached. ``step_images_per_second``: what the step would reach if it never
    waited. ``loader_images_per_second``: what the loader gives, or None where it was never waited for, so that all
    one knows is that it gives at least ``images_per_second``. ``waiting_share``: of the time, from 0 to 1, in which
    the device had nothing to do because the next batch was not there. ``batches``: how many were measured.
    """

    images_per_second: float
    step_images_per_second: float
    loader_images_per_second: float | None
    waiting_share: float
    batches: int

    @property
    def loader_is_bottleneck(self) -> bool:
        """Whether the loader gives fewer images a second than the step would take."""
        return self.loader_images_per_second is not None and self.loader_images_per_second < self.step_images_per_second


def verdict(
    measured: Throughput, *, num_workers: int, cores: int, prepared: bool, on_gpu: bool, reduced_precision: bool
) -> str:
    """One line: the rates, the share of waiting, the bottleneck, and what of the settings to change.

    ``prepared``: whether the crops come from prepared shards. ``reduced_precision``: whether the step already computes
    in bf16 or fp16.
    """
    loader = measured.loader_images_per_second
    given = f"at least {measured.images_per_second:.0f}" if loader is None else f"{loader:.0f}"
    rates = (
        f"{measured.images_per_second:.0f} images/s per device; loader {given} images/s, step "
        f"{measured.step_images_per_second:.0f} images/s, {measured.waiting_share:.0%} of the time waiting for data"
    )
    changes = []
    if measured.loader_is_bottleneck:
        if num_workers < cores:
            changes.append(f"raise data.num_workers ({num_workers}; the machine has {cores} cores)")
        if not prepared:
            changes.append("train on prepared crops (python src/prepare.py)")
        if not changes:
            changes.append("give the process more cores")
        return f"{rates}. The loader is the bottleneck: {' or '.join(changes)}"
    if measured.waiting_share >= _WAITING_THAT_MATTERS and num_workers == 0:
        changes.append("load in other processes (data.num_workers=1)")
    if on_gpu:
        changes.append("raise data.batch_size while the memory lasts")
        if not reduced_precision:
            changes.append("compute in bf16 (precision=bf16)")
    else:
        changes.append("a GPU")
    return f"{rates}. The step is the bottleneck; more takes: {' or '.join(changes)}"


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


@dataclass
class _Batch:
    """The two ends of one training step by the processor's clock and, on a GPU, by the GPU's."""

    images: int
    start: float
    end: float = 0.0
    first_event: torch.cuda.Event | None = None
    last_event: torch.cuda.Event | None = None
    follows_directly: bool = True


class ThroughputVerdict(Callback):
    """Says once per training which of loader and step is the bottleneck, after ``after_batches`` batches.

    A training that ends earlier is judged at its end. The first ``warmup_batches`` (at most a quarter) do not count:
    workers start, kernels are chosen, a compiler may run. Gaps with an evaluation, a checkpoint or an epoch's end in
    them do not count either. On a GPU the waiting is what its own events show as idle, so nothing here synchronises
    before the verdict. ``measured`` is the outcome, None before.
    """

    def __init__(self, after_batches: Count = 300, warmup_batches: CountOrNone = 50) -> None:
        self.after_batches, self.warmup_batches = after_batches, warmup_batches
        self.measured: Throughput | None = None
        self._batches: list[_Batch] = []
        self._interrupted = True

    def on_train_start(self, *_: Any) -> None:
        """Forget an earlier training."""
        self.measured = None
        self._batches.clear()
        self._interrupted = True

    def on_train_batch_start(
        self, _trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, _batch_index: int
    ) -> None:
        """The batch is there: the wait is over."""
        if self.measured is None:
            first = _event(pl_module.device)
            self._batches.append(
                _Batch(
                    len(batch["crops"]),
                    time.perf_counter(),
                    first_event=first,
                    follows_directly=not self._interrupted,
                )
            )
            self._interrupted = False

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """The step is queued; from here the loop waits for the next batch."""
        if self.measured is not None or not self._batches:
            return
        last = self._batches[-1]
        last.last_event, last.end = _event(pl_module.device), time.perf_counter()
        if len(self._batches) >= self.after_batches:
            self._judge(trainer, pl_module)

    def on_train_epoch_end(self, *_: Any) -> None:
        """The next gap belongs to the change of epochs."""
        self._interrupted = True

    def on_validation_start(self, *_: Any) -> None:
        """The next gap belongs to the evaluation."""
        self._interrupted = True

    def on_save_checkpoint(self, *_: Any) -> None:
        """The next gap belongs to the disk."""
        self._interrupted = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A short training gets its verdict here."""
        if self.measured is None and len(self._batches) >= _FEWEST_BATCHES:
            self._judge(trainer, pl_module)

    def _judge(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        num_workers = int(getattr(data, "num_workers", 0))
        skipped = min(self.warmup_batches, len(self._batches) // 4)
        self.measured = _throughput(self._batches[skipped:], loads_in_step_process=num_workers == 0)
        self._batches.clear()
        line = verdict(
            self.measured,
            num_workers=num_workers,
            cores=max(1, available_cores() // max(1, trainer.num_devices)),
            prepared=getattr(data, "prepared", None) is not None,
            on_gpu=module.device.type == "cuda",
            reduced_precision="16" in str(trainer.precision),
        )
        rank_zero_info(f"throughput: {line}")


def _throughput(batches: list[_Batch], *, loads_in_step_process: bool) -> Throughput:
    """What the marks of successive steps say; the GPU's own where there are any."""
    last = batches[-1].last_event
    if last is not None:
        last.synchronize()
    busy = sum(map(_step_seconds, batches))
    waited, gaps = 0.0, 0
    for before, after in pairwise(batches):
        if not after.follows_directly:
            continue
        gap = after.start - before.end
        if before.last_event is not None and after.first_event is not None:
            # Where the GPU still had work queued, the processor's wait cost nothing; where it was idle for longer than
            # the processor waited, the rest is not the loader's.
            gap = min(gap, before.last_event.elapsed_time(after.first_event) / 1000)
        waited += max(gap, 0.0)
        gaps += 1
    images = sum(batch.images for batch in batches)
    per_gap = waited / gaps if gaps else 0.0
    waiting = per_gap * len(batches)  # the gaps that were left out would have cost what the others do
    share = waiting / (waiting + busy)
    reached = images / (waiting + busy)
    if loads_in_step_process and per_gap > 0:
        loader: float | None = images / waiting
    else:
        loader = reached if share >= _WAITING_THAT_MATTERS else None
    return Throughput(reached, images / busy, loader, share, len(batches))


def _step_seconds(batch: _Batch) -> float:
    if batch.first_event is not None and batch.last_event is not None:
        return float(batch.first_event.elapsed_time(batch.last_event)) / 1000
    return batch.end - batch.start


def _event(device: torch.device) -> torch.cuda.Event | None:
    if device.type != "cuda":
        return None
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event
