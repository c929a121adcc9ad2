"""Named tensors of a file -> a network that has exactly these, or a sentence that says what does not fit.

Names and shapes must fit, but for the differences that are known for each layout; anything else would leave part of a
network random without a word. What was taken, and what was assumed, is one line (``LoadReport``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from uniformer_pose.errors import InputError
from uniformer_pose.weights.file_contents import FileContents
from uniformer_pose.weights.layouts import NamedWeights, shortened

_ADVICE = "check that the file is whole, and choose the model= and data.skeleton= that it was made for"
_HEAD_ADVICE = (
    "check that the file is whole, and choose the head= and data.skeleton= that it was made for, or start a training "
    "without its head: model.pretrained_head=false"
)


@dataclass(frozen=True)
class LoadReport:
    """What was taken from a file; ``str()`` of it is one line for the log.

    ``loaded`` and ``left_untouched`` are names of the network, ``skipped`` names of the file.
    """

    path: Path
    layout: str
    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    left_untouched: tuple[str, ...]
    remarks: tuple[str, ...]

    def __str__(self) -> str:
        expected = len(self.loaded) + len(self.left_untouched)
        parts = [f"{self.path}: {self.layout}, {len(self.loaded)} of {expected} tensors loaded"]
        if self.skipped:
            parts.append(f"{len(self.skipped)} skipped as expected ({shortened(self.skipped)})")
        if self.left_untouched:
            parts.append(f"{len(self.left_untouched)} left as they were ({shortened(self.left_untouched)})")
        return ", ".join([*parts, *self.remarks])


def fill(
    network: nn.Module, file: FileContents, weights: NamedWeights, *, may_stay: tuple[str, ...] = ()
) -> LoadReport:
    """Load the ``weights`` of a file into a network; what it lacks of parts ``may_stay``, such as ``head.``, stays.

    Raises InputError, and leaves the network as it was, unless every entry of both is accounted for.
    """
    wanted, tensors = network.state_dict(), weights.tensors
    absent = [name for name in wanted if name not in tensors]
    left = [name for name in absent if weights.may_lack(name) or name.startswith(may_stay)]
    extra = [name for name in tensors if name not in wanted]
    skipped = [name for name in extra if name in weights.expected_extras]
    loaded = {name: tensors[name] for name in wanted if name in tensors}
    problems = {
        "missing": [name for name in absent if name not in left],
        "unknown to the network": [name for name in extra if name not in skipped],
        **_misfits(loaded, wanted),
    }
    if any(problems.values()):
        listed = "; ".join(f"{len(names)} {what} ({shortened(names)})" for what, names in problems.items() if names)
        of_head = all(name.startswith("head.") for names in problems.values() for name in names)
        advice = _HEAD_ADVICE if of_head else _ADVICE
        raise InputError(f"taken for {weights.layout} weights, but of their entries {listed}; {advice}")
    network.load_state_dict(loaded, strict=not left)
    return LoadReport(
        path=file.path,
        layout=weights.layout,
        loaded=tuple(loaded),
        skipped=tuple(skipped),
        left_untouched=tuple(left),
        remarks=weights.remarks if file.is_checked else (*weights.remarks, "without a checksum to check it by"),
    )


def _misfits(loaded: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, list[str]]:
    fitting = {name: tensor for name, tensor in loaded.items() if tensor.shape == wanted[name].shape}
    return {
        "of another shape": [
            f"{name}: file {list(loaded[name].shape)}, network {list(wanted[name].shape)}"
            for name in loaded
            if name not in fitting
        ],
        "of another type": [
            f"{name}: {tensor.dtype}"
            for name, tensor in loaded.items()
            if tensor.is_floating_point() != wanted[name].is_floating_point()
        ],
        "not finite": not_finite(fitting),
    }


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """The names of those that hold a NaN or an infinity."""
    return [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]
