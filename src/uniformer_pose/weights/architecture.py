"""Parameter names and shapes -> arguments of the ``PoseNetwork`` that has them, and the name of its size.

Only the few entries that decide are read. Whether all others are there and fit is known once the network is
built: then its names and shapes can be compared with the file's, one by one.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from uniformer_pose.errors import InputError
from uniformer_pose.model.network import PoseNetwork

_SIZES = Path(__file__).with_name("model_sizes.yaml")
_STAGES = (1, 2, 3, 4)
_BLOCK = re.compile(r"backbone\.blocks([1-4])\.(0|[1-9]\d{0,5})\.")
_SCALE_OF_CONVOLUTION_BLOCK = re.compile(r"backbone\.blocks[12]\.\d+\.gamma_[12]")
_SCALE_OF_ATTENTION_BLOCK = re.compile(r"backbone\.blocks[34]\.\d+\.gamma_[12]")
# The three transposed convolutions among the layers of the heatmap head.
_DECONVOLUTIONS = tuple(f"head.deconv_layers.{index}.weight" for index in (0, 3, 6))
# What the original's scales start from. Trained scales do not show it, and it matters only before training.
_LAYER_SCALE = 1e-6
# The largest published UniFormer has 0.1e9. A file of a few bytes can claim tensors of any shape.
_MOST_PARAMETERS = 1e9


def network_arguments(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Arguments of the ``PoseNetwork`` whose parameters have these names and shapes, as far as they show them.

    ``shapes`` has this network's names: ``backbone.*`` and, where there is a heatmap head, ``head.*``; buffers
    and the norms that are not built (``backbone.norm1``) may be among them.

    The result has ``depths``, ``embed_dims``, ``mlp_ratio``, ``stem``, ``layer_scale`` (1e-6 where there are
    scales, else None) and ``layer_scale_blocks``; with a head also ``deconv_channels`` and ``num_keypoints``.
    Several ratios can give the same shapes: ``mlp_ratio`` is the plainest of them. ``head_dim``,
    ``layer_norm_eps`` and the attention mode leave no trace in shapes and are not in it.

    Raises InputError for another network, gaps, and sizes that no UniFormer has.
    """
    foreign = [name for name in shapes if not name.startswith(("backbone.", "head."))]
    if foreign:
        raise _refusal(f"it has entries that no pose network has ({_listed(foreign)})")
    if not any(name.startswith(("backbone.patch_embed", "backbone.blocks")) for name in shapes):
        raise _refusal(f"it has no backbone.patch_embed1 to 4 and no backbone.blocks1 to 4, but {_listed(shapes)}")
    stem = _stem(shapes)
    embed_dims = _embed_dims(shapes, stem)
    depths = _depths(shapes)
    hidden = [_mlp_channels(shapes, stage, dim) for stage, dim in zip(_STAGES, embed_dims, strict=True)]
    has_head = any(name.startswith("head.") for name in shapes)
    deconv_channels, num_keypoints = _head_channels(shapes, embed_dims[-1]) if has_head else ([], 0)

    # By far the most of them: the projections and MLPs of the blocks, the head's convolutions.
    of_blocks = sum(depth * dim * 2 * (dim + wide) for depth, dim, wide in zip(depths, embed_dims, hidden, strict=True))
    of_head = sum(16 * before * after for before, after in pairwise([embed_dims[-1], *deconv_channels]))
    of_head += num_keypoints * deconv_channels[-1] if has_head else 0
    if of_blocks + of_head > _MOST_PARAMETERS:
        raise _refusal(
            f"depths={depths}, embed_dims={embed_dims}, MLPs of {hidden}, deconv_channels={deconv_channels} and "
            f"{num_keypoints} keypoints make more than {_MOST_PARAMETERS:.0e} parameters"
        )

    scaled_everywhere = any(map(_SCALE_OF_CONVOLUTION_BLOCK.fullmatch, shapes))
    scaled = scaled_everywhere or any(map(_SCALE_OF_ATTENTION_BLOCK.fullmatch, shapes))
    arguments = {
        "depths": depths,
        "embed_dims": embed_dims,
        "mlp_ratio": _mlp_ratio(embed_dims, hidden),
        "stem": stem,
        "layer_scale": _LAYER_SCALE if scaled else None,
        "layer_scale_blocks": "all" if scaled_everywhere else "attention",
    }
    if has_head:
        arguments |= {"deconv_channels": deconv_channels, "num_keypoints": num_keypoints}
    return arguments


def model_size_name(arguments: Mapping[str, Any]) -> str | None:
    """Name of the published size with these ``PoseNetwork`` arguments, such as ``UniFormer-S``; None for others.

    Only what weights show counts: token-labelled and other weights of a size share its name. Arguments that are
    not given have their default.
    """
    return _size_names().get(_traits(arguments))


@cache
def _size_names() -> dict[tuple[Any, ...], str]:
    sizes = yaml.safe_load(_SIZES.read_text(encoding="utf-8"))
    return {_traits(arguments): name for name, arguments in sizes.items()}


def _traits(arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    defaults = {name: argument.default for name, argument in inspect.signature(PoseNetwork).parameters.items()}
    given = defaults | dict(arguments)
    return (
        tuple(given["depths"]),
        tuple(given["embed_dims"]),
        given["mlp_ratio"],
        given["stem"],
        None if given["layer_scale"] is None else given["layer_scale_blocks"],
    )


def _stem(shapes: Mapping[str, tuple[int, ...]]) -> str:
    begins_with_convolution = [f"backbone.patch_embed{stage}.proj.0.weight" in shapes for stage in _STAGES]
    if len(set(begins_with_convolution)) == 1:
        return "convolution" if begins_with_convolution[0] else "patch"
    if begins_with_convolution == [True, False, False, False]:
        raise _refusal("only its first stage has a convolution stem, as in the lightweight UniFormers XS and XXS")
    stages = [stage for stage, begins in zip(_STAGES, begins_with_convolution, strict=True) if begins]
    raise _refusal(f"only stages {stages} begin with convolutions (backbone.patch_embed*.proj.0.weight)")


def _embed_dims(shapes: Mapping[str, tuple[int, ...]], stem: str) -> list[int]:
    if stem == "patch":
        convolutions = [(f"patch_embed{stage}.proj", 4 if stage == 1 else 2) for stage in _STAGES]
    else:
        names = ("patch_embed1.proj.0", "patch_embed1.proj.3", *(f"patch_embed{stage}.proj.0" for stage in _STAGES[1:]))
        convolutions = [(name, 3) for name in names]
    channels = [3]  # of the image, then of each convolution in turn
    for name, kernel in convolutions:
        channels.append(_channels_out(shapes, f"backbone.{name}.weight", (None, channels[-1], kernel, kernel)))
    return channels[-4:]


def _depths(shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    numbers: dict[int, set[int]] = {stage: set() for stage in _STAGES}
    for block in map(_BLOCK.match, shapes):
        if block:
            numbers[int(block[1])].add(int(block[2]))
    for stage, found in numbers.items():
        if not found:
            raise _refusal(f"stage {stage} has no blocks (backbone.blocks{stage}.0)")
        absent = next((number for number in range(len(found)) if number not in found), None)
        if absent is not None:
            raise _refusal(f"block backbone.blocks{stage}.{absent} is missing, but there is a later one")
    return [len(found) for found in numbers.values()]


def _mlp_channels(shapes: Mapping[str, tuple[int, ...]], stage: int, dim: int) -> int:
    kernel = (1, 1) if stage <= 2 else ()  # convolutions there, linear layers in the attention stages
    return _channels_out(shapes, f"backbone.blocks{stage}.0.mlp.fc1.weight", (None, dim, *kernel))


def _mlp_ratio(embed_dims: Sequence[int], hidden: Sequence[int]) -> float:
    """A ratio with ``int(dim * ratio)`` hidden channels at each stage.

    The quotient where it is the same at all stages. Else the channels have been rounded down, and it is the
    ratio of fewest decimals that explains them.
    """
    quotients = {Fraction(wide, dim) for dim, wide in zip(embed_dims, hidden, strict=True)}
    least = max(quotients)
    # Where dim * ratio rounds to a whole number in floats, only a neighbour of the quotient may explain it.
    nearest = [float(least), math.nextafter(least, math.inf), math.nextafter(least, 0)]
    of_few_decimals: list[float] = [math.ceil(least * 10**decimals) / 10**decimals for decimals in range(16)]
    for ratio in [*nearest, *of_few_decimals] if len(quotients) == 1 else [*of_few_decimals, *nearest]:
        if all(int(dim * ratio) == wide for dim, wide in zip(embed_dims, hidden, strict=True)):
            return ratio
    raise _refusal(f"no one ratio leads from embed_dims={list(embed_dims)} to MLPs of {list(hidden)} channels")


def _head_channels(shapes: Mapping[str, tuple[int, ...]], features: int) -> tuple[list[int], int]:
    deconv_channels: list[int] = []
    for name in _DECONVOLUTIONS:
        before = deconv_channels[-1] if deconv_channels else features
        deconv_channels.append(_channels_out(shapes, name, (before, None, 4, 4)))
    return deconv_channels, _channels_out(shapes, "head.final_layer.weight", (None, deconv_channels[-1], 1, 1))


def _channels_out(shapes: Mapping[str, tuple[int, ...]], name: str, expected: tuple[int | None, ...]) -> int:
    """The number that stands where ``expected`` has its None; InputError if the entry is not of that shape."""
    if name not in shapes:
        raise _refusal(f"{name} is missing")
    shape = tuple(shapes[name])
    fits = len(shape) == len(expected) and all(
        number >= 1 if wanted is None else number == wanted for number, wanted in zip(shape, expected, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if number is None else str(number) for number in expected)
        raise _refusal(f"{name} has shape {list(shape)} and should have [{wanted}]")
    return shape[expected.index(None)]


def _refusal(reason: str) -> InputError:
    return InputError(f"not a whole UniFormer: {reason}; give the weights of a UniFormer pose network or backbone")


def _listed(names: Iterable[str], shown: int = 3) -> str:
    listed = sorted({".".join(name.split(".")[:2]) for name in names})
    rest = len(listed) - shown
    return (", ".join(listed[:shown]) or "nothing") + (f" and {rest} more" if rest > 0 else "")
