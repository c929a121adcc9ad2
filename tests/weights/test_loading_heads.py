"""Files of networks with other heads than the plain heatmap one: complete, matched by name, or refused in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import assert_same, checkpoint, contents_of, network, refusal, saved, trained_model

from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.keypoints.simcc_codec import SimCCCodec
from uniformer_pose.saved_model import SavedModel
from uniformer_pose.skeleton import Skeleton, load_skeleton
from uniformer_pose.weights.export import save_pretrained, write_released_layout
from uniformer_pose.weights.loading import load_into, load_model, load_network

COCO = load_skeleton("coco_17")
VISIBILITY = {"visibility": True}


def test_a_training_with_visibility_starts_from_a_file_without_it_and_says_so(tmp_path: Path) -> None:
    path, model = checkpoint(tmp_path)
    target = network(num_keypoints=17, head=VISIBILITY)
    before = {name: entry.clone() for name, entry in target.state_dict().items()}
    line = str(load_into(target, path, skeleton=COCO))
    assert "4 left as they were (head.visibility." in line
    for name, entry in target.state_dict().items():
        expected = before[name] if "visibility" in name else model.network.state_dict()[name]
        assert torch.equal(entry, expected), name


def test_a_file_with_visibility_is_loaded_whole_and_matched_by_name(tmp_path: Path) -> None:
    written = trained_model(head=VISIBILITY)
    path = saved(contents_of(written), tmp_path)
    assert_same(load_model(path)[0], written)
    images = torch.randn(2, 3, 64, 64)
    expected = written.network(images)[1]
    model = load_model(path, skeleton=backwards())[0]
    torch.testing.assert_close(model.network(images)[1], expected.flip(1))


def test_a_file_that_lacks_the_visibility_it_describes_is_refused(tmp_path: Path) -> None:
    contents = contents_of(trained_model(head=VISIBILITY))
    del contents["state_dict"]["network.head.visibility.visible.bias"]
    path = saved(contents, tmp_path)
    target = network(num_keypoints=17, head=VISIBILITY)
    for load in (load_model, load_network, lambda path: load_into(target, path, skeleton=COCO)):
        assert "1 missing (head.visibility.visible.bias)" in refusal(path, load)
    contents["state_dict"]["network.head.visibility.visible.bias"] = torch.zeros(3)
    path = saved(contents, tmp_path)
    with pytest.raises(InputError, match="of another shape"):
        load_model(path)


# Heads of vectors

VECTORS: dict[str, dict[str, Any]] = {
    "simcc": {"kind": "simcc"},
    "simcc without deconvolutions": {"kind": "simcc", "deconvolutions": False},
    "rtmcc with visibility": {"kind": "rtmcc", "visibility": True},
}
OF_CROP = {"crop_height": 64, "crop_width": 96}


def vector_model(head: dict[str, Any]) -> SavedModel:
    torch.manual_seed(0)
    made = network(num_keypoints=17, head=head, **OF_CROP)
    for parameter in made.head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return replace(trained_model(), network=made.eval(), codec=SimCCCodec(64, 96))


def vectors(of: torch.nn.Module) -> torch.Tensor:
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        given = of.eval()(images)
    return given if isinstance(given, torch.Tensor) else torch.cat(given, dim=-1)


def backwards() -> Skeleton:
    fields = COCO.to_dict()
    return Skeleton.from_dict(fields | {"keypoints": dict(reversed(fields["keypoints"].items()))})


@pytest.mark.parametrize("head", VECTORS.values(), ids=VECTORS)
def test_a_checkpoint_and_safetensors_are_loaded_whole_matched_by_name_or_refused(
    tmp_path: Path, head: dict[str, Any]
) -> None:
    written = vector_model(head)
    path = saved(contents_of(written), tmp_path)
    for file in (path, save_pretrained(written, tmp_path / "folder")):
        assert_same(load_model(file)[0], written)
    model = load_model(path, skeleton=backwards())[0]
    torch.testing.assert_close(vectors(model.network), vectors(written.network).flip(1))
    contents = contents_of(written)
    name = next(name for name in contents["state_dict"] if name.endswith("_x.weight"))
    del contents["state_dict"][name]
    line = refusal(saved(contents, tmp_path), load_model)
    assert f"1 missing ({name.removeprefix('network.')})" in line
    assert "model.pretrained_head=false" in line


@pytest.mark.parametrize("head", VECTORS.values(), ids=VECTORS)
def test_a_training_starts_from_a_heatmap_model_without_its_head_and_is_told_so(
    tmp_path: Path, head: dict[str, Any]
) -> None:
    path, model = checkpoint(tmp_path)
    target = vector_model(head).network
    before = vectors(target)
    assert "model.pretrained_head=false" in refusal(path, lambda path: load_into(target, path, skeleton=COCO))
    assert torch.equal(vectors(target), before)
    line = str(load_into(target, path, skeleton=COCO, with_head=False))
    assert "left out as asked" in line
    own, theirs = target.backbone.state_dict(), model.network.backbone.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in own)


@pytest.mark.parametrize("head", [*list(VECTORS.values())[:2], {"kind": "rtmcc"}])
def test_a_file_in_mmpose_s_layout_is_known_by_its_head(tmp_path: Path, head: dict[str, Any]) -> None:
    written = vector_model(head)
    write_released_layout(written, tmp_path / "mmpose.pth", "mmpose")
    assert_same(load_model(tmp_path / "mmpose.pth")[0], written)
    foreign = torch.load(tmp_path / "mmpose.pth", weights_only=True)
    del foreign["uniformer_pose"]
    path = saved(foreign, tmp_path)
    model, _report = load_model(path, head_dim=8)
    assert torch.equal(vectors(model.network), vectors(written.network))
    assert (model.codec.kind, model.codec.height, model.codec.width) == ("simcc", 64, 96)
    for codec in (HeatmapCodec(64, 96, sigma=2.0), SimCCCodec(96, 64)):
        line = refusal(path, lambda path, codec=codec: load_model(path, head_dim=8, codec=codec))
        assert "simcc output for crops of 64x96" in line
    with pytest.raises(InputError, match=f"has no head={head['kind']}; use format=safetensors"):
        write_released_layout(written, tmp_path / "original.pth", "original")


def test_a_layout_that_has_no_such_visibility_is_refused(tmp_path: Path) -> None:
    for model in (trained_model(head=VISIBILITY), vector_model(VECTORS["rtmcc with visibility"])):
        with pytest.raises(InputError, match=r"has no head.visibility=True; use format=safetensors"):
            write_released_layout(model, tmp_path / "mmpose.pth", "mmpose")
