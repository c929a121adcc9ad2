from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from uniformer_pose.errors import InputError
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.weights.architecture import model_size_name, network_arguments

CONF = Path(__file__).resolve().parents[2] / "conf"
TINY: dict[str, Any] = {
    "num_keypoints": 5,
    "depths": [1, 2, 3, 1],
    "embed_dims": [8, 8, 16, 16],
    "head_dim": 8,
    "deconv_channels": [8, 4, 6],
}
NOT_IN_SHAPES = {
    "head_dim",
    "drop_path_rate",
    "stage3_attention",
    "window_size",
    "checkpointed_blocks",
    "layer_norm_eps",
    "frozen_batchnorm",
}
Shapes = dict[str, tuple[int, ...]]


def shapes_of(**arguments: Any) -> Shapes:
    with torch.device("meta"):
        network = PoseNetwork(**arguments)
    return {name: tuple(entry.shape) for name, entry in network.state_dict().items()}


def tiny_shapes(**arguments: Any) -> Shapes:
    return shapes_of(**{**TINY, **arguments})


def refusal(shapes: Shapes) -> str:
    with pytest.raises(InputError) as caught:
        network_arguments(shapes)
    message = str(caught.value)
    assert "\n" not in message
    assert "UniFormer" in message
    return message


# From shapes to arguments and back


@settings(max_examples=25, deadline=None)
@given(
    num_keypoints=st.integers(1, 30),
    depths=st.lists(st.integers(1, 4), min_size=4, max_size=4),
    quarters=st.lists(st.integers(1, 8), min_size=4, max_size=4),
    mlp_ratio=st.sampled_from([0.5, 1.0, 1.25, 2.0, 2.5, 3.0, 4.0]),
    deconv_channels=st.lists(st.integers(1, 20), min_size=3, max_size=3),
    stem=st.sampled_from(["patch", "convolution"]),
    scale=st.sampled_from([(None, "attention"), (1e-6, "attention"), (1e-6, "all")]),
)
def test_the_shapes_of_any_network_give_its_arguments_back(
    num_keypoints: int,
    depths: list[int],
    quarters: list[int],
    mlp_ratio: float,
    deconv_channels: list[int],
    stem: str,
    scale: tuple[float | None, str],
) -> None:
    arguments = {
        "num_keypoints": num_keypoints,
        "depths": depths,
        "embed_dims": [4 * quarter for quarter in quarters],
        "mlp_ratio": mlp_ratio,
        "deconv_channels": deconv_channels,
        "stem": stem,
        "layer_scale": scale[0],
        "layer_scale_blocks": scale[1],
    }
    shapes = shapes_of(**arguments, head_dim=4)
    assert network_arguments(shapes) == arguments
    backbone = {name: shape for name, shape in shapes.items() if name.startswith("backbone.")}
    without_head = {n: value for n, value in arguments.items() if n not in ("num_keypoints", "deconv_channels")}
    assert network_arguments(backbone) == without_head


@settings(max_examples=25, deadline=None)
@given(
    mlp_ratio=st.floats(0.26, 9, allow_nan=False),
    embed_dims=st.lists(st.integers(4, 60), min_size=4, max_size=4),
)
@example(mlp_ratio=3.155333752790061, embed_dims=[625, 397, 238, 369])  # 625 * 3.1552 is below 1972 in floats
@example(mlp_ratio=13 / 6, embed_dims=[169, 225, 402, 288])  # 402 * 13 / 6 is below 871, 288 * 13 / 6 is 624
def test_any_mlp_ratio_is_read_as_one_that_gives_the_same_shapes(mlp_ratio: float, embed_dims: list[int]) -> None:
    arguments = {**TINY, "depths": [1, 1, 1, 1], "embed_dims": embed_dims, "head_dim": 1}
    shapes = shapes_of(**arguments, mlp_ratio=mlp_ratio)
    assert shapes_of(**{**arguments, **network_arguments(shapes)}) == shapes


def test_an_mlp_ratio_is_the_quotient_of_channels_where_all_stages_agree() -> None:
    assert network_arguments(tiny_shapes(mlp_ratio=1.25))["mlp_ratio"] == 1.25
    assert network_arguments(tiny_shapes(mlp_ratio=1.3))["mlp_ratio"] == 1.25  # 10 and 20 channels either way


def test_an_mlp_ratio_behind_rounded_channels_has_the_fewest_decimals_that_fit() -> None:
    shapes = tiny_shapes(embed_dims=[64, 128, 320, 512], mlp_ratio=3.3)
    assert shapes["backbone.blocks1.0.mlp.fc1.weight"][0] == 211
    assert network_arguments(shapes)["mlp_ratio"] == 3.3


def test_what_shapes_do_not_show_is_not_made_up() -> None:
    arguments = network_arguments(tiny_shapes())
    assert set(arguments) == set(PoseNetwork(**TINY).arguments) - NOT_IN_SHAPES
    assert network_arguments(tiny_shapes(head_dim=4, stage3_attention="hybrid", layer_norm_eps=1e-3)) == arguments


def test_arguments_are_plain_values_even_from_torch_sizes() -> None:
    with torch.device("meta"):
        entries = PoseNetwork(**TINY).state_dict()
    arguments = network_arguments({name: entry.shape for name, entry in entries.items()})
    assert {type(number) for name in ("depths", "embed_dims", "deconv_channels") for number in arguments[name]} == {int}
    assert json.loads(json.dumps(arguments)) == arguments


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
    assert model_size_name(arguments) == f"UniFormer-{size.upper()}"


# Names of sizes


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("uniformer_s", "UniFormer-S"),
        ("uniformer_s_plus", "UniFormer-S-dagger"),
        ("uniformer_b", "UniFormer-B"),
        ("uniformer_b_ls", "UniFormer-B-LS"),
        ("uniformer_l_ls", "UniFormer-L-LS"),
        ("uniformer_xxs", None),
    ],
)
def test_the_model_configs_are_the_sizes_of_that_name(model: str, name: str | None) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("train", overrides=[f"model={model}"]).model)
    known = inspect.signature(PoseNetwork).parameters
    with torch.device("meta"):
        network = PoseNetwork(num_keypoints=17, **{name: config[name] for name in known if name in config})
    shapes = {n: tuple(entry.shape) for n, entry in network.state_dict().items()}
    assert model_size_name(network_arguments(shapes)) == name
    assert model_size_name(network.arguments) == name


def test_every_published_size_has_a_model_config() -> None:
    text = (Path(network_arguments.__code__.co_filename).parent / "model_sizes.yaml").read_text(encoding="utf-8")
    assert len(OmegaConf.create(text)) == len(list((CONF / "model").glob("uniformer_*.yaml"))) - 1  # our own xxs


@pytest.mark.parametrize(
    "change",
    [
        {"depths": [3, 4, 8, 4]},
        {"embed_dims": [64, 128, 320, 640]},
        {"mlp_ratio": 3.0},
        {"stem": "convolution"},
        {"layer_scale": 1e-6},
    ],
)
def test_one_argument_off_is_another_size_without_a_name(change: dict[str, Any]) -> None:
    assert model_size_name({"depths": [3, 4, 8, 3]}) == "UniFormer-S"
    assert model_size_name({"depths": [3, 4, 8, 3], **change}) is None


def test_what_shapes_do_not_show_has_no_part_in_the_name() -> None:
    assert model_size_name({"depths": (5, 8, 20, 7), "head_dim": 32, "layer_scale_blocks": "all"}) == "UniFormer-B"
    assert model_size_name({"depths": [5, 8, 20, 7], "layer_scale": 0.1, "num_keypoints": 3}) == "UniFormer-B-LS"


# Other networks, and parts of one


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], "no backbone.patch_embed1 to 4 and no backbone.blocks1 to 4, but nothing"),
        (["backbone.conv1.weight", "backbone.layer1.0.conv1.weight"], "but backbone.conv1, backbone.layer1"),
        (["backbone.cls_token", "backbone.layers.0.ln1.weight", "head.final_layer.weight"], "backbone.cls_token"),
        (["conv1.weight", "layer1.0.conv1.weight", "fc.weight"], "(conv1.weight, fc.weight, layer1.0)"),
        (["backbone.patch_embed.projection.weight"], "backbone.patch_embed1.proj.weight is missing"),
        (["backbone.blocks.0.attn.qkv.weight"], "backbone.patch_embed1.proj.weight is missing"),
    ],
)
def test_another_network_is_told_by_what_it_has_instead(names: list[str], told: str) -> None:
    assert told in refusal(dict.fromkeys(names, (64, 3, 7, 7)))


def test_a_detector_on_a_uniformer_is_refused_by_its_other_parts() -> None:
    detector = {"neck.lateral_convs.0.conv.weight": (256, 64, 1, 1), "rpn_head.rpn_conv.weight": (256, 256, 3, 3)}
    message = refusal(tiny_shapes() | detector)
    assert "no pose network has (neck.lateral_convs, rpn_head.rpn_conv)" in message


def test_a_classifier_s_end_is_not_taken_for_a_heatmap_head() -> None:
    backbone = {name: shape for name, shape in tiny_shapes().items() if name.startswith("backbone.")}
    assert "head.deconv_layers.0.weight is missing" in refusal(backbone | {"head.weight": (1000, 16)})


def test_a_lightweight_uniformer_is_recognised_by_its_mixed_stem() -> None:
    convolution = tiny_shapes(stem="convolution")
    first = {name: shape for name, shape in convolution.items() if "patch_embed1" in name}
    rest = {name: shape for name, shape in tiny_shapes().items() if "patch_embed1" not in name}
    assert "lightweight UniFormers XS and XXS" in refusal(first | rest)


def test_a_network_for_video_is_refused_by_its_third_axis() -> None:
    shapes = tiny_shapes() | {"backbone.patch_embed1.proj.weight": (8, 3, 3, 4, 4)}
    assert "patch_embed1.proj.weight has shape [8, 3, 3, 4, 4] and should have [any, 3, 4, 4]" in refusal(shapes)


@pytest.mark.parametrize(
    "name",
    [
        "backbone.patch_embed1.proj.weight",
        "backbone.patch_embed3.proj.weight",
        "backbone.blocks2.0.mlp.fc1.weight",
        "backbone.blocks4.0.mlp.fc1.weight",
        "head.deconv_layers.3.weight",
        "head.final_layer.weight",
    ],
)
def test_a_deciding_entry_that_is_missing_is_named(name: str) -> None:
    shapes = tiny_shapes()
    del shapes[name]
    assert f"{name} is missing" in refusal(shapes)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("backbone.patch_embed1.proj.3.weight", "backbone.patch_embed1.proj.3.weight is missing"),
        ("backbone.patch_embed1.proj.0.weight", "only stages [2, 3, 4] begin with convolutions"),
        ("backbone.patch_embed3.proj.0.weight", "only stages [1, 2, 4] begin with convolutions"),
    ],
)
def test_a_missing_part_of_a_convolution_stem_is_named(name: str, told: str) -> None:
    shapes = tiny_shapes(stem="convolution")
    del shapes[name]
    assert told in refusal(shapes)


def test_an_entry_that_decides_nothing_may_be_missing() -> None:
    shapes = tiny_shapes()
    expected = network_arguments(shapes)
    for name in ("backbone.blocks3.1.attn.qkv.weight", "backbone.norm4.weight", "head.deconv_layers.1.weight"):
        del shapes[name]
    assert network_arguments(shapes) == expected


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ("blocks3.1.", "block backbone.blocks3.1 is missing, but there is a later one"),
        ("blocks3.0.", "block backbone.blocks3.0 is missing"),
        ("blocks2.", "stage 2 has no blocks (backbone.blocks2.0)"),
        ("patch_embed", "backbone.patch_embed1.proj.weight is missing"),
    ],
)
def test_a_gap_is_named(block: str, told: str) -> None:
    assert told in refusal({n: shape for n, shape in tiny_shapes().items() if not n.startswith(f"backbone.{block}")})


@pytest.mark.parametrize(
    ("name", "shape", "told"),
    [
        ("backbone.patch_embed2.proj.weight", (8, 9, 2, 2), "[8, 9, 2, 2] and should have [any, 8, 2, 2]"),
        ("backbone.patch_embed2.proj.weight", (8, 8, 16, 16), "should have [any, 8, 2, 2]"),
        ("backbone.patch_embed2.proj.weight", (), "has shape [] and should have"),
        ("backbone.patch_embed1.proj.weight", (0, 3, 4, 4), "has shape [0, 3, 4, 4]"),
        ("backbone.patch_embed1.proj.weight", (-8, 3, 4, 4), "has shape [-8, 3, 4, 4]"),
        ("backbone.blocks1.0.mlp.fc1.weight", (32, 8), "should have [any, 8, 1, 1]"),
        ("backbone.blocks3.0.mlp.fc1.weight", (64, 16, 1, 1), "should have [any, 16]"),
        ("backbone.blocks3.0.mlp.fc1.weight", (65, 16), "no one ratio"),
        ("head.deconv_layers.0.weight", (8, 16, 4, 4), "should have [16, any, 4, 4]"),
        ("head.final_layer.weight", (5, 6, 3, 3), "should have [any, 6, 1, 1]"),
    ],
)
def test_a_shape_that_no_uniformer_has_is_told_beside_the_expected_one(
    name: str, shape: tuple[int, ...], told: str
) -> None:
    assert told in refusal(tiny_shapes() | {name: shape})


@pytest.mark.parametrize(
    "absurd",
    [
        {"backbone.blocks3.0.mlp.fc1.weight": (10**9, 16)},
        {"backbone.blocks3.0.mlp.fc1.weight": (10**400, 16)},
        {"head.final_layer.weight": (10**12, 6, 1, 1)},
        {"head.deconv_layers.3.weight": (8, 10**8, 4, 4), "head.deconv_layers.6.weight": (10**8, 6, 4, 4)},
        {f"backbone.blocks3.{index}.norm1.weight": (16,) for index in range(500_000)},
    ],
)
def test_an_absurd_size_is_refused_before_anything_is_built(absurd: Shapes) -> None:
    refusal(tiny_shapes() | absurd)


def test_a_block_number_of_many_digits_is_no_block() -> None:
    shapes = tiny_shapes()
    odd = {f"backbone.blocks3.{'9' * 5000}.norm1.weight": (16,), "backbone.blocks3.03.norm1.weight": (16,)}
    assert network_arguments(shapes | odd) == network_arguments(shapes)
