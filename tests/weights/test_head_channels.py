"""Wherever a skeleton meets a weight file, channels are matched by keypoint name: permuted, missing, or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from small_networks import checkpoint, contents_of, heatmaps, network, refusal, saved, trained_model

from programs import run_here
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.keypoint_mapping import places_in_target, union_of
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.keypoints.simcc_codec import SimCCCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.prediction.estimator import PoseEstimator
from uniformer_pose.saved_model import RECORD_KEY, SavedModel, data_arguments, require_same_keypoints, saved_record
from uniformer_pose.skeleton import Skeleton, load_skeleton
from uniformer_pose.training.pose_module import PoseModule
from uniformer_pose.weights.export import save_pretrained, write_released_layout
from uniformer_pose.weights.loading import load_into, load_model

COCO = load_skeleton("coco_17")
NAMES = COCO.keypoint_names
BACKWARDS = NAMES[::-1]
CODEC = HeatmapCodec(64, 64, sigma=1.5)


def target_of(num_keypoints: int) -> PoseNetwork:
    """A network with other weights than any file here."""
    made = network(num_keypoints=num_keypoints)
    for weight in made.parameters():
        torch.nn.init.normal_(weight)
    return made


def skeleton_of(names: tuple[str, ...], **changes: Any) -> Skeleton:
    """A skeleton of COCO's points, or others, in this order; named and drawn in another way."""
    sigma_of = dict(zip(NAMES, COCO.sigmas, strict=True))
    kept = tuple(pair for pair in COCO.left_right_pairs if set(pair) <= set(names))
    fields = {
        "name": "mine",
        "keypoint_names": names,
        "sigmas": tuple(sigma_of.get(name, 0.05) for name in names),
        "colours": ((1, 2, 3),) * len(names),
        "left_right_pairs": kept,
        "upper_body": (),
        "lower_body": (),
        "limbs": (),
    }
    return Skeleton(**fields | changes)


def same_file(folder: Path, skeleton: Skeleton) -> str:
    (folder / "skeleton.yaml").write_text(yaml.safe_dump(skeleton.to_dict(), sort_keys=False))
    return str(folder / "skeleton.yaml")


def released(folder: Path, rows: int = 17, **meta: Any) -> tuple[Path, PoseNetwork]:
    """A file without our record, as MMPose writes them."""
    made = target_of(rows)
    return saved({"state_dict": made.state_dict(), "meta": meta}, folder), made


@pytest.mark.parametrize(
    ("names", "rows", "told"),
    [
        (BACKWARDS, list(range(17))[::-1], "matched by keypoint name: 17 of the 17"),
        ((NAMES[10], NAMES[0], NAMES[9]), [10, 0, 9], "3 of the 3"),
        (tuple(name.replace("_", " ").title() for name in NAMES), list(range(17)), ""),
    ],
    ids=["another order", "a part", "spelt otherwise"],
)
def test_a_keypoint_takes_the_channel_of_its_name_weight_and_bias(
    tmp_path: Path, names: tuple[str, ...], rows: list[int], told: str
) -> None:
    path, model = checkpoint(tmp_path)
    target = target_of(len(names))
    line = str(load_into(target, path, skeleton=skeleton_of(names, left_right_pairs=())))
    assert torch.equal(heatmaps(target), heatmaps(model.network)[:, rows])
    assert told in line
    assert ("matched" in line) == bool(told)


def test_keypoints_that_the_file_lacks_keep_their_values_and_are_named(tmp_path: Path) -> None:
    path, model = checkpoint(tmp_path)
    target = target_of(19)
    before = target.head.final_layer.weight.detach().clone()
    line = str(load_into(target, path, skeleton=skeleton_of(("neck", *NAMES, "tail"))))
    assert torch.equal(heatmaps(target)[:, 1:-1], heatmaps(model.network))
    assert torch.equal(target.head.final_layer.weight[[0, -1]], before[[0, -1]])
    assert "17 of the 19" in line
    assert "untrained, since the file has none: neck, tail" in line


def test_no_keypoint_in_common_stops_and_names_the_way_out(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    target, snout = target_of(2), skeleton_of(("snout", "tail"))
    before = heatmaps(target)
    line = refusal(path, lambda path: load_into(target, path, skeleton=snout))
    assert "snout, tail" in line
    assert "model.pretrained_head=false" in line
    assert torch.equal(heatmaps(target), before)
    assert "left out as asked" in str(load_into(target, path, skeleton=snout, with_head=False))


def test_a_file_that_names_nothing_has_cocos_points_if_it_has_17(tmp_path: Path) -> None:
    path, made = released(tmp_path)
    target = target_of(17)
    load_into(target, path, skeleton=skeleton_of(BACKWARDS))
    assert torch.equal(heatmaps(target), heatmaps(made).flip(1))
    other = skeleton_of(tuple(f"point{i}" for i in range(1, 18)))
    assert "do not include point1, " in refusal(path, lambda path: load_into(target, path, skeleton=other))
    path, _ = released(tmp_path, rows=3)
    line = refusal(path, lambda path: load_into(target_of(3), path, skeleton=skeleton_of(NAMES[:3])))
    assert "has 3 keypoints, but does not say which" in line
    path, made = released(tmp_path, dataset_meta={"keypoint_id2name": dict(enumerate(BACKWARDS))})
    model, _report = load_model(path, codec=CODEC, head_dim=8)  # 17, and not in COCO's order
    assert torch.equal(heatmaps(model.network), heatmaps(made).flip(1))


def test_mmposes_own_names_are_believed(tmp_path: Path) -> None:
    names = dict(enumerate(("tail", "snout", "neck")))
    path, made = released(tmp_path, rows=3, dataset_meta={"keypoint_id2name": names, "sigmas": np.ones(3)})
    target, animal = target_of(3), skeleton_of(("neck", "tail", "snout"))
    load_into(target, path, skeleton=animal)
    assert torch.equal(heatmaps(target), heatmaps(made)[:, [2, 0, 1]])
    model, _report = load_model(path, codec=CODEC, head_dim=8, skeleton=animal)
    assert torch.equal(heatmaps(model.network), heatmaps(made)[:, [2, 0, 1]])
    assert "do not include nose" in refusal(path, lambda path: load_model(path, codec=CODEC, head_dim=8))
    same, _ = load_model(path, codec=CODEC, head_dim=8, assumed_skeleton=same_file(tmp_path, animal))
    assert torch.equal(heatmaps(same.network), heatmaps(model.network))
    known, _ = load_model(checkpoint(tmp_path)[0], assumed_skeleton=same_file(tmp_path, animal))
    assert known.skeleton.keypoint_names == NAMES


def test_a_model_gives_the_keypoints_of_the_data_in_their_order(tmp_path: Path) -> None:
    path, written = checkpoint(tmp_path)
    part = skeleton_of((*NAMES[9:11], *NAMES[1:3]))
    model, report = load_model(path, skeleton=same_file(tmp_path, part))
    assert torch.equal(heatmaps(model.network), heatmaps(written.network)[:, [9, 10, 1, 2]])
    assert (model.skeleton.keypoint_names, model.network.arguments["num_keypoints"]) == (part.keypoint_names, 4)
    assert "4 of the 4" in str(report)


def test_every_keypoint_of_the_data_must_be_there_and_every_side_with_its_partner(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    line = refusal(path, lambda path: load_model(path, skeleton=skeleton_of((*NAMES, "neck", "tail"))))
    assert "do not include neck, tail" in line
    assert "pretrained_head" not in line
    line = refusal(path, lambda path: load_model(path, skeleton=skeleton_of(("nose", "left_ear"))))
    assert "has left_ear and not its mirror partner" in line


def test_the_datas_sigmas_and_the_models_pairs_count_and_both_are_said(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    other = skeleton_of(BACKWARDS, sigmas=(0.07,) * 17, left_right_pairs=(("left_eye", "right_eye"),))
    model, report = load_model(path, skeleton=other)
    assert model.skeleton.sigmas == other.sigmas
    assert set(map(frozenset, model.skeleton.left_right_pairs)) == set(map(frozenset, COCO.left_right_pairs))
    assert "OKS sigmas" in str(report)
    assert "model's pairs" in str(report)


def test_what_was_permuted_is_saved_with_its_own_names(tmp_path: Path) -> None:
    path, written = checkpoint(tmp_path)
    model, _report = load_model(path, skeleton=skeleton_of(BACKWARDS))
    write_released_layout(model, tmp_path / "mmpose.pth", "mmpose")
    for again in (save_pretrained(model, tmp_path / "folder"), tmp_path / "mmpose.pth"):
        loaded, _report = load_model(again, skeleton=COCO)
        assert torch.equal(heatmaps(loaded.network), heatmaps(written.network))
        assert load_model(again)[0].skeleton.keypoint_names == BACKWARDS


def test_a_training_is_not_continued_in_another_order(tmp_path: Path) -> None:
    _, model = checkpoint(tmp_path)
    held = {RECORD_KEY: saved_record(model)}
    require_same_keypoints(held[RECORD_KEY], skeleton_of(NAMES))
    for other in (skeleton_of(BACKWARDS), skeleton_of((*NAMES, "tail"))):
        with pytest.raises(InputError, match=r"another order.*model.pretrained="):
            PoseModule(replace(model, skeleton=other), EvaluationProtocol()).on_load_checkpoint(held)
        arguments = data_arguments(model, {"skeleton": same_file(tmp_path, other)})  # to be evaluated on
        assert arguments["skeleton"].keypoint_names == other.keypoint_names
        assert arguments["model_skeleton"] is model.skeleton


def test_weights_of_another_number_than_the_names_beside_them_are_refused(tmp_path: Path) -> None:
    contents = contents_of(checkpoint(tmp_path)[1])
    contents[RECORD_KEY]["skeleton"] = skeleton_of(NAMES[:5]).to_dict()
    path = saved(contents, tmp_path)
    for load in (load_model, lambda path: load_into(target_of(17), path, skeleton=COCO)):
        assert "weights of 17 keypoints beside the names of 5" in refusal(path, load)


UNION = union_of([COCO, load_skeleton("aic_14"), load_skeleton("mpii_16")])


def model_of_union(kind: str, *, visibility: bool = False) -> SavedModel:
    """A model of the 21 points of COCO, AIC and MPII, with another bias for each."""
    head: dict[str, Any] = {"kind": kind, "visibility": visibility}
    if kind == "heatmap":
        return trained_model(UNION, layer_norm_eps=1e-5, head=head)
    made = network(num_keypoints=21, crop_height=64, crop_width=64, layer_norm_eps=1e-5, head=head)
    torch.nn.init.normal_(next(bias for name, bias in made.head.named_parameters() if "final_layer.bias" in name))
    return replace(trained_model(UNION), network=made.eval(), codec=SimCCCodec(64, 64))


@pytest.mark.parametrize("keypoints", ["coco_17", "crowdpose_14", "mpii_16"])
@pytest.mark.parametrize("layout", ["mmpose", "original", "safetensors"])
@pytest.mark.parametrize("kind", ["heatmap", "simcc"])
def test_channels_of_others_are_left_out_and_those_that_stay_give_the_same_numbers(
    tmp_path: Path, keypoints: str, layout: Any, kind: str
) -> None:
    whole, part = model_of_union(kind), load_skeleton(keypoints)
    model, report = load_model(saved(contents_of(whole), tmp_path, "whole.ckpt"), skeleton=keypoints)
    count = part.num_keypoints
    assert f"matched by keypoint name: {count} of the {count} of skeleton {keypoints}, from 21 in the file" in str(
        report
    )
    assert model.skeleton == part
    places = [place for place in places_in_target(part, UNION) if place is not None]
    assert torch.equal(heatmaps(model.network), heatmaps(whole.network)[:, places])
    if (kind, layout) == ("simcc", "original"):  # which has no such head
        return
    if layout == "safetensors":
        written = save_pretrained(model, tmp_path / "out")
    else:
        written = tmp_path / "out.pth"
        write_released_layout(model, written, layout)
    again, _report = load_model(written)
    assert again.skeleton == part
    assert torch.equal(heatmaps(again.network), heatmaps(whole.network)[:, places])


def test_what_is_seen_of_the_keypoints_that_stay_is_the_same_too(tmp_path: Path) -> None:
    whole = model_of_union("heatmap", visibility=True)
    model, _report = load_model(saved(contents_of(whole), tmp_path), skeleton="aic_14")
    places = [place for place in places_in_target(load_skeleton("aic_14"), UNION) if place is not None]
    (ours, our_logits), (theirs, their_logits) = heatmaps(model.network), heatmaps(whole.network)
    assert torch.equal(ours, theirs[:, places])
    # A product of other size is added up in another order.
    torch.testing.assert_close(our_logits, their_logits[:, places], rtol=1e-5, atol=1e-7)


def test_no_keypoint_is_left_out_of_a_head_where_all_look_at_each_other(tmp_path: Path) -> None:
    whole = model_of_union("rtmcc")
    path = saved(contents_of(whole), tmp_path)
    assert "4 of its 21 keypoints cannot be left out" in refusal(path, lambda p: load_model(p, skeleton="coco_17"))
    turned = UNION.of_keypoints(range(21)[::-1])
    model, _report = load_model(path, skeleton=turned)
    torch.testing.assert_close(heatmaps(model.network), heatmaps(whole.network).flip(1), rtol=1e-5, atol=1e-7)


def test_programs_give_the_keypoints_of_one_set_of_a_model_of_several(rendered_coco: Path, tmp_path: Path) -> None:
    """A model of 21 points, exported with CrowdPose's 14; the same from predict.py as from the estimator."""
    path = saved(contents_of(model_of_union("heatmap")), tmp_path, "whole.ckpt")
    exported = tmp_path / "part.pth"
    command = [f"ckpt_path={path}", "format=mmpose", f"output={exported}", "keypoints=crowdpose_14"]
    finished = run_here("export.py", command, tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "14 of the 14 of skeleton crowdpose_14, from 21 in the file" in finished.stdout
    assert load_model(exported)[0].skeleton == load_skeleton("crowdpose_14")
    finished = run_here("export.py", [*command[:3], "keypoints=ap10k_17"], tmp_path)
    assert finished.returncode == 2
    assert "do not include R_Eye" in finished.stderr.replace("L_Eye, ", "")
    picture = rendered_coco / "val2017" / sorted(entry.name for entry in (rendered_coco / "val2017").glob("*.jpg"))[0]
    found = []
    for name, extra in (("part", [f"ckpt_path={exported}"]), ("whole", [f"ckpt_path={path}", *command[3:]])):
        output = tmp_path / name
        settings = [f"source={picture}", f"output={output}", "boxes=full", "device=cpu", "draw=false", "engine=eager"]
        finished = run_here("predict.py", [*settings, *extra], tmp_path)
        assert finished.returncode == 0, finished.stderr
        found.append(json.loads((output / "poses.json").read_text())[0]["keypoints"])
    assert found[0] == found[1]
    assert len(found[0]) == 3 * 14
    estimator = PoseEstimator(path, keypoints="crowdpose_14", device="cpu", engine="eager", announce=len)
    assert estimator(picture).keypoints[0] == pytest.approx(np.reshape(found[0], (14, 3))[:, :2], abs=0.01)
