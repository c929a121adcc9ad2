"""Learning rate: scaled by the global batch, warmed up in steps, dropped at epochs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from uniformer_pose.training.resume import is_numeric


def scaled_learning_rate(learning_rate_per_256: float, global_batch_size: int) -> float:
    """The learning rate of a global batch, from the rate stated for 256 images.

    All six official UniFormer pose recipes obey this rule with 5e-4 per 256 (batch 256, 512 and 1024).
    """
    return learning_rate_per_256 * global_batch_size / 256


def step_schedule(
    *,
    steps_per_epoch: int,
    warmup_steps: int,
    warmup_start_factor: float,
    milestones: Sequence[int],
    decay_factor: float,
    first_epoch: int = 0,
    first_step: int = 0,
) -> Callable[[int], float]:
    """Factor of the learning rate at each optimizer step.

    It rises linearly from ``warmup_start_factor`` to 1 over ``warmup_steps`` and is multiplied by ``decay_factor`` at
    the start of each milestone epoch (counted from 0). ``first_epoch`` began at ``first_step``: the epochs before it
    may have had more steps, or fewer, where a training was resumed with another batch size.
    """

    def factor(step: int) -> float:
        epoch = first_epoch + (step - first_step) // steps_per_epoch
        decay = decay_factor ** sum(epoch >= milestone for milestone in milestones)
        if step >= warmup_steps:
            return decay
        warmup = warmup_start_factor + (1.0 - warmup_start_factor) * step / warmup_steps
        return warmup * decay

    return factor


def numeric_settings(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The numbers of each parameter group, such as lr and weight decay."""
    return [{name: value for name, value in group.items() if is_numeric(value)} for group in optimizer.param_groups]


def apply_settings(settings: Sequence[dict[str, Any]], optimizer: Optimizer, scheduler: LambdaLR) -> None:
    """Give each parameter group these numbers, where a checkpoint brought its own; ``lr`` at the schedule's step.

    Numbers that have not changed stay the same to the last bit.
    """
    scheduler.base_lrs = [group["lr"] for group in settings]
    for group, own, factor in zip(optimizer.param_groups, settings, scheduler.lr_lambdas, strict=True):
        group.update(own, initial_lr=own["lr"], lr=own["lr"] * factor(scheduler.last_epoch))


def fused_where_possible(
    optimizer: Callable[..., Optimizer], parameters: Sequence[nn.Parameter], *, clipping_scaled_gradients: bool
) -> Callable[..., Optimizer]:
    """The optimizer with one kernel for all parameters, where it has such (``fused``), or as it was.

    Only on GPUs, where launching a kernel per parameter costs; a given ``fused`` is left alone. A fused optimizer
    unscales fp16 gradients itself, so they cannot be clipped before it: ``clipping_scaled_gradients`` forbids it.
    """
    given = optimizer.keywords if isinstance(optimizer, partial) else {}
    chosen = given.keys() & {"fused", "foreach", "differentiable"}
    takes_it = "fused" in inspect.signature(optimizer).parameters
    on_gpu = bool(parameters) and all(p.is_cuda and p.is_floating_point() for p in parameters)
    if chosen or not takes_it or not on_gpu or clipping_scaled_gradients:
        return optimizer
    return partial(optimizer, fused=True)
