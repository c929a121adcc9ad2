from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.saved_model import SavedModel, saved_record
from uniformer_pose.skeleton import load_skeleton
from uniformer_pose.weights.loading import load_into, load_model, load_network, require_resumable
from weights_by_name import weight_by_name, weights_by_name

ARGUMENTS: dict[str, Any] = {
    "num_keypoints": 5,
    "depths": [1, 1, 2, 1],
    "embed_dims": [8, 8, 16, 16],
    "head_dim": 8,
    "deconv_channels": [8, 8, 8],
}
DEPTHS = {"s": [3, 4, 8, 3], "b": [5, 8, 20, 7]}
Entries = dict[str, Tensor]


def network() -> PoseNetwork:
    torch.manual_seed(0)
    return PoseNetwork(**ARGUMENTS)


def own_entries() -> Entries:
    return weights_by_name({name: tuple(entry.shape) for name, entry in network().state_dict().items()})


def mmpose_entries() -> Entries:
    unused = {f"backbone.norm{stage}.{part}": (8,) for stage in (1, 2, 3) for part in ("weight", "bias")}
    return own_entries() | weights_by_name(unused)


def original_entries() -> Entries:
    return {f"keypoint_{name}" if name.startswith("head.") else name: entry for name, entry in mmpose_entries().items()}


def imagenet_entries() -> Entries:
    backbone = {
        name.removeprefix("backbone."): entry
        for name, entry in own_entries().items()
        if name.startswith("backbone.") and "norm4" not in name
    }
    end = {f"norm.{part}": (16,) for part in ("weight", "bias", "running_mean", "running_var")}
    return backbone | weights_by_name(
        {**end, "norm.num_batches_tracked": (), "head.weight": (10, 16), "head.bias": (10,)}
    )


def saved(contents: Any, folder: Path) -> Path:
    path = folder / "weights.pth"
    torch.save(contents, path)
    return path


def unchanged(loaded_into: PoseNetwork) -> bool:
    fresh = network().state_dict()
    return all(torch.equal(entry, fresh[name]) for name, entry in loaded_into.state_dict().items())


# Files that load


@pytest.mark.parametrize(
    ("contents", "layout", "skipped"),
    [
        (lambda: own_entries(), "MMPose pose model", 0),
        (lambda: {"state_dict": own_entries(), "epoch": 3}, "MMPose pose model", 0),
        (lambda: {"state_dict": mmpose_entries(), "meta": {"epoch": 210}}, "MMPose pose model", 6),
        (lambda: {"state_dict": original_entries(), "meta": {"epoch": 210}}, "original pose model", 6),
        (lambda: {f"module.{n}": e for n, e in mmpose_entries().items()}, "MMPose pose model", 6),
        (
            lambda: {"state_dict": {f"module.{n}": e for n, e in original_entries().items()}},
            "original pose model",
            6,
        ),
    ],
    ids=["own", "own in container", "mmpose", "original", "module prefix", "module prefix in container"],
)
def test_a_pose_model_of_any_layout_fills_the_whole_network(
    tmp_path: Path, contents: Callable[[], Any], layout: str, skipped: int
) -> None:
    target = network()
    report = load_into(target, saved(contents(), tmp_path), skeleton=None)
    for name, entry in own_entries().items():
        assert torch.equal(target.state_dict()[name], entry), name
    assert report.layout == layout
    assert len(report.loaded) == len(own_entries())
    assert len(report.skipped) == skipped
    assert report.left_untouched == ()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_imagenet_classifier_fills_the_backbone_and_leaves_the_rest(tmp_path: Path, prefix: str) -> None:
    target, fresh = network(), network().state_dict()
    entries = imagenet_entries()
    path = saved({"model": {prefix + name: entry for name, entry in entries.items()}}, tmp_path)
    report = load_into(target, path, skeleton=None)
    for name, entry in target.state_dict().items():
        untouched = name.startswith(("head.", "backbone.norm4."))
        expected = fresh[name] if untouched else entries[name.removeprefix("backbone.")]
        assert torch.equal(entry, expected), name
        assert (name in report.left_untouched) == untouched
        assert (name in report.loaded) != untouched
    assert len(report.skipped) == 7
    assert "head.weight" in report.skipped


def test_the_report_is_one_line_with_counts(tmp_path: Path) -> None:
    path = saved({"model": imagenet_entries()}, tmp_path)
    line = str(load_into(network(), path, skeleton=None))
    assert "\n" not in line
    assert line == (
        f"{path}: a UniFormer of no published size, ImageNet classifier (torch archive, checked by the archive's "
        "checksums): 102 of 124 tensors loaded, 7 skipped as expected (norm.weight, norm.bias, norm.running_mean and 4 "
        "more), 22 left as they were (backbone.norm4.weight, backbone.norm4.bias, head.deconv_layers.0.weight and 19 "
        "more), head_dim 8 assumed: the file does not say it"
    )


def test_numpy_arrays_beside_the_weights_are_data(tmp_path: Path) -> None:
    description = {
        "sigmas": np.array([0.026, 0.025], dtype=np.float32),
        "keypoint_colors": np.array([[0, 255, 0]], dtype=np.uint8),
        "flip_indices": np.array([0, 2, 1]),
        "padding": np.float64(1.25),
    }
    path = saved({"state_dict": mmpose_entries(), "meta": {"dataset_meta": description}}, tmp_path)
    assert len(load_into(network(), path, skeleton=None).skipped) == 6


def test_half_precision_weights_load_into_single_precision(tmp_path: Path) -> None:
    halved = {n: e.half() if e.is_floating_point() else e for n, e in own_entries().items()}
    target = network()
    load_into(target, saved(halved, tmp_path), skeleton=None)
    weight = target.backbone.patch_embed1.proj.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, halved["backbone.patch_embed1.proj.weight"].float())


# Files that do not


def without(entries: Entries, name: str) -> Entries:
    assert name in entries
    return {key: entry for key, entry in entries.items() if key != name}


def half_prefixed(entries: Entries) -> Entries:
    return {f"module.{name}" if i % 2 else name: entry for i, (name, entry) in enumerate(entries.items())}


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (
            lambda: {"state_dict": without(mmpose_entries(), "backbone.blocks1.0.attn.weight")},
            r"1 missing \(backbone.blocks1.0.attn.weight\)",
        ),
        (
            lambda: {"state_dict": without(original_entries(), "keypoint_head.final_layer.bias")},
            r"original pose model weights.*1 missing \(head.final_layer.bias\)",
        ),
        (
            lambda: {"model": without(imagenet_entries(), "patch_embed3.norm.bias")},
            r"ImageNet classifier weights.*1 missing \(backbone.patch_embed3.norm.bias\)",
        ),
        (
            lambda: {"state_dict": without(mmpose_entries(), "backbone.norm4.bias")},
            r"1 missing \(backbone.norm4.bias\)",
        ),
        (
            lambda: {"state_dict": {**mmpose_entries(), "backbone.blocks1.0.gamma_1": torch.ones(8)}},
            r"holds a UniFormer \(layer_scale 1e-06\), but the network is one of layer_scale None",
        ),
        (
            lambda: {"model": {**imagenet_entries(), "norm5.weight": torch.ones(8)}},
            r"1 unknown to the network \(backbone.norm5.weight\)",
        ),
        (
            lambda: {"state_dict": {**mmpose_entries(), "head.final_layer.bias": torch.ones(17)}},
            r"1 of another shape \(head.final_layer.bias: file \[17\], network \[5\]\)",
        ),
        (
            lambda: {"state_dict": mmpose_entries() | {"head.final_layer.bias": torch.full((5,), torch.nan)}},
            r"1 not finite \(head.final_layer.bias\)",
        ),
        (
            lambda: {"state_dict": {**original_entries(), "head.final_layer.bias": torch.ones(5)}},
            r"unknown to the network \(keypoint_head.deconv_layers.0.weight",
        ),
        (
            lambda: {"state_dict": half_prefixed(mmpose_entries())},
            r"missing \(.*unknown to the network \(module\.backbone",
        ),
        (
            lambda: {
                "state_dict": {n: e for n, e in mmpose_entries().items() if n.startswith("backbone")},
                **{n: e for n, e in mmpose_entries().items() if n.startswith("head")},
            },
            r"must lie in one place.*found state_dict and 20 tensors without",
        ),
        (
            lambda: {"state_dict": mmpose_entries(), "model": imagenet_entries()},
            r"must lie in one place.*found state_dict and model",
        ),
        (lambda: {"state_dict": {"model": mmpose_entries()}}, r"1 entries beside .* no named tensors \(model\)"),
        (lambda: {"state_dict": {**mmpose_entries(), "step": 3}}, r"no named tensors \(step\)"),
        (lambda: {"state_dict": {**mmpose_entries(), 3: torch.ones(1)}}, r"no named tensors \(3\)"),
        (lambda: {"epoch": 3}, "found none"),
        (lambda: {"state_dict": {}}, "not a whole UniFormer: it has no backbone.patch_embed1"),
        (lambda: without(mmpose_entries(), "backbone.norm2.bias"), r"1 missing \(backbone.norm2.bias\)"),
        (
            lambda: {**own_entries(), "head.final_layer.bias": torch.ones(5, dtype=torch.int64)},
            r"1 of another type \(head.final_layer.bias: torch.int64\)",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name_and_changes_nothing(
    tmp_path: Path, contents: Callable[[], Any], message: str
) -> None:
    path, target = saved(contents(), tmp_path), network()
    with pytest.raises(InputError, match=message) as caught:
        load_into(target, path, skeleton=None)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert unchanged(target)


def test_another_model_size_is_refused_by_its_numbers(tmp_path: Path) -> None:
    path = saved(PoseNetwork(**{**ARGUMENTS, "depths": [1, 2, 3, 1]}).state_dict(), tmp_path)
    with pytest.raises(InputError) as caught:
        load_into(network(), path, skeleton=None)
    assert str(caught.value) == (
        f"{path}: holds a UniFormer (depths [1, 2, 3, 1]), but the network is one of depths [1, 1, 2, 1]; check that "
        "the file is whole, and choose the model= and data.skeleton= that it was made for"
    )


# What comes with a wrapper


@pytest.mark.parametrize("prefix", ["model.", "ema.", "ema_model.module.", "module.network.", "network."])
def test_what_a_wrapper_put_before_every_name_is_taken_off(tmp_path: Path, prefix: str) -> None:
    target = network()
    entries = {prefix + name: entry for name, entry in mmpose_entries().items()}
    report = load_into(target, saved({"state_dict": entries}, tmp_path), skeleton=None)
    assert torch.equal(target.state_dict()["head.final_layer.bias"], own_entries()["head.final_layer.bias"])
    assert f"prefix {prefix} taken off" in str(report)


def test_the_counter_of_an_averaged_model_is_no_weight(tmp_path: Path) -> None:
    entries = {f"module.{name}": entry for name, entry in own_entries().items()}
    path = saved({"state_dict": {**entries, "n_averaged": torch.tensor(7)}}, tmp_path)
    assert len(load_into(network(), path, skeleton=None).loaded) == len(own_entries())


@pytest.mark.parametrize("container", ["ema_state_dict", "state_dict_ema", "model_ema"])
def test_an_average_alone_is_taken_and_beside_the_weights_it_is_not(tmp_path: Path, container: str) -> None:
    average = {name: entry + 1 for name, entry in own_entries().items()}
    target = network()
    report = load_into(target, saved({container: average}, tmp_path), skeleton=None)
    assert torch.equal(target.state_dict()["head.final_layer.bias"], average["head.final_layer.bias"])
    assert f"taken from {container}" in str(report)
    report = load_into(target, saved({"state_dict": own_entries(), container: average}, tmp_path), skeleton=None)
    assert torch.equal(target.state_dict()["head.final_layer.bias"], own_entries()["head.final_layer.bias"])
    assert f"its {container} was not taken" in str(report)


@pytest.mark.parametrize("counter", [{"steps": torch.tensor(100)}, {}])
def test_of_mmengines_ema_files_the_averages_are_what_is_loaded_and_that_is_said(
    tmp_path: Path, counter: dict[str, Tensor]
) -> None:
    trained_on = {f"module.{name}": entry + 1 for name, entry in mmpose_entries().items()} | counter
    file = {"state_dict": mmpose_entries(), "ema_state_dict": trained_on, "meta": {"epoch": 3}, "message_hub": {}}
    target = network()
    line = str(load_into(target, saved(file, tmp_path), skeleton=None))
    assert torch.equal(target.state_dict()["head.final_layer.bias"], own_entries()["head.final_layer.bias"])
    assert "its average of the weights (EMA)" in line
    assert "ema_state_dict was not taken" in line


def test_of_our_own_ema_checkpoints_the_averages_are_what_is_loaded_and_that_is_said(tmp_path: Path) -> None:
    path, _ = own_checkpoint(tmp_path)
    contents = torch.load(path, weights_only=True)
    contents["current_model_state"] = {name: entry + 1 for name, entry in contents["state_dict"].items()}
    torch.save(contents, path)
    line = str(load_model(path)[1])
    assert "its average of the weights (EMA)" in line
    assert "current_model_state was not taken" in line


def test_digits_in_a_name_that_are_no_digest_are_said(tmp_path: Path) -> None:
    path = saved(own_entries(), tmp_path).rename(tmp_path / "best-3f2a9c1d.pth")
    assert "3f2a9c1d in its name is not its sha256" in str(load_into(network(), path, skeleton=None))


def test_a_file_under_a_released_ones_name_is_held_to_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "top_down_256x192_global_small-d4a7fdac_20230724.pth"
    saved(own_entries(), tmp_path).rename(path)
    with pytest.raises(InputError, match=r"damaged or altered: .*d4a7fdac.*fetch it again"):
        load_into(network(), path, skeleton=None)


# The network from the file alone


def test_a_file_of_any_layout_becomes_the_network_it_holds(tmp_path: Path) -> None:
    lines: list[str] = []
    for contents in (own_entries(), {"state_dict": mmpose_entries()}, {"state_dict": original_entries()}):
        path = saved(contents, tmp_path)
        loaded = load_network(path, head_dim=8, announce=lines.append)
        assert not loaded.training
        assert loaded.arguments["depths"] == ARGUMENTS["depths"]
        assert loaded.arguments["num_keypoints"] == 5
        for name, entry in own_entries().items():
            assert torch.equal(loaded.state_dict()[name], entry), name
    assert len(lines) == 3
    assert all("124 of 124 tensors loaded" in line and "\n" not in line for line in lines)


def test_loading_prints_its_one_line_unless_told_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(own_entries(), tmp_path)
    load_network(path, head_dim=8)
    assert capsys.readouterr().out.count("\n") == 1
    load_network(path, head_dim=8, announce=lambda line: None)
    assert capsys.readouterr().out == ""


def test_loading_leaves_the_random_state_alone(tmp_path: Path) -> None:
    path = saved(own_entries(), tmp_path)
    before = torch.random.get_rng_state()
    load_network(path, head_dim=8)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_classifier_has_no_heatmaps_unless_a_new_head_is_asked_for(tmp_path: Path) -> None:
    path = saved({"model": imagenet_entries()}, tmp_path)
    with pytest.raises(InputError, match=r"ImageNet classifier, which has no heatmap head; train one on it with model"):
        load_network(path)
    lines: list[str] = []
    loaded = load_network(path, num_keypoints=3, head_dim=8, announce=lines.append)
    assert loaded(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 8, 8)
    assert "22 left as they were (backbone.norm4.weight" in lines[0]


def test_a_detectors_checkpoint_is_no_uniformer(tmp_path: Path) -> None:
    path = saved({"state_dict": {"backbone.layer1.0.conv1.weight": torch.ones(4, 4, 3, 3)}}, tmp_path)
    for load in (load_network, lambda address: load_into(network(), address, skeleton=None), load_model):
        with pytest.raises(InputError, match=r"not a whole UniFormer: .*backbone.layer1") as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_a_pose_model_that_does_not_say_its_crop_size_needs_one(tmp_path: Path) -> None:
    entries = PoseNetwork(**{**ARGUMENTS, "num_keypoints": 17}).state_dict()
    path = saved(entries, tmp_path)
    with pytest.raises(
        InputError, match=r"does not say at what crop size it was trained; give data=<one of conf/data>"
    ):
        load_model(path, head_dim=8)
    codec = HeatmapCodec(height=64, width=96, sigma=2.0)
    model, _report = load_model(path, codec=codec, head_dim=8)
    assert model.codec is codec
    assert model.skeleton.name == "coco_17"
    assert (model.mean, model.box_padding) == ((123.675, 116.28, 103.53), 1.25)


def test_other_keypoints_than_cocos_cannot_be_guessed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has 5 keypoints, but does not say which"):
        load_model(saved(own_entries(), tmp_path), codec=HeatmapCodec(64, 64, sigma=2.0), head_dim=8)


def test_the_head_can_be_left_out_for_other_keypoints(tmp_path: Path) -> None:
    target = PoseNetwork(**{**ARGUMENTS, "num_keypoints": 3})
    fresh_head = target.head.state_dict()["final_layer.weight"].clone()
    path = saved({"state_dict": mmpose_entries()}, tmp_path)
    with pytest.raises(InputError, match=r"2 of another shape \(head.final_layer"):
        load_into(target, path, skeleton=None)
    report = load_into(target, path, skeleton=None, with_head=False)
    assert torch.equal(target.head.state_dict()["final_layer.weight"], fresh_head)
    assert torch.equal(target.backbone.norm4.weight, mmpose_entries()["backbone.norm4.weight"])
    assert "its head of 20 tensors left out as asked" in str(report)


# Which head_dim a file needs


def test_an_assumed_head_dim_is_said(tmp_path: Path) -> None:
    lines: list[str] = []
    entries = PoseNetwork(5, depths=[1, 1, 1, 1]).state_dict()
    load_network(saved(entries, tmp_path), announce=lines.append)
    assert "head_dim 64 assumed: the file does not say it" in lines[0]


def test_the_shapes_alone_do_not_tell_head_dims_apart_but_the_results_differ(tmp_path: Path) -> None:
    path = saved(own_entries(), tmp_path)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        of_8 = load_network(path, head_dim=8, announce=len)(image)
        of_4 = load_network(path, head_dim=4, announce=len)(image)
    assert not torch.allclose(of_8, of_4, rtol=1e-2)


TOKEN_LABELLED = {**ARGUMENTS, "embed_dims": [8, 8, 64, 64]}


def token_labelled_file(folder: Path, name: str) -> Path:
    entries = {
        key.removeprefix("backbone."): entry
        for key, entry in PoseNetwork(**TOKEN_LABELLED).state_dict().items()
        if key.startswith("backbone.") and "norm4" not in key
    }
    ends = {"head.weight": (10, 64), "head.bias": (10,), "aux_head.weight": (10, 64), "aux_head.bias": (10,)}
    ends |= {f"norm.{part}": (64,) for part in ("weight", "bias", "running_mean", "running_var")}
    path = folder / name
    torch.save({**entries, **weights_by_name({**ends, "norm.num_batches_tracked": ()})}, path)
    return path


def test_a_token_labelled_classifier_is_known_by_name_to_need_32(tmp_path: Path) -> None:
    path = token_labelled_file(tmp_path, "uniformer_small_tl_224.pth")
    with pytest.raises(InputError, match=r"was trained with head_dim 32, not 64; .*so give model.head_dim=32"):
        load_into(PoseNetwork(**{**TOKEN_LABELLED, "head_dim": 64}), path, skeleton=None)
    report = load_into(PoseNetwork(**{**TOKEN_LABELLED, "head_dim": 32}), path, skeleton=None)
    assert "head_dim 32 as released" in str(report)
    assert "aux_head.bias" in report.skipped


def test_under_another_name_its_head_dim_is_only_assumed_and_said(tmp_path: Path) -> None:
    path = token_labelled_file(tmp_path, "mine.pth")
    report = load_into(PoseNetwork(**{**TOKEN_LABELLED, "head_dim": 64}), path, skeleton=None)
    assert "head_dim 64 assumed: the file does not say it" in str(report)


@pytest.mark.parametrize(
    "variant",
    [{"stem": "convolution"}, {"layer_scale": 1e-6}, {"layer_scale": 1e-6, "layer_scale_blocks": "all"}],
)
def test_variants_of_the_network_load_whole_and_into_no_other(tmp_path: Path, variant: dict[str, Any]) -> None:
    entries = PoseNetwork(**{**ARGUMENTS, **variant}).state_dict()
    path = saved({"state_dict": entries}, tmp_path)
    loaded = load_network(path, head_dim=8, announce=len)
    assert all(torch.equal(entry, entries[name]) for name, entry in loaded.state_dict().items())
    with pytest.raises(InputError, match=rf"but the network is one of {next(iter(variant))}"):
        load_into(network(), path, skeleton=None)


# Checkpoints of this project


def own_checkpoint(folder: Path, **changes: Any) -> tuple[Path, SavedModel]:
    model = SavedModel(
        network=PoseNetwork(**{**ARGUMENTS, "num_keypoints": 17, **changes}),
        codec=HeatmapCodec(64, 96, sigma=1.5, method="udp"),
        skeleton=load_skeleton("coco_17"),
        mean=(1.0, 2.0, 3.0),
        std=(4.0, 5.0, 6.0),
        box_padding=1.3,
        config={"seed": 3},
        versions={},
    )
    weights = {f"network.{name}": entry for name, entry in model.network.state_dict().items()}
    path = folder / "last.ckpt"
    torch.save({"state_dict": weights, "loops": {}, "uniformer_pose": saved_record(model)}, path)
    return path, model


def test_our_checkpoint_brings_everything_with_it(tmp_path: Path) -> None:
    path, written = own_checkpoint(tmp_path)
    model, report = load_model(path)
    assert model.network.arguments == written.network.arguments
    assert model.codec.to_dict() == written.codec.to_dict()
    assert (model.mean, model.config) == ((1.0, 2.0, 3.0), {"seed": 3})
    assert report.layout == "uniformer-pose model"
    assert "assumed" not in str(report)
    assert torch.equal(
        load_network(path, announce=len).head.final_layer.weight, written.network.head.final_layer.weight
    )


def test_our_checkpoint_fills_a_network_to_train_on(tmp_path: Path) -> None:
    path, written = own_checkpoint(tmp_path)
    target = PoseNetwork(**{**ARGUMENTS, "num_keypoints": 17})
    load_into(target, path, skeleton=None)
    assert torch.equal(target.head.final_layer.weight, written.network.head.final_layer.weight)


def test_a_head_dim_other_than_the_trained_one_is_refused(tmp_path: Path) -> None:
    path, _ = own_checkpoint(tmp_path)
    target = PoseNetwork(**{**ARGUMENTS, "num_keypoints": 17, "head_dim": 4})
    for load in (
        lambda: load_into(target, path, skeleton=None),
        lambda: load_model(path, head_dim=4),
        lambda: load_network(path, head_dim=4),
    ):
        with pytest.raises(InputError, match=r"was trained with head_dim 8, not 4.*give model.head_dim=8"):
            load()


def test_only_a_training_checkpoint_can_be_resumed(tmp_path: Path) -> None:
    path, _ = own_checkpoint(tmp_path)
    require_resumable(path)
    with pytest.raises(InputError, match=r"weights without the state of a training.*model.pretrained="):
        require_resumable(saved({"state_dict": mmpose_entries()}, tmp_path))
    with pytest.raises(InputError, match=r"zoo:x: a training is resumed from a file"):
        require_resumable("zoo:x")


@pytest.mark.parametrize("entry", [3, "text", [1]])
def test_a_damaged_record_is_named(tmp_path: Path, entry: Any) -> None:
    path = saved({"state_dict": own_entries(), "uniformer_pose": entry}, tmp_path)
    with pytest.raises(InputError, match=r"its 'uniformer_pose' entry is damaged"):
        load_model(path)


# The released layouts, with weights whose heatmaps are known


@functools.lru_cache(maxsize=1)
def released_entries(reference_folder: Path, kind: str, size: str) -> Entries:
    layout = reference_folder / f"checkpoint_layout_{kind}_uniformer_{size}.json"
    shapes = {name: tuple(shape) for name, shape in json.loads(layout.read_text()).items()}
    if kind == "mmpose":
        return weights_by_name(shapes)
    # The values are those of the MMPose names, so that all layouts hold one and the same network.
    prefix = {"original_pose": "", "imagenet": "backbone."}[kind]
    ours = {name: re.sub(r"^keypoint_head\.", "head.", prefix + name) for name in shapes}
    return {name: weight_by_name(ours[name], shape) for name, shape in shapes.items()}


def seeded_heatmaps(reference_folder: Path, size: str) -> tuple[Tensor, Tensor]:
    reference = np.load(reference_folder / f"heatmaps_from_seed_uniformer_{size}_256x192.npz")
    random = np.random.Generator(np.random.PCG64(int(reference["input_seed"])))
    images = torch.from_numpy(random.standard_normal(tuple(reference["input_shape"])).astype("float32"))
    return images, torch.from_numpy(reference["heatmaps"])


def written(entries: Entries, container: str, folder: Path) -> Path:
    if container == "safetensors":
        save_file(entries, folder / "model.safetensors")
        return folder / "model.safetensors"
    key = "model" if "patch_embed1.proj.weight" in entries else "state_dict"
    meta = {"epoch": 210, "dataset_meta": {"sigmas": np.ones(17, dtype=np.float32)}}
    path = folder / "released.pth"
    torch.save({key: entries, "meta": meta}, path, _use_new_zipfile_serialization=container == "torch archive")
    return path


CONTAINERS = ["torch archive", "old torch file", "safetensors"]


@pytest.mark.parametrize("size", ["s", pytest.param("b", marks=[pytest.mark.slow, pytest.mark.long])])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kind", ["mmpose", "original_pose"])
def test_a_released_pose_file_in_any_container_gives_the_reference_heatmaps_by_every_call(
    reference_folder: Path, tmp_path: Path, kind: str, container: str, size: str
) -> None:
    path = written(released_entries(reference_folder, kind, size), container, tmp_path)
    images, heatmaps = seeded_heatmaps(reference_folder, size)
    target = PoseNetwork(17, DEPTHS[size])
    report = load_into(target, path, skeleton=None)
    assert len(report.skipped) == 6
    networks = [
        load_network(path, announce=len),
        load_model(path, codec=HeatmapCodec(256, 192, sigma=2.0))[0].network,
        target.eval(),
    ]
    with torch.inference_mode():
        first = networks[0](images)
    assert float((first - heatmaps).abs().max()) < 1e-4
    for other in networks[1:]:
        assert all(torch.equal(entry, networks[0].state_dict()[name]) for name, entry in other.state_dict().items())


@pytest.mark.parametrize("size", ["s", pytest.param("b", marks=[pytest.mark.slow, pytest.mark.long])])
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_released_classifier_in_any_container_gives_the_backbone_of_the_reference_heatmaps(
    reference_folder: Path, tmp_path: Path, container: str, size: str
) -> None:
    path = written(released_entries(reference_folder, "imagenet", size), container, tmp_path)
    images, heatmaps = seeded_heatmaps(reference_folder, size)
    target = PoseNetwork(17, DEPTHS[size])
    rest = {
        name: weight_by_name(name, tuple(entry.shape))
        for name, entry in target.state_dict().items()
        if name.startswith(("head.", "backbone.norm4."))
    }
    target.load_state_dict(rest, strict=False)
    report = load_into(target, path, skeleton=None)
    assert (len(report.skipped), set(report.left_untouched)) == (7, set(rest))
    with torch.inference_mode():
        assert float((target.eval()(images) - heatmaps).abs().max()) < 1e-4
