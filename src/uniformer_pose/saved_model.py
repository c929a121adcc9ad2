"""What a file of ours holds beside the weights, and how a model is rebuilt from it alone.

A checkpoint is Lightning's, plus one entry, ``uniformer_pose``: the network's arguments, the codec, the skeleton, the
normalisation, the data and the composed config, all as plain dicts, lists, strings and numbers. It loads with
``weights_only=True``, and nothing in it is ever imported or called by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from uniformer_pose.config_check import Node, check_config
from uniformer_pose.errors import InputError, one_line
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.skeleton import Skeleton, load_skeleton

RECORD_KEY = "uniformer_pose"
FORMAT = 1

# What building an object from numbers that make no sense may raise, in our code or in torch's.
_WRONG_VALUES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class SavedModel:
    """A trained network and all that is needed to feed it and to read it.

    ``mean`` and ``std`` are RGB on a 0 to 255 scale. ``box_padding`` is the part of the box that a crop shows.
    ``config`` is the composed config of the training, for the record and for defaults such as the data's folder;
    ``versions`` are those of the libraries that wrote it.
    """

    network: PoseNetwork
    codec: HeatmapCodec
    skeleton: Skeleton
    mean: tuple[float, ...]
    std: tuple[float, ...]
    box_padding: float
    config: dict[str, Any]
    versions: dict[str, str]


def saved_record(model: SavedModel) -> dict[str, Any]:
    """The ``uniformer_pose`` entry of a checkpoint: everything but the weights, in plain types."""
    return {
        "format": FORMAT,
        "network": model.network.arguments,
        "codec": model.codec.to_dict(),
        "skeleton": model.skeleton.to_dict(),
        "mean": [float(x) for x in model.mean],
        "std": [float(x) for x in model.std],
        "box_padding": float(model.box_padding),
        "config": model.config,
        # str(): torch.__version__ is of a class of its own, with which the file would not load.
        "versions": {name: str(version) for name, version in model.versions.items()},
    }


def model_of_record(record: Mapping[str, Any], source: str) -> SavedModel:
    """The model that a record describes, its weights still random, in eval mode on the CPU.

    Raises InputError, naming ``source``, for a record of another version or one that makes no sense.
    """
    if record.get("format") != FORMAT:
        raise InputError(
            f"{source}: format {record.get('format')!r}, this version reads {FORMAT}; update uniformer-pose"
        )
    try:
        # Building draws initial weights: the caller's random state is none of their business.
        with torch.random.fork_rng(devices=[]):
            network = PoseNetwork(**record["network"])
        return SavedModel(
            network=network.eval(),
            codec=HeatmapCodec.from_dict(record["codec"]),
            skeleton=Skeleton.from_dict(record["skeleton"], source=source),
            mean=tuple(float(x) for x in record["mean"]),
            std=tuple(float(x) for x in record["std"]),
            box_padding=float(record["box_padding"]),
            config=dict(record["config"]),
            versions=dict(record["versions"]),
        )
    except _WRONG_VALUES as error:
        raise InputError(f"{source}: its {RECORD_KEY!r} entry is damaged ({one_line(error)})") from error


@dataclass
class _Stored:
    data: Node


def data_arguments(model: SavedModel, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``PersonCrops`` for evaluating a saved model: its training's, with ``overrides`` that are not None.

    The codec, the normalisation and the box padding are always the model's own, whatever ``overrides`` say of them:
    with others it would see crops unlike those it was trained on. Raises InputError where ``overrides`` name another
    skeleton than the model's, and where the file holds arguments that ``PersonCrops`` does not take.
    """
    own = {
        "codec": model.codec,
        "skeleton": model.skeleton,
        "mean": model.mean,
        "std": model.std,
        "box_padding": model.box_padding,
    }
    skeleton = overrides.get("skeleton")
    if skeleton is not None and load_skeleton(skeleton) != model.skeleton:
        raise InputError(
            f"data.skeleton={skeleton}: the model was trained with skeleton {model.skeleton.name!r} of "
            f"{model.skeleton.num_keypoints} keypoints, or another version of it; give data of that skeleton"
        )
    stored = model.config.get("data", {})
    if not isinstance(stored, Mapping) or (not stored and overrides.get("root") is None):
        raise InputError("the checkpoint does not say what it was trained on; give data=<one of conf/data>")
    arguments = dict(stored) | {name: value for name, value in overrides.items() if value is not None}
    arguments = {name: value for name, value in arguments.items() if not str(name).startswith("_") and name not in own}
    for name, value in arguments.items():
        if isinstance(value, Mapping):  # nothing of it would be called, but neither is it of any use
            raise InputError(f"the checkpoint's data.{name} is a mapping, not a value; give data.{name}=<value>")
    try:
        check_config({"data": arguments | {"_target_": "uniformer_pose.data.datamodule.PersonCrops"}}, _Stored)
    except InputError as error:
        raise InputError(f"what the checkpoint says of its data cannot be used: {error}") from error
    return arguments | own
