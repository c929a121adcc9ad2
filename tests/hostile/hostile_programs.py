"""Attempts on what reads models and settings: weight files, the command line."""

from __future__ import annotations

import copy
import functools
import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # torch imports it for the first network, and it writes the environment: not what is watched for
from hostile_data import SOUND
from mutations import HOSTILE_VALUES, broken_bytes, broken_json, broken_value
from safetensors.torch import save as save_safetensors
from torch import Tensor
from watching import Attempt

from programs import composed
from uniformer_pose.config_parts import TrainConfig
from uniformer_pose.entry_point import checked_config
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.saved_model import RECORD_KEY, SavedModel, saved_record
from uniformer_pose.skeleton import load_skeleton
from uniformer_pose.weights.loading import load_model


def weight_files(chance: random.Random, folder: Path) -> Attempt:
    """A broken or malicious weight file, loaded as evaluation does."""
    kind = chance.choice(["bytes", "record", "record", "tensors", "archive", "json"])
    container = chance.choice(["archive", "old", "safetensors"])
    file = folder / ("model.safetensors" if container == "safetensors" else "model.ckpt")
    beside = folder / "model.json"
    beside.unlink(missing_ok=True)
    contents, what = small_checkpoint(), ""
    if kind == "record":
        contents[RECORD_KEY], what = broken_value(contents[RECORD_KEY], chance)
    elif kind == "tensors":
        what = _break_tensors(contents["state_dict"], chance)
    data = _saved(contents, container, beside)
    if kind == "json" and container == "safetensors":
        entries, what = broken_json(json.loads(beside.read_text(encoding="utf-8")), chance)
        beside.write_bytes(entries)
    elif kind == "archive" and container == "archive":
        what, data = _odd_archive(data, chance)
    elif kind in ("bytes", "json", "archive"):
        data, what = broken_bytes(data, chance)
    file.write_bytes(data)
    return Attempt(f"{container} {kind} {what}", (file.name, beside.name), lambda: _load_sound_model(file))


def _load_sound_model(file: Path) -> None:
    before = torch.random.get_rng_state()
    model, report = load_model(file)
    assert str(report).isprintable()
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.isfinite(value).all() for value in model.network.state_dict().values())
    assert model.network.arguments["num_keypoints"] == model.skeleton.num_keypoints
    assert np.isfinite([*model.mean, *model.std]).all()
    assert min(model.std) > 0
    assert 0 < model.box_padding < float("inf")
    with torch.inference_mode():
        assert model.network(torch.zeros(1, 3, 64, 64)).shape == (1, model.skeleton.num_keypoints, 16, 16)


_MORE_TEXTS = ["", "a b", "x" * 3000, "{_target_:os.system,command:'touch MARKER'}"]


def command_lines(chance: random.Random, _folder: Path) -> Attempt:
    """Arguments of src/train.py, up to the checked config."""
    arguments, keys = [], [*SOUND["keys_of_settings"].split(), ""]
    texts = [*SOUND["values_of_settings"].split(" "), *_MORE_TEXTS]
    for _ in range(chance.choice([1, 1, 2])):
        key, value = chance.choice(keys), chance.choice(texts)
        prefix = chance.choice(["", "", "", "", "+", "++", "~"])
        arguments.append(f"{prefix}{key}={value}" if chance.random() < 0.95 else f"{prefix}{key}")
    checked_config(composed("train"), TrainConfig)  # imports the targets, which takes seconds, before any is timed

    def run() -> None:
        config = checked_config(composed("train", *arguments), TrainConfig)
        assert config.keys() >= {"model", "data", "trainer", "seed"}  # targets are the user's own choice

    named = [part for argument in arguments for part in argument.lstrip("+~").partition("=")[0].split(".") if part]
    return Attempt(repr(arguments)[:200], (*named, *arguments, "_target_", "argument"), run)


@functools.cache
def _sound_checkpoint() -> dict[str, Any]:
    skeleton = load_skeleton("coco_17")
    small = {"depths": [1, 1, 1, 1], "embed_dims": [8, 8, 8, 8], "head_dim": 4, "deconv_channels": [4, 4, 4]}
    network = PoseNetwork(skeleton.num_keypoints, **small)
    codec, mean, std = HeatmapCodec(height=64, width=64, sigma=1.5), (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)
    config = {"data": {"root": "data", "batch_size": 8}}
    model = SavedModel(network, codec, skeleton, mean, std, 1.25, config, {"torch": "2"})
    return {"state_dict": dict(network.state_dict()), RECORD_KEY: saved_record(model)}


def small_checkpoint() -> dict[str, Any]:
    """A sound checkpoint of a network that is as small as can be."""
    return copy.deepcopy(_sound_checkpoint())


def _saved(contents: dict[str, Any], container: str, beside: Path) -> bytes:
    stream = io.BytesIO()
    if container != "safetensors":
        try:
            torch.save(contents, stream, _use_new_zipfile_serialization=container == "archive")
        except (OverflowError, ValueError):  # what a pickle cannot hold is no input
            return b""
        return stream.getvalue()
    tensors = {
        str(name): value.clone().contiguous()
        for name, value in contents["state_dict"].items()
        if isinstance(value, Tensor) and not value.is_sparse and value.numel() < 10**6
    }
    data = save_safetensors(tensors)
    entries = {name: value for name, value in contents.items() if name != "state_dict"}
    beside.write_text(json.dumps(entries, default=str), encoding="utf-8")
    return data


def _break_tensors(state: dict[str, Any], chance: random.Random) -> str:
    name = chance.choice(list(state))
    value = state.pop(name)
    changes: dict[str, Any] = {
        "nan": torch.full_like(value.float(), float("nan")),
        "transposed": value.reshape(1, -1),
        "integers": torch.zeros_like(value, dtype=torch.int64),
        "complex": torch.zeros_like(value, dtype=torch.complex64),
        "expanded": torch.zeros(1).expand(10**9),
        "sparse": torch.zeros(3, 3).to_sparse(),
        "hostile": chance.choice(HOSTILE_VALUES),
    }
    what = chance.choice([*changes, "removed", "renamed", "strange key"])
    if what == "renamed":
        state[f"{name}.\x1b[2J"] = value
    elif what == "strange key":
        state[chance.choice([1, None, ("a",), "x" * 3000])] = value
    elif what != "removed":
        state[name] = changes[what]
    return f"{name} {what}"


def _odd_archive(data: bytes, chance: random.Random) -> tuple[str, bytes]:
    """A zip archive rebuilt as ``torch.save`` would never write it."""
    what = chance.choice(["compressed", "outside", "two pickles", "no pickle", "swapped"])
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(stream, "w") as target:
        names = [name for name in source.namelist() if what != "no pickle" or not name.endswith("data.pkl")]
        for name, other in zip(names, reversed(names), strict=True):
            method = zipfile.ZIP_DEFLATED if what == "compressed" else zipfile.ZIP_STORED
            content = source.read(other if what == "swapped" else name)
            target.writestr(f"../../{name}" if what == "outside" else name, content, method)
        if what == "two pickles":
            target.writestr("other/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
    return f"archive {what}", stream.getvalue()
