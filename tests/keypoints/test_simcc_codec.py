from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.codec import codec_of_dict
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.keypoints.simcc_codec import BINS_PER_PIXEL, SimCCCodec, of_axes

SIZES = [(256, 192), (384, 288), (448, 320), (128, 96)]  # height, width
VARIANTS: dict[str, dict[str, Any]] = {
    "rtmpose": {},
    "rtmpose_normalized": {"normalized": True},
    "simcc": {"sigma_bins": 6.0, "normalized": True},
}
both_decoders = pytest.mark.parametrize("dark", [False, True], ids=["highest bin", "dark"])
variants = st.sampled_from(list(VARIANTS))
crops_and_points = st.sampled_from(SIZES).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.lists(st.tuples(st.floats(0, size[1] - 1), st.floats(0, size[0] - 1)), min_size=8, max_size=8),
    )
)


def encode_one(codec: SimCCCodec, x: float, y: float) -> tuple[Tensor, Tensor]:
    return codec.encode(torch.tensor([[[x, y]]]), torch.ones(1, 1))


def exact_vectors(codec: SimCCCodec, keypoints: Tensor) -> Tensor:
    """What a perfect network would give: Gaussians on the exact places, not on the nearest bins."""
    axes = []
    for place, side, sigma in zip(
        keypoints.unbind(-1), (codec.width, codec.height), (codec.sigma_x, codec.sigma_y), strict=True
    ):
        bins = torch.arange(BINS_PER_PIXEL * side)
        axes.append(torch.exp(-((bins - BINS_PER_PIXEL * place[..., None]) ** 2) / (2 * sigma**2)))
    return torch.cat(axes, dim=-1)


# --- Agreement with the reference ---


@pytest.fixture(params=[(256, 192), (384, 288)], ids=lambda size: f"{size[0]}x{size[1]}")
def reference(request: pytest.FixtureRequest, reference_folder: Path) -> tuple[tuple[int, int], dict[str, Tensor]]:
    height, width = request.param
    with np.load(reference_folder / f"simcc_codec_{height}x{width}.npz") as arrays:
        return (height, width), {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_targets_and_weights_equal_the_reference(
    reference: tuple[tuple[int, int], dict[str, Tensor]], variant: str
) -> None:
    size, case = reference
    targets, weights = SimCCCodec(*size, **VARIANTS[variant]).encode(case["keypoints"], case["visible"])
    for ours, axis in zip(of_axes(targets, size[1]), "xy", strict=True):
        torch.testing.assert_close(ours, case[f"{variant}/target_{axis}"], rtol=0, atol=1e-6)
    assert torch.equal(weights, case[f"{variant}/target_weights"])


def test_decoded_keypoints_and_scores_equal_the_reference(
    reference: tuple[tuple[int, int], dict[str, Tensor]],
) -> None:
    size, case = reference
    keypoints, scores = SimCCCodec(*size).decode(torch.cat([case["predicted_x"], case["predicted_y"]], dim=-1))
    assert torch.equal(keypoints, case["decoded_keypoints"])
    assert torch.equal(scores, case["decoded_scores"])
    assert (scores <= 0).any()  # maps without a positive value are among them


@pytest.mark.parametrize("variant", ["rtmpose", "simcc"])
def test_decoding_by_dark_equals_the_reference(
    reference: tuple[tuple[int, int], dict[str, Tensor]], variant: str
) -> None:
    size, case = reference
    codec = SimCCCodec(*size, **VARIANTS[variant], dark=True)
    keypoints, _ = codec.decode(torch.cat([case["predicted_x"], case["predicted_y"]], dim=-1))
    comparable = case[f"{variant}/dark_comparable"]  # not a step of more than three bins, which is noise
    expected = case[f"{variant}/decoded_keypoints_dark"]
    assert comparable.sum() > 25
    torch.testing.assert_close(keypoints[comparable], expected[comparable], rtol=0, atol=0.01)
    moved = (expected - case["decoded_keypoints"]).abs()[comparable]
    assert moved.max() > 0.25


# --- Encoding and decoding ---


@both_decoders
@given(crops_and_points, variants)
@settings(max_examples=40, deadline=None)
def test_decoding_the_target_gives_the_keypoint_within_a_quarter_pixel(
    dark: bool, drawn: tuple[tuple[int, int], list[tuple[float, float]]], variant: str
) -> None:
    size, points = drawn
    codec, keypoints = SimCCCodec(*size, **VARIANTS[variant], dark=dark), torch.tensor([points])
    targets, weights = codec.encode(keypoints, torch.ones(1, len(points)))
    decoded, _ = codec.decode(targets)
    error = (decoded - keypoints).abs()
    assert (weights == 1).all()
    if dark:  # near the ends smoothing sees zeros beyond them
        sides, sigmas = torch.tensor([size[1], size[0]]), torch.tensor([codec.sigma_x, codec.sigma_y])
        far_inside = torch.minimum(keypoints, sides - 1 - keypoints) * BINS_PER_PIXEL >= 3 * sigmas
        assert (error <= 1.75 + 1e-4).all()
        error = error[far_inside]
    assert (error <= 0.25 + 1e-2 * dark).all()


@pytest.mark.parametrize("size", SIZES)
def test_dark_reads_a_place_between_two_bins(size: tuple[int, int]) -> None:
    codec = SimCCCodec(*size, dark=True)
    generator = torch.Generator().manual_seed(0)
    keypoints = torch.rand(2, 17, 2, generator=generator) * (torch.tensor([size[1], size[0]]) - 32.0) + 16.0
    decoded, _ = codec.decode(exact_vectors(codec, keypoints))
    torch.testing.assert_close(decoded, keypoints, rtol=0, atol=0.01)


def test_the_gaussians_width_follows_the_side_as_in_rtmpose_unless_it_is_given() -> None:
    codec = SimCCCodec(256, 192)
    assert (codec.sigma_x, codec.sigma_y) == (4.9, 5.66)
    codec = SimCCCodec(384, 288)
    assert (codec.sigma_x, codec.sigma_y) == (6.0, 6.93)
    codec = SimCCCodec(384, 288, sigma_bins=6)
    assert (codec.sigma_x, codec.sigma_y) == (6, 6)


def test_unlabelled_keypoint_gives_empty_vectors_and_no_weight() -> None:
    codec = SimCCCodec(128, 96)
    keypoints = torch.tensor([[[40.0, 40.0], [float("nan"), float("inf")], [40.0, 40.0]]])
    targets, weights = codec.encode(keypoints, torch.tensor([[0, 0, 2]], dtype=torch.uint8))
    assert weights.tolist() == [[0, 0, 1]]
    assert (targets[0, :2] == 0).all()
    assert targets[0, 2].max() == 1


@pytest.mark.parametrize("point", [(-60.0, 30.0), (160.0, 30.0), (30.0, -60.0), (30.0, 200.0), (-1e9, 1e9)])
def test_keypoint_whose_gaussian_misses_the_bins_has_no_weight(point: tuple[float, float]) -> None:
    targets, weights = encode_one(SimCCCodec(128, 96), *point)
    assert weights.item() == 0
    assert (targets == 0).all()


def test_keypoint_just_outside_keeps_its_weight_and_what_reaches_inside() -> None:
    targets, weights = encode_one(SimCCCodec(128, 96), -3.0, 30.0)  # six bins, of 3 x 3.46
    assert weights.item() == 1
    x, _ = of_axes(targets, 96)
    assert 0 < x[0, 0, 0] < 1
    assert x[0, 0].argmax() == 0


@both_decoders
@pytest.mark.parametrize("value", [0.0, -0.5])
def test_vector_without_a_positive_value_decodes_to_one_bin_outside(dark: bool, value: float) -> None:
    codec = SimCCCodec(128, 96, dark=dark)
    output = torch.full((1, 2, *codec.output_shape), value)
    of_axes(output, 96)[1][0, 1] = 1.0  # one axis is not enough
    keypoints, scores = codec.decode(output)
    assert scores.tolist() == [[value, value]]
    assert (keypoints == -0.5).all()


@both_decoders
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_output_that_is_not_finite_gives_a_keypoint_and_a_score_that_are_not(dark: bool, broken: float) -> None:
    codec = SimCCCodec(128, 96, dark=dark)
    output, _ = codec.encode(torch.full((1, 3, 2), 50.0), torch.ones(1, 3))
    sound_keypoints, sound_scores = codec.decode(output)
    output[0, 1, 3] = broken
    keypoints, scores = codec.decode(output)
    assert scores.isfinite().tolist() == [[True, False, True]]
    assert keypoints.isfinite().tolist() == [[[True, True], [False, False], [True, True]]]
    assert torch.equal(scores[:, ::2], sound_scores[:, ::2])
    assert torch.equal(keypoints[:, ::2], sound_keypoints[:, ::2])


@pytest.mark.parametrize("spread", [1e-8, 1e-4, 1.0])
def test_noise_decodes_by_dark_to_points_near_the_crop(spread: float) -> None:
    codec = SimCCCodec(128, 96, dark=True)
    noise = torch.randn(20, 17, *codec.output_shape, generator=torch.Generator().manual_seed(3)) * spread + 1e-3
    keypoints, _ = codec.decode(noise)
    assert (keypoints >= -1.5 - 0.5).all()
    assert (keypoints <= torch.tensor([96.0, 128.0]) + 1.5).all()


@both_decoders
def test_lone_positive_bin_among_negative_ones_decodes_to_itself(dark: bool) -> None:
    codec = SimCCCodec(128, 96, dark=dark)
    output = torch.full((1, 1, *codec.output_shape), -1.0)
    for bins, place in zip(of_axes(output, 96), (24, 32), strict=True):
        bins[..., place] = 0.1
    keypoints, scores = codec.decode(output)
    assert keypoints.tolist() == [[[12.0, 16.0]]]
    assert scores.item() == pytest.approx(0.1)


def every_use(codec: SimCCCodec, keypoints: Tensor, visibility: Tensor, permutation: Tensor) -> tuple[Tensor, ...]:
    targets, weights = codec.encode(keypoints, visibility)
    mirrored = codec.mirrored(targets, permutation)
    return targets, weights, *codec.decode(mirrored), codec.heatmaps(mirrored)


@both_decoders
def test_nothing_needs_a_value_on_the_host(dark: bool) -> None:
    # A meta tensor has no values: reading one, or indexing with a mask, raises.
    arguments = (torch.empty(2, 17, 2), torch.empty(2, 17, dtype=torch.uint8), torch.empty(17, dtype=torch.int64))
    results = every_use(SimCCCodec(256, 192, dark=dark), *(each.to("meta") for each in arguments))
    assert [tuple(result.shape) for result in results] == [
        (2, 17, 896),
        (2, 17),
        (2, 17, 2),
        (2, 17),
        (2, 17, 128, 96),
    ]
    assert {result.device.type for result in results} == {"meta"}


@pytest.mark.slow
def test_all_of_it_compiles_to_one_graph() -> None:
    codec, generator = SimCCCodec(128, 96, dark=True), torch.Generator().manual_seed(0)
    arguments = torch.rand(2, 17, 2, generator=generator) * 90, torch.ones(2, 17), torch.arange(17)
    compiled = torch.compile(every_use, fullgraph=True, backend="aot_eager")
    for ours, expected in zip(compiled(codec, *arguments), every_use(codec, *arguments), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.gpu
def test_the_host_does_not_wait_for_the_device() -> None:
    arguments = (torch.rand(2, 17, 2) * 190, torch.ones(2, 17), torch.arange(17))
    on_device = [each.cuda() for each in arguments]
    torch.cuda.set_sync_debug_mode("error")
    try:
        every_use(SimCCCodec(256, 192, dark=True), *on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("variant", VARIANTS)
def test_heatmaps_to_look_at_are_highest_at_the_keypoint(variant: str) -> None:
    codec = SimCCCodec(128, 96, **VARIANTS[variant])
    heatmaps = codec.heatmaps(encode_one(codec, 40.0, 70.0)[0])
    assert heatmaps.shape == (1, 1, 64, 48)
    assert codec.cell_size == (2.0, 2.0)
    assert divmod(int(heatmaps.argmax()), 48) == (35, 20)
    assert heatmaps.max().item() == pytest.approx(1)
    assert codec.heatmaps(torch.full((1, 1, 448), -1.0)).max() == 0  # two negative axes are not a peak


# --- Construction ---


def test_codec_survives_its_dictionary() -> None:
    for arguments in ({}, {"sigma_bins": 6.0, "normalized": True, "dark": True, "aligned_flip": False}):
        fields = SimCCCodec(384, 288, **arguments).to_dict()
        again = codec_of_dict(fields)
        assert isinstance(again, SimCCCodec)
        assert again.to_dict() == fields
        assert {type(value) for value in fields.values()} <= {int, float, str, bool, type(None)}
    assert isinstance(codec_of_dict(HeatmapCodec(128, 96, 2.0).to_dict()), HeatmapCodec)
    with pytest.raises(InputError, match="simcc codec with the fields height, method"):
        codec_of_dict({"height": 256, "method": "simcc"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 250}, "250x192.*multiples of 32"),
        ({"sigma_bins": 0.0}, "sigma_bins=0"),
        ({"sigma_bins": float("nan")}, "sigma_bins=nan"),
        ({"sigma_bins": 1e8}, "within the crop"),  # whose smoothing would take gigabytes
        ({"height": 32 * 10**15}, "up to 8192"),
        ({"sigma": 2.0}, "data.codec.sigma=2.0: is in heatmap cells"),
        ({"method": "udp"}, "'udp'.*simcc"),
    ],
)
def test_unusable_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SimCCCodec(**({"height": 256, "width": 192} | arguments))


def test_output_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="896"):
        SimCCCodec(256, 192).decode(torch.zeros(1, 17, 960))
