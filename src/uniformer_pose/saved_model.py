"""What a file of ours holds beside the weights, and how a model is rebuilt from it alone.

A checkpoint is Lightning's, plus one entry, ``uniformer_pose``: the network's arguments, the codec, the skeleton, the
normalisation, the data and the composed config, all as plain dicts, lists, strings and numbers. It loads with
``weights_only=True``, and nothing in it is ever imported or called by name.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any

import torch
from torch import nn

from uniformer_pose.config import Keys, Node, check_config
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.errors import InputError, one_line, printable
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.model.other_network import NetworkClass, OtherNetwork
from uniformer_pose.skeleton import Skeleton, load_skeleton

RECORD_KEY = "uniformer_pose"
FORMAT = 1
_OWN = "it stays as the model was trained"
_NOT_ITS_WEIGHTS = "the weights are not of the network that the file itself describes"

# What building an object from numbers that make no sense may raise, in our code or in torch's.
_WRONG_VALUES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class SavedModel:
    """A trained network and all that is needed to feed it and to read it.

    ``mean`` and ``std`` are RGB on a 0 to 255 scale. ``box_padding`` is the part of the box that a crop shows.
    ``config`` is the composed config of the training, for the record and for defaults such as the data's folder;
    ``versions`` are those of the libraries that wrote it. ``other_network`` describes a network that is no
    ``PoseNetwork``.
    """

    network: nn.Module
    codec: HeatmapCodec
    skeleton: Skeleton
    mean: tuple[float, ...]
    std: tuple[float, ...]
    box_padding: float
    config: dict[str, Any]
    versions: dict[str, str]
    other_network: OtherNetwork | None = None

    @property
    def crop_spec(self) -> CropSpec:
        """The crops that the network takes."""
        return CropSpec(self.codec.height, self.codec.width, self.box_padding, self.codec.unbiased)

    @property
    def pose_network(self) -> PoseNetwork | None:
        """The network, if it is this package's own and not another class, be it derived from it."""
        return self.network if type(self.network) is PoseNetwork else None


def saved_record(model: SavedModel) -> dict[str, Any]:
    """The ``uniformer_pose`` entry of a checkpoint: everything but the weights, in plain types."""
    other, own = model.other_network, model.pose_network
    if own is None and other is None:
        raise InputError(f"{type(model.network).__name__} cannot be saved: give SavedModel(..., other_network=...)")
    return {
        "format": FORMAT,
        **({"network": own.arguments} if own is not None else {}),
        **({"network": other.arguments, "network_class": other.path} if own is None and other is not None else {}),
        "codec": model.codec.to_dict(),
        "skeleton": model.skeleton.to_dict(),
        "mean": [float(x) for x in model.mean],
        "std": [float(x) for x in model.std],
        "box_padding": float(model.box_padding),
        "config": model.config,
        # str(): torch.__version__ is of a class of its own, with which the file would not load.
        "versions": {name: str(version) for name, version in model.versions.items()},
    }


def model_of_record(
    record: Mapping[str, Any],
    source: str,
    tensor_sizes: Sequence[int] | None = None,
    *,
    skeleton: Skeleton | None = None,
    model_class: NetworkClass | None = None,
) -> SavedModel:
    """The model that a record describes, its weights still random, in eval mode on the CPU.

    ``tensor_sizes`` are how many values each tensor beside the record has: a much larger network is not built. With
    ``skeleton`` the network is for these keypoints, which must be among the record's; its mirror pairs stay.
    ``model_class`` is what the caller trusts to build a network from outside this package; a record never does. Raises
    InputError, naming ``source``, for a record of another version or one that makes no sense.
    """
    if record.get("format") != FORMAT:
        raise InputError(
            f"{source}: format {record.get('format')!r}, this version reads {FORMAT}; update uniformer-pose"
        )
    other = _other_network(record, source, model_class)
    # Building draws initial weights: the caller's random state is none of their business.
    with torch.random.fork_rng(devices=[]):
        network = None if other is None or model_class is None else other.built(model_class)
    try:
        if network is None:
            if tensor_sizes is not None:
                _require_no_larger(record["network"], tensor_sizes)
            resized = {} if skeleton is None else {"num_keypoints": skeleton.num_keypoints}
            with torch.random.fork_rng(devices=[]):
                network = PoseNetwork(**dict(record["network"]) | resized)
        model = SavedModel(
            network=network.eval(),
            codec=HeatmapCodec.from_dict(record["codec"]),
            skeleton=Skeleton.from_dict(record["skeleton"], source=source),
            mean=tuple(float(x) for x in record["mean"]),
            std=tuple(float(x) for x in record["std"]),
            box_padding=float(record["box_padding"]),
            config=dict(record["config"]),
            versions=dict(record["versions"]),
            other_network=other,
        )
        _require_usable(model)
    except _WRONG_VALUES as error:
        raise InputError(f"{source}: its {RECORD_KEY!r} entry is damaged ({one_line(error)})") from error
    return model if skeleton is None else replace(model, skeleton=skeleton.paired_as(model.skeleton))


def _other_network(record: Mapping[str, Any], source: str, model_class: NetworkClass | None) -> OtherNetwork | None:
    """The network of a record that is from outside this package; InputError unless the caller named its class."""
    path, arguments = record.get("network_class"), record.get("network")
    if path is None and model_class is not None:
        raise InputError(f"{source}: its network is this package's own; leave model_class out")
    if path is None:
        return None
    if model_class is None:
        raise InputError(
            f"{source}: weights of {printable(str(path))[:200]}, which no file may import; if you trust that class, "
            f"name it: model_class={printable(str(path))[:200]}"
        )
    return OtherNetwork(str(path), dict(arguments) if isinstance(arguments, Mapping) else {})


def require_same_keypoints(record: object, skeleton: Skeleton) -> None:
    """InputError unless the checkpoint of this record, to continue from, has the keypoints of ``skeleton`` in place."""
    fields = record.get("skeleton") if isinstance(record, Mapping) else None
    trained = None if fields is None else Skeleton.from_dict(fields, source="the checkpoint")
    if trained is not None and not trained.is_in_order_of(skeleton.keypoint_names):
        raise InputError(
            f"the checkpoint to continue from is of other keypoints, or the same in another order, than skeleton "
            f"{skeleton.name!r:.80}; start from it by model.pretrained=<file>, which matches them by name"
        )


def _require_no_larger(network: Mapping[str, Any], tensor_sizes: Sequence[int]) -> None:
    """InputError for a network that could not come from these tensors: a few digits may ask for all memory there is.

    Counted are the matrices, which are nearly all of a network; what is no number here, the network itself refuses.
    """
    arguments = {name: p.default for name, p in inspect.signature(PoseNetwork).parameters.items()} | dict(network)
    depths, dims, deconv = arguments["depths"], arguments["embed_dims"], arguments["deconv_channels"]
    if sum(depths) + len(dims) + len(deconv) > len(tensor_sizes):
        raise InputError(f"{_NOT_ITS_WEIGHTS}: more layers than its {len(tensor_sizes)} tensors can fill")
    in_blocks = sum(depth * 2 * arguments["mlp_ratio"] * dim**2 for depth, dim in zip(depths, dims, strict=True))
    between = sum(4 * before * after for before, after in pairwise(dims))
    in_head = sum(16 * before * after for before, after in pairwise([dims[-1], *deconv]))
    claimed = in_blocks + between + in_head + arguments["num_keypoints"] * deconv[-1]
    if not claimed <= 2 * sum(tensor_sizes) + 1_000_000:
        raise InputError(f"{_NOT_ITS_WEIGHTS}: {claimed:.3g} weights or more, and there are {sum(tensor_sizes)}")


def _require_usable(model: SavedModel) -> None:
    """ValueError for numbers with which every crop would be NaN, or empty."""
    if len(model.mean) != 3 or len(model.std) != 3 or not all(map(math.isfinite, (*model.mean, *model.std))):
        raise ValueError("mean and std must be three finite numbers each")
    if not (all(x > 0 for x in model.std) and 0 < model.box_padding < math.inf):
        raise ValueError("std and box_padding must be above 0")


@dataclass
class _Stored:
    data: Annotated[Node, Keys(set_by_program=dict.fromkeys(("codec", "skeleton", "mean", "std", "box_padding"), _OWN))]


_ONLY_FOR_TRAINING = {"max_images", "prepared", "on_bad_image"}
"""What a training may leave out or put up with; an evaluation does so only where it is asked to."""


def data_arguments(model: SavedModel, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``PersonCrops`` for evaluating a saved model: its training's, with ``overrides`` that are not None.

    Limits of the training are left behind (``_ONLY_FOR_TRAINING``); and so is all of it where ``overrides`` are a whole
    data config, with a root and a codec.

    The codec, the normalisation and the box padding are always the model's own, whatever ``overrides`` say of them:
    with others it would see crops unlike those it was trained on. Raises InputError where ``overrides`` name a skeleton
    with other keypoints or sigmas than the model's, and where the file holds arguments that ``PersonCrops`` does not
    take.
    """
    own = {
        "codec": model.codec,
        "skeleton": model.skeleton,
        "mean": model.mean,
        "std": model.std,
        "box_padding": model.box_padding,
    }
    skeleton = overrides.get("skeleton")
    if skeleton is not None and not model.skeleton.measures_as(load_skeleton(skeleton)):
        raise InputError(
            f"data.skeleton={skeleton}: other keypoints, order or sigmas than those of the model's skeleton "
            f"{model.skeleton.name!r}; load the model for it, load_model(..., skeleton={str(skeleton)!r})"
        )
    is_whole = overrides.get("codec") is not None and overrides.get("root") is not None
    stored = {} if is_whole else model.config.get("data", {})
    if not isinstance(stored, Mapping) or (not stored and overrides.get("root") is None):
        raise InputError("the checkpoint does not say what it was trained on; give data=<one of conf/data>")
    arguments = {name: value for name, value in stored.items() if name not in _ONLY_FOR_TRAINING}
    arguments |= {name: value for name, value in overrides.items() if value is not None}
    arguments = {name: value for name, value in arguments.items() if not str(name).startswith("_") and name not in own}
    for name, value in arguments.items():
        if isinstance(value, Mapping):  # nothing of it would be called, but neither is it of any use
            raise InputError(f"the checkpoint's data.{name} is a mapping, not a value; give data.{name}=<value>")
    try:
        check_config({"data": arguments | {"_target_": "uniformer_pose.data.datamodule.PersonCrops"}}, _Stored)
    except InputError as error:
        raise InputError(f"what the checkpoint says of its data cannot be used: {error}") from error
    return arguments | own
