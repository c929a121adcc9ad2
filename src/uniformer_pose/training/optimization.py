"""Optimizer, parameter groups and learning rate schedule: what ``optimizer`` and ``scheduler`` of a config say."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from hydra.utils import instantiate
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from uniformer_pose.errors import InputError, one_line
from uniformer_pose.training.resume.settings import is_numeric

MakeScheduler = Callable[[Optimizer], LRScheduler]
MONITORED = "val/AP"
"""What a scheduler that waits for better results looks at."""


@dataclass(frozen=True)
class Optimization:
    """How a network is trained.

    ``optimizer`` is called with parameters and ``lr``: ``lr_per_256``, the rate stated for 256 crops, scaled by the
    true global batch (devices x batch x accumulation). All six official UniFormer pose recipes obey this rule with 5e-4
    (batch 256, 512 and 1024). Without ``decay_norms_and_biases`` these have no weight decay, as in timm's recipes.

    ``per_step`` and ``per_epoch`` are torch's schedulers, called with the optimizer and stepped by Lightning after each
    optimizer step or each epoch. Each multiplies the rate, so a warm-up in steps and drops at epochs are two of them.
    """

    optimizer: Callable[..., Optimizer]
    lr_per_256: float = 5e-4
    decay_norms_and_biases: bool = True
    per_step: Mapping[str, MakeScheduler] = field(default_factory=dict)
    per_epoch: Mapping[str, MakeScheduler] = field(default_factory=dict)

    @classmethod
    def of_config(cls, optimizer: Mapping[str, Any], scheduler: Mapping[str, Any]) -> Optimization:
        """From checked config nodes; InputError where torch refuses a scheduler's arguments."""
        own = {name: optimizer[name] for name in ("lr_per_256", "decay_norms_and_biases") if name in optimizer}
        rest = {name: value for name, value in optimizer.items() if name not in own}
        return cls(
            optimizer=instantiate(rest, _partial_=True, _convert_="all"),
            per_step=_schedulers(scheduler, "per_step"),
            per_epoch=_schedulers(scheduler, "per_epoch"),
            **own,
        )

    def learning_rate(self, global_batch: int) -> float:
        """The rate of a global batch, when no schedule changes it."""
        return self.lr_per_256 * global_batch / 256

    def make(self, network: nn.Module, rate: float, *, fused: bool = True) -> Optimizer:
        """The optimizer of a network, with one kernel for all parameters (``fused``) where it has such.

        One that is given with ``fused`` or ``foreach`` stays so. A fused optimizer unscales fp16 gradients itself, so
        they cannot be clipped before it.
        """
        given = self.optimizer.keywords if isinstance(self.optimizer, partial) else {}
        known = inspect.signature(self.optimizer).parameters
        chosen = fused and "fused" in known and not given.keys() & {"fused", "foreach", "differentiable"}
        return self.optimizer(self.parameters(network), lr=rate, **({"fused": True} if chosen else {}))

    def parameters(self, network: nn.Module) -> list[Any]:
        """The network's trainable parameters, or groups of them, as the optimizer takes them."""
        if self.decay_norms_and_biases:
            return [parameter for parameter in network.parameters() if parameter.requires_grad]
        # Its default, where the config gives none.
        default = inspect.signature(self.optimizer).parameters.get("weight_decay")
        groups: list[Any] = param_groups_weight_decay(network, getattr(default, "default", 0.0))
        return groups

    def schedulers(self, optimizer: Optimizer) -> list[dict[str, Any]]:
        """One of each scheduler, as Lightning takes them."""
        return [
            {"scheduler": make(optimizer), "interval": interval, "monitor": MONITORED, "strict": False}
            for interval, makers in (("step", self.per_step), ("epoch", self.per_epoch))
            for make in makers.values()
        ]

    def take_up(
        self, network: nn.Module, optimizer: Optimizer, schedulers: Sequence[Any], *, rate: float, epoch: int, step: int
    ) -> None:
        """Go on from ``step`` in ``epoch`` with what is stated here, whatever a checkpoint brought.

        ``schedulers`` are Lightning's, of ``schedulers()``, ``rate`` is the global batch's. What has not changed stays
        the same to the last bit. A schedule that looks at results cannot be repeated without them: with such a one all
        stays as the checkpoint has it.
        """
        if any(isinstance(config.scheduler, ReduceLROnPlateau) for config in schedulers):
            return
        again = self.optimizer(self.parameters(network), lr=rate)  # which never takes a step
        replayed = self.schedulers(again)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            for config in replayed:
                for _ in range(step if config["interval"] == "step" else epoch):
                    config["scheduler"].step()
        groups = list(zip(optimizer.param_groups, again.param_groups, strict=True))
        # The factors came in another order, which may change the last bit.
        is_same = all(math.isclose(group["lr"], stated["lr"], rel_tol=1e-12) for group, stated in groups)
        for group, stated in groups:
            numbers = {name: value for name, value in stated.items() if is_numeric(value)}
            group.update(numbers | ({"lr": group["lr"]} if is_same else {}))
        for config, other in zip(schedulers, replayed, strict=True):
            state = other["scheduler"].state_dict()
            if is_same:
                state.pop("_last_lr")
            config.scheduler.load_state_dict(state)


def _schedulers(config: Mapping[str, Any], interval: str) -> dict[str, MakeScheduler]:
    found: dict[str, MakeScheduler] = {}
    for name, node in (config.get(interval) or {}).items():
        if node is None:
            continue
        found[name] = instantiate(node, _partial_=True, _convert_="all")
        try:
            found[name](torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9))
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise InputError(f"scheduler.{interval}.{name}: {one_line(error)}") from error
    return found
