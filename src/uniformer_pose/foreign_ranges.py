"""Ranges of arguments of other libraries' classes, whose annotations name none; derived classes have them too."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

_Count = Annotated[int, Ge(1)]
_NotNegative = Annotated[float, Ge(0)]
_SomeBatches = _Count | Annotated[float, Gt(0), Le(1)] | None  # an int counts batches, a float is a share of them
_NoBatches = Annotated[int, Ge(0)] | Annotated[float, Ge(0), Le(1)] | None
_Share = Annotated[float, Ge(0), Lt(1)]

_RANGES: dict[str, dict[str, Any]] = {
    "lightning.pytorch.trainer.trainer.Trainer": {
        "devices": str | Literal[-1] | _Count | list[Annotated[int, Ge(0)]],
        "num_nodes": _Count,
        "max_epochs": Literal[-1] | _Count | None,
        "min_epochs": Annotated[int, Ge(0)] | None,
        "max_steps": Literal[-1] | _Count,
        "min_steps": Annotated[int, Ge(0)] | None,
        "limit_train_batches": _SomeBatches,
        "limit_val_batches": _NoBatches,
        "val_check_interval": _Count | Annotated[float, Gt(0), Le(1)] | str | dict[str, int] | None,
        "check_val_every_n_epoch": _Count | None,
        "num_sanity_val_steps": Annotated[int, Ge(-1)] | None,
        "log_every_n_steps": _Count | None,
        "accumulate_grad_batches": _Count,
        "gradient_clip_val": _NotNegative | None,
        "gradient_clip_algorithm": Literal["norm", "value"] | None,
    },
    "lightning.pytorch.callbacks.early_stopping.EarlyStopping": {"patience": Annotated[int, Ge(0)]},
    "torch.optim.optimizer.Optimizer": {
        "lr": _NotNegative,
        "betas": tuple[_Share, _Share],
        "eps": _NotNegative,
        "momentum": _NotNegative,
        "weight_decay": _NotNegative,
    },
}


def ranges_of(target: Any) -> dict[str, Any]:
    """Annotations that take the place of a class's own, by the name of the argument."""
    ranges: dict[str, Any] = {}
    for base in reversed(getattr(target, "__mro__", ())):
        ranges |= _RANGES.get(f"{base.__module__}.{base.__qualname__}", {})
    return ranges
