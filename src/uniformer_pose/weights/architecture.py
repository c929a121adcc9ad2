"""Parameter names and shapes -> arguments of the ``PoseNetwork`` that has them.

Only the few entries that decide are read. Whether all others are there and fit is known once the network is built: then
its names and shapes are compared with the file's, one by one (``contract``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.codec import Codec
from uniformer_pose.keypoints.simcc_codec import BINS_PER_PIXEL
from uniformer_pose.model.arguments import HeadArguments
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.weights.layouts import shortened

_STAGES = (1, 2, 3, 4)
_BLOCK = re.compile(r"backbone\.blocks([1-4])\.(0|[1-9]\d{0,5})\.")
_SCALE = re.compile(r"backbone\.blocks([1-4])\.\d+\.gamma_[12]")
_DECONVOLUTIONS = (0, 3, 6)  # among the layers of the heatmap head
_VECTOR_HEADS = {"simcc": "head.mlp_head", "rtmcc": "head.cls"}  # how the names of their last layers begin
# What the original's scales start from. Trained scales do not show it, and it matters only before training.
_LAYER_SCALE = 1e-6
_SPARE_VALUES = 1_000_000


def network_arguments(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Arguments of the ``PoseNetwork`` whose parameters have these names and shapes, as far as they show them.

    The result has ``depths``, ``embed_dims``, ``mlp_ratio``, ``stem``, ``layer_scale`` (1e-6 where there are scales,
    else None) and ``layer_scale_blocks``; with a head also ``num_keypoints``, ``deconv_channels`` of one that has them,
    and of another than the plain heatmap head ``head``, ``crop_height`` and ``crop_width``. ``head_dim``,
    ``layer_norm_eps`` and the attention mode leave no trace in shapes and are not in it.

    Raises InputError where one of the deciding entries is missing.
    """

    def size(name: str, axis: int = 0) -> int:
        if len(shapes.get(name, ())) <= axis or shapes[name][axis] < 1:
            raise InputError(
                f"not a whole UniFormer: {name} is missing, or of no use; it has {shortened(list(shapes))}. Give the "
                "weights of a UniFormer pose network or backbone"
            )
        return int(shapes[name][axis])

    blocks = {(int(found[1]), int(found[2])) for found in map(_BLOCK.match, shapes) if found}
    embed_dims = [size(f"backbone.blocks{stage}.0.pos_embed.weight") for stage in _STAGES]
    hidden = [size(f"backbone.blocks{stage}.0.mlp.fc1.weight") for stage in _STAGES]
    scaled = {int(found[1]) for found in map(_SCALE.fullmatch, shapes) if found}
    arguments = {
        "depths": [sum(of == stage for of, _ in blocks) for stage in _STAGES],
        "embed_dims": embed_dims,
        "mlp_ratio": max(wide / dim for wide, dim in zip(hidden, embed_dims, strict=True)),
        "stem": "convolution" if "backbone.patch_embed1.proj.0.weight" in shapes else "patch",
        "layer_scale": _LAYER_SCALE if scaled else None,
        "layer_scale_blocks": "all" if scaled & {1, 2} else "attention",
    }
    if any(name.startswith("head.") for name in shapes):
        arguments |= _head_arguments(shapes, size)
    return arguments


def _head_arguments(shapes: Mapping[str, Sequence[int]], size: Callable[..., int]) -> dict[str, Any]:
    kind = next((kind for kind, name in _VECTOR_HEADS.items() if f"{name}_x.weight" in shapes), "heatmap")
    of_maps = "head.deconv_head." if any(name.startswith("head.deconv_head.") for name in shapes) else "head."
    has_deconvolutions = of_maps != "head." or kind == "heatmap"
    arguments: dict[str, Any] = {}
    if has_deconvolutions:
        names = [f"{of_maps}deconv_layers.{index}.weight" for index in _DECONVOLUTIONS]
        arguments["deconv_channels"] = [size(name, 1) for name in names]
    arguments["num_keypoints"] = size(f"{of_maps}final_layer.weight")
    head: dict[str, Any] = {"visibility": True} if "head.visibility.visible.weight" in shapes else {}
    if kind != "heatmap":
        head |= {"kind": kind, "deconvolutions": has_deconvolutions or kind == "rtmcc"}
        for side, axis in (("crop_height", "y"), ("crop_width", "x")):
            arguments[side] = size(f"{_VECTOR_HEADS[kind]}_{axis}.weight") // BINS_PER_PIXEL
    return arguments | ({"head": head} if head else {})


def require_fillable(make: Callable[..., nn.Module], arguments: Mapping[str, Any], tensors: Collection[Tensor]) -> None:
    """InputError for a network much larger than these tensors: a few digits may ask for all memory there is."""
    layers = sum(arguments.get("depths", ())) + len(arguments.get("deconv_channels", ()))
    if layers <= len(tensors):  # else even counting takes long
        with torch.device("meta"):
            claimed = sum(parameter.numel() for parameter in make(**arguments).parameters())
        if claimed <= 2 * sum(tensor.numel() for tensor in tensors) + _SPARE_VALUES:
            return
    raise InputError("the weights are not of the network that the file itself describes: it is much larger")


def require_output_of(network: PoseNetwork, codec: Codec) -> None:
    """InputError where the head of the network gives something else than the codec decodes, or for other crops."""
    kind = HeadArguments(**network.arguments["head"]).output_kind
    height, width = network.arguments["crop_height"], network.arguments["crop_width"]
    if kind != codec.kind or (height is not None and (height, width) != (codec.height, codec.width)):
        size = "crops of any size" if height is None else f"crops of {height}x{width}"
        raise InputError(
            f"its head gives {kind} output for {size}, and data.codec.method={codec.method} is for {codec.kind} of "
            f"{codec.height}x{codec.width}; give the data= and codec= that it was trained with"
        )
