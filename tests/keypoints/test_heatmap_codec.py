from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec, Method

METHODS: list[Method] = ["msra", "dark", "udp"]
SIZES = {(256, 192): 2, (384, 288): 3, (448, 320): 3, (128, 96): 2}  # (height, width): sigma

crops_and_points = st.sampled_from(sorted(SIZES)).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.lists(st.tuples(st.floats(0, size[1] - 1), st.floats(0, size[0] - 1)), min_size=8, max_size=8),
    )
)


def codec_for(size: tuple[int, int], method: Method) -> HeatmapCodec:
    return HeatmapCodec(*size, sigma=SIZES[size], method=method)


def encode_one(codec: HeatmapCodec, x: float, y: float) -> tuple[Tensor, Tensor]:
    return codec.encode(torch.tensor([[[x, y]]]), torch.ones(1, 1))


# --- Agreement with the reference ---

REFERENCE_CASES = [
    ("256x192", "msra", "msra"),
    ("256x192", "msra_unbiased", "dark"),
    ("256x192", "udp", "udp"),
    ("384x288", "msra", "msra"),
    ("448x320", "msra", "msra"),
]


def reference_case(reference_folder: Path, size: str, reference_method: str) -> dict[str, Tensor]:
    with np.load(reference_folder / f"heatmap_codec_{reference_method}_{size}.npz") as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture(params=REFERENCE_CASES, ids=lambda case: f"{case[0]}-{case[2]}")
def reference(request: pytest.FixtureRequest, reference_folder: Path) -> tuple[HeatmapCodec, dict[str, Any]]:
    size, reference_method, method = request.param
    height, width = map(int, size.split("x"))
    codec = codec_for((height, width), method)
    return codec, reference_case(reference_folder, size, reference_method)


def test_targets_and_weights_equal_the_reference(reference: tuple[HeatmapCodec, dict[str, Tensor]]) -> None:
    codec, case = reference
    heatmaps, weights = codec.encode(case["keypoints"], case["visible"])
    torch.testing.assert_close(heatmaps, case["target_heatmaps"], rtol=0, atol=1e-6)
    assert torch.equal(weights, case["target_weights"])


def test_decoded_keypoints_and_scores_equal_the_reference(
    reference: tuple[HeatmapCodec, dict[str, Tensor]],
) -> None:
    codec, case = reference
    keypoints, scores = codec.decode(case["predicted_heatmaps"])
    expected = case["decoded_keypoints"].double()
    if codec.unbiased:
        # MMPose's UDP codec maps the last cell to `width`, and from there to the image by the plain convention;
        # ours to the last pixel, `width - 1`, since a decoded keypoint is a pixel of the unbiased crop.
        size = torch.tensor([codec.width, codec.height])
        expected = expected / size * (size - 1)
    torch.testing.assert_close(keypoints.double(), expected, rtol=0, atol=0.01)
    assert torch.equal(scores, case["decoded_scores"])


def test_udp_decoding_gives_the_references_point_in_the_image(reference_folder: Path) -> None:
    case = reference_case(reference_folder, "256x192", "udp")
    keypoints, _ = codec_for((256, 192), "udp").decode(case["predicted_heatmaps"])
    geometry = CropSpec(256, 192, unbiased=True).around([31, 47, 60, 110])
    extent, center = geometry.extent, geometry.center
    expected = case["decoded_keypoints"].numpy() / [192, 256] * extent + center - extent / 2
    np.testing.assert_allclose(geometry.to_image(keypoints.numpy()), expected, atol=0.01)


def dark_decoded_with_opencv(heatmap: np.ndarray, kernel: int) -> list[float]:
    """x and y in cells: DARK's decoding of one heatmap, written from the paper, with OpenCV's blur."""
    row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
    half = kernel // 2
    padded = cv2.GaussianBlur(np.pad(heatmap, half), (kernel, kernel), 0)
    logs = np.log(np.maximum(padded[half:-half, half:-half] / padded.max() * heatmap.max(), 1e-10)).astype(np.float64)
    around = logs[row - 2 : row + 3, column - 2 : column + 3]
    gradient = np.array([around[2, 3] - around[2, 1], around[3, 2] - around[1, 2]]) / 2
    mixed = (around[3, 3] - around[3, 1] - around[1, 3] + around[1, 1]) / 4
    curvature = np.array(
        [
            [(around[2, 4] - 2 * around[2, 2] + around[2, 0]) / 4, mixed],
            [mixed, (around[4, 2] - 2 * around[2, 2] + around[0, 2]) / 4],
        ]
    )
    return [float(value) for value in (column, row) - np.linalg.solve(curvature, gradient)]


@pytest.mark.parametrize("kernel", [3, 5, 7, 9, 11, 17])
def test_dark_smooths_with_opencvs_kernels_of_every_size(kernel: int) -> None:
    codec = HeatmapCodec(128, 96, 1.5, "dark", blur_kernel=kernel)
    rng = np.random.default_rng(kernel)
    keypoints = torch.tensor(rng.uniform((24, 24), (72, 104), size=(12, 2)), dtype=torch.float32)
    heatmaps, _ = codec.encode(keypoints[None], torch.ones(1, 12))
    heatmaps *= torch.from_numpy(rng.uniform(0.9, 1.1, size=heatmaps.shape)).float()  # so that the blur matters
    decoded, _ = codec.decode(heatmaps)
    expected = [dark_decoded_with_opencv(heatmap, kernel) for heatmap in heatmaps[0].numpy()]
    np.testing.assert_allclose(decoded[0].numpy() / codec.stride, expected, atol=1e-4)


# --- Encoding and decoding ---


@pytest.mark.parametrize("method", METHODS)
@given(crops_and_points)
@settings(max_examples=40, deadline=None)
def test_decoding_the_target_gives_the_keypoint_within_the_stated_error(
    method: Method, drawn: tuple[tuple[int, int], list[tuple[float, float]]]
) -> None:
    size, points = drawn
    codec = codec_for(size, method)
    keypoints = torch.tensor([points])
    heatmaps, weights = codec.encode(keypoints, torch.ones(1, len(points)))
    decoded, _ = codec.decode(heatmaps)
    error = (decoded - keypoints).abs()

    last_cell = torch.tensor([codec.heatmap_width - 1, codec.heatmap_height - 1])
    cells = keypoints / (codec.stride if method != "udp" else (torch.tensor([size[1], size[0]]) - 1) / last_cell)
    inside_by = torch.minimum(cells, last_cell - cells).amin(-1)
    far_inside = (inside_by >= 3 * codec.sigma)[..., None].expand_as(error)
    behind_the_last_cell = cells > last_cell
    near_border = ~far_inside & ~behind_the_last_cell
    bound_inside = {"msra": 2.0, "dark": 0.01, "udp": 0.01}[method]
    bound_near = {"msra": (2.0, 2.0), "dark": (2.0, 4.0), "udp": (4.5, 6.0)}[method][codec.sigma == 3]
    tolerance = 1e-4
    assert (error[far_inside] <= bound_inside + tolerance).all()
    assert (error[near_border] <= bound_near + tolerance).all()
    assert (error[behind_the_last_cell] <= 4 + tolerance).all()
    assert (weights == 1).all()


def test_msra_rounds_towards_zero_outside_the_crop() -> None:
    heatmaps, _ = encode_one(codec_for((256, 192), "msra"), -5.0, 40.0)  # cell -1.25: trunc(-0.75) is 0
    assert heatmaps[0, 0, 10, 0] == 1


def test_unlabelled_keypoint_gives_an_empty_heatmap_and_no_weight() -> None:
    codec = codec_for((128, 96), "msra")
    keypoints = torch.tensor([[[40.0, 40.0], [float("nan"), float("inf")], [40.0, 40.0]]])
    heatmaps, weights = codec.encode(keypoints, torch.tensor([[0, 0, 2]], dtype=torch.uint8))
    assert weights.tolist() == [[0, 0, 1]]
    assert (heatmaps[0, :2] == 0).all()
    assert heatmaps[0, 2].max() == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("point", [(-60.0, 30.0), (160.0, 30.0), (30.0, -60.0), (30.0, 200.0), (-1e9, 1e9)])
def test_keypoint_whose_window_misses_the_heatmap_has_no_weight(method: Method, point: tuple[float, float]) -> None:
    heatmaps, weights = encode_one(codec_for((128, 96), method), *point)
    assert weights.item() == 0
    assert (heatmaps == 0).all()


# --- Decoding ---


def spike(codec: HeatmapCodec, *cells: tuple[int, int, float]) -> Tensor:
    heatmaps = torch.zeros(1, 1, codec.heatmap_height, codec.heatmap_width)
    for x, y, value in cells:
        heatmaps[0, 0, y, x] = value
    return heatmaps


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (5, 5, (5.25, 5.25)),
        (1, 5, (1.0, 5.25)),  # cell 1 takes no step along its own axis ...
        (22, 5, (22.25, 5.25)),  # ... but the last but one does
        (0, 5, (0.0, 5.0)),  # in column 0 neither axis takes one
        (5, 0, (5.0, 0.0)),
        (23, 5, (23.0, 5.25)),
        (5, 31, (5.25, 31.0)),
    ],
)
def test_msra_steps_a_quarter_cell_towards_the_higher_neighbour_inside_the_originals_bounds(
    x: int, y: int, expected: tuple[float, float]
) -> None:
    codec = codec_for((128, 96), "msra")
    neighbours = [(x + 1, y, 0.5)] if x < 23 else []
    neighbours += [(x, y + 1, 0.5)] if y < 31 else []
    keypoints, scores = codec.decode(spike(codec, (x, y, 1.0), *neighbours))
    assert tuple((keypoints[0, 0] / 4).tolist()) == expected
    assert scores.item() == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, -0.5])
def test_heatmap_without_a_positive_value_decodes_to_one_cell_outside(method: Method, value: float) -> None:
    codec = codec_for((128, 96), method)
    keypoints, scores = codec.decode(torch.full((1, 2, 32, 24), value))
    assert scores.tolist() == [[value, value]]
    torch.testing.assert_close(keypoints[0, 0], -torch.tensor(codec.cell_size))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_heatmap_that_is_not_finite_gives_a_score_that_is_not_finite(method: Method, broken: float) -> None:
    codec = codec_for((128, 96), method)
    heatmaps, _ = codec.encode(torch.full((1, 3, 2), 50.0), torch.ones(1, 3))
    sound_keypoints, sound_scores = codec.decode(heatmaps)
    heatmaps[0, 1, 3, 3] = broken
    keypoints, scores = codec.decode(heatmaps)
    assert scores.isfinite().tolist() == [[True, False, True]]
    assert keypoints.isfinite().all(-1).tolist() == [[True, False, True]]
    assert torch.equal(scores[:, ::2], sound_scores[:, ::2])
    assert torch.equal(keypoints[:, ::2], sound_keypoints[:, ::2])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spread", [1e-8, 1e-4, 1.0])
def test_noise_decodes_to_points_near_the_crop(method: Method, spread: float) -> None:
    codec = codec_for((128, 96), method)
    noise = torch.randn(20, 17, 32, 24, generator=torch.Generator().manual_seed(3)) * spread + 1e-3
    keypoints, scores = codec.decode(noise)
    reach = (codec.blur_kernel // 2 + 1) * 4.2
    assert keypoints.isfinite().all()
    assert scores.isfinite().all()
    assert (keypoints >= -reach).all()
    assert (keypoints <= torch.tensor([96.0, 128.0]) + reach).all()


@pytest.mark.parametrize("method", METHODS)
def test_lone_positive_cell_among_negative_ones_decodes_to_itself(method: Method) -> None:
    codec = codec_for((128, 96), method)
    heatmaps = spike(codec, (12, 16, 1.1)) - 1.0
    keypoints, scores = codec.decode(heatmaps)
    torch.testing.assert_close(keypoints[0, 0] / torch.tensor(codec.cell_size), torch.tensor([12.0, 16.0]))
    assert scores.item() == pytest.approx(0.1)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_needs_a_value_on_the_host(method: Method) -> None:
    # A meta tensor has no values: reading one, or indexing with a mask, raises.
    codec = codec_for((256, 192), method)
    keypoints = torch.empty(2, 17, 2, device="meta")
    heatmaps, weights = codec.encode(keypoints, torch.empty(2, 17, device="meta", dtype=torch.uint8))
    assert heatmaps.shape == (2, 17, 64, 48)
    assert weights.shape == (2, 17)
    decoded, scores = codec.decode(heatmaps)
    assert decoded.device.type == scores.device.type == "meta"
    assert decoded.shape == (2, 17, 2)


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
def test_the_host_does_not_wait_for_the_device(method: Method) -> None:
    codec = codec_for((256, 192), method)
    keypoints = torch.rand(2, 17, 2, device="cuda") * 190
    visibility = torch.ones(2, 17, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        heatmaps, _ = codec.encode(keypoints, visibility)
        codec.decode(heatmaps)
    finally:
        torch.cuda.set_sync_debug_mode("default")


# --- Construction ---


@pytest.mark.parametrize("method", METHODS)
def test_codec_survives_its_dictionary(method: Method) -> None:
    codec = HeatmapCodec(384, 288, 3.0, method, stride=8, blur_kernel=13)
    fields = codec.to_dict()
    assert HeatmapCodec.from_dict(fields).to_dict() == fields
    assert {type(value) for value in fields.values()} == {int, float, str}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 250}, "250x192.*multiples of 32"),
        ({"width": 0}, "multiples of 32"),
        ({"sigma": 0.0}, "sigma 0"),
        ({"sigma": float("nan")}, "sigma nan"),
        ({"method": "megvii"}, "msra, dark, udp"),
        ({"stride": 3}, "stride 3"),
        ({"blur_kernel": 10}, "odd"),
        ({"blur_kernel": 2**30 + 1}, "from 3 to 1001"),  # whose smoothing would take gigabytes
        ({"height": 32 * 10**9}, "up to 8192"),
    ],
)
def test_unusable_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        HeatmapCodec(**({"height": 256, "width": 192, "sigma": 2.0} | arguments))


def test_heatmaps_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match="64, 48"):
        codec_for((256, 192), "msra").decode(torch.zeros(1, 17, 48, 64))
