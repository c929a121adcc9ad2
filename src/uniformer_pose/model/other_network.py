"""A network class from outside this package (docs/your_model.md): what it must do, how a checkpoint describes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from uniformer_pose.config import find_target
from uniformer_pose.errors import WRONG_VALUES, InputError, one_line

NetworkClass = str | Callable[..., nn.Module]
"""A class (or function) that makes a network, or its import path, ``my_package.MyNet``."""


@dataclass(frozen=True)
class OtherNetwork:
    """The import path of a class and its arguments, all numbers, strings, lists and dicts.

    ``path(**arguments)`` has the same parameters each time, and maps normalised RGB (B, 3, H, W) to heatmaps
    (B, num_keypoints, H / stride, W / stride); ``num_keypoints`` is one of the arguments.
    """

    path: str
    arguments: dict[str, Any]

    @classmethod
    def of_config(cls, node: Mapping[str, Any], num_keypoints: int) -> OtherNetwork:
        """The network of a config with ``_target_``; InputError where its arguments are not plain."""
        path = str(node["_target_"])
        arguments = {str(name): value for name, value in node.items() if name not in ("_target_", "_convert_")}
        special = [name for name in arguments if name.startswith("_")] + _nested(arguments)
        if special:
            raise InputError(
                f"model.{special[0]}: a checkpoint describes {path} by its arguments, which must be plain numbers, "
                "strings, lists and mappings; let the class build its parts"
            )
        return cls(path, arguments | {"num_keypoints": num_keypoints})

    def built(self, chosen: NetworkClass) -> nn.Module:
        """The network that the chosen class makes of the arguments, its weights random.

        ``path`` alone is never imported: it may come from a file.
        """
        try:
            make = find_target(chosen) if isinstance(chosen, str) else chosen
        except InputError as error:
            raise InputError(f"{chosen}: cannot be imported ({error}); is it in PYTHONPATH?") from error
        try:
            network = make(**self.arguments)
        except WRONG_VALUES as error:
            raise InputError(f"{chosen}: cannot be built from {self.arguments} ({one_line(error)})") from error
        if not isinstance(network, nn.Module):
            raise InputError(f"{chosen}: makes a {type(network).__name__}, not a torch.nn.Module")
        return network

    def require_interface(self, network: nn.Module, *, height: int, width: int, output_shape: tuple[int, ...]) -> None:
        """InputError unless crops of this size become heatmaps as promised, and the weights can be saved."""
        lazy, state = any(map(is_lazy, network.parameters())), network.state_dict().values()
        if lazy or not all(isinstance(entry, Tensor) for entry in state):
            raise InputError(f"model._target_={self.path}: lazy parameters and state beside tensors cannot be saved")
        training = network.training
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                heatmaps = network.eval()(torch.zeros(1, 3, height, width))
        except Exception as error:
            raise InputError(
                f"model._target_={self.path}: fails for images of shape (1, 3, {height}, {width}) "
                f"({type(error).__name__}: {one_line(error)})"
            ) from error
        finally:
            network.train(training)
        expected = (1, self.arguments["num_keypoints"], *output_shape)
        found = tuple(heatmaps.shape) if isinstance(heatmaps, Tensor) else f"a {type(heatmaps).__name__}"
        if found != expected:
            raise InputError(
                f"model._target_={self.path}: must return a tensor of shape {expected} (1, num_keypoints, then what "
                f"data.codec makes of a keypoint, such as H / stride, W / stride), not {found}"
            )


def _nested(value: Any, key: str = "") -> list[str]:
    """Keys of what is a config with ``_target_`` itself."""
    if isinstance(value, Mapping):
        inner = [found for name, child in value.items() for found in _nested(child, f"{key}.{name}".lstrip("."))]
        return [key] if "_target_" in value else inner
    return [found for child in value for found in _nested(child, key)] if isinstance(value, list) else []
