"""Ranges of settings: names for annotations of our own classes, and those that other libraries' annotations lack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator

Count = Annotated[int, Ge(1)]
CountOrNone = Annotated[int, Ge(0)]
"""A whole number from 0 on, where 0 stands for none."""
Positive = Annotated[float, Gt(0), Lt(math.inf)]
NotNegative = Annotated[float, Ge(0), Lt(math.inf)]
Share = Annotated[float, Ge(0), Le(1)]
Seed = Annotated[int, Ge(0), Lt(2**32)]
LayerDecay = Annotated[float, Gt(0), Le(1)]


def _colours(values: Sequence[float]) -> Sequence[float]:
    if len(values) != 3 or not all(0 <= value <= 255 for value in values):
        raise ValueError("three numbers from 0 to 255: red, green, blue")
    if any(0 < value < 1 for value in values):
        raise ValueError("on the scale of 0 to 255; this is on that of 0 to 1: multiply by 255")
    return values


def _deviations(values: Sequence[float]) -> Sequence[float]:
    if 0 in values:
        raise ValueError("above 0: pixels are divided by it")
    return _colours(values)


def _run_name(name: str) -> str:
    for part in name.split(","):  # of a sweep
        path = PurePosixPath(part.strip())
        if not path.parts or path.is_absolute() or {"..", "~"} & set(path.parts):
            raise ValueError("the name of a folder below runs/")
    return name


Mean = Annotated[Sequence[float], AfterValidator(_colours)]
Deviation = Annotated[Sequence[float], AfterValidator(_deviations)]
RunName = Annotated[str, AfterValidator(_run_name)]

_SomeBatches = Count | Annotated[float, Gt(0), Le(1)] | None  # an int counts batches, a float is a share of them
_MomentumLike = Annotated[float, Ge(0), Lt(1)]

_OF_OTHERS: dict[str, dict[str, Any]] = {
    "lightning.pytorch.trainer.trainer.Trainer": {
        "max_epochs": Literal[-1] | Count | None,
        "min_epochs": CountOrNone | None,
        "max_steps": Literal[-1] | Count,
        "min_steps": CountOrNone | None,
        "limit_train_batches": _SomeBatches,
        "val_check_interval": _SomeBatches | str | dict[str, int],
        "check_val_every_n_epoch": Count | None,
        "num_sanity_val_steps": Annotated[int, Ge(-1)] | None,
        "log_every_n_steps": Count | None,
        "accumulate_grad_batches": Count,
        "gradient_clip_val": NotNegative | None,
    },
    "lightning.pytorch.callbacks.early_stopping.EarlyStopping": {"patience": CountOrNone},
    "torch.optim.lr_scheduler.LinearLR": {"start_factor": Annotated[float, Gt(0), Le(1)], "total_iters": Count},
    "torch.optim.lr_scheduler.MultiStepLR": {"milestones": Sequence[Count], "gamma": Positive},
    "torch.optim.optimizer.Optimizer": {
        "lr": NotNegative,
        "betas": tuple[_MomentumLike, _MomentumLike],
        "eps": NotNegative,
        "momentum": NotNegative,
        "weight_decay": NotNegative,
    },
}


def ranges_of(target: Any) -> dict[str, Any]:
    """Annotations that take the place of a class's own, by the name of the argument; derived classes have them too."""
    ranges: dict[str, Any] = {}
    for base in reversed(getattr(target, "__mro__", ())):
        ranges |= _OF_OTHERS.get(f"{base.__module__}.{base.__qualname__}", {})
    return ranges
