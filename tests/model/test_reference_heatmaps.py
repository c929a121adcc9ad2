"""The network gives the numbers of MMPose and of the original code, to 1e-4 in fp32."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from uniformer_pose.keypoints.flip_test import flip_test, mirror_heatmaps
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.skeleton import load_skeleton
from weights_by_name import weight_by_name, weights_by_name

SKELETON = load_skeleton("coco_17")
MIRROR = torch.from_numpy(SKELETON.mirror_permutation)
DEPTHS = {"s": [3, 4, 8, 3], "b": [5, 8, 20, 7]}
TOLERANCE = 1e-4


def empty_network(size: str, **arguments: Any) -> PoseNetwork:
    with torch.device("meta"):
        return PoseNetwork(SKELETON.num_keypoints, DEPTHS[size], **arguments)


@functools.lru_cache(maxsize=1)
def reference_weights(size: str) -> dict[str, Tensor]:
    return weights_by_name({name: tuple(entry.shape) for name, entry in empty_network(size).state_dict().items()})


def network_with_reference_weights(size: str, **arguments: Any) -> PoseNetwork:
    network = empty_network(size, **arguments).to_empty(device="cpu")
    network.load_state_dict(reference_weights(size))
    return network.eval()


def crops_of(folder: Path, reference: np.lib.npyio.NpzFile) -> np.ndarray:
    """The crops that a file's numbers are for; those on rendered people share the crops of the training trajectory."""
    if "crops_rgb" in reference:
        return np.asarray(reference["crops_rgb"])
    with np.load(folder / "training_trajectory_uniformer_s_256x192.npz") as trajectory:
        return np.asarray(trajectory["crops_rgb"])


def normalised(crops_rgb: np.ndarray) -> Tensor:
    crops = torch.from_numpy(crops_rgb).float()
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    return ((crops - mean) / std).permute(0, 3, 1, 2)


def largest_difference(ours: Tensor, reference: np.ndarray) -> float:
    return float((ours - torch.from_numpy(reference)).abs().max())


@pytest.mark.parametrize("size", ["b", "s"])
def test_heatmaps_of_a_seeded_input_equal_the_reference(reference_folder: Path, size: str) -> None:
    reference = np.load(reference_folder / f"heatmaps_from_seed_uniformer_{size}_256x192.npz")
    random = np.random.Generator(np.random.PCG64(int(reference["input_seed"])))
    images = torch.from_numpy(random.standard_normal(tuple(reference["input_shape"])).astype("float32"))
    network = network_with_reference_weights(size)
    with torch.inference_mode():
        assert largest_difference(network(images), reference["heatmaps"]) < TOLERANCE
        flip_averaged = flip_test(network, images, lambda heatmaps: mirror_heatmaps(heatmaps, MIRROR))
    assert largest_difference(flip_averaged, reference["heatmaps_flip_test"]) < TOLERANCE


@pytest.mark.parametrize(
    ("file_name", "layer_norm_eps"),
    [
        ("heatmaps_uniformer_s_256x192.npz", 1e-5),
        ("heatmaps_uniformer_s_256x192_original_eps.npz", 1e-6),
    ],
)
def test_heatmaps_and_features_of_crops_equal_the_reference(
    numbers_folder: Path, file_name: str, layer_norm_eps: float
) -> None:
    reference = np.load(numbers_folder / file_name)
    images = normalised(crops_of(numbers_folder, reference)[: len(reference["heatmaps"])])
    network = network_with_reference_weights("s", layer_norm_eps=layer_norm_eps)
    with torch.inference_mode():
        features = network.backbone(images)
        assert largest_difference(features[:, ::8], reference["last_stage"]) < TOLERANCE
        assert largest_difference(network.head(features), reference["heatmaps"]) < TOLERANCE
        flip_averaged = flip_test(network, images, lambda heatmaps: mirror_heatmaps(heatmaps, MIRROR))
    assert largest_difference(flip_averaged, reference["heatmaps_flip_test"]) < TOLERANCE


def test_each_attention_mode_gives_the_original_code_s_features(numbers_folder: Path) -> None:
    reference = np.load(numbers_folder / "attention_modes_uniformer_s_256x192.npz")
    features_by_mode = {name.removesuffix("_last_stage"): reference[name] for name in reference if "_last" in name}
    assert {"global", "window"} <= set(features_by_mode)  # and hybrid, on rendered people
    for mode, expected in features_by_mode.items():
        network = network_with_reference_weights("s", stage3_attention=mode)
        with torch.inference_mode():
            features = network.backbone(normalised(crops_of(numbers_folder, reference)[: len(expected)]))
        assert largest_difference(features, expected) < TOLERANCE, mode


@pytest.mark.parametrize("size", ["s", "b"])
def test_names_and_shapes_are_those_of_the_released_pose_files_but_for_the_unused_norms(
    reference_folder: Path, size: str
) -> None:
    layout_file = reference_folder / f"checkpoint_layout_mmpose_uniformer_{size}.json"
    layout = json.loads(layout_file.read_text())
    unused = {f"backbone.norm{stage}.{part}" for stage in (1, 2, 3) for part in ("weight", "bias")}
    assert unused <= set(layout)
    ours = {name: list(entry.shape) for name, entry in empty_network(size).state_dict().items()}
    assert ours == {name: shape for name, shape in layout.items() if name not in unused}


@pytest.mark.parametrize("size", ["s", "b"])
def test_the_backbone_is_the_imagenet_classifier_s_but_for_its_end(reference_folder: Path, size: str) -> None:
    layout_file = reference_folder / f"checkpoint_layout_imagenet_uniformer_{size}.json"
    layout = json.loads(layout_file.read_text())
    backbone = empty_network(size).backbone
    ours = {name: list(entry.shape) for name, entry in backbone.state_dict().items()}
    assert set(ours) - set(layout) == {"norm4.weight", "norm4.bias"}
    assert {name.split(".")[0] for name in set(layout) - set(ours)} == {"norm", "head"}
    assert all(ours[name] == layout[name] for name in set(ours) & set(layout))


def test_the_weight_rule_of_these_tests_is_the_reference_s(reference_folder: Path) -> None:
    layout = json.loads((reference_folder / "checkpoint_layout_mmpose_uniformer_s.json").read_text())
    first_values = json.loads((reference_folder / "reference_weights_uniformer_s.json").read_text())
    assert set(first_values) == set(layout)
    for name, values in first_values.items():
        ours = weight_by_name(name, tuple(layout[name])).reshape(-1)[:4]
        # numpy.exp, of running variances, may differ in the last digit from one processor to the next.
        torch.testing.assert_close(ours, torch.tensor(values, dtype=ours.dtype), rtol=2e-7, atol=0)
