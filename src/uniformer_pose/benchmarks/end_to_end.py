"""Training as a whole: its images a second with the loader, beside those with a batch that is on the device already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, IterableDataset

from uniformer_pose.benchmarks.measurement import Measurement, Progress, no_progress
from uniformer_pose.benchmarks.report import BenchmarkResult, Comparison
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.errors import InputError
from uniformer_pose.training.pose_module import PoseModule
from uniformer_pose.training.throughput import Throughput, ThroughputVerdict, available_cores, verdict


class ResidentBatch(PersonCrops):
    """The first training batch again and again, put on ``device`` once: training without a loader."""

    device = torch.device("cpu")

    def train_dataloader(self) -> DataLoader[Any]:
        """An epoch of the usual length."""
        loader = super().train_dataloader()
        batch = {name: values.to(self.device) for name, values in next(iter(loader)).items()}
        return DataLoader(_Repeated(batch, self.train_batches), batch_size=None)


class _Repeated(IterableDataset[dict[str, torch.Tensor]]):
    def __init__(self, batch: dict[str, torch.Tensor], times: int) -> None:
        self.batch, self.times = batch, times

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for _ in range(self.times):
            yield self.batch

    def __len__(self) -> int:
        return self.times


def benchmark_end_to_end(
    make_data: Callable[[type[PersonCrops]], PersonCrops],
    make_module: Callable[[], PoseModule],
    make_trainer: Callable[..., pl.Trainer],
    *,
    rounds: int,
    steps: int,
    on_progress: Progress = no_progress,
) -> BenchmarkResult:
    """Train for ``steps`` batches with the loader and as many without it, in turn, ``rounds`` times each.

    Both are whole trainings of ``make_trainer``, measured by the callback that judges every training; the first
    quarter of their batches does not count.
    """
    if steps < 10:
        raise InputError(f"steps={steps}: at least 10 batches a round show a training's pace")
    module = make_module()
    loaded, resident = make_data(PersonCrops), make_data(ResidentBatch)
    if not isinstance(resident, ResidentBatch):
        raise TypeError(f"make_data gave {type(resident).__name__} where ResidentBatch was asked for")
    sides: list[tuple[str, PersonCrops]] = [
        ("one batch, on the device already", resident),
        (f"with the loader, {loaded.num_workers} workers", loaded),
    ]
    measured = [Measurement(name, "images", "wall") for name, _ in sides]
    last: Throughput | None = None
    on_gpu, precision = False, ""
    for number in range(rounds):
        order = list(zip(sides, measured, strict=True))
        for (_, data), result in order if number % 2 == 0 else reversed(order):
            pace = ThroughputVerdict(after_batches=steps, warmup_batches=steps)
            trainer = make_trainer(callbacks=[pace], max_steps=steps, max_epochs=-1)
            resident.device = trainer.strategy.root_device
            on_gpu, precision = resident.device.type == "cuda", str(trainer.precision)
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            trainer.fit(module, datamodule=data)
            if pace.measured is None:
                raise KeyboardInterrupt  # Lightning keeps Ctrl-C to itself
            images = pace.measured.batches * data.batch_size
            result.units.append(images)
            result.seconds.append(images / pace.measured.images_per_second)
            result.wall_seconds.append(result.seconds[-1])
            if on_gpu:
                result.peak_bytes = max(result.peak_bytes or 0, torch.cuda.max_memory_allocated())
            if data is loaded:
                last = pace.measured
            on_progress(number + 1, rounds)
    if last is None:
        raise InputError(f"rounds={rounds}: at least 1")
    share = measured[1].ratio_to(measured[0])
    line = verdict(
        last,
        num_workers=loaded.num_workers,
        cores=available_cores(),
        prepared=getattr(loaded, "prepared", None) is not None,
        on_gpu=on_gpu,
        reduced_precision="16" in precision,
    )
    return BenchmarkResult(
        "end_to_end",
        [Comparison(f"Training, batch {loaded.batch_size}", measured)],
        {"share_of_device_resident_rate": share, "share_of_time_waiting": last.waiting_share},
        [f"The loader leaves {share:.1%} of the rate without one.", f"{line[0].upper()}{line[1:]}."],
    )
