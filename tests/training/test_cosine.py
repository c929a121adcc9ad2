"""Rates that follow a cosine over all steps: the formula, and how many steps there are."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tiny_setup import TinySetup
from torch.nn import Parameter
from torch.optim.lr_scheduler import LinearLR, OneCycleLR

from programs import composed
from uniformer_pose.entry_point import plain_config
from uniformer_pose.errors import InputError
from uniformer_pose.training.cosine import FlatCosine
from uniformer_pose.training.optimization import Optimization


def rtmpose(step: int, total: int, warmup: int = 1000) -> float:
    """The share of the rate, as recomputed from MMEngine's schedulers in RTMPose's config."""
    begin = total / 2
    warm = 1e-5 + (1 - 1e-5) * min(step, warmup - 1) / (warmup - 1)
    fallen = 0.05 + 0.95 * (1 + math.cos(math.pi * (step - begin) / begin)) / 2
    return warm * (fallen if step > begin else 1.0)


def of_config(scheduler: str) -> Optimization:
    config: Any = plain_config(composed("train", f"scheduler={scheduler}"))
    return Optimization.of_config(config["optimizer"], config["scheduler"])


def stepped(optimization: Optimization, rate: float, total: int) -> list[float]:
    optimizer = torch.optim.SGD([Parameter(torch.zeros(1))], lr=rate)
    schedulers = [config["scheduler"] for config in optimization.schedulers(optimizer, total)]
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


def test_flat_cosine_is_rtmposes_over_its_whole_training() -> None:
    total = 420 * 73  # of 149,813 people in batches of 2048
    found = stepped(of_config("flat_cosine"), 4e-3, total)
    assert [rate / 4e-3 for rate in found] == pytest.approx([rtmpose(step, total) for step in range(total)], rel=1e-12)


def test_cosine_falls_from_step_to_step_to_nothing() -> None:
    found = stepped(of_config("cosine"), 1.0, 2000)
    expected = [(0.001 + 0.999 * min(i, 500) / 500) * (1 + math.cos(math.pi * i / 2000)) / 2 for i in range(2000)]
    assert found == pytest.approx(expected, rel=1e-12)


def test_after_the_last_step_it_stays_where_it_ended() -> None:
    optimizer = torch.optim.SGD([Parameter(torch.zeros(1))], lr=1.0)
    for final in (0.0, 0.25):
        optimizer.param_groups[0]["lr"] = 1.0
        scheduler = FlatCosine(optimizer, total_steps=3, final=final)
        for _ in range(6):
            optimizer.step()
            scheduler.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(final)


class Rates(pl.Callback):
    def __init__(self) -> None:
        self.found: list[float] = []

    def on_before_zero_grad(self, trainer: pl.Trainer, *_: Any) -> None:
        self.found.append(trainer.optimizers[0].param_groups[0]["lr"])


FLAT_COSINE = {
    "warmup": partial(LinearLR, start_factor=1e-5, total_iters=3),
    "cosine": partial(FlatCosine, flat=0.5, final=0.05),
}


def train(
    tiny: TinySetup, epochs: int, source: Path | None = None, per_step: Any = FLAT_COSINE, **settings: Any
) -> list[float]:
    """Train on, and the shares of the rate, of all steps from here on."""
    rates, batch_size = Rates(), settings.pop("batch_size", 2)
    module = tiny.module()
    module.optimization = Optimization(partial(torch.optim.SGD), 128.0, per_step=per_step)
    trainer = tiny.trainer(max_epochs=epochs, limit_val_batches=0, callbacks=[rates], **settings)
    trainer.fit(module, datamodule=tiny.data(batch_size=batch_size), ckpt_path=source, weights_only=True)
    trainer.save_checkpoint(tiny.folder / "saved.ckpt")
    return rates.found


def ends(rates: list[float], stated: float, total: int) -> bool:
    first = total - len(rates)
    expected = [stated * rtmpose(step, total, warmup=4) for step in range(first, total)]
    return rates == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "stated", "steps"),
    [
        ({}, 1.0, 15),  # six people in batches of two
        ({"accumulate_grad_batches": 2}, 2.0, 10),  # the second step of an epoch has one batch
        ({"limit_train_batches": 2}, 1.0, 10),
        ({"limit_train_batches": 0.67}, 1.0, 10),
        ({"max_steps": 11}, 1.0, 11),
    ],
)
def test_the_trainer_goes_through_all_of_it(
    tiny: TinySetup, settings: dict[str, Any], stated: float, steps: int
) -> None:
    rates = train(tiny, 5, **settings)
    assert len(rates) == steps
    assert ends(rates, stated, steps)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_ends_with_the_training_that_goes_on_with_other_batches_or_for_longer(tiny: TinySetup) -> None:
    assert len(train(tiny, 2)) == 6
    rest = train(tiny, 5, tiny.folder / "saved.ckpt", batch_size=3)  # two steps an epoch
    assert len(rest) == 6
    assert ends(rest, 1.5, total=12)
    more = train(tiny, 6, tiny.folder / "saved.ckpt", batch_size=3)
    assert ends(more, 1.5, total=14)


def test_a_training_without_an_end_has_no_such_schedule(tiny: TinySetup) -> None:
    with pytest.raises(InputError, match=r"scheduler.per_step.cosine: needs an end; give trainer.max_epochs or"):
        train(tiny, -1, max_time={"seconds": 1})


def test_torchs_own_that_ask_for_all_steps_get_them_and_a_given_number_stays(tiny: TinySetup) -> None:
    one_cycle = partial(OneCycleLR, max_lr=1.0, cycle_momentum=False)
    rates = train(tiny, 4, per_step={"one_cycle": one_cycle})
    assert len(rates) == 12
    assert min(rates) == rates[-1] < 1e-5 < rates[0]
    shorter = train(tiny, 1, per_step={"cosine": partial(FlatCosine, total_steps=2)})
    assert shorter == pytest.approx([1.0, 0.5, 0.0])
