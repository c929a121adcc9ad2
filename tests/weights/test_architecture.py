"""Names and shapes of a file give the arguments of its network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformer_pose.errors import InputError
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.weights.architecture import network_arguments

TINY: dict[str, Any] = {
    "num_keypoints": 5,
    "depths": [1, 2, 3, 1],
    "embed_dims": [8, 8, 16, 16],
    "head_dim": 8,
    "deconv_channels": [8, 4, 6],
}
Shapes = dict[str, tuple[int, ...]]


def shapes_of(**arguments: Any) -> Shapes:
    with torch.device("meta"):
        network = PoseNetwork(**arguments)
    return {name: tuple(entry.shape) for name, entry in network.state_dict().items()}


def _lists(values: st.SearchStrategy[int], size: int) -> st.SearchStrategy[list[int]]:
    return st.lists(values, min_size=size, max_size=size)


ARGUMENTS = st.fixed_dictionaries(
    {
        "num_keypoints": st.integers(1, 30),
        "depths": _lists(st.integers(1, 4), 4),
        "embed_dims": _lists(st.integers(1, 8).map(lambda quarter: 4 * quarter), 4),
        "mlp_ratio": st.sampled_from([0.5, 1.0, 1.25, 2.0, 2.5, 3.0, 4.0]),
        "deconv_channels": _lists(st.integers(1, 20), 3),
        "stem": st.sampled_from(["patch", "convolution"]),
    }
)


@settings(max_examples=25, deadline=None)
@given(arguments=ARGUMENTS, scale=st.sampled_from([(None, "attention"), (1e-6, "attention"), (1e-6, "all")]))
def test_the_shapes_of_any_network_give_its_arguments_back(arguments: dict[str, Any], scale: tuple[Any, str]) -> None:
    arguments |= {"layer_scale": scale[0], "layer_scale_blocks": scale[1]}
    shapes = shapes_of(**arguments, head_dim=4)
    found = network_arguments(shapes)
    assert found == arguments
    assert json.loads(json.dumps(found)) == found
    backbone = {name: shape for name, shape in shapes.items() if name.startswith("backbone.")}
    without_head = {n: value for n, value in arguments.items() if n not in ("num_keypoints", "deconv_channels")}
    assert network_arguments(backbone) == without_head


@pytest.mark.parametrize("layout", ["mmpose", "original_pose", "imagenet"])
@pytest.mark.parametrize(("size", "depths"), [("s", [3, 4, 8, 3]), ("b", [5, 8, 20, 7])])
def test_the_released_layouts_are_read_as_their_size(
    reference_folder: Path, layout: str, size: str, depths: list[int]
) -> None:
    path = reference_folder / f"checkpoint_layout_{layout}_uniformer_{size}.json"
    released = json.loads(path.read_text(encoding="utf-8"))
    shapes: Shapes = {}
    for name, shape in released.items():
        if layout == "imagenet":
            if not name.startswith(("norm.", "head.")):  # the classifier's end
                shapes[f"backbone.{name}"] = tuple(shape)
        else:
            shapes[name.removeprefix("keypoint_")] = tuple(shape)
    arguments = network_arguments(shapes)
    assert arguments["depths"] == depths
    assert arguments["mlp_ratio"] == 4
    assert arguments.get("num_keypoints") == (None if layout == "imagenet" else 17)


@pytest.mark.parametrize("shape", [(), (0, 0, 0, 0)])
def test_a_deciding_entry_that_is_of_no_use_is_named(shape: tuple[int, ...]) -> None:
    for name in ("backbone.blocks2.0.pos_embed.weight", "head.deconv_layers.3.weight", "head.final_layer.weight"):
        with pytest.raises(InputError, match=f"not a whole UniFormer: {name} is missing"):
            network_arguments(shapes_of(**TINY) | {name: shape})


def test_a_block_number_of_many_digits_is_no_block() -> None:
    shapes = shapes_of(**TINY)
    odd = {f"backbone.blocks3.{'9' * 5000}.norm1.weight": (16,), "backbone.blocks3.03.norm1.weight": (16,)}
    assert network_arguments(shapes | odd) == network_arguments(shapes)
