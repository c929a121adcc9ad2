"""A pose network of a few thousand weights, its files in every layout, and models around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.saved_model import SavedModel, saved_record
from uniformer_pose.skeleton import Skeleton, load_skeleton
from weights_by_name import weights_by_name

ARGUMENTS: dict[str, Any] = {
    "num_keypoints": 5,
    "depths": [1, 1, 2, 1],
    "embed_dims": [8, 8, 16, 16],
    "head_dim": 8,
    "deconv_channels": [8, 8, 8],
}
Entries = dict[str, Tensor]


def network(**changes: Any) -> PoseNetwork:
    torch.manual_seed(0)
    return PoseNetwork(**ARGUMENTS | changes)


def own_entries() -> Entries:
    return weights_by_name({name: tuple(entry.shape) for name, entry in network().state_dict().items()})


def mmpose_entries() -> Entries:
    unused = {f"backbone.norm{stage}.{part}": (8,) for stage in (1, 2, 3) for part in ("weight", "bias")}
    return own_entries() | weights_by_name(unused)


def original_entries() -> Entries:
    return {f"keypoint_{name}" if name.startswith("head.") else name: entry for name, entry in mmpose_entries().items()}


def imagenet_entries(*heads: str) -> Entries:
    """A classifier's, with linear layers of these names."""
    backbone = {
        name.removeprefix("backbone."): entry
        for name, entry in own_entries().items()
        if name.startswith("backbone.") and "norm4" not in name
    }
    end: dict[str, tuple[int, ...]] = {f"norm.{p}": (16,) for p in ("weight", "bias", "running_mean", "running_var")}
    for head in heads or ("head",):
        end |= {f"{head}.weight": (10, 16), f"{head}.bias": (10,)}
    return backbone | weights_by_name({**end, "norm.num_batches_tracked": ()})


def saved(contents: Any, folder: Path, name: str = "weights.pth") -> Path:
    torch.save(contents, folder / name)
    return folder / name


def trained_model(skeleton: Skeleton | None = None, **changes: Any) -> SavedModel:
    skeleton = skeleton or load_skeleton("coco_17")
    made = network(num_keypoints=skeleton.num_keypoints, **changes)
    with torch.no_grad():
        made.train()(torch.randn(4, 3, 64, 64))  # BatchNorm's statistics are part of a model
    torch.nn.init.normal_(made.head.final_layer.bias)
    means = (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)
    codec = HeatmapCodec(64, 96, sigma=1.5, method="udp")
    files = {f"{split}_{what}": "there" for split in ("train", "val") for what in ("annotations", "images")}
    data = {"root": "people", "skeleton": "coco_17", "val_boxes": "boxes.json", "eval_batch_size": 7, **files}
    return SavedModel(made.eval(), codec, skeleton, *means, 1.3, {"data": data, "seed": 3}, {"torch": "2"})


def contents_of(model: SavedModel) -> dict[str, Any]:
    """What a checkpoint of the model holds, as Lightning writes it."""
    weights = {f"network.{name}": tensor for name, tensor in model.network.state_dict().items()}
    return {"state_dict": weights, "loops": {}, "uniformer_pose": saved_record(model)}


def checkpoint(folder: Path, skeleton: Skeleton | None = None) -> tuple[Path, SavedModel]:
    model = trained_model(skeleton)
    return saved(contents_of(model), folder, "best.ckpt"), model


def assert_same(loaded: SavedModel, written: SavedModel) -> None:
    ours, theirs = written.network.state_dict(), loaded.network.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert loaded.network.arguments == written.network.arguments
    assert loaded.codec.to_dict() == written.codec.to_dict()
    assert loaded.skeleton == written.skeleton
    assert (loaded.mean, loaded.std, loaded.box_padding) == (written.mean, written.std, written.box_padding)
    assert (loaded.config, loaded.versions) == (written.config, written.versions)


def heatmaps(of: torch.nn.Module) -> Tensor:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        heatmaps: Tensor = of.eval()(image)
    return heatmaps


def refusal(path: Path, load: Callable[[Path], object]) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(InputError) as raised:
        load(path)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message
