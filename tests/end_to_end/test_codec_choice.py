"""One word chooses targets, crops, flip test and decoder that belong together, and nothing else goes beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from programs import composed
from uniformer_pose import PoseEstimator
from uniformer_pose.config_parts import TrainConfig
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.entry_point import checked_config
from uniformer_pose.keypoints.codec import Codec
from uniformer_pose.keypoints.simcc_codec import SimCCCodec
from uniformer_pose.prediction.pose_pipeline import PosePipeline
from uniformer_pose.saved_model import SavedModel


def configured(*arguments: str) -> PersonCrops:
    """The data of a training that is started with these arguments."""
    config = checked_config(composed("train", "augmentation=none", "data.num_workers=0", *arguments), TrainConfig)
    data: PersonCrops = instantiate(config["data"], _convert_="all")
    return data


# --- UDP from one end to the other: the numbers of MMPose's pipeline ---


@pytest.fixture(scope="module")
def udp(reference_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PersonCrops:
    """People of COCO as ``codec=udp`` reads them, in grey pictures of their photographs' sizes."""
    root = tmp_path_factory.mktemp("coco")
    content = (reference_folder / "coco_people_train2017.json").read_text()
    (root / "annotations").mkdir()
    (root / "train2017").mkdir()
    (root / "val2017").symlink_to(root / "train2017")
    for split in ("train2017", "val2017"):
        (root / "annotations" / f"person_keypoints_{split}.json").write_text(content)
    for image in json.loads(content)["images"]:
        grey = np.full((image["height"], image["width"], 3), 128, dtype=np.uint8)
        cv2.imwrite(str(root / "train2017" / image["file_name"]), grey)
    data = configured("codec=udp", "data=coco_256x192", f"data.root={root}", "data.val_boxes=gt")
    data.setup("fit")
    return data


def test_crops_of_udp_count_in_pixels_minus_one_in_training(udp: PersonCrops, reference_folder: Path) -> None:
    people, batch = udp.train_people, next(iter(udp.train_dataloader()))
    assert people is not None
    for index, in_crop in zip(batch["instance_index"].tolist(), batch["keypoints_in_crop"].numpy(), strict=True):
        x, y, width, height = people.boxes_xywh[index]
        longest = 1.25 * max(width / 192, height / 256)  # image pixels per crop pixel, were the crop's edges the box's
        center, extent = np.array([x + width / 2, y + height / 2]), longest * np.array([192.0, 256.0])
        expected = (people.keypoints_in_image[index] - center) / extent * [191, 255] + [95.5, 127.5]
        labelled = people.visibility[index] > 0
        np.testing.assert_allclose(in_crop[labelled], expected[labelled], atol=1e-3)
    turned = [each for each in json.loads((reference_folder / "person_crops.json").read_text()) if each["udp"]]
    for record in turned:
        geometry = replace(udp.crop_spec.around(record["bbox_xywh"]), rotation_degrees=record["rotation_degrees"])
        keypoints_in_image = np.reshape(record["keypoints_in_image"], (-1, 3))[:, :2]
        np.testing.assert_allclose(geometry.to_crop(keypoints_in_image), record["keypoints_in_crop"], atol=1e-3)
    assert len(turned) == 4


def test_targets_of_udp_are_those_of_the_reference(udp: PersonCrops, reference_folder: Path) -> None:
    with np.load(reference_folder / "heatmap_codec_udp_256x192.npz") as case:
        targets, weights = udp.codec.encode(*(torch.from_numpy(case[name]) for name in ("keypoints", "visible")))
        np.testing.assert_allclose(targets.numpy(), case["target_heatmaps"], atol=1e-6)
        assert np.array_equal(weights.numpy(), case["target_weights"])


def test_evaluation_by_udp_flips_without_a_shift_and_gives_the_references_points_in_the_image(
    udp: PersonCrops, reference_folder: Path
) -> None:
    with np.load(reference_folder / "heatmap_codec_udp_256x192.npz") as case:
        predicted, decoded = torch.from_numpy(case["predicted_heatmaps"]), case["decoded_keypoints"]
    of_mirrored = predicted.flip(-1)[:, udp.skeleton.mirror_permutation]
    answers = iter([predicted, of_mirrored])  # of the crops, and of their mirror images
    network = torch.nn.Identity()
    model = SavedModel(network, udp.codec, udp.skeleton, udp.mean, udp.std, udp.box_padding, {}, {})
    batch = next(iter(udp.val_dataloader()))
    crops = batch["crops"][: len(predicted)]
    poses = PosePipeline(model, lambda _images: next(answers))(crops, with_flip_test=True)
    people = udp.val_people
    assert people is not None
    geometry = model.crop_spec.around(people.boxes_xywh[batch["instance_index"][: len(predicted)].numpy()])
    # MMPose: the last cell is the crop's edge, from where the plain convention leads into the image.
    extent, center = geometry.extent[:, None], geometry.center[:, None]
    expected = decoded / [192, 256] * extent + center - extent / 2
    in_image = geometry.to_image(poses.keypoints_in_crop.numpy())
    np.testing.assert_allclose(in_image, expected, atol=0.01 * float((extent / [192, 256]).max()))


# --- One choice ---


def test_the_blur_before_the_newton_step_can_be_mmposes() -> None:
    arguments = ("codec=udp", "data=coco_384x288")
    assert configured(*arguments).codec.to_dict()["blur_kernel"] == 17
    assert configured(*arguments, "data.codec.blur_kernel=11").codec.to_dict()["blur_kernel"] == 11


@pytest.mark.parametrize("recipe", ["demo", "uniformer_s_coco_256x192_plus"])
def test_the_codec_of_a_recipe_can_be_another(recipe: str) -> None:
    assert configured(f"experiment={recipe}").codec.method == "udp"
    assert configured(f"experiment={recipe}", "codec=dark").codec.method == "dark"


@pytest.mark.parametrize("method", ["msra", "dark", "udp"])
def test_a_codec_is_chosen_by_its_word_or_by_the_older_key(method: str) -> None:
    codecs: list[Codec] = [configured(each).codec for each in (f"codec={method}", f"data.codec.method={method}")]
    assert codecs[0].to_dict() == codecs[1].to_dict()
    assert codecs[0].to_dict() == {**configured().codec.to_dict(), "method": method}
    assert configured(f"codec={method}", "data.codec.sigma=2.5").codec.to_dict()["sigma"] == 2.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["codec=udp", "data.codec.method=msra"], "codec=udp with data.codec.method=msra: give codec=msra, alone"),
        (["codec=simcc", "data.codec.method=msra"], "data.codec.method='msra': must be 'simcc'"),
        (["codec=simcc", "data.codec.sigma=2"], "data.codec.sigma=2: is in heatmap cells"),
        (["codec=simcc", "experiment=demo"], "data.codec.sigma=2.0: is in heatmap cells; of simcc give null"),
        (["codec=simcc", "data.codec.stride=4"], "data.codec.stride=4: no such argument"),
        (["codec=simcc", "head=heatmap"], "head=heatmap with data.codec.method=simcc"),
        (["codec=simcc", "loss=mse"], "loss=KeypointMSE is for heatmap"),
        (["codec=simcc", "data.codec.normalized=true"], "data.codec.normalized=true"),
        (["codec=simcc", "loss=kl_simcc"], "loss=kl_simcc"),
        (["head=simcc"], "head=simcc with data.codec.method=msra"),
        (["codec=dark", "loss=kl"], "loss=KeypointKL is for simcc"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_go_together_is_refused_in_one_line(
    tiny_run: list[str], synthetic_root: Path, run_script: Any, tmp_path: Path, arguments: list[str], words: str
) -> None:
    finished = run_script("train.py", [*tiny_run, f"data.root={synthetic_root}", *arguments], tmp_path)
    assert finished.returncode == 2
    last = finished.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert words in last
    assert "Traceback" not in finished.stderr


def test_a_simcc_codec_takes_its_sigma_from_the_crop_and_never_from_heatmaps() -> None:
    codec = configured("codec=simcc", "data=coco_384x288").codec
    assert isinstance(codec, SimCCCodec)
    assert (codec.sigma_x, codec.sigma_y) == (6.0, 6.93)
    original = configured("codec=simcc", "loss=kl_simcc", "data.codec.sigma_bins=6", "data.codec.normalized=true").codec
    assert isinstance(configured("experiment=demo", "codec=simcc", "data.codec.sigma=null").codec, SimCCCodec)
    assert original.to_dict() == SimCCCodec(256, 192, sigma_bins=6.0, normalized=True).to_dict()


@pytest.mark.slow
def test_a_network_of_vectors_is_trained_evaluated_exported_and_gives_the_same_poses(
    tiny_run: list[str], synthetic_root: Path, run_script: Any, tmp_path: Path
) -> None:
    settings = [*tiny_run, "codec=simcc", "head=rtmcc", "data.codec.dark=true", f"data.root={synthetic_root}"]
    trained = run_script("train.py", [*settings, "run_dir=trained"], tmp_path)
    assert trained.returncode == 0, trained.stderr
    checkpoint = tmp_path / "trained/checkpoints/best.ckpt"
    for script, arguments in {
        "eval.py": ["trainer=cpu", "data.num_workers=0", "run_dir=again"],
        "export.py": ["output=exported"],
    }.items():
        finished = run_script(script, [f"ckpt_path={checkpoint}", *arguments], tmp_path)
        assert finished.returncode == 0, finished.stderr
    poses = [json.loads((tmp_path / name / "predictions.json").read_text()) for name in ("trained", "again")]
    assert poses[0] == poses[1]

    files = sorted((synthetic_root / "images/val").iterdir())
    estimators = [PoseEstimator(file, engine="eager", announce=str) for file in (checkpoint, tmp_path / "exported")]
    estimators.append(PoseEstimator(checkpoint, announce=str))  # by OpenVINO, where it is installed
    found = [estimator.predict_batch(files, flip_test=True) for estimator in estimators]
    for one, another, fast in zip(*found, strict=True):
        assert np.array_equal(one.keypoints, another.keypoints)
        assert np.array_equal(one.scores, another.scores)
        np.testing.assert_allclose(fast.scores, one.scores, atol=1e-4)
    heatmaps = estimators[0].heatmaps(files[0])
    assert heatmaps.shape == (17, 32, 32)
    assert isinstance(estimators[0].codec, SimCCCodec)
    assert estimators[0].codec.dark
