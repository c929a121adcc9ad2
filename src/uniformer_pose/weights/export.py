"""A model -> files that other programs read, exactly as it is: safetensors, MMPose's and the original's layouts.

Every file also holds the model's record, so that it loads here with its codec, skeleton and normalisation.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from hashlib import file_digest
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from uniformer_pose.errors import InputError
from uniformer_pose.saved_model import RECORD_KEY, SavedModel, saved_record
from uniformer_pose.weights.file_contents import WEIGHTS_DIGEST_KEY
from uniformer_pose.weights.layouts import released_layout

ReleasedLayout = Literal["mmpose", "original"]

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
"""Both as the Hugging Face hub names them."""


def write_released_layout(model: SavedModel, path: Path, layout: ReleasedLayout) -> None:
    """Write the network as a ``.pth`` file in the layout of a released pose model.

    Raises InputError for a network that the other implementation cannot build: it would load and compute something
    else.
    """
    if model.pose_network is None:
        raise InputError(f"format={layout} is of UniFormer's pose network alone; use format=safetensors")
    arguments = model.pose_network.arguments
    can_build: dict[str, Any] = {"stem": "patch", "layer_scale": None}
    if layout == "mmpose":  # its window attention stops with an AttributeError
        can_build["stage3_attention"] = "global"
    foreign = [name for name, value in can_build.items() if arguments[name] != value]
    if foreign:
        described = ", ".join(f"{name}={arguments[name]}" for name in foreign)
        raise InputError(
            f"format={layout}: that implementation has no {described}; use format=safetensors, which keeps everything"
        )
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()}
    contents = {
        "state_dict": released_layout(tensors, arguments["embed_dims"], layout),
        "meta": {"dataset_name": model.skeleton.name},
        RECORD_KEY: saved_record(model),
    }
    _write_whole(path, lambda temporary: torch.save(contents, temporary))


def save_pretrained(model: SavedModel, folder: str | Path) -> Path:
    """Write ``model.safetensors`` and ``config.json`` into ``folder``; returns the path of the weights.

    The JSON holds the weights' sha256, since safetensors has no checksum; loading compares them.
    """
    folder = Path(folder)
    weights = folder / WEIGHTS_NAME
    # Copies, because safetensors refuses weights that share memory, such as tied ones.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.network.state_dict().items()}
    _write_whole(weights, lambda temporary: save_file(tensors, temporary, metadata={"format": "pt"}))
    with weights.open("rb") as stream:
        digest = file_digest(stream, "sha256").hexdigest()
    config: dict[str, Any] = {
        "library_name": "uniformer-pose",
        WEIGHTS_DIGEST_KEY: digest,
        RECORD_KEY: saved_record(model),
    }
    text = json.dumps(config, indent=1, allow_nan=False) + "\n"
    _write_whole(folder / CONFIG_NAME, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return weights


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside ``path`` and rename, so that nobody ever sees a part; InputError where that is impossible."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        os.close(handle)
        write(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's files are for their owner alone
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another output=") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
