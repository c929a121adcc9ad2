import cv2
import numpy as np
import pytest

from uniformer_pose.data.prepared.jpeg_intervals import NotDivisible, divide_jpeg


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def number_of_restarts(data, scan_start):
    scan = np.frombuffer(data, dtype=np.uint8)[scan_start:]
    return int(((scan[:-1] == 0xFF) & (scan[1:] >> 3 == 0xD0 >> 3)).sum())


@pytest.mark.parametrize("sampling", ["411", "420", "422", "440", "444"])
@pytest.mark.parametrize(("height", "width"), [(75, 101), (8, 8), (1, 1), (64, 128), (33, 250)])
def test_a_divided_jpeg_has_the_pixels_of_its_source(make_jpeg, sampling, height, width):
    source = make_jpeg(height, width, sampling=sampling)
    assert np.array_equal(decoded(divide_jpeg(source).data), decoded(source))


def test_huffman_tables_made_for_one_picture_are_no_obstacle(make_jpeg):
    source = make_jpeg(optimize=1)
    assert source != make_jpeg(optimize=0)
    assert np.array_equal(decoded(divide_jpeg(source).data), decoded(source))


def test_a_gray_picture_is_divided_too(make_jpeg):
    source = make_jpeg(gray=True)
    assert np.array_equal(decoded(divide_jpeg(source).data), decoded(source))


def test_an_interval_spans_a_few_blocks_of_one_row(make_jpeg):
    divided = divide_jpeg(make_jpeg(64, 96))  # 12 blocks a row: 3 intervals of 4, in 8 rows
    assert number_of_restarts(divided.data, divided.scan_start) == 3 * 8 - 1


def test_dividing_costs_few_bytes(make_jpeg):
    source = make_jpeg(480, 640, quality=95)
    assert len(divide_jpeg(source).data) < 1.06 * len(source)


def test_metadata_are_left_out_and_the_pixels_stay(make_jpeg):
    source = make_jpeg()
    exif = b"\xff\xe1\x00\x0aExif\0\0MM"
    comment = b"\xff\xfe\x00\x07hello"
    divided = divide_jpeg(source[:2] + exif + comment + source[2:])
    assert b"hello" not in divided.data
    assert b"Exif" not in divided.data
    assert np.array_equal(decoded(divided.data), decoded(source))


@pytest.mark.parametrize(
    ("flags", "reason"), [({"progressive": 1}, "not a baseline JPEG"), ({"rst_interval": 2}, "with restart markers")]
)
def test_other_kinds_of_jpeg_are_refused_with_the_reason(make_jpeg, flags, reason):
    with pytest.raises(NotDivisible, match=reason):
        divide_jpeg(make_jpeg(**flags))


def test_what_is_no_jpeg_is_refused():
    with pytest.raises(NotDivisible, match="no JPEG"):
        divide_jpeg(b"\x89PNG\r\n\x1a\n")


def test_spoilt_bytes_are_refused_or_give_what_decoders_make_of_them(make_jpeg):
    source = make_jpeg(40, 48)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(60):
        spoilt = bytearray(source)
        for position in rng.integers(0, len(spoilt), 3):
            spoilt[position] = rng.integers(256)
        try:
            divide_jpeg(bytes(spoilt))
        except NotDivisible:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("length", [0, 1, 2, 3, 20, 200, 600, 650])
def test_a_jpeg_that_is_cut_off_is_refused(make_jpeg, length):
    with pytest.raises(NotDivisible):
        divide_jpeg(make_jpeg()[:length])
