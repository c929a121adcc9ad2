import cv2
import numpy as np
import pytest

from uniformer_pose.data.crop_geometry import CropGeometry, CropSpec
from uniformer_pose.data.prepared.jpeg_intervals import divide_jpeg
from uniformer_pose.data.prepared.jpeg_window import DamagedError, decode_quadrilateral

FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def window_of(divided, corners, height, width, *, head=None):
    scan = divided.data[divided.scan_start :]
    return decode_quadrilateral(
        divided.data[: divided.scan_start] if head is None else head,
        lambda first, number: scan[first : first + number],
        divided.table_start,
        np.asarray(corners, dtype=np.float64),
        height=height,
        width=width,
    )


def rectangle(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


@pytest.mark.parametrize("sampling", ["411", "420", "422", "440", "444"])
@pytest.mark.parametrize("unbiased", [False, True])
def test_a_crop_through_the_window_has_the_pixels_of_a_crop_of_the_whole_picture(make_jpeg, sampling, unbiased):
    height, width = 149, 187
    source = make_jpeg(height, width, sampling=sampling)
    whole = cv2.imdecode(np.frombuffer(source, dtype=np.uint8), FLAGS)
    divided = divide_jpeg(source)
    rng = np.random.default_rng(0)
    for _ in range(40):
        center, extent = rng.uniform((-20, -20), (width + 20, height + 20)), rng.uniform(3, 200)
        geometry = CropGeometry(
            CropSpec(64, 48, unbiased=unbiased),
            center,
            np.array([extent * 0.75, extent]),
            rng.uniform(-180, 180),
            bool(rng.integers(2)),
        )
        window = window_of(divided, geometry.to_image(rectangle(0, 0, 47, 63)), height, width)
        canvas = rng.integers(0, 256, whole.shape, dtype=np.uint8)  # what was there before must not matter
        if window is not None:
            pixels, top, left = window
            canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        assert np.array_equal(geometry.crop(canvas), geometry.crop(whole))


def test_only_the_window_is_decoded(make_jpeg):
    divided = divide_jpeg(make_jpeg(480, 640))
    pixels, top, left = window_of(divided, rectangle(200, 100, 299, 199), 480, 640)
    assert (top, left) == (96, 192)
    assert pixels.shape == (112, 128, 3)


def test_only_the_rows_of_the_window_are_read(make_jpeg):
    divided = divide_jpeg(make_jpeg(480, 640))
    scan = divided.data[divided.scan_start :]
    read = []

    def read_scan(first, number):
        read.append(number)
        return scan[first : first + number]

    corners = np.array(rectangle(0, 0, 639, 20), dtype=float)
    decode_quadrilateral(
        divided.data[: divided.scan_start], read_scan, divided.table_start, corners, height=480, width=640
    )
    assert len(read) == 1
    assert read[0] < 0.1 * len(scan)


@pytest.mark.parametrize("corners", [rectangle(-50, 5, -10, 20), rectangle(5, 90, 20, 99), rectangle(110, 5, 130, 9)])
def test_a_quadrilateral_beside_the_picture_has_no_pixels(make_jpeg, corners):
    assert window_of(divide_jpeg(make_jpeg(75, 101)), corners, 75, 101) is None


def test_another_picture_size_is_refused(make_jpeg):
    with pytest.raises(DamagedError, match="another size"):
        window_of(divide_jpeg(make_jpeg(75, 101)), rectangle(0, 0, 9, 9), 5000, 101)


def test_a_table_that_is_cut_off_is_refused(make_jpeg):
    divided = divide_jpeg(make_jpeg())
    with pytest.raises(DamagedError):
        window_of(divided, rectangle(0, 0, 9, 9), 75, 101, head=divided.data[: divided.table_start + 60])


def test_spoilt_bytes_give_another_picture_of_that_size_or_an_error(make_jpeg):
    divided = divide_jpeg(make_jpeg(75, 101))
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        head = bytearray(divided.data[: divided.scan_start])
        for position in rng.integers(0, len(head), 2):
            head[position] = rng.integers(256)
        try:
            pixels, _, _ = window_of(divided, rectangle(20, 20, 50, 50), 75, 101, head=bytes(head))
        except DamagedError:
            refused += 1
        else:
            assert max(pixels.shape) <= 104
    assert refused > 10
