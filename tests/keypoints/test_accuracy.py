import pytest
import torch
from torch import Tensor

from uniformer_pose.keypoints.accuracy import pck
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.keypoints.simcc_codec import SimCCCodec

CODEC = HeatmapCodec(256, 192, 2.0)


def peaks(*places: tuple[int, int] | None) -> Tensor:
    """(1, K, 64, 48) heatmaps with one peak each, at (x, y), or none."""
    heatmaps = torch.zeros(1, len(places), 64, 48)
    for index, place in enumerate(places):
        if place is not None:
            heatmaps[0, index, place[1], place[0]] = 1.0
    return heatmaps


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ((13, 10), 1.0),  # 3 / 64 is below 0.05
        ((14, 10), 0.0),  # 4 / 64 is not: x is divided by the heatmap's height, as in MMPose
        ((10, 12), 1.0),  # 2 / 48 is below 0.05
        ((10, 13), 0.0),  # 3 / 48 is not
        ((12, 12), 0.0),  # hypot(2 / 64, 2 / 48) is not
    ],
)
def test_distance_counts_in_shares_of_the_heatmap(place: tuple[int, int], expected: float) -> None:
    assert pck(CODEC, peaks(place), peaks((10, 10)), torch.ones(1, 1)).item() == expected


@pytest.mark.parametrize(("moved_by", "expected"), [((12.5, 0), 1.0), ((13, 0), 0.0), ((0, 9.5), 1.0), ((0, 10), 0.0)])
def test_distance_is_that_of_the_crop_for_vectors_too(moved_by: tuple[float, float], expected: float) -> None:
    codec, place = SimCCCodec(256, 192), torch.tensor([[[60.0, 80.0]]])
    targets, weights = codec.encode(place, torch.ones(1, 1))
    output, _ = codec.encode(place + torch.tensor(moved_by), torch.ones(1, 1))
    assert pck(codec, output, targets, weights).item() == expected
    output[0, 0, 0] = float("nan")
    assert pck(codec, output, targets, weights).item() == 0


def test_mean_is_over_samples_and_then_over_keypoints() -> None:
    target = peaks((10, 10), (30, 30)).expand(4, -1, -1, -1)
    predicted = target.clone()
    predicted[0, 0] = peaks((40, 40))[0, 0]
    weights = torch.ones(4, 2)
    weights[1:, 1] = 0
    weights[3, 0] = 0
    predicted[3, 0] = 0
    # Keypoint 0: 2 of 3 labelled samples are right; keypoint 1: its only one is.
    assert pck(CODEC, predicted, target, weights).item() == pytest.approx((2 / 3 + 1) / 2)


def test_keypoints_without_a_labelled_sample_are_left_out() -> None:
    assert pck(CODEC, peaks((10, 10), (1, 1)), peaks((10, 10), (40, 40)), torch.tensor([[1.0, 0.0]])).item() == 1.0


def test_no_labelled_keypoint_gives_zero() -> None:
    target = peaks((10, 10))
    assert pck(CODEC, target, target, torch.zeros(1, 1)).item() == 0.0


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_prediction_that_is_not_finite_is_wrong(broken: float) -> None:
    predicted = peaks((10, 10), (20, 20))
    predicted[0, 0, 10, 10] = broken
    assert pck(CODEC, predicted, peaks((10, 10), (20, 20)), torch.ones(1, 2)).item() == 0.5


def test_nothing_needs_a_value_on_the_host() -> None:
    heatmaps = torch.empty(2, 17, 64, 48, device="meta")
    share = pck(CODEC, heatmaps, heatmaps, torch.empty(2, 17, device="meta"))
    assert share.shape == ()
    assert share.device.type == "meta"
