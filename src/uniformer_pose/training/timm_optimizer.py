"""timm's optimizers by name, those that a training of ours can use and resume."""

from __future__ import annotations

import inspect
from typing import Any

from timm.optim import create_optimizer_v2, get_optimizer_class, get_optimizer_info, list_optimizers
from torch.optim import Optimizer

from uniformer_pose.errors import InputError
from uniformer_pose.nearest_name import did_you_mean
from uniformer_pose.ranges import NotNegative


def timm_optimizer(params: Any, opt: str, lr: float, weight_decay: NotNegative = 0.0, **arguments: Any) -> Optimizer:
    """The optimizer that timm calls ``opt``, with the defaults that it has there.

    ``params`` are parameters or groups of them, ``arguments`` those of the optimizer's class. Raises InputError for a
    name or an argument that is not there, and for what no training here can use.
    """
    name = opt.lower()
    if name.startswith("lookahead_"):
        raise InputError(
            f"optimizer.opt={opt}: Lookahead counts its steps among its settings, so it cannot be resumed; give "
            f"opt={name.removeprefix('lookahead_')}, and callbacks=ema for averaged weights"
        )
    if name not in list_optimizers():
        raise InputError(f"optimizer.opt={opt}: timm has no such optimizer; {did_you_mean(name, list_optimizers())}")
    if get_optimizer_info(name).second_order:
        raise InputError(f"optimizer.opt={opt}: needs second derivatives, which are not computed here; give another")
    known = inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters
    for argument in arguments.keys() - known.keys():
        names = known.keys() - {"params", "lr"}
        raise InputError(f"optimizer.{argument}: {opt} has no such argument; {did_you_mean(argument, names)}")
    if "deterministic" in known:  # Kron's draws are else the global generator's, and each process of DDP has its own
        arguments.setdefault("deterministic", True)
    made: Optimizer = create_optimizer_v2(params, name, lr=lr, weight_decay=weight_decay, **arguments)
    return made
