"""Optimizer, parameter groups and learning rate schedule: what ``optimizer`` and ``scheduler`` of a config say."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import torch
from hydra.utils import instantiate
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from uniformer_pose.errors import InputError, one_line
from uniformer_pose.training.parameter_groups import ParameterGroups
from uniformer_pose.training.resume.settings import is_numeric

MakeScheduler = Callable[[Optimizer], LRScheduler]


@dataclass(frozen=True)
class Optimization:
    """How a network is trained.

    ``optimizer`` is called with parameters and ``lr``: ``lr_per_256``, the rate stated for 256 crops, scaled by the
    true global batch (devices x batch x accumulation). All six official UniFormer pose recipes obey this rule with 5e-4
    (batch 256, 512 and 1024). ``groups`` are the parts of the network with another rate, or without weight decay.

    ``per_step`` and ``per_epoch`` are torch's schedulers, called with the optimizer and stepped by Lightning after each
    optimizer step or each epoch. Each multiplies the rate, so a warm-up in steps and drops at epochs are two of them.
    One per step that has an argument ``total_steps`` is given the number of all steps.
    """

    optimizer: Callable[..., Optimizer]
    lr_per_256: float = 5e-4
    groups: ParameterGroups = field(default_factory=ParameterGroups)
    per_step: Mapping[str, MakeScheduler] = field(default_factory=dict)
    per_epoch: Mapping[str, MakeScheduler] = field(default_factory=dict)

    @classmethod
    def of_config(cls, optimizer: Mapping[str, Any], scheduler: Mapping[str, Any]) -> Optimization:
        """From checked config nodes; InputError where an optimizer or a scheduler refuses its arguments."""
        grouping = {field.name: optimizer[field.name] for field in fields(ParameterGroups) if field.name in optimizer}
        own = {"lr_per_256": optimizer["lr_per_256"]} if "lr_per_256" in optimizer else {}
        rest = {name: value for name, value in optimizer.items() if name not in grouping | own}
        return cls(
            optimizer=_optimizer(rest),
            groups=ParameterGroups(**grouping),
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
        return self._made(network, rate, **({"fused": True} if chosen else {}))

    def _made(self, network: nn.Module, rate: float, **settings: Any) -> Optimizer:
        # The groups need what is the optimizer's default, where the config gives none.
        decay = inspect.signature(self.optimizer).parameters.get("weight_decay")
        return self.optimizer(self.groups.of(network, rate, getattr(decay, "default", 0.0)), lr=rate, **settings)

    def schedulers(
        self, optimizer: Optimizer, total_steps: float = math.inf, monitor: str | None = None
    ) -> list[dict[str, Any]]:
        """One of each scheduler, as Lightning takes them; InputError where one asks how many steps an endless one has.

        ``total_steps`` are the whole training's. ``monitor`` is the logged number that one looks at which waits for
        better results.
        """
        made = [("step", _with_steps(name, make, total_steps)(optimizer)) for name, make in self.per_step.items()]
        made += [("epoch", make(optimizer)) for make in self.per_epoch.values()]
        return [
            {"scheduler": scheduler, "interval": interval, "monitor": monitor, "strict": False}
            for interval, scheduler in made
        ]

    def take_up(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        schedulers: Sequence[Any],
        *,
        rate: float,
        epoch: int,
        step: int,
        total_steps: float = math.inf,
    ) -> None:
        """Go on from ``step`` in ``epoch`` with what is stated here, whatever a checkpoint brought.

        ``schedulers`` are Lightning's, of ``schedulers()``, ``rate`` is the global batch's. What has not changed stays
        the same to the last bit. A schedule that looks at results cannot be repeated without them: with such a one all
        stays as the checkpoint has it.
        """
        restored = [config.scheduler for config in schedulers]
        if any(isinstance(scheduler, ReduceLROnPlateau) for scheduler in restored):
            return
        again = self._made(network, rate)  # which never takes a step
        stated = self.schedulers(again, total_steps)
        fresh = [config["scheduler"] for config in stated]
        counts = [step if config["interval"] == "step" else epoch for config in stated]
        unchanged = bool(fresh) and all(map(_stands_at, restored, fresh, counts))
        if not unchanged:
            _step_on(fresh, counts)
        groups = list(zip(optimizer.param_groups, again.param_groups, strict=True))
        # The factors came in another order, which may change the last bit.
        is_same = unchanged or all(math.isclose(group["lr"], now["lr"], rel_tol=1e-12) for group, now in groups)
        for group, now in groups:
            numbers = {name: value for name, value in now.items() if is_numeric(value)}
            group.update(numbers | ({"lr": group["lr"]} if is_same else {}))
        for scheduler, other in () if unchanged else zip(restored, fresh, strict=True):
            state = other.state_dict()
            if is_same:
                state.pop("_last_lr")
            scheduler.load_state_dict(state)


def _stands_at(restored: LRScheduler, fresh: LRScheduler, count: int) -> bool:
    """Whether a scheduler is already where one of today's settings would come to in so many steps.

    Going there takes a minute for a hundred thousand steps and a rate for each layer. A function's settings are not in
    a file, so of one that has some nobody knows.
    """
    before, now = restored.state_dict(), fresh.state_dict()
    for moving in ("last_epoch", "_step_count", "_last_lr"):  # were a private name gone, it would be stepped again
        before.pop(moving, None)
        now.pop(moving, None)
    return before == now and restored.last_epoch == count and "lr_lambdas" not in now


def _step_on(schedulers: Sequence[LRScheduler], counts: Sequence[int]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        for scheduler, count in zip(schedulers, counts, strict=True):
            for _ in range(count):
                scheduler.step()


def _optimizer(config: Mapping[str, Any]) -> Callable[..., Optimizer]:
    make: Callable[..., Optimizer] = instantiate(config, _partial_=True, _convert_="all")
    with _refusals_named("optimizer"):
        make([nn.Parameter(torch.zeros(1, 1))], lr=1.0)
    return make


def _schedulers(config: Mapping[str, Any], interval: str) -> dict[str, MakeScheduler]:
    found: dict[str, MakeScheduler] = {}
    for name, node in (config.get(interval) or {}).items():
        if node is None:
            continue
        found[name] = make = instantiate(node, _partial_=True, _convert_="all")
        with _refusals_named(f"scheduler.{interval}.{name}"):
            optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
            (_with_steps(name, make, 1000) if interval == "per_step" else make)(optimizer)
    return found


def _with_steps(name: str, make: MakeScheduler, total_steps: float) -> MakeScheduler:
    """A scheduler that is told the number of all steps, if it asks for it and has not been given one."""
    given = make.keywords if isinstance(make, partial) else {}
    if "total_steps" in given or "total_steps" not in inspect.signature(make).parameters:
        return make
    if total_steps == math.inf:
        raise InputError(f"scheduler.per_step.{name}: needs an end; give trainer.max_epochs or trainer.max_steps")
    told: MakeScheduler = partial(make, **{"total_steps": int(total_steps)})
    return told


@contextmanager
def _refusals_named(key: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (ArithmeticError, AssertionError, ImportError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{key}: {one_line(error)}") from error
