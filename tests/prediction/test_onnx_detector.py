"""ONNX files that answer as exported detectors do: the boxes that they say, in the pixels of the picture."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from uniformer_pose.errors import InputError
from uniformer_pose.prediction.onnx_detector import OnnxDetector, corners_in_image, network_input, placed_size

HEIGHT, WIDTH = 64, 96  # of the graphs' input
ROWS = (8 * 12) + (4 * 6) + (2 * 3)
# As large as the input, so that its pixels are those of the picture.
PICTURE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)


def empty_rows(num_rows: int = ROWS, num_classes: int = 80) -> npt.NDArray[np.float32]:
    return np.zeros((num_rows, 5 + num_classes), np.float32)


def one_row(index: int, *values: float, objectness: float = 0.9, person: float = 1.0) -> npt.NDArray[np.float32]:
    rows = empty_rows()
    rows[index, :4] = values
    rows[index, 4:6] = objectness, person
    return rows


def mmdeploy(path: Path, *rows: tuple[float, ...], **arguments: Any) -> str:
    """Of rows x1, y1, x2, y2, score, label."""
    table = np.array(rows, dtype=np.float64)
    return onnx_graphs.mmdeploy(path, table[:, :5], table[:, 5], **arguments)


def people(path: str, picture: npt.NDArray[np.uint8] = PICTURE, **arguments: Any) -> list[list[float]]:
    """Rows x, y, width, height, score of what is found."""
    found = OnnxDetector(path, **arguments)([picture])[0]
    return [[*box, score] for box, score in zip(found.boxes_xywh.tolist(), found.scores.tolist(), strict=True)]


def error_of(path: str, **arguments: Any) -> str:
    with pytest.raises(InputError) as caught:
        OnnxDetector(path, **arguments)([PICTURE])
    line = str(caught.value)
    assert line.isprintable()
    return line


# -- YOLOX's own export -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "center", "stride"),
    [
        (0, (0, 0), 8),
        (13, (1, 1), 8),  # the second row begins behind 12 cells
        (8 * 12, (0, 0), 16),
        (8 * 12 + 6 + 2, (2, 1), 16),
        (ROWS - 1, (2, 1), 32),
    ],
)
def test_undecoded_rows_are_relative_to_their_cell(
    tmp_path: Path, index: int, center: tuple[int, int], stride: int
) -> None:
    rows = one_row(index, 0.25, 0.75, math.log(1.5), math.log(2.0))
    width, height = 1.5 * stride, 2.0 * stride
    x, y = (center[0] + 0.25) * stride - width / 2, (center[1] + 0.75) * stride - height / 2
    found = people(onnx_graphs.yolox(tmp_path / "a.onnx", rows))
    np.testing.assert_allclose(found, [[x, y, width, height, 0.9]], rtol=1e-5, atol=1e-5)


def test_decoded_rows_are_pixels_of_the_input(tmp_path: Path) -> None:
    path = onnx_graphs.yolox(tmp_path / "a.onnx", one_row(5, 40, 30, 20, 50, objectness=0.5, person=0.5), decoded=True)
    np.testing.assert_allclose(people(path), [[30, 5, 20, 50, 0.25]], rtol=1e-6)


def test_four_strides_are_seen_from_the_number_of_rows(tmp_path: Path) -> None:
    rows = empty_rows((128 // 8) ** 2 + 8**2 + 4**2 + 2**2, 1)
    rows[-1] = [0.5, 0.5, 0, 0, 1, 1]  # of the last cell of stride 64
    path = onnx_graphs.yolox(tmp_path / "a.onnx", rows, input_shape=(1, 3, 128, 128))
    found = people(path, np.zeros((128, 128, 3), np.uint8))
    np.testing.assert_allclose(found, [[64, 64, 64, 64, 1]], rtol=1e-6)


def test_a_row_is_a_person_where_no_other_class_has_a_higher_score(tmp_path: Path) -> None:
    rows = one_row(5, 40, 30, 20, 50, person=0.6)
    rows[5, 8] = 0.7
    assert people(onnx_graphs.yolox(tmp_path / "a.onnx", rows, decoded=True)) == []
    found = people(str(tmp_path / "a.onnx"), person_class=3)
    np.testing.assert_allclose(found, [[30, 5, 20, 50, 0.63]], rtol=1e-6)


def test_boxes_come_best_first_without_repetitions_and_weak_ones(tmp_path: Path) -> None:
    rows = empty_rows()
    rows[0, :6] = 20, 30, 20, 50, 1, 0.5
    rows[1, :6] = 21, 30, 20, 50, 1, 0.4  # the same person
    rows[2, :6] = 70, 30, 20, 50, 1, 0.8
    rows[3, :6] = 50, 30, 20, 50, 1, 0.04
    found = people(onnx_graphs.yolox(tmp_path / "a.onnx", rows, decoded=True))
    np.testing.assert_allclose(found, [[60, 5, 20, 50, 0.8], [10, 5, 20, 50, 0.5]], rtol=1e-6)


def test_a_number_of_rows_that_no_yolox_has_is_one_line(tmp_path: Path) -> None:
    rows = empty_rows(100)
    rows[0, 4:6] = 1
    line = error_of(onnx_graphs.yolox(tmp_path / "a.onnx", rows))
    assert "gives 100 rows for an input of 64x96, which no YOLOX has; give YOLOX as its own project" in line


def test_rows_are_counted_even_where_nobody_is_found(tmp_path: Path) -> None:
    assert "100 rows" in error_of(onnx_graphs.yolox(tmp_path / "a.onnx", empty_rows(100)))


def test_a_class_that_there_is_not_is_one_line(tmp_path: Path) -> None:
    path = onnx_graphs.yolox(tmp_path / "a.onnx", empty_rows(num_classes=2))
    assert "with no score of class 2 in its rows" in error_of(path, person_class=2)
    assert "person_class=-1: give the number of the class" in error_of(path, person_class=-1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1000.0])
def test_boxes_that_are_not_finite_are_told(tmp_path: Path, value: float) -> None:
    path = onnx_graphs.yolox(tmp_path / "a.onnx", one_row(3, 0, 0, value, 0))
    assert "gives boxes that are not finite" in error_of(path)


def test_scores_that_are_not_numbers_are_told(tmp_path: Path) -> None:
    path = onnx_graphs.yolox(tmp_path / "a.onnx", one_row(3, 0, 0, 0, 0, objectness=float("nan")))
    assert "gives boxes that are not finite" in error_of(path)


# -- MMDeploy's export ------------------------------------------------------------------------------------------------


def test_people_are_taken_from_dets_by_their_label(tmp_path: Path) -> None:
    rows = [(10, 5, 30, 55, 0.5, 0), (60, 5, 80, 55, 0.8, 0), (1, 2, 3, 4, 0.9, 16), (0, 0, 0, 0, 0, -1)]
    path = mmdeploy(tmp_path / "a.onnx", *rows)
    np.testing.assert_allclose(people(path), [[60, 5, 20, 50, 0.8], [10, 5, 20, 50, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(people(path, person_class=16), [[1, 2, 2, 2, 0.9]], rtol=1e-6)


def test_dets_of_padding_only_are_nobody(tmp_path: Path) -> None:
    assert people(mmdeploy(tmp_path / "a.onnx", (0, 0, 0, 0, 0, -1), (0, 0, 0, 0, 0, 0))) == []


def test_dets_that_are_not_finite_are_told(tmp_path: Path) -> None:
    path = mmdeploy(tmp_path / "a.onnx", (10, 5, float("nan"), 55, 0.5, 0))
    assert "gives boxes that are not finite" in error_of(path)


@pytest.mark.parametrize(
    ("evidence", "pixels"),
    [
        ({"parameter": "bbox_head.rtm_cls.0.weight"}, "rtmdet"),
        ({"parameter": "bbox_head.rtm_reg.2.bias"}, "rtmdet"),
        ({"parameter": "bbox_head.multi_level_conv_cls.0.weight"}, "yolox"),
    ],
)
def test_the_network_is_known_by_the_names_in_its_graph(tmp_path: Path, evidence: dict[str, str], pixels: str) -> None:
    path = mmdeploy(tmp_path / "a.onnx", (0, 0, 9, 9, 0.9, 0), **evidence)
    assert OnnxDetector(path).network == pixels


@pytest.mark.parametrize(("channels", "exponential", "pixels"), [(12, True, "yolox"), (3, False, "rtmdet")])
def test_the_network_is_known_by_its_first_convolution(
    tmp_path: Path, channels: int, exponential: bool, pixels: str
) -> None:
    path = onnx_graphs.convolution(tmp_path / "a.onnx", channels, exponential=exponential)
    assert OnnxDetector(path).network == pixels


def test_a_network_that_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    path = onnx_graphs.convolution(tmp_path / "a.onnx", 3, exponential=True)
    assert "give layout=yolox or layout=rtmdet" in error_of(path)
    assert OnnxDetector(path, layout="yolox").network == "yolox"
    assert OnnxDetector(path, layout="rtmdet").network == "rtmdet"


# -- the pixels -------------------------------------------------------------------------------------------------------


def test_yolox_sees_blue_green_red_as_they_are_and_114_below(tmp_path: Path) -> None:
    path = onnx_graphs.mirror_of_input(tmp_path / "a.onnx", kind="yolox")
    picture = np.full((HEIGHT // 2, WIDTH, 3), (200, 150, 100), np.uint8)
    np.testing.assert_allclose(people(path, picture), [[100, 150, 1200 - 100, 1114 - 150, 1]])


def test_rtmdet_sees_them_normalised_and_so_is_the_114(tmp_path: Path) -> None:
    path = onnx_graphs.mirror_of_input(tmp_path / "a.onnx", kind="rtmdet")
    picture = np.full((HEIGHT // 2, WIDTH, 3), (200, 150, 100), np.uint8)
    blue, green = (100 - 103.53) / 57.375, (150 - 116.28) / 57.12
    right, bottom = 1000 + (200 - 123.675) / 58.395, 1000 + (114 - 103.53) / 57.375
    np.testing.assert_allclose(people(path, picture), [[blue, green, right - blue, bottom - green, 1]], rtol=1e-5)


def test_a_half_precision_input_is_given_half_precision(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["images"], ["single"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["single"], ["number"], keepdims=0),
        helper.make_node("Mul", ["number", "rows"], ["output"]),
    ]
    rows = one_row(5, 40, 30, 20, 50)[None]
    path = onnx_graphs.save(
        tmp_path / "a.onnx",
        [*nodes, helper.make_node("Exp", ["number"], ["unused"])],
        {"output": (TensorProto.FLOAT, list(rows.shape))},
        {"rows": rows},
        input_type=TensorProto.FLOAT16,
    )
    np.testing.assert_allclose(people(path, PICTURE + np.uint8(1)), [[30, 5, 20, 50, 0.9]], rtol=1e-6)


@given(
    image_height=st.integers(1, 5000),
    image_width=st.integers(1, 5000),
    height=st.integers(1, 40).map(lambda cells: 32 * cells),
    width=st.integers(1, 40).map(lambda cells: 32 * cells),
    rounded=st.booleans(),
)
def test_a_picture_is_placed_as_large_as_fits_in_its_own_shape(
    image_height: int, image_width: int, height: int, width: int, rounded: bool
) -> None:
    placed = placed_size((image_height, image_width, 3), height, width, rounded=rounded)
    assert placed[0] == height or placed[1] == width
    assert 1 <= placed[0] <= height
    assert 1 <= placed[1] <= width
    scale = min(height / image_height, width / image_width)
    for side, image_side in zip(placed, (image_height, image_width), strict=True):
        exact = image_side * scale
        assert side == 1 or (abs(side - exact) <= 0.5 + 1e-6 if rounded else exact - 1 < side <= exact + 1e-6)


@given(image_height=st.integers(1, 300), image_width=st.integers(1, 300), seed=st.integers(0, 99))
def test_the_picture_lies_in_the_upper_left_and_114_around_it(image_height: int, image_width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 100, (image_height, image_width, 3), dtype=np.uint8)
    placed = placed_size(image.shape, HEIGHT, WIDTH, rounded=True)
    pixels = network_input(image, placed, HEIGHT, WIDTH, normalized=False)
    assert pixels.shape == (1, 3, HEIGHT, WIDTH)
    assert pixels.dtype == np.float32
    assert (pixels[0, :, : placed[0], : placed[1]] < 100).all()
    assert (pixels[0, :, placed[0] :] == 114).all()
    assert (pixels[0, :, :, placed[1] :] == 114).all()


@given(
    image_height=st.integers(60, 400),
    image_width=st.integers(60, 400),
    fractions=st.tuples(st.floats(0, 0.4), st.floats(0, 0.4), st.floats(0.6, 1), st.floats(0.6, 1)),
)
def test_what_is_seen_in_the_input_comes_back_to_where_it_is_in_the_picture(
    image_height: int, image_width: int, fractions: tuple[float, ...]
) -> None:
    image = np.zeros((image_height, image_width, 3), np.uint8)
    sides = (image_width, image_height, image_width, image_height)
    x1, y1, x2, y2 = (round(fraction * side) for fraction, side in zip(fractions, sides, strict=True))
    image[y1:y2, x1:x2] = 255
    placed = placed_size(image.shape, HEIGHT, WIDTH, rounded=True)
    shown = network_input(image, placed, HEIGHT, WIDTH, normalized=False)[0, 0, : placed[0], : placed[1]] / 255
    columns, rows = np.flatnonzero(shown.max(axis=0) > 0.5), np.flatnonzero(shown.max(axis=1) > 0.5)
    seen = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], dtype=np.float64)
    one_pixel = max(image_height / placed[0], image_width / placed[1], 1)
    np.testing.assert_allclose(corners_in_image(seen, placed, image.shape), [[x1, y1, x2, y2]], atol=one_pixel)


def test_boxes_of_a_larger_picture_are_in_its_own_pixels(tmp_path: Path) -> None:
    # 1001x600 shrinks to 64x38 (rounded from 38.36), so that the two axes differ a little.
    found = people(mmdeploy(tmp_path / "a.onnx", (0, 0, 38, 64, 0.9, 0)), np.zeros((1001, 600, 3), np.uint8))
    np.testing.assert_allclose(found, [[0, 0, 600, 1001, 0.9]], rtol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (20000, 1), (3, 5)])
def test_pictures_of_odd_sizes_have_a_result(tmp_path: Path, size: tuple[int, int]) -> None:
    path = mmdeploy(tmp_path / "a.onnx", (0, 0, WIDTH, HEIGHT, 0.9, 0))
    found = people(path, np.zeros((*size, 3), np.uint8))
    assert found[0][2] >= size[1] - 1e-6
    assert found[0][3] >= size[0] - 1e-6


def test_pictures_are_answered_in_their_order_and_may_be_views(tmp_path: Path) -> None:
    detector = OnnxDetector(onnx_graphs.mirror_of_input(tmp_path / "a.onnx", kind="yolox"))
    first = np.full((HEIGHT, WIDTH, 3), 10, np.uint8)
    first[:, -1] = 40
    found = detector([first, first[:, ::-1], first[:, :, ::-1]])
    assert [boxes.boxes_xywh[0, 0] for boxes in found] == [10, 40, 10]
    assert detector([]) == []


def test_a_picture_of_another_form_is_one_line(tmp_path: Path) -> None:
    detector = OnnxDetector(mmdeploy(tmp_path / "a.onnx", (0, 0, 9, 9, 0.9, 0)))
    with pytest.raises(InputError, match="picture 0 of 1: uint8 of shape"):
        detector([PICTURE[..., :2]])


# -- inputs and outputs -----------------------------------------------------------------------------------------------


def test_an_open_input_takes_640_or_what_is_asked_for(tmp_path: Path) -> None:
    path = mmdeploy(tmp_path / "a.onnx", (0, 0, 9, 9, 0.9, 0), input_shape=("batch", 3, "height", "width"))
    detector = OnnxDetector(path)
    assert (detector.height, detector.width) == (640, 640)
    detector = OnnxDetector(path, height=64, width=96)
    assert (detector.height, detector.width) == (64, 96)
    assert len(detector([PICTURE])[0]) == 1


@pytest.mark.parametrize(
    ("shape", "arguments", "said"),
    [
        ((1, 3, 64, 96), {"height": 128}, "height=128: .* has a fixed height of 64; leave height out"),
        ((1, 3, "h", "w"), {"width": 100}, "width=100: .* needs a multiple of 32 from 32 to 4096"),
        ((1, 3, "h", "w"), {"height": 0}, "height=0: "),
        ((1, 3, 100000, 64), {}, "height=100000: "),
        ((4, 3, 64, 96), {}, "takes 4 pictures at a time; export it for one"),
        ((1, 64, 96, 3), {}, r"its inputs are images tensor\(float\) \[1, 64, 96, 3\]; one float"),
        ((1, 3), {}, r"one float \(1, 3, height, width\) is needed"),
    ],
)
def test_an_input_that_cannot_be_used_is_one_line(
    tmp_path: Path, shape: tuple[Any, ...], arguments: dict[str, Any], said: str
) -> None:
    path = mmdeploy(tmp_path / "a.onnx", (0, 0, 9, 9, 0.9, 0), input_shape=shape)
    with pytest.raises(InputError, match=said):
        OnnxDetector(path, **arguments)


def test_an_input_of_bytes_is_one_line(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["images"], ["output"])]
    path = onnx_graphs.save(
        tmp_path / "a.onnx", nodes, {"output": (TensorProto.UINT8, [1, 3, 64])}, {}, input_type=TensorProto.UINT8
    )
    assert "tensor(uint8)" in error_of(path)


@pytest.mark.parametrize("layout", ["auto", "yolox", "rtmdet"])
def test_outputs_of_another_network_are_one_line(tmp_path: Path, layout: str) -> None:
    nodes = [helper.make_node("Identity", ["images"], ["logits"])]
    path = onnx_graphs.save(tmp_path / "a.onnx", nodes, {"logits": (TensorProto.FLOAT, [1, 3, 64, 96])}, {})
    line = error_of(path, layout=layout)
    assert f"its outputs are logits [1, 3, 64, 96], which layout={layout} does not have; give YOLOX" in line


def test_rows_without_suppression_are_not_rtmdets(tmp_path: Path) -> None:
    path = onnx_graphs.yolox(tmp_path / "a.onnx", empty_rows())
    assert "which layout=rtmdet does not have" in error_of(path, layout="rtmdet")
    assert "layout=yolov8: give auto, yolox or rtmdet" in error_of(path, layout="yolov8")


def test_dets_of_another_width_are_one_line(tmp_path: Path) -> None:
    path = onnx_graphs.mmdeploy(tmp_path / "a.onnx", np.zeros((3, 6)), np.zeros(3))
    assert "gives dets of shape (1, 3, 6) in place of (1, N, 5)" in error_of(path)


def test_labels_of_another_number_are_one_line(tmp_path: Path) -> None:
    path = onnx_graphs.mmdeploy(tmp_path / "a.onnx", np.zeros((3, 5)), np.zeros(2))
    assert "labels of shape (1, 2) for dets of shape (1, 3, 5)" in error_of(path)


# -- the runtime ------------------------------------------------------------------------------------------------------


def test_without_the_package_one_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    line = error_of(mmdeploy(tmp_path / "a.onnx", (0, 0, 9, 9, 0.9, 0)))
    assert line.startswith("detector=onnx needs the package onnxruntime: pip install onnxruntime")


def test_providers_are_those_that_the_runtime_has(tmp_path: Path) -> None:
    path = mmdeploy(tmp_path / "a.onnx", (0, 0, 9, 9, 0.9, 0))
    assert OnnxDetector(path, providers=["CPUExecutionProvider"], threads=1).providers == ["CPUExecutionProvider"]
    assert "this ONNX Runtime has" in error_of(path, providers=["QuantumExecutionProvider"])
    assert "this ONNX Runtime has" in error_of(path, providers=[])
    assert "threads=0: give 1 or more" in error_of(path, threads=0)


def test_a_graph_that_the_runtime_refuses_is_one_line(tmp_path: Path) -> None:
    nodes = [helper.make_node("NoSuchOperator", ["images"], ["output"])]
    path = onnx_graphs.save(tmp_path / "a.onnx", nodes, {"output": (TensorProto.FLOAT, [1, 8, 6])}, {})
    assert "does not load it" in error_of(path)


def test_a_graph_that_fails_while_it_runs_is_one_line(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["images", "shape"], ["output"])]
    shape = {"shape": np.array([1, 7, 11])}
    arguments = {"input_shape": (1, 3, "h", "w")}
    path = onnx_graphs.save(tmp_path / "a.onnx", nodes, {"output": (TensorProto.FLOAT, [1, 7, 11])}, shape, **arguments)
    assert "the detector failed" in error_of(path)


def test_weights_beside_the_file_are_read_and_those_elsewhere_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    path = onnx_graphs.with_external_weights(tmp_path / "model" / "a.onnx", "../secret.bin")
    assert "which is not below its folder; it is not loaded" in error_of(path)
    (tmp_path / "model" / "beside.bin").write_bytes(bytes(16))
    path = onnx_graphs.with_external_weights(tmp_path / "model" / "a.onnx", "beside.bin")
    assert "its outputs are output [1, 3, 32, 32]" in error_of(path)  # loaded, and no detector
