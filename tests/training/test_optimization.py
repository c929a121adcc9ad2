from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn
from torch.nn import Parameter
from torch.optim.lr_scheduler import MultiStepLR

from uniformer_pose.errors import InputError
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.training.optimization import Optimization
from uniformer_pose.training.parameter_groups import ParameterGroups

CONF = Path(__file__).parents[2] / "conf"
RATE = 2e-3


def recipe(scheduler: str = "multistep", **warmup: Any) -> Optimization:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [f"scheduler={scheduler}", "trainer.max_epochs=9"])
    schedule: Any = OmegaConf.to_container(config.scheduler, resolve=True)
    schedule["per_step"]["warmup"].update(warmup)
    return Optimization.of_config(OmegaConf.to_container(config.optimizer), schedule)


def rates(optimization: Optimization, epochs: int, steps_per_epoch: int) -> list[float]:
    """The rate of each step, as Lightning goes through the schedule."""
    optimizer = optimization.optimizer([Parameter(torch.zeros(1))], lr=RATE)
    schedulers = optimization.schedulers(optimizer)
    found = []
    for _ in range(epochs):
        for step in range(steps_per_epoch):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            for config in schedulers:
                if config["interval"] == "step" or step == steps_per_epoch - 1:
                    config["scheduler"].step()
    return found


def official_rate(step: int, epoch: int, warmup_steps: int = 500) -> float:
    """MMPose's linear warm-up and its step policy, written out."""
    warmup = min(1.0, 0.001 + 0.999 * step / warmup_steps)
    return RATE * warmup * 0.1 ** sum(epoch >= milestone for milestone in (170, 200))


@pytest.mark.parametrize(("global_batch", "expected"), [(256, 5e-4), (512, 1e-3), (1024, 2e-3), (2, 5e-4 / 128)])
def test_the_learning_rate_follows_the_global_batch(global_batch: int, expected: float) -> None:
    assert recipe().learning_rate(global_batch) == pytest.approx(expected, rel=1e-12)


def test_the_default_recipe_s_rates_are_the_official_ones_to_rounding() -> None:
    found = rates(recipe(), epochs=210, steps_per_epoch=5)
    expected = [official_rate(number, number // 5) for number in range(210 * 5)]
    assert found == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("start_factor", [0, 2])
def test_arguments_that_torch_refuses_are_named(start_factor: float) -> None:
    with pytest.raises(InputError, match=r"scheduler\.per_step\.warmup: .*factor"):
        recipe(start_factor=start_factor)


@pytest.mark.parametrize("changed", [{}, {"lr_per_256": 1e-3}])
def test_a_resumed_training_stands_where_its_schedule_says(changed: dict[str, Any]) -> None:
    network = nn.Linear(1, 1)
    saved = recipe().optimizer(network.parameters(), lr=RATE)
    kept = recipe().schedulers(saved)
    for _ in range(3):
        for config in kept:
            config["scheduler"].step()
    before = saved.param_groups[0]["lr"]
    again = Optimization(recipe().optimizer, **({"lr_per_256": 5e-4} | changed), per_step=recipe().per_step)
    configs = [SimpleNamespace(scheduler=config["scheduler"]) for config in kept[:1]]
    again.take_up(network, saved, configs, rate=again.learning_rate(1024), epoch=0, step=3)
    factor = 0.001 + 0.999 * 3 / 500
    assert saved.param_groups[0]["lr"] == pytest.approx(again.learning_rate(1024) * factor, rel=1e-12)
    assert (saved.param_groups[0]["lr"] == before) == (not changed)  # to the last bit


class Counted(MultiStepLR):
    """Counts how often it is asked for a rate."""

    asked = 0

    def get_lr(self) -> list[Any]:
        type(self).asked += 1
        return super().get_lr()


def test_where_nothing_has_changed_no_schedule_is_gone_through_again() -> None:
    network, stated = nn.Linear(1, 1), {"drops": partial(Counted, milestones=[50], gamma=0.1)}
    optimization = Optimization(torch.optim.SGD, per_step=stated)
    optimizer = optimization.make(network, RATE)
    (config,) = optimization.schedulers(optimizer)
    config["scheduler"].load_state_dict({"last_epoch": 60, "_step_count": 61, "_last_lr": [RATE / 10]})
    optimizer.param_groups[0]["lr"] = RATE / 10
    restored = [SimpleNamespace(scheduler=config["scheduler"])]
    for now, rate, times in (
        (optimization, RATE, 1),  # as it is made
        (
            Optimization(torch.optim.SGD, per_step={"drops": partial(Counted, milestones=[70], gamma=0.1)}),
            RATE * 10,
            61,
        ),
        (optimization, RATE, 61),
    ):
        Counted.asked = 0
        now.take_up(network, optimizer, restored, rate=RATE, epoch=0, step=60)
        assert Counted.asked == times
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate / 10, rel=1e-12)


def test_without_a_schedule_the_rate_is_the_stated_one() -> None:
    network = nn.Linear(1, 1)
    optimizer = Optimization(torch.optim.SGD).make(network, RATE)
    Optimization(torch.optim.SGD).take_up(network, optimizer, [], rate=2 * RATE, epoch=0, step=5)
    assert optimizer.param_groups[0]["lr"] == 2 * RATE


def test_norms_and_biases_are_decayed_only_as_the_official_recipe_does() -> None:
    network = PoseNetwork(17, [1, 1, 1, 1], [8, 8, 16, 16], head_dim=8, deconv_channels=[8, 8, 8])
    (everything,) = recipe().make(network, RATE).param_groups
    assert list(map(id, everything["params"])) == list(map(id, network.parameters()))
    adamw, apart = partial(torch.optim.AdamW, weight_decay=0.3), ParameterGroups(decay_norms_and_biases=False)
    groups = Optimization(adamw, groups=apart).make(network, RATE).param_groups
    assert [group["weight_decay"] for group in groups] == [0.0, 0.3]
    assert all(parameter.ndim == 1 for parameter in groups[0]["params"])
    assert all(parameter.ndim > 1 for parameter in groups[1]["params"])
    assert sum(len(group["params"]) for group in groups) == len(everything["params"])


@pytest.mark.parametrize(
    ("optimizer", "wanted", "fused"),
    [
        (torch.optim.AdamW, True, True),
        (partial(torch.optim.Adam, betas=(0.9, 0.99)), True, True),
        (torch.optim.AdamW, False, None),
        (torch.optim.RMSprop, True, None),
        (partial(torch.optim.AdamW, fused=False), True, False),
        (partial(torch.optim.AdamW, foreach=True), True, None),
    ],
)
def test_an_optimizer_is_fused_where_it_can_be(optimizer: Any, wanted: bool, fused: bool | None) -> None:
    made = Optimization(optimizer).make(nn.Linear(1, 1), 0.1, fused=wanted)
    assert made.param_groups[0].get("fused") is fused
