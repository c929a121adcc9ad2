"""Every tensor of a file and of a network is accounted for, whatever wrote the file; else nothing is loaded."""

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
from small_networks import (
    Entries,
    assert_same,
    checkpoint,
    contents_of,
    heatmaps,
    imagenet_entries,
    mmpose_entries,
    network,
    original_entries,
    own_entries,
    refusal,
    saved,
    trained_model,
)
from torch import Tensor

from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.weights.loading import load_into, load_model, load_network, require_resumable
from weights_by_name import weight_by_name, weights_by_name

COUNTER = {"n_averaged": torch.tensor(7)}  # what AveragedModel keeps beside the weights
BIAS = "head.final_layer.bias"
DEPTHS = {"s": [3, 4, 8, 3], "b": [5, 8, 20, 7]}


def prefixed(prefix: str, entries: Entries) -> Entries:
    return {prefix + name: entry for name, entry in entries.items()}


def half_prefixed(entries: Entries) -> Entries:
    return {f"module.{name}" if i % 2 else name: entry for i, (name, entry) in enumerate(entries.items())}


def without(entries: Entries, name: str) -> Entries:
    assert name in entries
    return {key: entry for key, entry in entries.items() if key != name}


def load(path: Path) -> str:
    return str(load_into(network(), path, skeleton=None))


@pytest.mark.parametrize(
    ("contents", "layout", "skipped"),
    [
        (lambda: own_entries(), "MMPose pose model", 0),
        (lambda: {"state_dict": mmpose_entries(), "meta": {"epoch": 210}}, "MMPose pose model", 6),
        (lambda: {"state_dict": original_entries(), "meta": {"epoch": 210}}, "original pose model", 6),
        (lambda: {"ema": prefixed("ema_model.module.", original_entries()) | COUNTER}, "original pose model", 6),
        (lambda: {"state_dict": mmpose_entries(), "meta": {"sigmas": np.ones(2), "x": np.float64(1)}}, "MMPose", 6),
    ],
)
def test_a_pose_model_of_any_layout_fills_the_whole_network(
    tmp_path: Path, contents: Callable[[], Any], layout: str, skipped: int
) -> None:
    target, path = network(), saved(contents(), tmp_path)
    report = load_into(target, path, skeleton=None)
    for filled in (target, load_network(path, head_dim=8, announce=len)):
        for name, entry in own_entries().items():
            assert torch.equal(filled.state_dict()[name], entry), name
    assert report.layout.startswith(layout)
    assert (len(report.loaded), len(report.skipped), report.left_untouched) == (len(own_entries()), skipped, ())


@pytest.mark.parametrize(("prefix", "heads"), [("", ("head",)), ("module.", ("head", "aux_head"))])
def test_an_imagenet_classifier_fills_the_backbone_and_leaves_the_rest(
    tmp_path: Path, prefix: str, heads: tuple[str, ...]
) -> None:
    target, fresh, entries = network(), network().state_dict(), imagenet_entries(*heads)
    report = load_into(target, saved({"model": prefixed(prefix, entries)}, tmp_path), skeleton=None)
    for name, entry in target.state_dict().items():
        untouched = name.startswith(("head.", "backbone.norm4."))
        expected = fresh[name] if untouched else entries[name.removeprefix("backbone.")]
        assert torch.equal(entry, expected), name
        assert (name in report.left_untouched) == untouched
        assert (name in report.loaded) != untouched
    assert len(report.skipped) == 5 + 2 * len(heads)


def test_half_precision_weights_load_into_single_precision(tmp_path: Path) -> None:
    halved = {n: e.half() if e.is_floating_point() else e for n, e in own_entries().items()}
    weight = load_network(saved(halved, tmp_path), head_dim=8, announce=len).backbone.patch_embed1.proj.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, halved["backbone.patch_embed1.proj.weight"].float())


@pytest.mark.parametrize(
    ("beside", "told"),
    [
        ({"ema_state_dict": {"x": 1}}, "weights of state_dict; its ema_state_dict was not taken"),
        ({"current_model_state": {}}, "weights of state_dict; its current_model_state was not taken"),
        ({"model_ema": 3}, None),
    ],
)
def test_which_of_several_sets_of_weights_was_taken_is_said(
    tmp_path: Path, beside: dict[str, Any], told: str | None
) -> None:
    line = load(saved({"state_dict": own_entries(), **beside}, tmp_path))
    assert ("not taken" in line) == (told is not None)
    assert (told or "") in line
    assert "taken from model_ema, its average" in load(saved({"model_ema": own_entries()}, tmp_path))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (lambda: without(mmpose_entries(), "backbone.blocks1.0.attn.weight"), r"1 missing \(backbone.blocks1.0.attn"),
        (lambda: mmpose_entries() | {"backbone.blocks1.0.gamma_1": torch.ones(8)}, "1 unknown to the network"),
        (lambda: {"model": imagenet_entries() | {"norm5.weight": torch.ones(8)}}, r"1 unknown to .* \(backbone.norm5"),
        (lambda: mmpose_entries() | {BIAS: torch.ones(17)}, r"of another shape \(.*: file \[17\], network \[5\]"),
        (lambda: mmpose_entries() | {BIAS: torch.full((5,), torch.nan)}, rf"1 not finite \({BIAS}\)"),
        (lambda: own_entries() | {BIAS: torch.ones(5, dtype=torch.int64)}, rf"of another type \({BIAS}: torch.int64\)"),
        (lambda: original_entries() | {BIAS: torch.ones(5)}, r"unknown to the network \(keypoint_head"),
        (lambda: half_prefixed(mmpose_entries()), r"missing \(.*unknown to the network \(module\.backbone"),
        (lambda: {"state_dict": own_entries(), **own_entries()}, "in one place.*found state_dict and 124 tensors"),
        (lambda: {"state_dict": {**mmpose_entries(), 3: torch.ones(1)}}, r"no named tensors \(3\)"),
        (lambda: {"epoch": 3}, "found none"),
        (
            lambda: {"backbone.layer1.0.conv1.weight": torch.ones(1)},
            r"missing .* 1 unknown .*layer1.*choose the model=",
        ),
        (lambda: network(depths=[1, 2, 3, 1]).state_dict(), "36 unknown to the network .* choose the model="),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name_and_changes_nothing(
    tmp_path: Path, contents: Callable[[], Any], message: str
) -> None:
    target = network()
    line = refusal(saved(contents(), tmp_path), lambda path: load_into(target, path, skeleton=None))
    assert re.search(message, line), line
    fresh = network().state_dict()
    assert all(torch.equal(entry, fresh[name]) for name, entry in target.state_dict().items())


def test_a_file_under_a_released_name_is_held_to_its_digest_and_a_classifier_is_no_pose_model(tmp_path: Path) -> None:
    path = saved(own_entries(), tmp_path, "top_down_256x192_global_small-d4a7fdac_20230724.pth")
    assert re.search(r"damaged or altered: .*d4a7fdac.*fetch it again", refusal(path, load))
    classifier = saved({"model": imagenet_entries()}, tmp_path)
    for loader in (load_network, load_model):
        assert "no heatmap head; train one on it with model.pretrained=" in refusal(classifier, loader)


def test_loading_prints_its_one_line_unless_told_otherwise_and_draws_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, own = saved(own_entries(), tmp_path), checkpoint(tmp_path)[0]
    before = torch.random.get_rng_state()
    assert not load_network(path, head_dim=8).training
    assert capsys.readouterr().out.count("\n") == 1
    load_network(path, head_dim=8, announce=lambda line: None)
    load_model(own)
    assert capsys.readouterr().out == ""
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_pose_model_that_does_not_say_its_crop_size_needs_one(tmp_path: Path) -> None:
    path = saved(network(num_keypoints=17).state_dict(), tmp_path)
    line = refusal(path, lambda path: load_model(path, head_dim=8))
    assert "does not say at what crop size it was trained; give data=<one of conf/data>" in line
    codec = HeatmapCodec(height=64, width=96, sigma=2.0)
    model, _report = load_model(path, codec=codec, head_dim=8)
    assert (model.codec, model.skeleton.name, model.box_padding) == (codec, "coco_17", 1.25)
    assert model.mean == (123.675, 116.28, 103.53)


def test_the_head_can_be_left_out_for_other_keypoints(tmp_path: Path) -> None:
    target = network(num_keypoints=3)
    fresh_head = target.head.state_dict()["final_layer.weight"].clone()
    path = saved({"state_dict": mmpose_entries()}, tmp_path)
    assert "2 of another shape (head.final_layer" in refusal(path, lambda p: load_into(target, p, skeleton=None))
    report = load_into(target, path, skeleton=None, with_head=False)
    assert torch.equal(target.head.state_dict()["final_layer.weight"], fresh_head)
    assert torch.equal(target.backbone.norm4.weight, mmpose_entries()["backbone.norm4.weight"])
    assert "its head of 20 tensors left out as asked" in str(report)


def test_a_token_labelled_classifier_is_known_by_name_to_need_32(tmp_path: Path) -> None:
    def target(head_dim: int) -> PoseNetwork:
        return network(embed_dims=[8, 8, 64, 64], head_dim=head_dim)

    backbone = {
        name.removeprefix("backbone."): entry
        for name, entry in target(32).state_dict().items()
        if name.startswith("backbone.") and "norm4" not in name
    }
    rest = {n: e for n, e in imagenet_entries("head", "aux_head").items() if n.partition(".")[0] in ("norm", "head")}
    path = saved(backbone | rest, tmp_path, "uniformer_small_tl_224.pth")
    line = refusal(path, lambda path: load_into(target(64), path, skeleton=None))
    assert re.search(r"was trained with head_dim 32, not 64; .*so give model.head_dim=32", line)
    assert "head_dim 32 as released" in str(load_into(target(32), path, skeleton=None))
    path = path.rename(tmp_path / "mine.pth")
    assert "head_dim 64 assumed: the file does not say it" in str(load_into(target(64), path, skeleton=None))


def test_our_checkpoint_brings_everything_with_it(tmp_path: Path) -> None:
    path, written = checkpoint(tmp_path)
    model, report = load_model(path)
    assert_same(model, written)
    assert torch.equal(heatmaps(model.network), heatmaps(written.network))
    assert not model.network.training
    assert report.layout == "uniformer-pose model"
    assert not report.remarks
    target = network(num_keypoints=17)
    assert "was trained with head_dim 8, not 4" in refusal(path, lambda path: load_model(path, head_dim=4))
    load_into(target, path, skeleton=None)
    for other in (target, load_network(path, announce=len)):
        assert torch.equal(heatmaps(other), heatmaps(written.network))


def test_only_a_training_checkpoint_can_be_resumed(tmp_path: Path) -> None:
    require_resumable(checkpoint(tmp_path)[0])
    with pytest.raises(InputError, match=r"weights without the state of a training.*model.pretrained="):
        require_resumable(saved({"state_dict": mmpose_entries()}, tmp_path))
    with pytest.raises(InputError, match=r"zoo:x: a training is resumed from a file"):
        require_resumable("zoo:x")


def test_weights_of_another_class_are_loaded_by_the_class_that_the_caller_names_alone(tmp_path: Path) -> None:
    contents = contents_of(trained_model())
    contents["uniformer_pose"] |= {"network_class": "os.system", "network": {"command": f"touch {tmp_path / 'marker'}"}}
    path = saved(contents, tmp_path)
    assert "weights of os.system, which no file may import; if you trust" in refusal(path, load_model)
    assert "weights of os.system; use from_pretrained(..., model_class=...)" in refusal(path, load_network)
    assert "holds os.system, but the network is PoseNetwork" in refusal(path, load)
    assert not (tmp_path / "marker").exists()


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
    images, expected = seeded_heatmaps(reference_folder, size)
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
    assert float((first - expected).abs().max()) < 1e-4
    for other in networks[1:]:
        assert all(torch.equal(entry, networks[0].state_dict()[name]) for name, entry in other.state_dict().items())


@pytest.mark.parametrize("size", ["s", pytest.param("b", marks=[pytest.mark.slow, pytest.mark.long])])
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_released_classifier_in_any_container_gives_the_backbone_of_the_reference_heatmaps(
    reference_folder: Path, tmp_path: Path, container: str, size: str
) -> None:
    path = written(released_entries(reference_folder, "imagenet", size), container, tmp_path)
    images, expected = seeded_heatmaps(reference_folder, size)
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
        assert float((target.eval()(images) - expected).abs().max()) < 1e-4
