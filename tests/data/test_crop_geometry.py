import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformer_pose.data.crop_geometry import CropGeometry, CropSpec
from uniformer_pose.errors import InputError

coordinates = st.floats(-2000, 2000)
lengths = st.floats(0.5, 3000)
boxes = st.lists(st.tuples(coordinates, coordinates, lengths, lengths), min_size=1, max_size=4)
specs = st.builds(
    lambda size, unbiased: CropSpec(*size, unbiased=unbiased),
    st.sampled_from([(256, 192), (384, 288), (448, 320), (128, 96), (64, 256)]),
    st.booleans(),
)
geometries = st.builds(
    lambda spec, boxes, rotation, mirrored: replace(spec.around(boxes), rotation_degrees=rotation, mirrored=mirrored),
    specs,
    boxes,
    st.floats(-180, 180),
    st.booleans(),
)
SLIM = CropGeometry(CropSpec(128, 96), np.array([140.3, 115.2]), np.array([150.0, 200.0]))


def some_points(geometry: CropGeometry) -> np.ndarray:
    return np.random.default_rng(0).uniform(-500, 900, (len(geometry.center), 17, 2))


@pytest.fixture(scope="module")
def gradient_image() -> np.ndarray:
    """Smooth, so that interpolation errors stay small, and different in every direction."""
    y, x = np.mgrid[0:240, 0:320].astype(np.float64)
    channels = [127 + 120 * np.sin(x / 23 + y / 41), 127 + 120 * np.cos(x / 31 - y / 17), x * 0.7]
    return np.stack(channels, axis=-1).astype(np.uint8)


# --- Agreement with the reference ---


def reference_crops(reference_folder: Path) -> list[tuple[dict[str, Any], CropGeometry]]:
    records = json.loads((reference_folder / "person_crops.json").read_text())
    found = []
    for record in records:
        width, height = record["input_wh"]
        upright = CropSpec(height, width, unbiased=record["udp"]).around(record["bbox_xywh"])
        found.append((record, replace(upright, rotation_degrees=record["rotation_degrees"])))
    return found


def assert_same_pixels(crop: np.ndarray, expected: np.ndarray) -> None:
    # OpenCV 4.11 interpolates on a grid of 1/32 pixel; 5.0 is exact.
    difference = np.abs(crop.astype(int) - expected)
    assert (difference <= 1).mean() >= 0.995
    assert difference.max() <= 5


def test_regions_and_keypoints_in_the_crop_equal_the_reference(reference_folder: Path) -> None:
    for record, geometry in reference_crops(reference_folder):
        np.testing.assert_allclose(geometry.center, record["center_xy"], atol=1e-4)
        np.testing.assert_allclose(geometry.extent, record["scale_wh_aspect_fixed"], atol=1e-4)
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
        geometry = CropSpec(256, 192).around(people[index]["bbox_xywh"])
        assert_same_pixels(geometry.crop(cv2.imread(str(picture), cv2.IMREAD_COLOR_RGB)), expected)


def test_crop_pixels_of_photographs_equal_the_reference(reference_folder: Path, shared_folder: Path) -> None:
    crops = np.load(shared_folder / "reference/person_crops.npz")
    for index, (record, geometry) in enumerate(reference_crops(reference_folder)):
        (photograph,) = (shared_folder / "coco_mini").glob(f"*2017/{record['file_name']}")
        image = cv2.imread(str(photograph), cv2.IMREAD_COLOR_RGB)
        assert_same_pixels(geometry.crop(image), crops[f"crop_{index}"])


# --- The maps between the frames ---


@given(geometries)
@settings(max_examples=200, deadline=None)
def test_the_maps_are_inverses_and_the_matrix_maps_alike(geometry: CropGeometry) -> None:
    points = some_points(geometry)
    np.testing.assert_allclose(geometry.to_image(geometry.to_crop(points)), points, rtol=1e-9, atol=1e-7)
    # A tiny box far from the origin amplifies the image coordinate's own rounding.
    magnification = max(1, geometry.spec.width / geometry.extent.min())
    np.testing.assert_allclose(
        geometry.to_crop(geometry.to_image(points)), points, rtol=1e-9, atol=1e-9 * magnification
    )
    homogeneous = np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1)
    mapped = homogeneous @ geometry.matrix.swapaxes(-1, -2)
    np.testing.assert_allclose(mapped, geometry.to_crop(points), rtol=1e-8, atol=1e-8 * magnification)


@given(geometries)
@settings(max_examples=50, deadline=None)
def test_many_crops_are_mapped_as_each_of_them(geometry: CropGeometry) -> None:
    points = some_points(geometry)
    for index, own in enumerate(points):
        assert np.array_equal(geometry[index].matrix, geometry.matrix[index])
        np.testing.assert_allclose(geometry[index].to_image(own), geometry.to_image(points)[index], rtol=1e-12)
        np.testing.assert_allclose(geometry[index].to_crop(own), geometry.to_crop(points)[index], rtol=1e-12)


@given(boxes, specs, st.floats(1, 2))
@settings(max_examples=50, deadline=None)
def test_extents_have_the_crops_aspect_ratio_and_just_hold_the_padded_boxes(
    some_boxes: list[tuple[float, ...]], spec: CropSpec, padding: float
) -> None:
    extent = replace(spec, padding=padding).around(some_boxes).extent
    slack = extent / np.multiply(np.array(some_boxes)[:, 2:], padding)
    np.testing.assert_allclose(extent[:, 0] / extent[:, 1], spec.width / spec.height)
    np.testing.assert_allclose(slack.min(axis=1), 1.0)


@pytest.mark.parametrize(("unbiased", "far_corner"), [(False, (192, 256)), (True, (191, 255))])
def test_the_boxs_corners_are_the_crops_corners(unbiased: bool, far_corner: tuple[int, int]) -> None:
    geometry = CropSpec(256, 192, padding=1, unbiased=unbiased).around([100, 50, 96, 128])
    np.testing.assert_allclose(geometry.to_crop([(100, 50), (196, 178)]), [(0, 0), far_corner], atol=1e-9)


@pytest.mark.parametrize(("unbiased", "expected_x"), [(False, -1), (True, 1)])
def test_a_quarter_turn_goes_the_conventions_way(unbiased: bool, expected_x: int) -> None:
    upright = CropSpec(96, 96, padding=1, unbiased=unbiased).around([2, 2, 96, 96])
    middle, above = replace(upright, rotation_degrees=90).to_crop([(50, 50), (50, 40)])
    assert np.sign((above - middle)[0]) == expected_x
    assert (above - middle)[1] == pytest.approx(0, abs=1e-9)


# --- Mirroring ---


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("rotation", [0.0, 35.0])
def test_mirrored_crop_equals_mirroring_the_image_and_the_centre_first(
    gradient_image: np.ndarray, rotation: float, unbiased: bool
) -> None:
    image_width = gradient_image.shape[1]
    geometry = replace(SLIM, spec=CropSpec(128, 96, unbiased=unbiased), rotation_degrees=rotation)
    of_mirrored_image = replace(geometry, center=np.array([image_width - 1 - SLIM.center[0], SLIM.center[1]]))
    expected = of_mirrored_image.crop(np.ascontiguousarray(gradient_image[:, ::-1]))
    mirrored = replace(geometry, mirrored=True)
    assert np.abs(mirrored.crop(gradient_image).astype(int) - expected).max() <= 1

    np.testing.assert_allclose(
        mirrored.to_crop([(120.0, 90.0)]), of_mirrored_image.to_crop([(image_width - 1 - 120.0, 90.0)]), atol=1e-9
    )


# --- Pixels ---


def test_crop_is_black_outside_the_image() -> None:
    white = np.full((40, 40, 3), 255, np.uint8)
    crop = CropSpec(64, 32, padding=1).around([30, 0, 20, 40]).crop(white)
    assert crop.shape == (64, 32, 3)
    # The image's last column and row, 39, lie at 14.4 and 62.4; from there it fades out over one image pixel.
    assert (crop[:62, :14] == 255).all()
    assert (crop[:, 17:] == 0).all()
    assert (CropSpec(64, 32).around([-500, -500, 20, 40]).crop(white) == 0).all()


def test_many_crops_fill_the_given_memory_and_nothing_else(gradient_image: np.ndarray) -> None:
    crops = np.full((4, 32, 24, 3), 7, dtype=np.uint8)
    geometry = CropSpec(32, 24).around([[5, 5, 20, 30], [50, 60, 70, 80]])
    geometry.crop(gradient_image, into=crops[1:3])
    assert np.array_equal(crops[1:3], [geometry[0].crop(gradient_image), geometry[1].crop(gradient_image)])
    assert (crops[[0, 3]] == 7).all()


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)]
)
def test_an_image_that_is_not_rgb_bytes_is_refused(image: np.ndarray) -> None:
    with pytest.raises(InputError, match="uint8"):
        CropSpec(64, 32).around([0, 0, 4, 4]).crop(image)


# --- Refusals ---


@pytest.mark.parametrize("box", [(10, 10, 0, 5), (10, 10, 5, -1), (float("nan"), 10, 5, 5), (10, 10, float("inf"), 5)])
def test_degenerate_boxes_are_refused_in_one_line_and_counted(box: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match=r"^box \[10|^box \[nan") as caught:
        CropSpec(256, 192).around(box)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="2 of 3 boxes"):
        CropSpec(256, 192).around([(0, 0, 5, 5), box, box])


def test_no_boxes_give_no_crops() -> None:
    geometry = CropSpec(256, 192).around(np.zeros((0, 4)))
    assert geometry.center.shape == geometry.extent.shape == (0, 2)
    assert geometry.crop(np.zeros((8, 8, 3), np.uint8)).shape == (0, 256, 192, 3)


@pytest.mark.parametrize(
    ("arguments", "expected"), [((256, 192, 0.0), "padding"), ((256, 192, float("nan")), "padding"), ((1, 64), "2x2")]
)
def test_crops_that_cannot_be_are_refused(arguments: Any, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        CropSpec(*arguments)
