"""Learning rate: scaled by the global batch, warmed up in steps, dropped at epochs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial

from torch import nn
from torch.optim import Optimizer


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
) -> Callable[[int], float]:
    """Factor of the learning rate at each optimizer step.

    It rises linearly from ``warmup_start_factor`` to 1 over ``warmup_steps`` and is multiplied by ``decay_factor`` at
    the start of each milestone epoch (counted from 0).
    """

    def factor(step: int) -> float:
        epoch = step // steps_per_epoch
        decay = decay_factor ** sum(epoch >= milestone for milestone in milestones)
        if step >= warmup_steps:
            return decay
        warmup = warmup_start_factor + (1.0 - warmup_start_factor) * step / warmup_steps
        return warmup * decay

    return factor


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
