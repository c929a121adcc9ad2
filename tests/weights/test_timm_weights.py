"""timm's classifiers as a start, complete or refused, and checkpoints of networks with a backbone of timm."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save, save_file
from small_networks import assert_same, contents_of, refusal, saved, trained_model

from loopback_server import Page, Server
from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.timm_network import TimmPoseNetwork
from uniformer_pose.saved_model import SavedModel
from uniformer_pose.skeleton import load_skeleton
from uniformer_pose.weights.export import save_pretrained, write_released_layout
from uniformer_pose.weights.hub import push_to_hub
from uniformer_pose.weights.loading import load_into, load_model, load_network
from uniformer_pose.weights.start import TIMM_NETWORK, starting_network

COCO = load_skeleton("coco_17")
CODEC = HeatmapCodec(64, 96, sigma=1.5)
HALF = ([127.5] * 3, [127.5] * 3)  # the normalisation of timm's test_vit
IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])


def network(backbone: str = "test_vit", **changes: Any) -> TimmPoseNetwork:
    return TimmPoseNetwork(**{"num_keypoints": 17, "backbone": backbone, "crop_height": 64, "crop_width": 96} | changes)


def classifier_file(folder: Path, backbone: str = "test_vit") -> tuple[Path, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    made = timm.create_model(backbone)
    for values in made.parameters():  # zeros and ones of an untrained model would look like those never loaded
        torch.nn.init.normal_(values, std=0.1)
    save_file(made.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors", made.state_dict()


def timm_model(**changes: Any) -> SavedModel:
    torch.manual_seed(2)
    return SavedModel(network(**changes).eval(), CODEC, COCO, *map(tuple, HALF), 1.25, {"data": {}}, {"torch": "2"})


@pytest.mark.parametrize(
    ("backbone", "resized", "left_out"),
    [
        ("test_vit", {"pos_embed"}, "2 skipped as expected (backbone.head.weight, backbone.head.bias)"),
        ("test_resnet", set(), "2 skipped as expected (backbone.fc.weight, backbone.fc.bias)"),
        ("test_convnext", set(), "4 skipped as expected (backbone.head.norm.weight"),
        ("hrnet_w18_small", set(), "126 skipped as expected (backbone.incre_modules"),
    ],
)
def test_a_classifier_fills_the_backbone_and_says_what_was_resized_and_left_out(
    tmp_path: Path, backbone: str, resized: set[str], left_out: str
) -> None:
    path, entries = classifier_file(tmp_path, backbone)
    made = network(backbone)
    head = {name: value.clone() for name, value in made.head.state_dict().items()}
    report = load_into(made, path, skeleton=COCO)
    ours = made.backbone.state_dict()
    assert {name for name, value in ours.items() if not torch.equal(value, entries[name])} == resized
    assert set(report.loaded) == {f"backbone.{name}" for name in ours}
    assert all(torch.equal(value, head[name]) for name, value in made.head.state_dict().items())
    line = str(report)
    assert f"{len(ours)} of {len(made.state_dict())} tensors loaded" in line
    assert left_out in line
    assert (f"{len(resized)} resized by timm ({', '.join(resized)})" in line) == bool(resized)


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet", "dla34"])  # of dla34 timm's log alone says it
def test_a_file_that_lacks_a_tensor_or_has_one_that_is_not_finite_is_refused(tmp_path: Path, backbone: str) -> None:
    entries = dict(timm.create_model(backbone).state_dict())
    made = network(backbone)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    name = next(name for name, value in entries.items() if value.ndim == 4)
    for broken in ({n: v for n, v in entries.items() if n != name}, entries | {name: entries[name] + torch.nan}):
        line = refusal(saved(broken, tmp_path), lambda path: load_into(made, path, skeleton=COCO))
        assert name in line
        assert len(line) < 900
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


@pytest.mark.parametrize("contents", [{}, {"state_dict": {"a": torch.zeros(1)}}, {"a": 1}])
def test_a_file_of_something_else_is_refused(tmp_path: Path, contents: dict[str, Any]) -> None:
    refusal(saved(contents, tmp_path), lambda path: load_into(network(), path, skeleton=COCO))


def test_loading_leaves_the_random_state_and_timms_log_as_they_were(tmp_path: Path) -> None:
    import logging

    path, _ = classifier_file(tmp_path)
    made, logger = network(), logging.getLogger("timm.models._builder")
    before = (torch.get_rng_state(), logger.level, list(logger.handlers))
    load_into(made, path, skeleton=COCO)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (logger.level, list(logger.handlers)) == before[1:]


def test_the_normalisation_is_the_weights_own_or_the_training_is_refused(tmp_path: Path) -> None:
    path, _ = classifier_file(tmp_path)
    config = {"_target_": TIMM_NETWORK, "backbone": "test_vit", "pretrained": str(path)}
    line = starting_network(config, COCO, CODEC, normalization=HALF)[2]
    assert line.endswith("images normalised as there")
    with pytest.raises(InputError) as refused:
        starting_network(config, COCO, CODEC, normalization=IMAGENET)
    assert "'data.mean=[127.5,127.5,127.5]' 'data.std=[127.5,127.5,127.5]'" in str(refused.value)
    random = {**config, "pretrained": None}
    assert "random" in starting_network(random, COCO, CODEC, normalization=IMAGENET)[2]


def test_the_tags_weights_come_from_the_hub(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.origin)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    content, commit = save(timm.create_model("test_vit").state_dict()), "0123456789abcdef0123456789abcdef01234567"
    listed = {
        "revision/main": {"id": "timm/test_vit.r160_in1k", "sha": commit, "siblings": []},
        f"tree/{commit}": [{"type": "file", "path": "model.safetensors", "size": len(content), "oid": "0" * 40}],
    }
    for path, answer in listed.items():
        page = Page(json.dumps(answer).encode(), headers={"Content-Type": "application/json"})
        server.serve(f"/api/models/timm/test_vit.r160_in1k/{path}", page)
    tag = f'"{hashlib.sha256(content).hexdigest()}"'
    page = Page(content, etag=tag, headers={"X-Repo-Commit": commit})
    server.serve(f"/timm/test_vit.r160_in1k/resolve/{commit}/model.safetensors", page)
    for backbone in ("test_vit", "test_vit.r160_in1k"):
        config = {"_target_": TIMM_NETWORK, "backbone": backbone, "pretrained": "timm"}
        assert "timm classifier, 78 of" in starting_network(config, COCO, CODEC, normalization=HALF)[2]
    without = {**config, "backbone": "resnet50t"}
    with pytest.raises(InputError, match="timm has no weights of resnet50t on the hub"):
        starting_network(without, COCO, CODEC, normalization=HALF)


def test_a_card_on_the_hub_claims_no_licence_of_another_backbones_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    cards: list[str] = []

    class Hub:
        def __init__(self, token: str | None) -> None: ...

        def create_repo(self, repo_id: str, **_: Any) -> Any:
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, *, folder_path: str, **_: Any) -> None:
            cards.append((Path(folder_path) / "README.md").read_text())

    monkeypatch.setattr("uniformer_pose.weights.hub.HfApi", Hub)
    push_to_hub(timm_model(), "me/pose")
    assert "license" not in cards[0]
    assert "Pose network `timm`: person crops of 64x96" in cards[0]


def test_who_loads_a_uniformer_does_not_wait_for_timm() -> None:
    script = "import sys, uniformer_pose, uniformer_pose.weights.loading; print('timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout == "False\n"


# ------------------------------------------------------------------------------------------------ own checkpoints


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet.r160_in1k", "test_maxvit"])
def test_a_checkpoint_rebuilds_the_network_to_the_last_bit(tmp_path: Path, backbone: str) -> None:
    model = timm_model(backbone=backbone, drop_path_rate=0.1, checkpointed=True)
    state = torch.get_rng_state()
    for path in (saved(contents_of(model), tmp_path, "best.ckpt"), save_pretrained(model, tmp_path / "exported")):
        loaded, report = load_model(path)
        assert_same(loaded, model)
        assert "all" in str(report) or f"{len(report.loaded)} of {len(report.loaded)} tensors loaded" in str(report)
        images = torch.randn(1, 3, 64, 96)
        with torch.no_grad():
            assert torch.equal(load_network(path, announce=len)(images), model.network(images))
        torch.set_rng_state(state)
    with pytest.raises(InputError, match="UniFormer's pose network alone"):
        write_released_layout(model, tmp_path / "x.pth", "mmpose")


def test_a_checkpoint_is_a_start_for_other_keypoints_and_not_for_another_crop_size(tmp_path: Path) -> None:
    path = saved(contents_of(timm_model(backbone="test_maxvit")), tmp_path)
    fewer = load_skeleton("coco_17")
    assert "tensors loaded" in str(load_into(network("test_maxvit"), path, skeleton=fewer, with_head=False))
    larger = network("test_maxvit", crop_height=160, crop_width=128)
    assert "of another shape" in refusal(path, lambda path: load_into(larger, path, skeleton=COCO))


def test_networks_of_two_families_do_not_take_each_others_weights(tmp_path: Path) -> None:
    uniformer, of_timm = trained_model(), timm_model()
    path = saved(contents_of(uniformer), tmp_path, "uniformer.ckpt")
    assert "holds a PoseNetwork, but the network is TimmPoseNetwork" in refusal(
        path, lambda path: load_into(of_timm.network, path, skeleton=COCO)
    )
    path = saved(contents_of(of_timm), tmp_path, "timm.ckpt")
    assert "holds a TimmPoseNetwork, but the network is PoseNetwork" in refusal(
        path, lambda path: load_into(uniformer.network, path, skeleton=COCO)
    )
    path = saved(contents_of(timm_model(backbone="test_resnet")), tmp_path, "resnet.ckpt")
    assert "missing" in refusal(path, lambda path: load_into(of_timm.network, path, skeleton=COCO))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone": "vit_giant_patch14_224"}, "damaged"),
        ({"backbone": "vit_base_patch16_224"}, "much larger"),
        ({"backbone": "hf-hub:owner/model"}, "timm has no such model"),
        ({"backbone": "../../model"}, "timm has no such model"),
        ({"backbone": "os.system"}, "timm has no such model"),
        ({"backbone": "x" * 10**6}, "must be a shorter"),
        ({"backbone": {"_target_": "os.system"}}, "must be a valid string"),
        ({"deconv_channels": [10**12] * 3}, "damaged"),
        ({"deconv_channels": [10**5] * 3}, "much larger"),
        ({"crop_height": 10**12}, "crop_height"),
        ({"drop_path_rate": "os.system"}, "drop_path_rate"),
        ({"checkpointed": [1]}, "checkpointed"),
        ({"features_only": True}, "damaged"),
        ({"head": {"kind": "os.system"}}, "head"),
    ],
)
def test_a_hostile_description_is_one_line(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    contents = contents_of(timm_model())
    contents["uniformer_pose"]["network"] |= changes
    line = refusal(saved(contents, tmp_path), load_model)
    assert words in line
    assert len(line) < 900


@pytest.mark.parametrize("family", ["os.system", ["timm"], None, 5])
def test_a_family_of_networks_that_is_none_of_ours_is_refused(tmp_path: Path, family: Any) -> None:
    contents = contents_of(timm_model())
    contents["uniformer_pose"]["network_family"] = family
    assert "network_family" in refusal(saved(contents, tmp_path), load_model)
