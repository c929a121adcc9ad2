"""Weights from a file: pose models of MMPose and of the original code, ImageNet classifiers, our own.

Files are read as data only (``weights_only``): one that holds code is refused, never run. Names and shapes
must fit exactly, but for the differences that are known and listed here; anything else would leave part of a
network random without a word.

Layouts, as published by github.com/Sense-X/UniFormer and by MMPose's projects/uniformer:

- MMPose pose model: ``{"state_dict": {"backbone.*", "head.*"}, "meta": ...}``;
- original pose model: the same with ``keypoint_head.*``;
- ImageNet classifier: ``{"model": ...}`` with the backbone's entries unprefixed, beside the classifier's own
  ``norm.*`` and ``head.*``;
- any of these without its container, or with ``module.`` before every name (saved from DataParallel).
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniformer_pose.errors import InputError
from uniformer_pose.model.network import PoseNetwork

_CONTAINERS = ("state_dict", "model")
_CLASSIFIER = "ImageNet classifier"

# Norms behind stages 1 to 3: in every released pose model, read by none (see uniformer.py).
_UNUSED_NORMS = re.compile(r"backbone\.norm[123]\.(weight|bias)")
# The classifier ends in a BatchNorm and a linear layer of its own,
_CLASSIFIER_END = re.compile(r"norm\.(weight|bias|running_mean|running_var|num_batches_tracked)|head\.(weight|bias)")
# where a pose model has a LayerNorm and the heatmap head.
_NOT_IN_CLASSIFIER = re.compile(r"backbone\.norm4\.(weight|bias)|head\..+")


@dataclass(frozen=True)
class LoadReport:
    """What ``load_released_weights`` took from a file; ``str()`` of it is one line for the log.

    ``loaded`` and ``left_untouched`` are names of the network, ``skipped`` names of the file.
    """

    path: Path
    layout: str
    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    left_untouched: tuple[str, ...]

    def __str__(self) -> str:
        line = f"{self.path}: {self.layout}, {len(self.loaded)} entries loaded"
        if self.skipped:
            line += f", {len(self.skipped)} skipped as expected ({_shortened(self.skipped)})"
        if self.left_untouched:
            line += f", {len(self.left_untouched)} left as they were ({_shortened(self.left_untouched)})"
        return line


def load_released_weights(network: PoseNetwork, path: str | Path) -> LoadReport:
    """The weights of a file of any known layout, put into ``network``; the report says what was taken.

    A classifier fills the backbone alone: ``norm4`` and the head keep their values. All else must be there,
    with nothing left over. ``head_dim`` cannot be checked (see ``UniFormer``).

    Raises InputError, and leaves the network as it was, for a file that is missing, damaged or holds more
    than data, and for entries that are missing, unknown, of another shape or not finite.
    """
    path = Path(path)
    layout, entries = _named_as_here(_unwrapped(_read(path), path))
    wanted = network.state_dict()

    expected_extra = _CLASSIFIER_END if layout == _CLASSIFIER else _UNUSED_NORMS
    extra = [name for name in entries if name not in wanted]
    skipped = [name for name in extra if expected_extra.fullmatch(name)]
    absent = [name for name in wanted if name not in entries]
    left_untouched = [name for name in absent if layout == _CLASSIFIER and _NOT_IN_CLASSIFIER.fullmatch(name)]
    loaded = {name: entries[name] for name in wanted if name in entries}

    problems = {
        "missing": [name for name in absent if name not in left_untouched],
        "unknown to the network": [name for name in extra if name not in skipped],
        "of another shape": [
            f"{name}: file {list(entry.shape)}, network {list(wanted[name].shape)}"
            for name, entry in loaded.items()
            if entry.shape != wanted[name].shape
        ],
        "not finite": [name for name, entry in loaded.items() if not torch.isfinite(entry).all()],
    }
    if any(problems.values()):
        found = "; ".join(f"{len(n)} {what} ({_shortened(n)})" for what, n in problems.items() if n)
        raise InputError(
            f"{path}: taken for {layout} weights, but of their entries {found}; check that the file is whole "
            "and belongs to these depths, embed_dims, deconv_channels and num_keypoints"
        )
    network.load_state_dict(loaded, strict=not left_untouched)
    return LoadReport(path, layout, tuple(loaded), tuple(skipped), tuple(left_untouched))


def _read(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"no weights file {path}; give the path of a .pth or .ckpt file")
    try:
        with torch.serialization.safe_globals(_numpy_array_parts()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        blocked = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if blocked:
            raise InputError(
                f"{path}: refused, because loading it would run {blocked[1]}; give a file that holds only "
                "tensors and plain values"
            ) from error
        raise InputError(
            f"{path}: not a readable weights file ({type(error).__name__}); it may be damaged or cut short, "
            "so fetch it again"
        ) from error


def _numpy_array_parts() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What rebuilds a numpy array: MMPose keeps its dataset's colours and sigmas so, beside the weights."""
    numbers = [np.dtype(name) for name in ("uint8", "int64", "float32", "float64")]
    rebuild_array: Any = np.zeros(1).__reduce__()[0]
    rebuild_scalar: Any = np.float64().__reduce__()[0]
    return [
        np.ndarray,
        np.dtype,
        *map(type, numbers),
        rebuild_array,
        rebuild_scalar,
        # The names under which numpy 1 wrote them.
        (rebuild_array, "numpy.core.multiarray._reconstruct"),
        (rebuild_scalar, "numpy.core.multiarray.scalar"),
    ]


def _unwrapped(contents: Any, path: Path) -> dict[str, Tensor]:
    """Name -> tensor, out of the container and without ``module.``; InputError for any other contents."""
    held = contents if isinstance(contents, Mapping) else {}
    containers = [name for name in _CONTAINERS if isinstance(held.get(name), Mapping)]
    loose = [str(name) for name, value in held.items() if isinstance(value, Tensor)]
    if len(containers) + bool(loose) != 1:
        places = [*containers, *([f"{len(loose)} tensors without either"] if loose else [])]
        found = " and ".join(places) or "none"
        raise InputError(
            f"{path}: weights must lie in one place, under 'state_dict', under 'model' or without either; found {found}"
        )
    entries = dict(held[containers[0]]) if containers else dict(held)
    others = [str(n) for n, entry in entries.items() if not (isinstance(n, str) and isinstance(entry, Tensor))]
    if others:
        raise InputError(
            f"{path}: {len(others)} entries beside the weights are no named tensors ({_shortened(others)}); "
            "give a file of names and tensors only"
        )
    if all(name.startswith("module.") for name in entries):
        return {name.removeprefix("module."): entry for name, entry in entries.items()}
    return entries


def _named_as_here(entries: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """Layout, and the entries under this network's names."""
    if "patch_embed1.proj.weight" in entries:
        return _CLASSIFIER, {
            name if _CLASSIFIER_END.fullmatch(name) else f"backbone.{name}": entry for name, entry in entries.items()
        }
    heads = {name.split(".")[0] for name in entries} & {"head", "keypoint_head"}
    # With both in one file, renaming would drop one of them: left alone, the second counts as unknown.
    if heads == {"keypoint_head"}:
        renamed = {re.sub(r"^keypoint_head\.", "head.", name): entry for name, entry in entries.items()}
        return "original pose model", renamed
    return "pose model", entries


def _shortened(names: Sequence[str], shown: int = 3) -> str:
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
