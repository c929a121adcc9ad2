"""What is written loads again exactly, and as the other implementations expect it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_networks import assert_same, refusal, trained_model

from uniformer_pose.errors import InputError
from uniformer_pose.weights.export import save_pretrained, write_released_layout
from uniformer_pose.weights.hub import from_pretrained
from uniformer_pose.weights.loading import load_model


@pytest.mark.parametrize("layout", ["mmpose", "original"])
def test_a_released_layout_comes_back_exactly(tmp_path: Path, layout: Any) -> None:
    model, path = trained_model(layer_norm_eps=1e-5), tmp_path / "model.pth"
    write_released_layout(model, path, layout)
    loaded, report = load_model(path)
    assert_same(loaded, model)
    assert report.layout == {"mmpose": "MMPose pose model", "original": "original pose model"}[layout]
    assert len(report.skipped) == 6
    written = torch.load(path, weights_only=True)["state_dict"]
    assert torch.equal(written["backbone.norm3.weight"], torch.ones(16))  # the norms that only others have
    assert torch.equal(written["backbone.norm1.bias"], torch.zeros(8))


def test_safetensors_come_back_exactly_with_the_hubs_file_names_and_plain_json(tmp_path: Path) -> None:
    model = trained_model(depths=[1, 1, 4, 1], stage3_attention="hybrid", stem="convolution", layer_scale=1e-6)
    before = os.umask(0o022)
    try:
        weights = save_pretrained(model, tmp_path)
    finally:
        os.umask(before)
    assert weights == tmp_path / "model.safetensors"
    assert weights.stat().st_mode & 0o777 == 0o644
    assert set(load_file(weights)) == set(model.network.state_dict())
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["library_name"] == "uniformer-pose"
    assert config["uniformer_pose"]["network"]["depths"] == [1, 1, 4, 1]
    loaded, report = load_model(tmp_path)
    assert_same(loaded, model)
    assert_same(from_pretrained(tmp_path), model)
    assert not report.remarks
    save_pretrained(trained_model(), tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(weights)
    assert "damaged or replaced: the JSON beside it says sha256" in refusal(tmp_path, load_model)


@pytest.mark.parametrize("size", ["s", pytest.param("b", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("layout", "kind"), [("mmpose", "mmpose"), ("original", "original_pose")])
def test_names_and_shapes_are_exactly_those_of_the_released_files(
    reference_folder: Path, tmp_path: Path, size: str, layout: Any, kind: str
) -> None:
    depths = {"s": [3, 4, 8, 3], "b": [5, 8, 20, 7]}[size]
    model = trained_model(depths=depths, embed_dims=[64, 128, 320, 512], head_dim=64, deconv_channels=[256, 256, 256])
    path = tmp_path / "model.pth"
    write_released_layout(model, path, layout)
    written = torch.load(path, weights_only=True)["state_dict"]
    file = reference_folder / f"checkpoint_layout_{kind}_uniformer_{size}.json"
    assert {name: list(tensor.shape) for name, tensor in written.items()} == json.loads(file.read_text())


@pytest.mark.parametrize(
    ("changes", "layout", "named"),
    [
        ({"stem": "convolution"}, "mmpose", "stem=convolution"),
        ({"layer_scale": 1e-6}, "original", "layer_scale=1e-06"),
        ({"stage3_attention": "window"}, "mmpose", "stage3_attention=window"),
    ],
)
def test_what_the_other_implementation_cannot_build_is_refused(
    tmp_path: Path, changes: dict[str, Any], layout: Any, named: str
) -> None:
    with pytest.raises(InputError, match=rf"format={layout}: that implementation has no {named}; use format=safe"):
        write_released_layout(trained_model(**changes), tmp_path / "model.pth", layout)
    assert list(tmp_path.iterdir()) == []
