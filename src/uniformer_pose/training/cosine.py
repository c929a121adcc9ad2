"""A rate that stays for a while and then falls along half a cosine, step by step."""

from __future__ import annotations

import math
from typing import Annotated, Any

from annotated_types import Ge, Lt
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from uniformer_pose.ranges import Count, Share


class FlatCosine(LRScheduler):
    """Multiplies each group's rate by 1 for the ``flat`` share of ``total_steps``, then by a cosine down to ``final``.

    RTMPose's schedule with a half and 0.05 (Jiang et al., arXiv 2303.07399), the usual cosine (Loshchilov and Hutter,
    ICLR 2017) with 0 and 0. Like torch's own it goes on from the rate that it finds, so that a warm-up may be at work
    beside it. torch's ``CosineAnnealingLR`` ends at a rate of its own, the same one for groups of different rates.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: Count,
        flat: Annotated[float, Ge(0), Lt(1)] = 0.0,
        final: Share = 0.0,
    ) -> None:
        self.total_steps, self.flat, self.final = total_steps, flat, final
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """What is left of the rate after so many steps; ``final`` after the last."""
        begin = self.flat * self.total_steps
        fallen = min(max(step - begin, 0.0) / (self.total_steps - begin), 1.0)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * fallen)) / 2

    def get_lr(self) -> list[Any]:
        """The groups' rates at ``last_epoch``, which counts steps, from those one step before."""
        before = self.factor(max(self.last_epoch - 1, 0))
        change = self.factor(self.last_epoch) / before if before else 0.0
        return [group["lr"] * change for group in self.optimizer.param_groups]
