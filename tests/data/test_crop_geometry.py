import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformer_pose.data.crop_geometry import CropGeometry, crop_to_image, fit_boxes, upright_matrices, warp
from uniformer_pose.errors import InputError

coordinates = st.floats(-2000, 2000)
lengths = st.floats(0.5, 3000)
boxes = st.tuples(coordinates, coordinates, lengths, lengths)
crop_sizes = st.sampled_from([(256, 192), (384, 288), (448, 320), (128, 96), (64, 256)])
points = st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=5)
geometries = st.builds(
    lambda box, size, rotation, unbiased, mirrored: replace(
        CropGeometry.from_box(box, height=size[0], width=size[1], unbiased=unbiased),
        rotation_degrees=rotation,
        mirrored=mirrored,
    ),
    boxes,
    crop_sizes,
    st.floats(-180, 180),
    st.booleans(),
    st.booleans(),
)


@pytest.fixture(scope="module")
def gradient_image() -> np.ndarray:
    """Smooth, so that interpolation errors stay small, and different in every direction."""
    y, x = np.mgrid[0:240, 0:320].astype(np.float64)
    channels = [127 + 120 * np.sin(x / 23 + y / 41), 127 + 120 * np.cos(x / 31 - y / 17), x * 0.7]
    return np.stack(channels, axis=-1).astype(np.uint8)


# --- Agreement with the reference ---


def reference_crops(reference_folder: Path) -> list[tuple[dict[str, Any], CropGeometry]]:
    records = json.loads((reference_folder / "person_crops.json").read_text())
    return [
        (
            record,
            replace(
                CropGeometry.from_box(
                    record["bbox_xywh"],
                    height=record["input_wh"][1],
                    width=record["input_wh"][0],
                    unbiased=record["udp"],
                ),
                rotation_degrees=record["rotation_degrees"],
            ),
        )
        for record in records
    ]


def assert_same_pixels(crop: np.ndarray, expected: np.ndarray) -> None:
    # OpenCV 4.11 interpolates on a grid of 1/32 pixel; 5.0 is exact.
    difference = np.abs(crop.astype(int) - expected)
    assert (difference <= 1).mean() >= 0.995
    assert difference.max() <= 5


def test_centre_and_extent_equal_the_reference(reference_folder: Path) -> None:
    for record, geometry in reference_crops(reference_folder):
        np.testing.assert_allclose([geometry.center_x, geometry.center_y], record["center_xy"], atol=1e-4)
        np.testing.assert_allclose(
            [geometry.extent_width, geometry.extent_height], record["scale_wh_aspect_fixed"], atol=1e-4
        )


def test_keypoints_in_the_crop_equal_the_reference(reference_folder: Path) -> None:
    for record, geometry in reference_crops(reference_folder):
        keypoints_in_image = np.reshape(record["keypoints_in_image"], (-1, 3))[:, :2]
        np.testing.assert_allclose(geometry.to_crop(keypoints_in_image), record["keypoints_in_crop"], atol=1e-3)


def test_matrices_and_what_they_cut_out_equal_the_reference(reference_folder: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 2)
    for record, geometry in reference_crops(reference_folder):
        matrix = np.array(record["matrix"])
        corners = np.array([[0, 0, 1], [640, 0, 1], [0, 480, 1]]).T
        np.testing.assert_allclose(geometry.matrix @ corners, matrix @ corners, atol=1e-3)
        expected = cv2.warpAffine(image, matrix, tuple(record["input_wh"]), flags=cv2.INTER_LINEAR)
        assert_same_pixels(geometry.crop(image), expected)


def test_crop_pixels_of_rendered_people_equal_the_reference(reference_folder: Path) -> None:
    people = json.loads((reference_folder / "image_keypoints_uniformer_s_256x192.json").read_text())["people"]
    reference = np.load(reference_folder / "training_trajectory_uniformer_s_256x192.npz")
    for index, expected in zip(reference["people"], reference["crops_rgb"], strict=True):
        picture = reference_folder / "rendered_people" / people[index]["file_name"]
        geometry = CropGeometry.from_box(people[index]["bbox_xywh"], height=256, width=192)
        assert_same_pixels(geometry.crop(cv2.imread(str(picture), cv2.IMREAD_COLOR_RGB)), expected)


def test_crop_pixels_of_photographs_equal_the_reference(reference_folder: Path, shared_folder: Path) -> None:
    crops = np.load(shared_folder / "reference/person_crops.npz")
    for index, (record, geometry) in enumerate(reference_crops(reference_folder)):
        (photograph,) = (shared_folder / "coco_mini").glob(f"*2017/{record['file_name']}")
        image = cv2.imread(str(photograph), cv2.IMREAD_COLOR_RGB)
        assert_same_pixels(geometry.crop(image), crops[f"crop_{index}"])


# --- The maps between the frames ---


@given(geometries, points)
@settings(max_examples=200, deadline=None)
def test_to_image_is_the_inverse_of_to_crop(geometry: CropGeometry, points_in_image: list[tuple[float, float]]) -> None:
    there_and_back = geometry.to_image(geometry.to_crop(points_in_image))
    np.testing.assert_allclose(there_and_back, points_in_image, rtol=1e-9, atol=1e-7)


@given(geometries, points)
@settings(max_examples=200, deadline=None)
def test_to_crop_is_the_inverse_of_to_image(geometry: CropGeometry, points_in_crop: list[tuple[float, float]]) -> None:
    there_and_back = geometry.to_crop(geometry.to_image(points_in_crop))
    # A tiny box far from the origin amplifies the image coordinate's own rounding.
    magnification = geometry.width / geometry.extent_width
    np.testing.assert_allclose(there_and_back, points_in_crop, rtol=1e-9, atol=1e-9 * max(1, magnification))


@given(geometries, points)
@settings(max_examples=50, deadline=None)
def test_matrix_maps_like_to_crop(geometry: CropGeometry, points_in_image: list[tuple[float, float]]) -> None:
    homogeneous = np.concatenate([points_in_image, np.ones((len(points_in_image), 1))], axis=1)
    np.testing.assert_allclose(homogeneous @ geometry.matrix.T, geometry.to_crop(points_in_image), rtol=1e-8, atol=1e-5)


@given(boxes, crop_sizes, points)
@settings(max_examples=50, deadline=None)
def test_plain_upright_crop_maps_back_by_extent_and_centre(
    box: tuple[float, ...], size: tuple[int, int], points_in_crop: list[tuple[float, float]]
) -> None:
    height, width = size
    geometry = CropGeometry.from_box(box, height=height, width=width)
    extent = np.array([geometry.extent_width, geometry.extent_height])
    center = np.array([geometry.center_x, geometry.center_y])
    expected = np.array(points_in_crop) / [width, height] * extent + center - extent / 2
    np.testing.assert_allclose(geometry.to_image(points_in_crop), expected, rtol=1e-9, atol=1e-6)


@given(st.lists(boxes, min_size=1, max_size=4), crop_sizes, st.booleans())
@settings(max_examples=50, deadline=None)
def test_crop_to_image_equals_each_crops_own_map(
    some_boxes: list[tuple[float, ...]], size: tuple[int, int], unbiased: bool
) -> None:
    height, width = size
    points_in_crop = np.random.default_rng(0).uniform(-50, 500, (len(some_boxes), 17, 2))
    centers, extents = fit_boxes(some_boxes, height=height, width=width)
    batched = crop_to_image(points_in_crop, centers, extents, height=height, width=width, unbiased=unbiased)
    one_by_one = [
        CropGeometry.from_box(box, height=height, width=width, unbiased=unbiased).to_image(keypoints)
        for box, keypoints in zip(some_boxes, points_in_crop, strict=True)
    ]
    np.testing.assert_allclose(batched, one_by_one, rtol=1e-9, atol=1e-9)


def test_the_maps_keep_the_leading_shape_of_the_points() -> None:
    geometry = CropGeometry.from_box([10, 20, 30, 40], height=256, width=192)
    assert geometry.to_crop(np.zeros(2)).shape == (2,)
    assert geometry.to_image(np.zeros((3, 4, 5, 2))).shape == (3, 4, 5, 2)


@given(boxes, crop_sizes, st.floats(1, 2))
@settings(max_examples=50, deadline=None)
def test_extent_has_the_crops_aspect_ratio_and_just_holds_the_padded_box(
    box: tuple[float, ...], size: tuple[int, int], padding: float
) -> None:
    height, width = size
    _, extents = fit_boxes([box], height=height, width=width, padding=padding)
    slack = extents[0] / np.multiply(box[2:], padding)
    assert extents[0, 0] / extents[0, 1] == pytest.approx(width / height)
    assert slack.min() == pytest.approx(1.0)


@pytest.mark.parametrize(("unbiased", "far_corner"), [(False, (192, 256)), (True, (191, 255))])
def test_the_boxs_corners_are_the_crops_corners(unbiased: bool, far_corner: tuple[int, int]) -> None:
    geometry = CropGeometry.from_box([100, 50, 96, 128], height=256, width=192, padding=1, unbiased=unbiased)
    corners = geometry.to_crop([(100, 50), (196, 178)])
    np.testing.assert_allclose(corners, [(0, 0), far_corner], atol=1e-9)


@pytest.mark.parametrize(("unbiased", "expected_x"), [(False, -1), (True, 1)])
def test_a_quarter_turn_goes_the_conventions_way(unbiased: bool, expected_x: int) -> None:
    geometry = CropGeometry(50, 50, 96, 96, 96, 96, rotation_degrees=90, unbiased=unbiased)
    middle = geometry.to_crop((50, 50))
    above = geometry.to_crop((50, 40)) - middle
    assert np.sign(above[0]) == expected_x
    assert above[1] == pytest.approx(0, abs=1e-9)


# --- Mirroring ---


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("rotation", [0.0, 35.0])
def test_mirrored_crop_equals_mirroring_the_image_and_the_centre_first(
    gradient_image: np.ndarray, rotation: float, unbiased: bool
) -> None:
    image_width = gradient_image.shape[1]
    geometry = CropGeometry(140.3, 115.2, 150, 200, 128, 96, rotation, unbiased)
    of_mirrored_image = replace(geometry, center_x=image_width - 1 - geometry.center_x)
    expected = of_mirrored_image.crop(np.ascontiguousarray(gradient_image[:, ::-1]))
    mirrored = replace(geometry, mirrored=True)
    difference = np.abs(mirrored.crop(gradient_image).astype(int) - expected)
    assert difference.max() <= 1

    point = np.array([120.0, 90.0])
    np.testing.assert_allclose(
        mirrored.to_crop(point), of_mirrored_image.to_crop((image_width - 1 - point[0], point[1])), atol=1e-9
    )


@pytest.mark.parametrize(("unbiased", "sum_of_columns"), [(False, 96), (True, 95)])
def test_mirrored_column_is_the_conventions_width_minus_the_plain_one(unbiased: bool, sum_of_columns: int) -> None:
    geometry = CropGeometry(140.3, 115.2, 150, 200, 128, 96, unbiased=unbiased)
    points_in_image = np.random.default_rng(1).uniform(0, 300, (20, 2))
    plain = geometry.to_crop(points_in_image)
    mirrored = replace(geometry, mirrored=True).to_crop(points_in_image)
    np.testing.assert_allclose(plain[:, 0] + mirrored[:, 0], sum_of_columns)
    np.testing.assert_allclose(plain[:, 1], mirrored[:, 1])


def test_unbiased_mirrored_crop_is_the_reversed_plain_crop(gradient_image: np.ndarray) -> None:
    geometry = CropGeometry(140.3, 115.2, 150, 200, 128, 96, unbiased=True)
    mirrored = replace(geometry, mirrored=True).crop(gradient_image)
    assert np.abs(mirrored.astype(int) - geometry.crop(gradient_image)[:, ::-1]).max() <= 1


# --- Pixels ---


@given(
    st.floats(60, 100),
    st.floats(60, 100),
    st.floats(-180, 180),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_a_marked_image_point_shows_where_to_crop_says(
    x: float, y: float, rotation: float, unbiased: bool, mirrored: bool
) -> None:
    ys, xs = np.mgrid[0:160, 0:160]
    spot = 255 * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * 3.0**2))
    image = np.repeat(spot[..., None], 3, axis=2).astype(np.uint8)
    geometry = CropGeometry(80, 80, 120, 160, 256, 192, rotation, unbiased, mirrored)
    brightness = geometry.crop(image)[..., 0].astype(np.float64)
    rows, columns = np.mgrid[0:256, 0:192]
    found = [(brightness * columns).sum() / brightness.sum(), (brightness * rows).sum() / brightness.sum()]
    np.testing.assert_allclose(found, geometry.to_crop((x, y)), atol=0.1)


def test_crop_is_black_outside_the_image() -> None:
    white = np.full((40, 40, 3), 255, np.uint8)
    crop = CropGeometry.from_box([30, 0, 20, 40], height=64, width=32, padding=1).crop(white)
    assert crop.shape == (64, 32, 3)
    # The image's last column and row, 39, lie at 14.4 and 62.4; from there it fades out over one image pixel.
    assert (crop[:62, :14] == 255).all()
    assert (crop[:, 17:] == 0).all()


def test_box_outside_the_image_gives_a_black_crop() -> None:
    white = np.full((40, 40, 3), 255, np.uint8)
    crop = CropGeometry.from_box([-500, -500, 20, 40], height=64, width=32).crop(white)
    assert crop.dtype == np.uint8
    assert (crop == 0).all()


def test_a_one_pixel_image_gives_a_crop() -> None:
    crop = CropGeometry.from_box([0, 0, 1, 1], height=64, width=32).crop(np.full((1, 1, 3), 9, np.uint8))
    assert crop.shape == (64, 32, 3)
    assert crop.max() == 9


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)]
)
def test_an_image_that_is_not_rgb_bytes_is_refused(image: np.ndarray) -> None:
    with pytest.raises(InputError, match="uint8"):
        CropGeometry.from_box([0, 0, 4, 4], height=64, width=32).crop(image)


# --- Refusals ---


@pytest.mark.parametrize(
    "box",
    [
        (10, 10, 0, 5),
        (10, 10, 5, -1),
        (float("nan"), 10, 5, 5),
        (10, 10, float("inf"), 5),
    ],
)
def test_degenerate_box_is_refused_in_one_line(box: tuple[float, ...]) -> None:
    with pytest.raises(InputError) as caught:
        CropGeometry.from_box(box, height=256, width=192)
    assert "\n" not in str(caught.value)
    assert "box" in str(caught.value)


def test_degenerate_boxes_of_a_batch_are_counted() -> None:
    with pytest.raises(InputError, match=r"\[1\.0, 2\.0, 0\.0, 4\.0\].*2 of 3 boxes"):
        fit_boxes([(0, 0, 5, 5), (1, 2, 0, 4), (0, 0, -1, 4)], height=256, width=192)


def test_no_boxes_give_no_crops() -> None:
    centers, extents = fit_boxes(np.zeros((0, 4)), height=256, width=192)
    assert centers.shape == extents.shape == (0, 2)


@pytest.mark.parametrize("padding", [0.0, -1.0, float("nan")])
def test_padding_must_be_positive(padding: float) -> None:
    with pytest.raises(InputError, match="padding"):
        CropGeometry.from_box([0, 0, 4, 4], height=256, width=192, padding=padding)


def test_rotation_must_be_finite() -> None:
    with pytest.raises(InputError, match="finite"):
        CropGeometry(0, 0, 10, 10, 64, 64, rotation_degrees=float("nan"))


def test_extent_must_be_positive() -> None:
    with pytest.raises(InputError, match="positive"):
        CropGeometry(0, 0, 10, 0, 64, 64)


def test_crop_must_have_two_pixels_a_side() -> None:
    with pytest.raises(InputError, match="2x2"):
        CropGeometry(0, 0, 10, 10, 1, 64)


@pytest.mark.parametrize("unbiased", [False, True])
def test_matrices_of_many_crops_are_those_of_each_to_the_bit(unbiased: bool) -> None:
    rng = np.random.default_rng(0)
    many = np.concatenate([rng.uniform(-200, 600, (500, 2)), rng.uniform(0.5, 900, (500, 2))], axis=1)
    centers, extents = fit_boxes(many, height=256, width=192)
    matrices = upright_matrices(centers, extents, height=256, width=192, unbiased=unbiased)
    for box, matrix in zip(many, matrices, strict=True):
        own = CropGeometry.from_box(box, height=256, width=192, unbiased=unbiased).matrix
        assert np.array_equal(matrix, own)


def test_a_warp_fills_the_given_crop_and_nothing_else() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    crops = np.full((3, 32, 24, 3), 7, dtype=np.uint8)
    geometry = CropGeometry.from_box([5, 5, 20, 30], height=32, width=24)
    warp(image, geometry.matrix, into=crops[1])
    assert np.array_equal(crops[1], geometry.crop(image))
    assert (crops[[0, 2]] == 7).all()
