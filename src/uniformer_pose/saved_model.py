"""What a checkpoint of ours holds beside the weights, and how a model is rebuilt from the file alone.

A checkpoint is Lightning's, plus one entry, ``uniformer_pose``: the network's arguments, the codec, the skeleton, the
normalisation, the data and the composed config, all as plain dicts, lists, strings and numbers. It loads with
``weights_only=True``, and nothing in it is ever imported or called by name.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from uniformer_pose.config_check import Node, check_config
from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.skeleton import Skeleton, load_skeleton

RECORD_KEY = "uniformer_pose"
FORMAT = 1
NETWORK_PREFIX = "network."

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


def load_saved_model(path: str | Path) -> SavedModel:
    """The model of one of our checkpoints, in eval mode on the CPU.

    Raises InputError when the file is missing, damaged, holds anything but plain data and tensors, was not written
    by this project, or does not match the network it describes.
    """
    checkpoint = read_checkpoint(path)
    record = checkpoint.get(RECORD_KEY)
    if not isinstance(record, Mapping):
        raise InputError(f"{path}: has no {RECORD_KEY!r} entry, so it is no checkpoint of this project's train.py")
    if record.get("format") != FORMAT:
        raise InputError(f"{path}: format {record.get('format')!r}, this version reads {FORMAT}; update uniformer-pose")
    try:
        # Building draws initial weights: the caller's random state is none of their business.
        with torch.random.fork_rng(devices=[]):
            network = PoseNetwork(**record["network"])
        model = SavedModel(
            network=network,
            codec=HeatmapCodec.from_dict(record["codec"]),
            skeleton=Skeleton.from_dict(record["skeleton"], source=str(path)),
            mean=tuple(float(x) for x in record["mean"]),
            std=tuple(float(x) for x in record["std"]),
            box_padding=float(record["box_padding"]),
            config=dict(record["config"]),
            versions=dict(record["versions"]),
        )
    except _WRONG_VALUES as error:
        raise InputError(f"{path}: its {RECORD_KEY!r} entry is damaged ({_one_line(error)})") from error
    weights = {
        name.removeprefix(NETWORK_PREFIX): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if isinstance(name, str) and name.startswith(NETWORK_PREFIX)
    }
    try:
        network.load_state_dict(weights)
    except _WRONG_VALUES as error:
        raise InputError(f"{path}: weights do not match the network it describes ({_one_line(error)})") from error
    network.eval()
    return model


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint file, tensors on the CPU; it cannot run code.

    Every byte is checked against the archive's checksums first: torch itself reads a file with a flipped bit
    without a word.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}; give ckpt_path=<file>, as train.py prints it at the end")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile raises nearly anything on a damaged file
        raise InputError(
            f"{path}: not a whole checkpoint ({_one_line(error)}); use an older one or copy it again"
        ) from error
    if damaged is not None:
        raise InputError(f"{path}: damaged at {damaged!r} (checksum); use an older checkpoint or copy it again")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: holds objects other than tensors and plain data, which could run code, so it is not loaded"
        ) from error
    except Exception as error:  # and so does torch on an archive that is none of its own
        raise InputError(f"{path}: not a checkpoint ({_one_line(error)})") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), Mapping):
        raise InputError(f"{path}: holds no state_dict, so it is no training checkpoint")
    return checkpoint


def _one_line(error: BaseException) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split()) if not isinstance(error, InputError) else str(error)
    return text if len(text) <= 300 else text[:300] + " ..."


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
    stored = model.config.get("data")
    if not isinstance(stored, Mapping):
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
