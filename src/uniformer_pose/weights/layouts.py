"""The contents of a weight file, whatever wrote it -> tensors under this network's names; and the way back.

Layouts, as published by github.com/Sense-X/UniFormer and by MMPose's projects/uniformer:

- MMPose pose model: ``{"state_dict": {"backbone.*", "head.*"}, "meta": ...}``;
- original pose model: the same with ``keypoint_head.*``;
- ImageNet classifier: ``{"model": ...}`` with the backbone's entries unprefixed, beside the classifier's own
  ``norm.*`` and ``head.*``, and ``aux_head.*`` where it was trained with token labels.

A container may be absent, and any of these may have a prefix before every name, such as the ``module.`` of
DataParallel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from uniformer_pose.errors import InputError, printable

Layout = Literal[
    "uniformer-pose model", "MMPose pose model", "original pose model", "ImageNet classifier", "timm classifier"
]

_CONTAINERS = ("state_dict", "model")
# Averages that a file may hold beside the weights, or instead of them.
_EMA_CONTAINERS = ("ema_state_dict", "state_dict_ema", "model_ema", "ema")
# What wrappers put before every name: DataParallel, AveragedModel, LightningModules (ours says network).
_PREFIXES = ("ema_model.", "module.", "network.", "model.", "ema.")
# What those wrappers count beside the weights.
_BOOKKEEPING = frozenset({"n_averaged", "steps", "step", "initted", "decay", "num_updates"})

# Norms behind stages 1 to 3: in every released pose model, read by none (see uniformer.py).
_UNUSED_NORMS = [f"backbone.norm{stage}.{part}" for stage in (1, 2, 3) for part in ("weight", "bias")]
# The classifier ends in a BatchNorm and a linear layer, or two, of its own,
_CLASSIFIER_ENDS = [
    *(f"norm.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    *("head.weight", "head.bias", "aux_head.weight", "aux_head.bias"),
]
# where a pose model has a LayerNorm and the heatmap head.
_NOT_IN_CLASSIFIER = re.compile(r"backbone\.norm4\.(weight|bias)|head\..+")


@dataclass(frozen=True)
class NamedWeights:
    """Tensors under this network's names, and what the file held beside them.

    ``expected_extras`` are names that the layout has and the network has not. ``remarks`` say what was chosen or
    stripped.
    """

    layout: Layout
    tensors: dict[str, Tensor]
    expected_extras: Sequence[str]
    remarks: tuple[str, ...]

    def may_lack(self, name: str) -> bool:
        """Whether a network's entry of this name is not to be expected in a file of this layout."""
        if self.layout == "timm classifier":
            return name.startswith("head.")
        return self.layout == "ImageNet classifier" and _NOT_IN_CLASSIFIER.fullmatch(name) is not None


def named_weights(contents: Mapping[str, Any], *, has_record: bool, as_they_are: bool = False) -> NamedWeights:
    """The weights among a file's contents; ``has_record`` says that this project described its network there.

    ``as_they_are``: that network is no ``PoseNetwork``, so nothing is known of its names.

    Raises InputError when it holds none, or more than one set of them.
    """
    container, tensors = _unwrapped(contents)
    remarks = _remarks_on_averages(contents, container)
    if as_they_are:
        return NamedWeights("uniformer-pose model", tensors, (), tuple(remarks))
    tensors, prefix = _without_common_prefix(tensors)
    if prefix and not has_record:
        remarks.append(f"prefix {prefix} taken off")
    if "patch_embed1.proj.weight" in tensors or "patch_embed1.proj.0.weight" in tensors:
        tensors = {name if name in _CLASSIFIER_ENDS else f"backbone.{name}": tensor for name, tensor in tensors.items()}
        return NamedWeights("ImageNet classifier", tensors, _CLASSIFIER_ENDS, tuple(remarks))
    heads = {name.partition(".")[0] for name in tensors} & {"head", "keypoint_head"}
    if heads == {"keypoint_head"}:  # with both, renaming would drop one: left alone, the second counts as unknown
        tensors = {re.sub(r"^keypoint_head\.", "head.", name): tensor for name, tensor in tensors.items()}
        return NamedWeights("original pose model", tensors, _UNUSED_NORMS, tuple(remarks))
    if has_record and not any(name in tensors for name in _UNUSED_NORMS):
        return NamedWeights("uniformer-pose model", tensors, (), tuple(remarks))
    return NamedWeights("MMPose pose model", tensors, _UNUSED_NORMS, tuple(remarks))


def released_layout(
    weights: Mapping[str, Tensor], embed_dims: Sequence[int], layout: Literal["mmpose", "original"]
) -> dict[str, Tensor]:
    """A network's tensors under the names of a released pose model, complete for a strict load there.

    The norms behind stages 1 to 3, which those implementations have and do not use, are added as identities.
    """
    head = "keypoint_head." if layout == "original" else "head."
    named = {re.sub(r"^head\.", head, name): tensor for name, tensor in weights.items()}
    for name in _UNUSED_NORMS:
        channels = embed_dims[int(name.removeprefix("backbone.norm")[0]) - 1]
        named[name] = torch.ones(channels) if name.endswith("weight") else torch.zeros(channels)
    return named


def shortened(names: Sequence[str], shown: int = 3) -> str:
    """The first names, of a file that may hold anything, and the number of the others."""
    rest = f" and {len(names) - shown} more" if names[shown:] else ""
    return (", ".join(printable(name)[:200] for name in names[:shown]) or "nothing") + rest


def _unwrapped(contents: Mapping[str, Any]) -> tuple[str | None, dict[str, Tensor]]:
    """Name of the container, if any, and name -> tensor; InputError where it is not clear which."""
    containers = [name for name in _CONTAINERS if isinstance(contents.get(name), Mapping)]
    loose = [str(name) for name, value in contents.items() if isinstance(value, Tensor)]
    if not containers and not loose:
        containers = [name for name in _EMA_CONTAINERS if isinstance(contents.get(name), Mapping)][:1]
    if len(containers) + bool(loose) != 1:
        found = [*containers, *([f"{len(loose)} tensors without either"] if loose else [])]
        raise InputError(
            "weights must lie in one place, under 'state_dict', under 'model' or without either; found "
            f"{' and '.join(found) or 'none'}"
        )
    entries = dict(contents[containers[0]]) if containers else dict(contents)
    others = [str(n) for n, entry in entries.items() if not (isinstance(n, str) and isinstance(entry, Tensor))]
    if others:
        raise InputError(f"{len(others)} entries beside the weights are no named tensors ({shortened(others)})")
    return containers[0] if containers else None, entries


def _remarks_on_averages(contents: Mapping[str, Any], container: str | None) -> list[str]:
    """Which other sets of weights were not taken.

    MMEngine's EMA hook and Lightning's WeightAveraging swap the two when they save: ``state_dict`` is the average then.
    """
    others = [name for name in (*_EMA_CONTAINERS, "current_model_state") if isinstance(contents.get(name), Mapping)]
    taken = [f"taken from {container}, its average of the weights"] if container in others else []
    return taken or [f"weights of {container or 'the file itself'}; its {name} was not taken" for name in others]


def _without_common_prefix(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The entries without what wrappers put before every name, and that prefix."""
    whole_prefix = ""
    while tensors:
        weights = {name: tensor for name, tensor in tensors.items() if name not in _BOOKKEEPING}
        prefix = next((p for p in _PREFIXES if weights and all(name.startswith(p) for name in weights)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
        whole_prefix += prefix
    return tensors, whole_prefix
