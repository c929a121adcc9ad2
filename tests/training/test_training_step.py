"""What Lightning's real trainer asks of the device beside the network: few operations, and no number back."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from counted_operations import CountedSteps, plain_loop
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from tiny_setup import TinySetup

from uniformer_pose.training import non_finite
from uniformer_pose.training.ema import AveragedWeights
from uniformer_pose.training.loggers import MetricsLog
from uniformer_pose.training.progress import Bars, LineProgress
from uniformer_pose.training.resume.resume_checkpoints import ResumeCheckpoints
from uniformer_pose.training.throughput import ThroughputVerdict


def counted(tiny: TinySetup, *callbacks: pl.Callback, steps: int = 101, **settings: Any) -> CountedSteps:
    tiny.write_people((2,) * 110)
    steps_seen = CountedSteps()
    trainer = tiny.trainer(
        callbacks=[
            steps_seen,
            *callbacks,
            ThroughputVerdict(),
            ResumeCheckpoints(str(tiny.folder), every_minutes=None),
        ],
        **({"max_epochs": -1, "max_steps": steps, "limit_val_batches": 0, "log_every_n_steps": 50} | settings),
    )
    with steps_seen.mode:
        trainer.fit(tiny.module(), datamodule=tiny.data())
    return steps_seen


@pytest.mark.parametrize("progress", [LineProgress(seconds=0), Bars()])
def test_only_logged_steps_read_a_number(tiny: TinySetup, progress: pl.Callback) -> None:
    log = MetricsLog(str(tiny.folder))
    found = counted(tiny, progress, AveragedWeights(), logger=log, gradient_clip_val=1.0)
    assert len(found.totals) == 100
    assert found.steps_with_reads == [50, 100]


def test_a_step_is_little_more_than_the_plain_loop(tiny: TinySetup) -> None:
    plain = median(counted(tiny, steps=12).totals)
    averaged = median(counted(tiny, AveragedWeights(), steps=12).totals)
    assert averaged <= 1.05 * plain
    assert averaged <= 1.15 * plain_loop(tiny)


class NoAccelerator(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        assert device.type == "meta"


class OnMeta(SingleDeviceStrategy):
    """A device that has no numbers: whatever asks for one, a branch, a print, a copy to the host, raises."""

    def __init__(self) -> None:
        super().__init__(torch.device("meta"), accelerator=NoAccelerator())

    def reduce(self, *_: Any, **__: Any) -> torch.Tensor:
        """Of the loader's length, before the first step."""
        return torch.ones(())

    def teardown(self) -> None:
        """Would bring the weights back."""


class EnoughError(Exception):
    """Ends a training before its epoch, at whose end numbers are read."""


class StopAt(pl.Callback):
    def __init__(self, step: int, reads: bool = False) -> None:
        self.step, self.reads = step, reads

    def on_train_batch_end(self, trainer: pl.Trainer, _module: Any, outputs: Any, *_: Any) -> None:
        if self.reads:
            float(outputs["loss"])
        if trainer.global_step == self.step:
            raise EnoughError


@pytest.mark.parametrize(("reads", "taught"), [(False, False), (True, False), (False, True)])
def test_no_step_brings_anything_to_the_host(
    tiny: TinySetup, monkeypatch: pytest.MonkeyPatch, reads: bool, taught: bool
) -> None:
    # Its flag is copied without waiting; here there is nothing to copy.
    monkeypatch.setattr(non_finite, "_to_host", lambda _bad: (torch.zeros(()), None))
    trainer = tiny.trainer(
        accelerator="auto",
        strategy=OnMeta(),
        callbacks=[AveragedWeights(), LineProgress(seconds=0), StopAt(20, reads)],
        log_every_n_steps=50,
        gradient_clip_val=1.0,
    )
    tiny.write_people((2,) * 30)
    module = tiny.module(
        model=tiny.model(drop_path_rate=0.5),
        optimizer=partial(torch.optim.AdamW, foreach=True),
        teacher=tiny.write_model(tiny.model(seed=1)) if taught else None,
    )
    with pytest.raises(RuntimeError if reads else EnoughError):
        trainer.fit(module, datamodule=tiny.data())
    assert trainer.global_step == (1 if reads else 20)
