from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from uniformer_pose.errors import InputError
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.model.released_weights import load_released_weights
from weights_by_name import weights_by_name

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
        (lambda: own_entries(), "pose model", 0),
        (lambda: {"state_dict": own_entries(), "epoch": 3}, "pose model", 0),
        (lambda: {"state_dict": mmpose_entries(), "meta": {"epoch": 210}}, "pose model", 6),
        (lambda: {"state_dict": original_entries(), "meta": {"epoch": 210}}, "original pose model", 6),
        (lambda: {f"module.{n}": e for n, e in mmpose_entries().items()}, "pose model", 6),
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
    report = load_released_weights(target, saved(contents(), tmp_path))
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
    report = load_released_weights(target, path)
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
    line = str(load_released_weights(network(), path))
    assert "\n" not in line
    assert line.startswith(f"{path}: ImageNet classifier, ")
    assert "7 skipped as expected (norm.weight, norm.bias, norm.running_mean and 4 more)" in line
    assert "22 left as they were (backbone.norm4.weight, backbone.norm4.bias, " in line


def test_numpy_arrays_beside_the_weights_are_data(tmp_path: Path) -> None:
    description = {
        "sigmas": np.array([0.026, 0.025], dtype=np.float32),
        "keypoint_colors": np.array([[0, 255, 0]], dtype=np.uint8),
        "flip_indices": np.array([0, 2, 1]),
        "padding": np.float64(1.25),
    }
    path = saved({"state_dict": mmpose_entries(), "meta": {"dataset_meta": description}}, tmp_path)
    assert len(load_released_weights(network(), path).skipped) == 6


def test_half_precision_weights_load_into_single_precision(tmp_path: Path) -> None:
    halved = {n: e.half() if e.is_floating_point() else e for n, e in own_entries().items()}
    target = network()
    load_released_weights(target, saved(halved, tmp_path))
    weight = target.backbone.patch_embed1.proj.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, halved["backbone.patch_embed1.proj.weight"].float())


@pytest.mark.parametrize("size", ["s", pytest.param("b", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("kind", "container", "skipped", "left_untouched"),
    [
        ("mmpose", "state_dict", 6, 0),
        ("original_pose", "state_dict", 6, 0),
        ("imagenet", "model", 7, 22),
    ],
)
def test_files_in_the_released_layouts_load(
    shared_folder: Path,
    tmp_path: Path,
    size: str,
    kind: str,
    container: str,
    skipped: int,
    left_untouched: int,
) -> None:
    layout_file = shared_folder / "reference" / f"checkpoint_layout_{kind}_uniformer_{size}.json"
    # One zero seen as a whole tensor each, which keeps the file small.
    entries = {
        name: torch.zeros((), dtype=torch.int64 if name.endswith("tracked") else torch.float32).expand(shape)
        for name, shape in json.loads(layout_file.read_text()).items()
    }
    with torch.device("meta"):
        target = PoseNetwork(17, DEPTHS[size])
    target.to_empty(device="cpu")
    report = load_released_weights(target, saved({container: entries, "meta": {}}, tmp_path))
    assert (len(report.skipped), len(report.left_untouched)) == (skipped, left_untouched)
    assert len(report.loaded) == len(target.state_dict()) - left_untouched
    assert not any(target.state_dict()[name].any() for name in report.loaded)


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
            r"1 unknown to the network \(backbone.blocks1.0.gamma_1\)",
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
        (lambda: [torch.ones(3)], "found none"),
        (lambda: {"state_dict": {}}, r"missing \(backbone.patch_embed1.norm.weight"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name_and_changes_nothing(
    tmp_path: Path, contents: Callable[[], Any], message: str
) -> None:
    path, target = saved(contents(), tmp_path), network()
    with pytest.raises(InputError, match=message) as caught:
        load_released_weights(target, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert unchanged(target)


def test_another_model_size_is_refused_with_a_short_list(tmp_path: Path) -> None:
    path = saved(PoseNetwork(**{**ARGUMENTS, "depths": [1, 2, 3, 1]}).state_dict(), tmp_path)
    with pytest.raises(InputError, match=r"unknown to the network \(.*, .*, .* and \d+ more\).*depths") as caught:
        load_released_weights(network(), path)
    assert len(str(caught.value)) < 500


class _RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_a_file_that_holds_code_is_refused_and_the_code_never_runs(tmp_path: Path) -> None:
    marker = tmp_path / "the code ran"
    path, target = saved({"state_dict": mmpose_entries(), "meta": _RunsCode(marker)}, tmp_path), network()
    with pytest.raises(InputError, match=r"refused, because loading it would run posix\.mkdir") as caught:
        load_released_weights(target, path)
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    assert unchanged(target)


@pytest.mark.parametrize("kept", [0, 10, 5000])
def test_a_file_cut_short_is_named_damaged(tmp_path: Path, kept: int) -> None:
    path = saved({"state_dict": mmpose_entries()}, tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"not a readable weights file.*damaged or cut short") as caught:
        load_released_weights(network(), path)
    assert "\n" not in str(caught.value)


def test_text_is_no_weights_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_text("<html>404 not found</html>")
    with pytest.raises(InputError, match="not a readable weights file"):
        load_released_weights(network(), path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no weights file .*absent\.pth"):
        load_released_weights(network(), tmp_path / "absent.pth")
