"""A model -> files that other programs read, exactly as it is: safetensors, MMPose's and the original's layouts.

Every file also holds the model's record, so that it loads here with its codec, skeleton and normalisation.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save

from uniformer_pose.errors import InputError
from uniformer_pose.files import write_json, write_whole
from uniformer_pose.saved_model import RECORD_KEY, SavedModel, saved_record
from uniformer_pose.weights.fetch import DEFAULT_FILE
from uniformer_pose.weights.file_contents import WEIGHTS_DIGEST_KEY
from uniformer_pose.weights.layouts import released_layout

ReleasedLayout = Literal["mmpose", "original"]

_ADVICE = "choose another output="


def write_released_layout(model: SavedModel, path: Path, layout: ReleasedLayout) -> None:
    """Write the network as a ``.pth`` file in the layout of a released pose model.

    Raises InputError for a network that the other implementation cannot build: it would load and compute something
    else.
    """
    if model.pose_network is None:
        raise InputError(f"format={layout} is of UniFormer's pose network alone; use format=safetensors")
    arguments = model.pose_network.arguments
    asked = arguments | {"head": arguments["head"]["kind"], "head.visibility": arguments["head"]["visibility"]}
    can_build: dict[str, Any] = {"stem": "patch", "layer_scale": None}
    # MMPose's window attention stops with an AttributeError; the original has no other head.
    can_build |= {"stage3_attention": "global"} if layout == "mmpose" else {"head": "heatmap"}
    can_build["head.visibility"] = False
    foreign = [f"{name}={asked[name]}" for name, value in can_build.items() if asked[name] != value]
    if foreign:
        raise InputError(
            f"format={layout}: that implementation has no {', '.join(foreign)}; use format=safetensors, which keeps "
            "everything"
        )
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()}
    contents = {
        "state_dict": released_layout(tensors, arguments["embed_dims"], layout),
        "meta": {"dataset_name": model.skeleton.name},
        RECORD_KEY: saved_record(model),
    }
    with write_whole(path, advice=_ADVICE) as part:
        torch.save(contents, part)


def save_pretrained(model: SavedModel, folder: str | Path) -> Path:
    """Write ``model.safetensors`` and ``config.json`` into ``folder``; returns the path of the weights.

    The JSON holds the weights' sha256, since safetensors has no checksum; loading compares them.
    """
    weights = Path(folder) / DEFAULT_FILE
    # Copies, because safetensors refuses weights that share memory, such as tied ones.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.network.state_dict().items()}
    content = save(tensors, metadata={"format": "pt"})
    with write_whole(weights, advice=_ADVICE) as part:
        part.write_bytes(content)
    digest = sha256(content).hexdigest()
    config = {"library_name": "uniformer-pose", WEIGHTS_DIGEST_KEY: digest, RECORD_KEY: saved_record(model)}
    write_json(weights.with_name("config.json"), config, advice=_ADVICE)
    return weights
