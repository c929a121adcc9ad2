"""Groups of a network's parameters that are trained at rates of their own, or without weight decay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from timm.models import group_parameters
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn
from torch.optim import Optimizer

from uniformer_pose.errors import InputError
from uniformer_pose.ranges import LayerDecay, Positive


@dataclass(frozen=True)
class ParameterGroups:
    """How a network's parameters are divided; by default not at all.

    - ``decay_norms_and_biases``: false leaves parameters of one dimension without weight decay, and those that the
      network's ``no_weight_decay()`` names (patterns, as in timm).
    - ``layer_decay``: the rate of each layer is this times that of the layer behind it; the head has the whole rate
      (BEiT, arXiv 2106.08254). The network's ``group_matcher(coarse=False)`` says which layers there are, as in timm.
    - ``head_lr_scale``: the rate of the network's ``head`` is multiplied by this.

    A rate stands in its group, since torch's schedulers do not read ``lr_scale``, which timm's do.
    """

    decay_norms_and_biases: bool = True
    layer_decay: LayerDecay | None = None
    head_lr_scale: Positive | None = None

    @property
    def have_rates(self) -> bool:
        """Whether parts of the network have rates of their own."""
        return self.layer_decay is not None or self.head_lr_scale is not None

    def of(self, network: nn.Module, rate: float, weight_decay: float) -> list[Any]:
        """The trainable parameters, or groups of them, as an optimizer takes them; the head's come last.

        Raises InputError where the network does not say what its layers or its head are.
        """
        if self.decay_norms_and_biases and not self.have_rates:
            return [parameter for parameter in network.parameters() if parameter.requires_grad]
        groups = self._by_layer_and_decay(network, weight_decay)
        if not self.have_rates:
            return groups
        scaled = [{"lr_scale": 1.0} | group for group in groups]
        if self.head_lr_scale is not None:
            scaled = _with_head(scaled, network, self.head_lr_scale)
        return [group | {"lr": rate * group["lr_scale"]} for group in scaled]

    def _by_layer_and_decay(self, network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        without, names = not self.decay_norms_and_biases, getattr(network, "no_weight_decay", tuple)
        decays: dict[str, Any] = {
            "weight_decay": weight_decay,
            "weight_decay_exclude_1d": without,
            "no_weight_decay_list": names() if without else (),
        }
        if self.layer_decay is None:
            return list(param_groups_weight_decay(network, **decays))
        _require_layers(network, self.layer_decay)
        return list(param_groups_layer_decay(network, layer_decay=self.layer_decay, **decays))


def learning_rates(optimizer: Optimizer) -> dict[str, float]:
    """The rate where the schedule stands; where layers have their own, also the first one's and the head's."""
    first, last = optimizer.param_groups[0], optimizer.param_groups[-1]
    rates = {"train/learning_rate": first["lr"] / first.get("lr_scale", 1.0)}
    if "lr_scale" in first:
        rates |= {"train/learning_rate_first_layer": first["lr"], "train/learning_rate_head": last["lr"]}
    return rates


def table_of_rates(network: nn.Module, optimizer: Optimizer, rate: float) -> str:
    """A line for each rate, without a schedule: its share of ``rate``, itself, the largest modules that all have it."""
    scale_of = {id(parameter): group["lr_scale"] for group in optimizer.param_groups for parameter in group["params"]}
    scales = {name: scale_of[id(value)] for name, value in network.named_parameters() if id(value) in scale_of}
    inside: dict[str, set[float]] = defaultdict(set)  # of each module, from the outermost on, and of each parameter
    for name, scale in scales.items():
        for module in accumulate(name.split("."), "{}.{}".format):
            inside[module].add(scale)
    found: dict[float, dict[str, None]] = defaultdict(dict)
    for name, scale in scales.items():
        modules = accumulate(name.split("."), "{}.{}".format)
        found[scale][next(module for module in modules if len(inside[module]) == 1)] = None
    rows = [f"{scale:9.4g} {rate * scale:10.3g}  {', '.join(modules)}" for scale, modules in found.items()]
    return "\n".join(["    share       rate  modules", *rows])


def _require_layers(network: nn.Module, layer_decay: float) -> None:
    name, matcher = type(network).__name__, getattr(network, "group_matcher", None)
    if matcher is None:
        raise InputError(
            f"optimizer.layer_decay={layer_decay}: {name} does not say what its layers are; leave it out, or give the "
            "class timm's group_matcher(coarse=False)"
        )
    if not any(group_parameters(network, matcher(coarse=False), reverse=True).values()):
        raise InputError(
            f"optimizer.layer_decay={layer_decay}: the group_matcher of {name} finds one layer only; correct its "
            "patterns, or leave layer_decay out"
        )


def _with_head(groups: Sequence[dict[str, Any]], network: nn.Module, scale: float) -> list[dict[str, Any]]:
    """Each group divided into what is before the head, and the head's."""
    head = getattr(network, "head", None)
    if not isinstance(head, nn.Module):
        raise InputError(
            f"optimizer.head_lr_scale={scale}: {type(network).__name__} has no part named head; leave it out, or name "
            "the head so"
        )
    of_head = {id(parameter) for parameter in head.parameters()}
    return [
        group | {"params": part, "lr_scale": group["lr_scale"] * factor}
        for is_head, factor in ((False, 1.0), (True, scale))
        for group in groups
        if (part := [parameter for parameter in group["params"] if (id(parameter) in of_head) == is_head])
    ]
