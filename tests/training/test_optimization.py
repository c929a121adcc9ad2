from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.optim.lr_scheduler import LambdaLR

from uniformer_pose.training.optimization import fused_where_possible, scaled_learning_rate, step_schedule


@pytest.mark.parametrize(("global_batch", "expected"), [(256, 5e-4), (512, 1e-3), (1024, 2e-3), (2, 5e-4 / 128)])
def test_the_learning_rate_follows_the_global_batch(global_batch, expected):
    assert scaled_learning_rate(5e-4, global_batch) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("step", "expected"), [(0, 0.001), (250, 0.5005), (499, 0.998002), (500, 1.0), (501, 1.0)])
def test_the_learning_rate_rises_linearly_over_the_warmup(step, expected):
    factor = step_schedule(
        steps_per_epoch=1000, warmup_steps=500, warmup_start_factor=0.001, milestones=(170, 200), decay_factor=0.1
    )

    assert factor(step) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "expected"), [(17 * 10 - 1, 1.0), (17 * 10, 0.1), (20 * 10 - 1, 0.1), (20 * 10, 0.01), (10**6, 0.01)]
)
def test_the_learning_rate_drops_with_the_first_step_of_each_milestone_epoch(step, expected):
    factor = step_schedule(
        steps_per_epoch=10, warmup_steps=5, warmup_start_factor=0.001, milestones=(17, 20), decay_factor=0.1
    )

    assert factor(step) == pytest.approx(expected, rel=1e-12)


def test_a_milestone_inside_the_warmup_lowers_it_too():
    factor = step_schedule(
        steps_per_epoch=2, warmup_steps=10, warmup_start_factor=0.0, milestones=(1,), decay_factor=0.1
    )

    assert [factor(step) for step in (1, 2, 10)] == pytest.approx([0.1, 0.02, 0.1], rel=1e-12)


def test_without_warmup_and_milestones_the_learning_rate_stays():
    factor = step_schedule(
        steps_per_epoch=3, warmup_steps=0, warmup_start_factor=0.001, milestones=(), decay_factor=0.1
    )

    assert {factor(step) for step in range(20)} == {1.0}


def test_torch_steps_through_the_schedule_factor_by_factor():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    factor = step_schedule(
        steps_per_epoch=4, warmup_steps=2, warmup_start_factor=0.5, milestones=(1,), decay_factor=0.1
    )
    scheduler = LambdaLR(optimizer, factor)

    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()

    assert rates == pytest.approx([1.0, 1.5, 2.0, 2.0, 0.2])


def test_a_fused_optimizer_is_for_gpus_only() -> None:
    adamw = partial(torch.optim.AdamW, weight_decay=0.01)
    assert fused_where_possible(adamw, [Parameter(torch.zeros(1))], clipping_scaled_gradients=False) is adamw


class OnGpu(Parameter):
    """A parameter that says it lies on a GPU, where there is none."""

    is_cuda = True


@pytest.mark.parametrize(
    ("optimizer", "clipping", "fused"),
    [
        (torch.optim.AdamW, False, True),
        (partial(torch.optim.Adam, betas=(0.9, 0.99)), False, True),
        (torch.optim.AdamW, True, False),
        (torch.optim.RMSprop, False, False),
        (partial(torch.optim.AdamW, foreach=True), False, False),
        (partial(torch.optim.AdamW, fused=False), False, False),
    ],
)
def test_on_a_gpu_an_optimizer_is_fused_where_it_can_be(optimizer: Any, clipping: bool, fused: bool) -> None:
    made = fused_where_possible(optimizer, [OnGpu(torch.zeros(1))], clipping_scaled_gradients=clipping)
    assert (isinstance(made, partial) and made.keywords.get("fused") is True) == fused
    assert fused or made is optimizer
