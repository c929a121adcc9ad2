"""What EXIF says of a picture, and pixels turned by it, against Pillow."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from uniformer_pose.data.exif import exif_orientation, turned

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
ORIENTATION_TAG = 0x0112


def encoded(orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    exif[0x010F] = "a maker"  # an entry before it
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, kind, exif=exif)
    return stream.getvalue()


def jpeg_with(payload: bytes) -> bytes:
    plain = encoded(1, "JPEG")
    comment = b"\xff\xfe\x00\x08before"
    segment = b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
    start = plain.index(b"\xff\xdb")  # behind JFIF and the EXIF that Pillow wrote
    return plain[:2] + comment + b"\xff" + segment + plain[start:]


def tiff_directory(order: str, kind: int, value: int) -> bytes:
    layout = {3: "HH", 4: "I"}[kind]
    values = (value, 0) if kind == 3 else (value,)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(f"{order}HHI{layout}", ORIENTATION_TAG, kind, 1, *values)
    return mark + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_every_orientation_of_every_format_is_read_and_turned_as_pillow_does(orientation: int, kind: str) -> None:
    data = encoded(orientation, kind)
    assert exif_orientation(data) == orientation
    with Image.open(io.BytesIO(data)) as image:
        stored, shown = np.asarray(image), np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(turned(stored, orientation), shown)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4], ids=["short", "long"])
def test_either_byte_order_and_either_length_of_number_is_read(order: str, kind: int) -> None:
    assert exif_orientation(jpeg_with(b"Exif\0\0" + tiff_directory(order, kind, 6))) == 6


@pytest.mark.parametrize("value", [0, 9, 60000])
def test_an_orientation_that_does_not_exist_is_none(value: int) -> None:
    assert exif_orientation(jpeg_with(b"Exif\0\0" + tiff_directory("<", 3, value))) == 1


def test_a_tiff_is_turned_by_its_decoder_and_not_once_more() -> None:
    assert exif_orientation(encoded(6, "TIFF")) == 1


def test_damaged_bytes_have_no_orientation_and_raise_nothing() -> None:
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP", "AVIF"):
        whole = encoded(6, kind)
        for length in range(0, len(whole), 7):
            assert exif_orientation(whole[:length]) in range(1, 9)
        for _ in range(100):
            data = bytearray(whole)
            for place in rng.integers(0, min(len(data), 300), 3):
                data[place] = rng.integers(256)
            assert exif_orientation(data) in range(1, 9)
