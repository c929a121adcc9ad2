"""Heads: their shapes for every backbone, and the numbers of MMPose's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.flip_test import flip_test
from uniformer_pose.keypoints.simcc_codec import SimCCCodec
from uniformer_pose.model.arguments import HeadArguments, NetworkArguments
from uniformer_pose.model.head import pose_head
from uniformer_pose.model.pose_head import PoseHead
from uniformer_pose.skeleton import load_skeleton
from weights_by_name import weights_by_name

SMALL = NetworkArguments(num_keypoints=5, depths=[1, 1, 1, 1], deconv_channels=[12, 8, 6])


@pytest.mark.parametrize(("stride", "channels"), [(32, [12, 8, 6]), (16, [8, 6]), (8, [6]), (4, [])])
def test_a_heatmap_head_doubles_the_features_of_any_stride_to_a_quarter_of_the_crop(
    stride: int, channels: list[int]
) -> None:
    head = pose_head(SMALL, 10, stride)
    assert head(torch.randn(2, 10, 64 // stride, 96 // stride)).shape == (2, 5, 16, 24)
    shapes = [tuple(entry.shape) for name, entry in head.named_parameters() if entry.ndim == 4]
    pairs = zip([10, *channels], channels, strict=False)
    assert shapes == [*((before, after, 4, 4) for before, after in pairs), (5, [10, *channels][-1], 1, 1)]


@pytest.mark.parametrize("stride", [2, 12, 64])
def test_a_stride_that_no_deconvolutions_bridge_is_refused(stride: int) -> None:
    with pytest.raises(InputError, match=f"stride {stride}"):
        pose_head(SMALL, 10, stride)


# The numbers of MMPose's heads

KINDS = {
    "simcc": HeadArguments(kind="simcc"),
    "simcc_no_deconv": HeadArguments(kind="simcc", deconvolutions=False),
    "rtmcc": HeadArguments(kind="rtmcc"),
}
TOLERANCE = 1e-4


def layout_of(folder: Path, kind: str) -> dict[str, tuple[int, ...]]:
    layout = json.loads((folder / f"checkpoint_layout_head_{kind}_256x192.json").read_text())
    return {name: tuple(shape) for name, shape in layout.items()}


def reference_head(folder: Path, kind: str, **changes: float) -> PoseHead:
    """MMPose's head with its reference weights, those of an ending in ``changes`` multiplied by a number."""
    arguments = NetworkArguments(17, [1, 1, 1, 1], head=KINDS[kind], crop_height=256, crop_width=192)
    head = pose_head(arguments, 512, 32)
    weights = weights_by_name(layout_of(folder, kind))
    for name, factor in changes.items():
        weights[f"head.gau.{name}"] *= factor
    head.load_state_dict({name.removeprefix("head."): entry for name, entry in weights.items()})
    return head.eval()


def features_of(reference: np.lib.npyio.NpzFile) -> torch.Tensor:
    random = np.random.Generator(np.random.PCG64(int(reference["input_seed"])))
    return torch.from_numpy(random.standard_normal(tuple(reference["input_shape"])).astype("float32"))


def assert_equal_to(reference: np.lib.npyio.NpzFile, name: str, found: torch.Tensor) -> None:
    """Both axes under ``name``, of the first person every third keypoint (tests/reference/README.md)."""
    expected = np.concatenate([reference[name.replace("*", axis)] for axis in "xy"], axis=-1)
    assert expected.std() > 0.01
    assert float((found[:1, ::3] - torch.from_numpy(expected)).abs().max()) < TOLERANCE, name


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_shapes_are_those_of_mmpose_s_files(reference_folder: Path, kind: str) -> None:
    entries = reference_head(reference_folder, kind).state_dict()
    assert {f"head.{name}": tuple(entry.shape) for name, entry in entries.items()} == layout_of(reference_folder, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_equal_the_reference_plain_and_with_mmpose_s_flip_test(reference_folder: Path, kind: str) -> None:
    reference = np.load(reference_folder / "heads_256x192.npz")
    head, features = reference_head(reference_folder, kind), features_of(reference)
    codec = SimCCCodec(256, 192, aligned_flip=False)
    mirror = torch.from_numpy(load_skeleton("coco_17").mirror_permutation)
    with torch.inference_mode():
        assert_equal_to(reference, f"{kind}/*", head(features))
        averaged = flip_test(head, features, lambda output: codec.mirrored(output, mirror))
        assert_equal_to(reference, f"{kind}/flip_test_*", averaged)
        if kind == "simcc":
            assert_equal_to(reference, "simcc/train_mode_*", head.train()(features))


def test_the_gated_attention_unit_equals_the_reference_stage_by_stage(reference_folder: Path) -> None:
    reference = np.load(reference_folder / "heads_256x192.npz")
    head, features = reference_head(reference_folder, "rtmcc"), features_of(reference)
    with torch.inference_mode():
        cells = head.final_layer(features).flatten(2)
        tokens = head.mlp(cells)
        stages = {"convolution": cells, "linear": tokens, "attention_branch": head.gau.branch(tokens)}
        for name, found in {**stages, "attention_unit": head.gau(tokens)}.items():
            expected = torch.from_numpy(reference[f"rtmcc/after_{name}"])
            assert float((found[:1, ::3] - expected).abs().max()) < TOLERANCE, name
        # With the reference weights the branch is too small to be seen in the output.
        strong = reference_head(reference_folder, "rtmcc", gamma=10, beta=10)
        assert_equal_to(reference, "rtmcc/*_gamma_beta_times_10", strong(features))
        plain = np.concatenate([reference["rtmcc/x"], reference["rtmcc/y"]], axis=-1)
        assert float((strong(features)[:1, ::3] - torch.from_numpy(plain)).abs().max()) > 100 * TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_initial_weights_are_mmpose_s(kind: str) -> None:
    torch.manual_seed(0)
    arguments = NetworkArguments(17, [1, 1, 1, 1], head=KINDS[kind], crop_height=256, crop_width=192)
    for name, module in pose_head(arguments, 512, 32).named_modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Linear)):
            expected = 0.01 if isinstance(module, torch.nn.Linear) else 0.001
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05), name
            assert module.bias is None or not module.bias.any(), name
        elif name == "gau":
            for entry in (module.gamma, module.beta):  # uniform from 0 to 1
                assert 0 <= entry.min().item() < 0.1 < 0.9 < entry.max().item() < 1


# Crops of one size


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_head_takes_crops_of_its_size_alone(kind: str) -> None:
    arguments = NetworkArguments(17, [1, 1, 1, 1], head=KINDS[kind], crop_height=64, crop_width=96)
    for stride in (32, 16, 4):
        head = pose_head(arguments, 10, stride).eval()
        assert head(torch.zeros(2, 10, 64 // stride, 96 // stride)).shape == (2, 17, 2 * (64 + 96))
        with pytest.raises(InputError, match=r"crops of 96x64 .*made for 64x96"):
            head(torch.zeros(2, 10, 96 // stride, 64 // stride))
    with pytest.raises(InputError, match="crop_height and crop_width"):
        pose_head(NetworkArguments(17, [1, 1, 1, 1], head=KINDS[kind]), 10, 32)


def test_a_choice_that_a_head_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match=r"head.deconvolutions=false.*head=simcc"):
        HeadArguments(kind="rtmcc", deconvolutions=False)
    with pytest.raises(InputError, match=r"head.kind='regression'.*heatmap"):
        HeadArguments(kind="regression")  # type: ignore[arg-type]
