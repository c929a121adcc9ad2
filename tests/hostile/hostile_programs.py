"""Attempts on what reads models and settings: weight files, the command line."""

from __future__ import annotations

import builtins
import copy
import functools
import io
import json
import os
import pickle
import random
import runpy
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
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


class _Calls:
    """Pickles as a call of ``function``, which unpickling would make."""

    def __init__(self, function: Any, arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


def weight_files(chance: random.Random, folder: Path) -> Attempt:
    """A broken or malicious weight file, loaded as evaluation does."""
    kind = chance.choice(
        ["bytes", "bytes", "record", "record", "record", "tensors", "tensors", "call", "archive", "json"]
    )
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
    if kind == "call" and container != "safetensors":
        what, data = _with_a_call(folder, container, chance)
    elif kind == "json" and container == "safetensors":
        entries, what = broken_json(json.loads(beside.read_text(encoding="utf-8")), chance)
        beside.write_bytes(entries)
    elif kind == "archive" and container == "archive":
        what, data = _odd_archive(data, chance)
    elif kind in ("bytes", "call", "json", "archive"):
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
    value = state[name]
    changes: dict[str, Any] = {
        "nan": torch.full_like(value.float(), float("nan")),
        "inf": torch.full_like(value.float(), float("inf")),
        "transposed": value.reshape(1, -1),
        "empty": torch.zeros(0),
        "integers": torch.zeros_like(value, dtype=torch.int64),
        "complex": torch.zeros_like(value, dtype=torch.complex64),
        "expanded": torch.zeros(1).expand(10**9),
        "half": value.half() if value.is_floating_point() else value,
        "scalar": torch.tensor(1.0),
    }
    what = chance.choice([*changes, "removed", "renamed", "hostile", "strange key", "sparse"])
    if what == "removed":
        del state[name]
    elif what == "renamed":
        state[f"{name}.\x1b[2J"] = state.pop(name)
    elif what == "hostile":
        state[name] = chance.choice(HOSTILE_VALUES)
    elif what == "strange key":
        state[chance.choice([1, None, ("a",), "x" * 3000])] = value
    elif what == "sparse":
        state[name] = torch.zeros(3, 3).to_sparse()
    else:
        state[name] = changes[what]
    return f"{name} {what}"


def _with_a_call(folder: Path, container: str, chance: random.Random) -> tuple[str, bytes]:
    """A file that would call something; where it could, it would leave MARKER in the folder."""
    marker = str(folder / "MARKER")
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (os.system, (f"touch {marker}",)),
        (subprocess.Popen, (["touch", marker],)),
        (subprocess.check_output, (["touch", marker],)),
        (builtins.eval, (f"open({marker!r}, 'w')",)),
        (builtins.exec, (f"open({marker!r}, 'w')",)),
        (builtins.open, (marker, "w")),
        (builtins.__import__, ("antigravity",)),
        (builtins.getattr, (os, "system")),
        (os.mkdir, (marker,)),
        (shutil.rmtree, (marker,)),
        (runpy.run_path, (marker,)),
        (torch.load, (marker,)),
        (torch.hub.load, ("owner/repo", "x")),
        (np.load, (marker,)),
        (Path.write_text, (Path(marker), "x")),
        (pickle.loads, (b"cos\nsystem\n(S'true'\ntR.",)),
        (torch.storage._load_from_bytes, (b"cos\nsystem\n(S'true'\ntR.",)),
        (functools.partial, (os.system, f"touch {marker}")),
    ]
    function, arguments = chance.choice(calls)
    malicious = _Calls(function, arguments)
    contents: Any = small_checkpoint()
    place = chance.choice(["beside", "as a tensor", "in the record", "as the whole", "as a key"])
    if place == "as the whole":
        contents = malicious
    else:
        holder, key, value = {
            "beside": (contents, "callbacks", malicious),
            "as a tensor": (contents["state_dict"], "backbone.x", malicious),
            "in the record": (contents[RECORD_KEY]["config"], "data", malicious),
            "as a key": (contents, (malicious,), 1),
        }[place]
        holder[key] = value
    stream = io.BytesIO()
    try:
        torch.save(contents, stream, _use_new_zipfile_serialization=container == "archive")
    except (TypeError, pickle.PicklingError):  # a module is an argument: a sound file is read instead
        torch.save(small_checkpoint(), stream)
    return f"calls {getattr(function, '__qualname__', function)} {place}", stream.getvalue()


def _odd_archive(data: bytes, chance: random.Random) -> tuple[str, bytes]:
    """A zip archive rebuilt as ``torch.save`` would never write it."""
    what = chance.choice(["compressed", "twice", "outside", "two pickles", "no pickle", "huge names", "swapped"])
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(stream, "w") as target:
        entries = [(name, source.read(name)) for name in source.namelist()]
        if what == "swapped":
            entries = [(name, entries[-index - 1][1]) for index, (name, _) in enumerate(entries)]
        for name, content in entries:
            if what == "no pickle" and name.endswith("data.pkl"):
                continue
            method = zipfile.ZIP_DEFLATED if what == "compressed" else zipfile.ZIP_STORED
            target.writestr(f"../../{name}" if what == "outside" else name, content, method)
            if what == "twice" and name.endswith("data.pkl"):
                target.writestr(name[:-1] + "l", content)
        if what == "two pickles":
            target.writestr("other/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
        if what == "huge names":
            target.writestr("x" * 60_000, b"")
    return f"archive {what}", stream.getvalue()
