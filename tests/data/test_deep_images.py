"""Pictures of more than 8 bits: those that they use become 8, whoever reads them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from uniformer_pose.data.crop_dataset import EvaluationImages
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.data.images import decode_photo, read_image, read_photo
from uniformer_pose.data.prepared.preparation import prepare_images
from uniformer_pose.errors import InputError
from uniformer_pose.prediction.estimator import as_pixels

EIGHT = np.linspace(0, 255, 40 * 60).astype(np.uint8).reshape(40, 60)
SIZE = {"height": 40, "width": 60}


def write(path: Path, pixels: np.ndarray) -> Path:
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm", ".jp2"])
def test_a_part_of_sixteen_bits_is_read_by_what_it_uses(tmp_path: Path, bits: int, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", EIGHT.astype(np.uint16) << (bits - 8))
    photo = decode_photo(path)
    allowed = 1 if suffix == ".jp2" else 0  # it is not lossless
    np.testing.assert_allclose(photo.pixels.astype(int), np.repeat(EIGHT[..., None], 3, axis=2), rtol=0, atol=allowed)
    np.testing.assert_array_equal(read_image(path, **SIZE), photo.pixels)
    assert (photo.bits, photo.of_bits, photo.remarks) == (bits, 16, ("few bits",))


@pytest.mark.parametrize("largest", [65535, 40000, 20000])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_an_ordinary_picture_of_sixteen_bits_is_not_stretched(tmp_path: Path, largest: int, suffix: str) -> None:
    colours = np.random.default_rng(0).integers(0, largest + 1, (40, 60, 3)).astype(np.uint16)
    colours[0, 0, 0] = largest
    photo = decode_photo(write(tmp_path / f"a{suffix}", colours))
    np.testing.assert_array_equal(photo.pixels, colours[..., ::-1] >> 8)
    assert photo.remarks == ()


def test_transparency_does_not_count_as_a_used_bit(tmp_path: Path) -> None:
    colours = np.full((40, 60, 4), 65535, dtype=np.uint16)
    colours[..., :3] = EIGHT.astype(np.uint16)[..., None] << 4
    np.testing.assert_array_equal(read_photo(write(tmp_path / "a.png", colours))[..., 0], EIGHT)


def test_a_black_picture_is_black_and_worth_no_word(tmp_path: Path) -> None:
    photo = decode_photo(write(tmp_path / "a.png", np.zeros((40, 60), dtype=np.uint16)))
    assert not photo.pixels.any()
    assert photo.remarks == ()


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.float32])
def test_what_has_no_range_is_refused_and_not_guessed(tmp_path: Path, kind: type) -> None:
    path = write(tmp_path / "a.tiff", (EIGHT.astype(np.int64) - 100).astype(kind))
    with pytest.raises(InputError, match=r"a\.tiff: ") as error:
        read_photo(path)
    assert "\n" not in str(error.value)


def test_signed_numbers_without_a_sign_are_read(tmp_path: Path) -> None:
    photo = decode_photo(write(tmp_path / "a.tiff", EIGHT.astype(np.int16) << 4))
    np.testing.assert_array_equal(photo.pixels[..., 0], EIGHT)
    assert (photo.bits, photo.of_bits) == (12, 15)


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pbm"])
def test_one_bit_is_black_and_white(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(EIGHT > 127).save(path)
    np.testing.assert_array_equal(read_photo(path)[..., 0], np.where(EIGHT > 127, 255, 0))


def test_a_pillow_picture_is_read_by_the_bits_that_it_uses() -> None:
    for deep in (EIGHT.astype(np.uint16) << 4, EIGHT.astype(np.int32) << 4):
        np.testing.assert_array_equal(as_pixels(Image.fromarray(deep))[..., 2], EIGHT)


def test_training_preparing_and_checking_read_them_alike_and_say_so(tiny_coco) -> None:
    before = EvaluationImages(tiny_coco.read(), CropSpec(64, 48))[0]["crops"]
    entry = tiny_coco.content["images"][0]
    path = tiny_coco.images / entry["file_name"]
    entry["file_name"] = "deep.png"
    deep = cv2.imread(str(path)).astype(np.uint16) << 4
    deep[0, 0, 0] = 4095
    write(tiny_coco.images / "deep.png", deep)
    people = tiny_coco.read()
    with pytest.warns(UserWarning, match=r"deep.png.* bits"):
        after = EvaluationImages(people, CropSpec(64, 48))[0]["crops"]
    assert (before.int() - after.int()).abs().float().mean() < 0.1
    assert any("1 pictures (first deep.png)" in line for line in prepare_images(people, tiny_coco.folder / "p").remarks)
