"""What is written loads again exactly, and as the other implementations expect it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.saved_model import SavedModel
from uniformer_pose.skeleton import load_skeleton
from uniformer_pose.weights.export import save_pretrained, write_released_layout
from uniformer_pose.weights.hub import from_pretrained, push_to_hub
from uniformer_pose.weights.loading import load_model


def trained_model(**changes: Any) -> SavedModel:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "num_keypoints": 17,
        "depths": [1, 1, 1, 1],
        "embed_dims": [8, 8, 16, 16],
        "head_dim": 8,
        "deconv_channels": [8, 8, 8],
        "layer_norm_eps": 1e-5,
    }
    network = PoseNetwork(**(arguments | changes))
    network.train()
    with torch.no_grad():
        network(torch.randn(4, 3, 64, 64))  # BatchNorm's statistics are part of a model
    return SavedModel(
        network.eval(),
        HeatmapCodec(64, 96, sigma=1.5, method="udp"),
        load_skeleton("coco_17"),
        (1.0, 2.0, 3.0),
        (4.0, 5.0, 6.0),
        1.3,
        {"data": {"root": "people"}},
        {"torch": "2"},
    )


def assert_same(loaded: SavedModel, written: SavedModel) -> None:
    ours, theirs = written.network.state_dict(), loaded.network.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert loaded.network.arguments == written.network.arguments
    assert loaded.codec.to_dict() == written.codec.to_dict()
    assert loaded.skeleton == written.skeleton
    assert (loaded.mean, loaded.std, loaded.box_padding) == (written.mean, written.std, written.box_padding)
    assert (loaded.config, loaded.versions) == (written.config, written.versions)


@pytest.mark.parametrize("layout", ["mmpose", "original"])
def test_a_released_layout_comes_back_exactly(tmp_path: Path, layout: Any) -> None:
    model, path = trained_model(), tmp_path / "model.pth"
    write_released_layout(model, path, layout)
    loaded, report = load_model(path)
    assert_same(loaded, model)
    assert report.layout == {"mmpose": "MMPose pose model", "original": "original pose model"}[layout]
    assert len(report.skipped) == 6


def test_safetensors_come_back_exactly(tmp_path: Path) -> None:
    model = trained_model(depths=[1, 1, 4, 1], stage3_attention="hybrid", stem="convolution", layer_scale=1e-6)
    save_pretrained(model, tmp_path)
    loaded, report = load_model(tmp_path)
    assert_same(loaded, model)
    assert report.checked_by == "the digest in its JSON"


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


def test_the_norms_that_only_others_have_are_identities(tmp_path: Path) -> None:
    write_released_layout(trained_model(), tmp_path / "model.pth", "mmpose")
    written = torch.load(tmp_path / "model.pth", weights_only=True)["state_dict"]
    assert torch.equal(written["backbone.norm3.weight"], torch.ones(16))
    assert torch.equal(written["backbone.norm1.bias"], torch.zeros(8))


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
    with pytest.raises(
        InputError, match=rf"format={layout}: that implementation has no {named}; use format=safetensors"
    ):
        write_released_layout(trained_model(**changes), tmp_path / "model.pth", layout)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_has_the_hubs_file_names_and_plain_json(tmp_path: Path) -> None:
    weights = save_pretrained(trained_model(), tmp_path)
    assert weights == tmp_path / "model.safetensors"
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["library_name"] == "uniformer-pose"
    assert config["uniformer_pose"]["network"]["depths"] == [1, 1, 1, 1]
    assert set(load_file(weights)) == set(trained_model().network.state_dict())


def test_weights_and_json_of_different_models_are_noticed(tmp_path: Path) -> None:
    save_pretrained(trained_model(), tmp_path / "a")
    save_pretrained(trained_model(depths=[1, 1, 2, 1]), tmp_path / "b")
    (tmp_path / "a" / "model.safetensors").replace(tmp_path / "b" / "model.safetensors")
    with pytest.raises(InputError, match=r"damaged or replaced: the JSON beside it says sha256"):
        load_model(tmp_path / "b")


def test_files_are_readable_for_others_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        weights = save_pretrained(trained_model(), tmp_path)
    finally:
        os.umask(before)
    assert weights.stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"old")

    def full_disk(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(InputError, match=r"model.pth: cannot be written \(No space left on device\)"):
        write_released_layout(trained_model(), path, "mmpose")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# The hub's conventions, on a folder


def test_a_model_comes_back_from_a_folder(tmp_path: Path) -> None:
    model = trained_model()
    save_pretrained(model, tmp_path)
    assert_same(from_pretrained(tmp_path), model)


def test_neither_a_folder_nor_a_repository_is_said() -> None:
    with pytest.raises(InputError, match=r"a/b/c: neither a folder nor the name of a hub repository, owner/name"):
        from_pretrained("a/b/c")


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a folder has no revision 'main'"):
        from_pretrained(tmp_path, revision="main")


def test_uploading_makes_the_repository_and_sends_weights_config_and_card_in_one_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, sent = trained_model(), {}

    class Hub:
        def __init__(self, token: str | None) -> None:
            sent["token"] = token

        def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> Any:
            sent["repository"] = (repo_id, private, exist_ok)

            class Made(str):
                repo_id = "me/pose"

            return Made("https://hub.example/me/pose")

        def upload_folder(self, *, repo_id: str, folder_path: str, revision: str | None, commit_message: str) -> None:
            sent["files"] = sorted(path.name for path in Path(folder_path).iterdir())
            sent["card"] = (Path(folder_path) / "README.md").read_text()
            assert_same(from_pretrained(folder_path), model)

    monkeypatch.setattr("uniformer_pose.weights.hub.HfApi", Hub)
    assert push_to_hub(model, "me/pose", private=True, token="t") == "https://hub.example/me/pose"
    assert sent["repository"] == ("me/pose", True, True)
    assert sent["files"] == ["README.md", "config.json", "model.safetensors"]
    assert 'load_network("hf://me/pose/model.safetensors")' in sent["card"]
    assert "person crops of 64x96" in sent["card"]


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hub:
        def __init__(self, token: str | None) -> None: ...

        def create_repo(self, *_arguments: Any, **_options: Any) -> None:
            raise ConnectionError("no\nroute")

    monkeypatch.setattr("uniformer_pose.weights.hub.HfApi", Hub)
    with pytest.raises(InputError, match=r"me/pose: not uploaded \(ConnectionError: no route\); log in") as caught:
        push_to_hub(trained_model(), "me/pose")
    assert "\n" not in str(caught.value)
