"""Headers, digests and grades of image files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uniformer_pose.data.checking.image_check import ImageHeader, examine_image, examine_images, read_header


def save(path: Path, pixels: np.ndarray, orientation: int | None = None, **options: object) -> Path:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **options)
    return path


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tiff", "gif"])
def test_a_header_has_the_stored_size(tmp_path: Path, pixels: np.ndarray, suffix: str) -> None:
    assert read_header(save(tmp_path / f"a.{suffix}", pixels)) == ImageHeader(40, 64)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_header_has_the_exif_orientation(tmp_path: Path, pixels: np.ndarray, orientation: int, suffix: str) -> None:
    header = read_header(save(tmp_path / f"a.{suffix}", pixels, orientation))
    assert header == ImageHeader(40, 64, orientation)
    with Image.open(tmp_path / f"a.{suffix}") as image:
        from PIL import ImageOps

        shown = ImageOps.exif_transpose(image)
    assert (header.displayed_height, header.displayed_width) == (shown.height, shown.width)


@pytest.mark.parametrize("orientation", [0, 9, 60000])
def test_an_orientation_that_exif_does_not_know_is_none(tmp_path: Path, pixels: np.ndarray, orientation: int) -> None:
    assert read_header(save(tmp_path / "a.jpg", pixels, orientation)) == ImageHeader(40, 64, 1)


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89PNG\r\n\x1a\n" + b"\0" * 30]
)
def test_what_is_no_image_has_no_header(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert read_header(tmp_path / "a.jpg") is None


def test_random_damage_never_ends_in_anything_but_a_grade(tmp_path: Path, pixels: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    for _ in range(100):
        data = bytearray(buffer.getvalue())
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(256)
        path = tmp_path / "a.png"
        path.write_bytes(bytes(data[: rng.integers(1, len(data) + 1)]))
        examined = examine_image(path, tmp_path, height=40, width=64)
        assert (examined.kind is None) == (examined.digest is not None)


def test_the_same_pixels_have_the_same_digest_whatever_the_file(tmp_path: Path, pixels: np.ndarray) -> None:
    save(tmp_path / "a.png", pixels)
    save(tmp_path / "b.bmp", pixels)
    save(tmp_path / "c.png", pixels[:, ::-1])
    names = ["a.png", "b.bmp", "c.png"]
    first, second, third = examine_images(tmp_path, names, [40] * 3, [64] * 3, workers=2, on_image=lambda: None)
    assert first.digest == second.digest != third.digest


def test_a_wide_and_a_high_picture_of_one_colour_differ(tmp_path: Path) -> None:
    for name, shape in (("a.png", (40, 64, 3)), ("b.png", (64, 40, 3))):
        save(tmp_path / name, np.zeros(shape, dtype=np.uint8))
    a = examine_image(tmp_path / "a.png", tmp_path, height=40, width=64)
    b = examine_image(tmp_path / "b.png", tmp_path, height=64, width=40)
    assert a.digest != b.digest


def test_a_link_that_leads_to_itself_is_graded(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "a.jpg")
    assert examine_image(tmp_path / "a.jpg", tmp_path, height=1, width=1).kind == "image_unreadable"


def test_a_huge_picture_in_a_small_file_is_graded_without_decoding_it(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b""))
    assert examine_image(tmp_path / "a.png", tmp_path, height=100, width=100).kind is not None
