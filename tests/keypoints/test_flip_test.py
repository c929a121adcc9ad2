from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.keypoints.codec import Codec
from uniformer_pose.keypoints.flip_test import flip_test, mirror_heatmaps
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec, Method
from uniformer_pose.keypoints.simcc_codec import BINS_PER_PIXEL, SimCCCodec, of_axes
from uniformer_pose.skeleton import load_skeleton

SKELETON = load_skeleton("coco_17")
PERMUTATION = torch.from_numpy(SKELETON.mirror_permutation)


def mirrored(heatmaps: Tensor, *, shift: bool = True) -> Tensor:
    return mirror_heatmaps(heatmaps, PERMUTATION, shift)


def random_heatmaps(seed: int = 0) -> Tensor:
    return torch.rand(2, SKELETON.num_keypoints, 32, 24, generator=torch.Generator().manual_seed(seed))


def test_mirroring_swaps_left_and_right_keypoints() -> None:
    heatmaps = random_heatmaps()
    mirrored = mirror_heatmaps(heatmaps, PERMUTATION, shift=False)
    nose, left_wrist, right_wrist = SKELETON.indices(["nose", "left_wrist", "right_wrist"])
    assert torch.equal(mirrored[:, left_wrist], heatmaps[:, right_wrist].flip(-1))
    assert torch.equal(mirrored[:, right_wrist], heatmaps[:, left_wrist].flip(-1))
    assert torch.equal(mirrored[:, nose], heatmaps[:, nose].flip(-1))


def test_shift_moves_one_cell_right_and_keeps_column_zero() -> None:
    plain = mirror_heatmaps(random_heatmaps(), PERMUTATION, shift=False)
    shifted = mirror_heatmaps(random_heatmaps(), PERMUTATION, shift=True)
    assert torch.equal(shifted[..., 1:], plain[..., :-1])
    assert torch.equal(shifted[..., 0], plain[..., 0])


@pytest.mark.parametrize("method", ["msra", "dark", "udp"])
def test_target_of_the_mirrored_crop_mirrored_back_equals_the_plain_target(method: Method) -> None:
    # With the plain geometry a keypoint at x lies at width - x of the mirrored crop, which is cell w - x / 4.
    # Reversing w columns takes that to x / 4 - 1: one cell short, which the shift makes up for. With the
    # unbiased geometry it lies at width - 1 - x, and reversing takes it back exactly.
    codec = HeatmapCodec(128, 96, 2.0, method)
    geometry = CropSpec(128, 96, 1.25, codec.unbiased).around([28.0, 34.0, 84.0, 112.0])
    rng = np.random.default_rng(0)
    # Whole numbers plus 0.3 keep the nearest cell the same on both sides: no msra centre lies half-way.
    keypoints_in_crop = rng.integers(0, [95, 127], (4, SKELETON.num_keypoints, 2)) + 0.3
    keypoints_in_image = geometry.to_image(keypoints_in_crop)
    mirrored_keypoints = replace(geometry, mirrored=True).to_crop(keypoints_in_image)[:, PERMUTATION]

    visibility = torch.ones(4, SKELETON.num_keypoints)
    plain, _ = codec.encode(torch.from_numpy(keypoints_in_crop), visibility)
    of_mirrored, _ = codec.encode(torch.from_numpy(mirrored_keypoints), visibility)
    mirrored_back = mirror_heatmaps(of_mirrored, PERMUTATION, shift=not codec.unbiased)

    # Column 0 of the shifted heatmaps is a copy: what belongs there had no cell in the mirrored crop.
    first = 0 if codec.unbiased else 1
    torch.testing.assert_close(mirrored_back[..., first:], plain[..., first:], rtol=0, atol=1e-4)


def test_flip_test_averages_the_plain_and_the_mirrored_heatmaps() -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, 128, 96, generator=generator)
    kernel = torch.randn(SKELETON.num_keypoints, 3, 4, 4, generator=generator)

    def network(batch: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(batch, kernel, stride=4)

    averaged = flip_test(network, images, mirrored)
    expected = (network(images) + mirror_heatmaps(network(images.flip(-1)), PERMUTATION)) / 2
    torch.testing.assert_close(averaged, expected)


BRIGHT_AT_45_64 = torch.zeros(1, 3, 128, 96)
BRIGHT_AT_45_64[..., 64, 45] = 1.0


def without_any_error(codec: Codec, batch: Tensor) -> Tensor:
    """A network that puts the Gaussian on the brightness' centre of mass."""
    brightness = batch.mean(dim=1)
    rows, columns = torch.arange(128.0)[:, None], torch.arange(96.0)
    total = brightness.sum((1, 2))
    center_x, center_y = (brightness * columns).sum((1, 2)) / total, (brightness * rows).sum((1, 2)) / total
    keypoints = torch.stack([center_x, center_y], dim=-1)[:, None].expand(-1, SKELETON.num_keypoints, -1)
    return codec.encode(keypoints, torch.ones(keypoints.shape[:2]))[0]


@pytest.mark.parametrize(("aligned", "expected_pixels"), [(True, 0.0), (False, 0.25)])
def test_flip_test_of_simcc_moves_the_keypoint_of_a_perfect_network_in_mmposes_way_only(
    aligned: bool, expected_pixels: float
) -> None:
    codec = SimCCCodec(128, 96, dark=True, aligned_flip=aligned)
    back = partial(codec.mirrored, mirror_permutation=PERMUTATION)
    keypoints, _ = codec.decode(flip_test(partial(without_any_error, codec), BRIGHT_AT_45_64, back))
    assert keypoints[0, 0].tolist() == pytest.approx([45 + expected_pixels, 64], abs=0.01)


@pytest.mark.parametrize("aligned", [True, False])
def test_simcc_of_the_mirrored_crop_mirrored_back_is_that_of_the_plain_one(aligned: bool) -> None:
    codec, rng = SimCCCodec(128, 96, aligned_flip=aligned), np.random.default_rng(0)
    keypoints = torch.from_numpy(rng.integers(0, [96, 128], (4, SKELETON.num_keypoints, 2))).float()
    keypoints_in_mirrored = keypoints[:, PERMUTATION] * torch.tensor([-1.0, 1.0]) + torch.tensor([95.0, 0.0])
    visibility = torch.ones(4, SKELETON.num_keypoints)
    plain, _ = codec.encode(keypoints, visibility)
    back = codec.mirrored(codec.encode(keypoints_in_mirrored, visibility)[0], PERMUTATION)
    (plain_x, plain_y), (x, y) = of_axes(plain, codec.width), of_axes(back, codec.width)
    assert torch.equal(y, plain_y)
    shift = 0 if aligned else 1  # MMPose's are a bin further right
    bins = BINS_PER_PIXEL * codec.width - 1  # the last bin had none in the mirrored crop
    torch.testing.assert_close(x[..., shift : bins + shift], plain_x[..., :bins], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "shift", "expected_cells"),
    [
        ("udp", False, 0.0),
        ("dark", True, 0.125),  # half of 1 - (1 - 1 / 4): the whole-cell shift is a quarter cell too much
        ("dark", False, -0.375),  # half of -(1 - 1 / 4): what the shift is there to make up for
    ],
)
def test_flip_test_moves_the_keypoint_of_a_perfect_network_by_what_the_cells_leave_over(
    method: Method, shift: bool, expected_cells: float
) -> None:
    codec = HeatmapCodec(128, 96, 2.0, method)
    network = partial(without_any_error, codec)
    keypoints, _ = codec.decode(flip_test(network, BRIGHT_AT_45_64, partial(mirrored, shift=shift)))
    cell_width = codec.stride if method == "dark" else 95 / 23
    assert keypoints[0, 0].tolist() == pytest.approx([45 + expected_cells * cell_width, 64], abs=0.05)


def test_flip_test_averages_in_fp32() -> None:
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))

    def network(batch: Tensor) -> Tensor:
        return batch.mean(1, keepdim=True).expand(-1, SKELETON.num_keypoints, -1, -1).bfloat16()

    averaged = flip_test(network, images, mirrored)
    assert averaged.dtype == torch.float32
    expected = (network(images).float() + mirror_heatmaps(network(images.flip(-1)), PERMUTATION).float()) / 2
    assert torch.equal(averaged, expected)
