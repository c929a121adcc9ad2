"""Image files to pixels: kinds, damage, EXIF orientations and depths; one policy in training, evaluation and checks."""

import io
import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from torch.utils.data import DataLoader

from uniformer_pose.data import images
from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.crop_dataset import EvaluationImages, TrainingCrops, as_it_is
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.data.exif import exif_orientation, turned
from uniformer_pose.data.images import (
    ImageSource,
    decode_image,
    decode_photo,
    is_complete_jpeg,
    read_file,
    read_image_of,
    read_photo,
)
from uniformer_pose.data.prepared import PreparedImages, prepare_images
from uniformer_pose.errors import InputError
from uniformer_pose.prediction.estimator import as_pixels

HEIGHT, WIDTH = 48, 64
SPEC = CropSpec(64, 48)
ORIENTATION_TAG = 0x0112


@pytest.fixture
def picture():
    """Smooth colours, so that JPEG keeps them: red grows to the right, green downwards, blue is 30."""
    picture = np.full((HEIGHT, WIDTH, 3), 30, dtype=np.uint8)
    picture[..., 0] = np.linspace(0, 250, WIDTH).astype(np.uint8)
    picture[..., 1] = np.linspace(0, 250, HEIGHT).astype(np.uint8)[:, None]
    return picture


def encode(picture, suffix=".jpg", *options):
    return cv2.imencode(suffix, picture[..., ::-1], list(options))[1].tobytes()


def with_segment(jpeg, marker, payload):
    """A segment right after the start of the JPEG."""
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def written(folder, name, data):
    (folder / name).write_bytes(data)
    return folder / name


def read(path, height=HEIGHT, width=WIDTH):
    return decode_image(path, read_file(path), height=height, width=width).pixels


def refusal(path, reader=read, **size):
    with pytest.raises(InputError) as error:
        reader(path, **size)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


# --- Kinds of image ---


def test_pixels_are_rgb(tmp_path, picture):
    image = read(written(tmp_path, "a.jpg", encode(picture)))
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - picture).max() < 20
    assert np.abs(image.astype(int) - picture).mean() < 3


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "LA", "CMYK", "I;16"])
def test_any_colour_type_becomes_three_channels_of_eight_bits(tmp_path, picture, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    sixteen = Image.fromarray(picture[..., 0].astype(np.uint16) * 257)
    (sixteen if mode == "I;16" else Image.fromarray(picture).convert(mode)).save(path)
    expected = np.asarray(Image.fromarray(picture).convert(mode).convert("RGB")) if mode != "I;16" else picture[..., :1]
    for image in (read(path), read_photo(path)):
        assert (image.shape, image.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
        if mode != "LA":
            assert np.abs(image.astype(int) - expected).mean() < (6 if mode == "CMYK" else 1)


# --- What is refused ---


@pytest.mark.parametrize("share", [0.3, 0.99])
@pytest.mark.parametrize("progressive", [0, 1])
def test_a_cut_off_jpeg_is_refused(tmp_path, picture, share, progressive):
    data = encode(picture, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    path = written(tmp_path, "cut.jpg", data[: int(share * len(data))])
    assert "cut off after" in refusal(path)
    assert "cut off" in refusal(path, read_photo)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".tiff"])
def test_other_cut_off_images_are_refused(tmp_path, suffix):
    data = encode(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8), suffix)
    path = written(tmp_path, f"cut{suffix}", data[: int(0.9 * len(data))])
    assert "cut off" in refusal(path)
    refusal(path, read_photo)


def test_a_preview_image_makes_no_cut_off_jpeg_whole(tmp_path, picture):
    preview = encode(picture[::4, ::4])
    data = with_segment(encode(picture), 0xE1, b"Exif\0\0" + preview)
    path = written(tmp_path, "preview.jpg", data)
    assert read(path).shape == (HEIGHT, WIDTH, 3)
    for end in (len(data) - 50, 2 + 4 + 6 + len(preview)):
        path.write_bytes(data[:end])
        assert "cut off" in refusal(path)


def test_what_makes_a_jpeg_complete(picture, shared_folder):
    data = encode(picture, ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 1)
    filled = data[:2] + b"\xff\xff" + data[2:]
    assert b"\xff\xd0" in data
    assert is_complete_jpeg(filled + b"tail")
    assert not is_complete_jpeg(filled[:-2])
    for header in (b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\xff\xff", b"\xff\xd8" + bytes(50)):
        assert not is_complete_jpeg(header)
    files = sorted((shared_folder / "coco_mini").glob("*2017/*.jpg"))
    assert len(files) == 84
    # Without the end marker, only the walk through the segments can tell.
    assert all(is_complete_jpeg(file.read_bytes() + b"tail") for file in files)
    assert not any(is_complete_jpeg(file.read_bytes()[:-2]) for file in files)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "the image file is empty"),
        (b"<!DOCTYPE html><html>404</html>", "no image that OpenCV can decode"),
        (b"GIF89a", "no image that OpenCV can decode"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "the JPEG is cut off"),
        (None, "no such image file"),
    ],
)
def test_a_file_that_is_no_image_is_named_with_the_reason(tmp_path, data, expected):
    path = tmp_path / "a.jpg" if data is None else written(tmp_path, "a.jpg", data)
    assert expected in refusal(path)
    assert expected in refusal(path, read_photo)
    assert "cannot be read (Is a directory)" in refusal(tmp_path)


def test_an_image_of_another_size_than_annotated_is_refused(tmp_path, picture):
    path = written(tmp_path, "a.jpg", encode(picture))
    assert re.search(r"is 48x64 pixels \(height x width\), .* says 48x65", refusal(path, width=65))


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 999))]
    whole = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    path = written(tmp_path, "bomb.png", b"\x89PNG\r\n\x1a\n" + b"".join(whole))
    assert "more than the 250000000 pixels that are read" in refusal(path, read_photo)


# --- EXIF orientations ---


def with_exif(pixels, orientation, kind, **options):
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    exif[0x010F] = "a maker"  # an entry before it
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, exif=exif, **options)
    return stream.getvalue()


def tiff_directory(order, kind, value):
    layout, mark = {3: "HH", 4: "I"}[kind], b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(f"{order}HHI{layout}", ORIENTATION_TAG, kind, 1, *((value, 0) if kind == 3 else (value,)))
    return mark + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_every_orientation_of_every_format_is_read_and_turned_as_pillow_does(picture, orientation, kind):
    data = with_exif(picture, orientation, kind)
    assert exif_orientation(data) == orientation
    with Image.open(io.BytesIO(data)) as image:
        stored, shown = np.asarray(image), np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(turned(stored, orientation), shown)


@pytest.mark.parametrize(
    ("order", "kind", "value", "expected"), [("<", 3, 6, 6), (">", 3, 6, 6), ("<", 4, 6, 6), ("<", 3, 9, 1)]
)
def test_either_byte_order_is_read_behind_other_segments(picture, order, kind, value, expected):
    jpeg = with_segment(encode(picture), 0xE1, b"Exif\0\0" + tiff_directory(order, kind, value))
    assert exif_orientation(with_segment(jpeg, 0xFE, b"a comment that holds \xff\xda")) == expected


def test_a_tiff_is_turned_by_its_decoder_and_not_once_more(picture):
    assert exif_orientation(with_exif(picture, 6, "TIFF")) == 1


@pytest.mark.parametrize("orientation", [1, 2, 6])
def test_a_photo_is_turned_upright_as_its_exif_says_and_a_training_image_is_not(tmp_path, picture, orientation):
    path = written(tmp_path, "a.jpg", with_exif(picture, orientation, "JPEG", quality=100, subsampling=0))
    stored = read(path)
    assert stored.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(read_photo(path), turned(stored, orientation))


# What a camera stores so that a viewer who turns it by the orientation shows the picture.
INVERSE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


def turn_files(coco, orientations, *, displayed, suffix=".png"):
    """Give the pictures EXIF orientations; ``displayed``: the pixels lie so that viewers see what was there before."""
    for entry, orientation in zip(coco.content["images"], orientations, strict=True):
        path = coco.images / entry["file_name"]
        pixels = np.asarray(Image.open(path))
        entry["file_name"] = path.with_suffix(suffix).name
        stored = turned(pixels, INVERSE[orientation]) if displayed else pixels
        options = {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}
        data = with_exif(np.ascontiguousarray(stored), orientation, "JPEG" if options else "PNG", **options)
        path.with_suffix(suffix).write_bytes(data)


def say(coco, orientation):
    coco.content["info"] = {"image_orientation": orientation}


def crops_of(people, skeleton, prepared=None):
    source = ImageSource(people, prepared=prepared)
    training = TrainingCrops(source, skeleton, SPEC, geometric=GeometricAugmentation())
    evaluation = EvaluationImages(ImageSource(people), SPEC)
    return [
        *(training[(index, epoch)]["crops"] for index in range(len(people)) for epoch in (0, 1)),
        *(evaluation[index]["crops"].numpy() for index in range(people.num_images)),
    ]


def assert_same(one, other):
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("stated", ["displayed", "stored"])
@pytest.mark.parametrize("orientations", [(2, 3, 4), (5, 6, 7), (8, 1, 6)])
def test_crops_of_turned_pictures_are_those_of_upright_ones_as_the_file_states(
    tiny_coco, skeleton, orientations, stated
):
    expected = crops_of(tiny_coco.read(), skeleton)
    say(tiny_coco, stated)
    turn_files(tiny_coco, orientations, displayed=stated == "displayed")
    people = tiny_coco.read()
    assert_same(crops_of(people, skeleton), expected)
    assert prepare_images(people, tiny_coco.folder / "p").remarks == []
    assert_same(crops_of(people, skeleton, PreparedImages(tiny_coco.folder / "p", people)), expected)


def test_turned_pictures_of_which_nothing_is_stated_are_read_as_stored_with_a_word(tiny_coco, skeleton):
    expected = crops_of(tiny_coco.read(), skeleton)
    turn_files(tiny_coco, (6, 3, 5), displayed=False)
    people = tiny_coco.read()
    with pytest.warns(UserWarning, match="EXIF"):
        assert_same(crops_of(people, skeleton), expected)
    assert "3 pictures" in prepare_images(people, tiny_coco.folder / "p").remarks[0]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_is_doubtful_is_said_once_whoever_reads(tiny_coco, tmp_path, monkeypatch, num_workers):
    said = tmp_path / "said.txt"
    monkeypatch.setattr(images, "_warn", lambda line: said.open("a").write(line + "\n"))
    turn_files(tiny_coco, (3, 3, 3), displayed=False)
    data = EvaluationImages(ImageSource(tiny_coco.read()), SPEC)
    for _ in range(2):
        list(DataLoader(data, batch_sampler=[[0], [1], [2]], collate_fn=as_it_is, num_workers=num_workers))
    (line,) = said.read_text().splitlines()
    assert line.startswith("people.json: pictures such as 000000000001.png ")
    assert "data.image_orientation=displayed" in line


@pytest.mark.parametrize("displayed", [True, False])
def test_a_picture_of_the_annotated_size_only_when_turned_is_an_error_that_says_what_to_set(tiny_coco, displayed):
    turn_files(tiny_coco, (6, 1, 1), displayed=displayed)
    people = tiny_coco.read().with_orientation(None if displayed else "displayed")
    right = "displayed" if displayed else "stored"
    with pytest.raises(InputError, match=rf"set data.image_orientation={right}") as error:
        read_image_of(people, 0)
    assert "\n" not in str(error.value)
    assert read_image_of(people.with_orientation(right), 0).pixels.shape == (60, 80, 3)


# --- More than 8 bits ---

EIGHT = np.linspace(0, 255, HEIGHT * WIDTH).astype(np.uint8).reshape(HEIGHT, WIDTH)


def deep(path: Path, pixels: np.ndarray) -> Path:
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm", ".jp2"])
def test_a_part_of_sixteen_bits_is_read_by_what_it_uses(tmp_path, bits, suffix):
    path = deep(tmp_path / f"a{suffix}", EIGHT.astype(np.uint16) << (bits - 8))
    photo = decode_photo(path)
    allowed = 1 if suffix == ".jp2" else 0  # it is not lossless
    np.testing.assert_allclose(photo.pixels.astype(int), np.repeat(EIGHT[..., None], 3, axis=2), rtol=0, atol=allowed)
    np.testing.assert_array_equal(read(path), photo.pixels)
    assert photo.remarks == ("few bits",)


@pytest.mark.parametrize("largest", [65535, 20000])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_an_ordinary_picture_of_sixteen_bits_is_not_stretched(tmp_path, largest, suffix):
    colours = np.random.default_rng(0).integers(0, largest + 1, (40, 60, 3)).astype(np.uint16)
    colours[0, 0, 0] = largest
    photo = decode_photo(deep(tmp_path / f"a{suffix}", colours))
    np.testing.assert_array_equal(photo.pixels, colours[..., ::-1] >> 8)
    assert photo.remarks == ()


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_what_has_no_range_is_refused_and_not_guessed(tmp_path, kind):
    refusal(deep(tmp_path / "a.tiff", (EIGHT.astype(np.int64) - 100).astype(kind)), read_photo)


def test_a_pillow_picture_is_read_by_the_bits_that_it_uses():
    for pixels in (EIGHT.astype(np.uint16) << 4, EIGHT.astype(np.int32) << 4):
        np.testing.assert_array_equal(as_pixels(Image.fromarray(pixels))[..., 2], EIGHT)


def test_training_reads_deep_pictures_and_says_so(tiny_coco):
    before = EvaluationImages(ImageSource(tiny_coco.read()), SPEC)[0]["crops"]
    entry = tiny_coco.content["images"][0]
    pixels = cv2.imread(str(tiny_coco.images / entry["file_name"])).astype(np.uint16) << 4
    pixels[0, 0, 0] = 4095
    deep(tiny_coco.images / "deep.png", pixels)
    entry["file_name"] = "deep.png"
    with pytest.warns(UserWarning, match=r"deep.png.* bits"):
        after = EvaluationImages(ImageSource(tiny_coco.read()), SPEC)[0]["crops"]
    assert (before.int() - after.int()).abs().float().mean() < 0.1
