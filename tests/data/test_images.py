import re
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from uniformer_pose.data.images import is_complete_jpeg, read_image, read_photo
from uniformer_pose.errors import InputError

HEIGHT, WIDTH = 48, 64


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


def exif(orientation):
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)


def refusal(path, **size):
    with pytest.raises(InputError) as error:
        read_image(path, **({"height": HEIGHT, "width": WIDTH} | size))
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_pixels_are_rgb(tmp_path, picture):
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(picture))
    image = read_image(path, height=HEIGHT, width=WIDTH)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - picture).max() < 20
    assert np.abs(image.astype(int) - picture).mean() < 3


def test_an_exif_orientation_is_not_applied(tmp_path, picture):
    path = tmp_path / "turned.jpg"
    path.write_bytes(with_segment(encode(picture), 0xE1, exif(6)))
    assert cv2.imread(str(path)).shape == (WIDTH, HEIGHT, 3), "OpenCV itself would turn this image"
    assert read_image(path, height=HEIGHT, width=WIDTH).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("shape", "dtype", "suffix"),
    [
        ((HEIGHT, WIDTH), np.uint8, ".png"),
        ((HEIGHT, WIDTH, 4), np.uint8, ".png"),
        ((HEIGHT, WIDTH, 3), np.uint16, ".png"),
        ((HEIGHT, WIDTH), np.uint8, ".jpg"),
        ((HEIGHT, WIDTH, 3), np.uint8, ".webp"),
        ((HEIGHT, WIDTH, 3), np.uint8, ".bmp"),
        ((HEIGHT, WIDTH, 3), np.uint8, ".tiff"),
    ],
)
def test_other_kinds_of_image_become_three_channels_of_eight_bits(tmp_path, shape, dtype, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(cv2.imencode(suffix, np.full(shape, np.iinfo(dtype).max // 2, dtype=dtype))[1].tobytes())
    image = read_image(path, height=HEIGHT, width=WIDTH)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - 127).max() <= 1


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("progressive", [0, 1])
def test_a_cut_off_jpeg_is_refused(tmp_path, picture, share, progressive):
    data = encode(picture, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[: int(share * len(data))])
    assert "cut off after" in refusal(path)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".tiff"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_other_cut_off_images_are_refused(tmp_path, suffix, share):
    rng = np.random.default_rng(0)
    data = encode(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8), suffix)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(share * len(data))])
    assert "cut off" in refusal(path)


def test_a_jpeg_whose_rest_is_zeros_is_refused(tmp_path, picture):
    data = encode(picture)
    half = len(data) // 2
    path = tmp_path / "zeros.jpg"
    path.write_bytes(data[:half] + bytes(len(data) - half))
    assert "cut off" in refusal(path)


def test_a_cut_off_jpeg_is_refused_although_its_preview_image_is_complete(tmp_path, picture):
    preview = encode(picture[::4, ::4])
    data = with_segment(encode(picture), 0xE1, b"Exif\0\0" + preview)
    path = tmp_path / "preview.jpg"
    path.write_bytes(data)
    assert read_image(path, height=HEIGHT, width=WIDTH).shape == (HEIGHT, WIDTH, 3)
    path.write_bytes(data[:-50])
    assert "cut off" in refusal(path)


def test_a_jpeg_cut_right_after_its_preview_image_is_refused(tmp_path, picture):
    preview = encode(picture[::4, ::4])
    path = tmp_path / "preview.jpg"
    path.write_bytes(with_segment(encode(picture), 0xE1, b"Exif\0\0" + preview)[: 2 + 4 + 6 + len(preview)])
    assert "cut off" in refusal(path)


@pytest.mark.parametrize("trailing", [b"\0" * 300, b"\r\n", b"some camera's own data" * 20])
def test_bytes_after_the_end_of_a_jpeg_are_harmless(tmp_path, picture, trailing):
    path = tmp_path / "trailing.jpg"
    path.write_bytes(encode(picture) + trailing)
    assert read_image(path, height=HEIGHT, width=WIDTH).shape == (HEIGHT, WIDTH, 3)


def test_fill_bytes_and_restart_markers_do_not_end_a_jpeg(picture):
    data = encode(picture, ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 1)
    filled = data[:2] + b"\xff\xff" + data[2:]
    assert b"\xff\xd0" in data
    assert is_complete_jpeg(filled + b"tail")
    assert not is_complete_jpeg(filled[:-2])


@pytest.mark.parametrize("data", [b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\xff\xff", b"\xff\xd8" + bytes(50)])
def test_a_header_alone_is_no_complete_jpeg(data):
    assert not is_complete_jpeg(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "the image file is empty"),
        (b"<!DOCTYPE html><html>404</html>", "holds a web page or XML, not an image"),
        (b"\n <html>404</html>", "holds a web page or XML, not an image"),
        (b"version https://git-lfs.github.com/spec/v1", "no image that OpenCV can decode"),
        (b"\xff\xd8", "cut off"),
    ],
)
def test_a_file_that_is_no_image_is_named_with_the_reason(tmp_path, data, expected):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    assert expected in refusal(path)


def test_a_missing_image_is_named(tmp_path):
    assert "no such image file; check the image folder" in refusal(tmp_path / "none.jpg")


def test_a_folder_in_place_of_an_image_is_named(tmp_path):
    assert "cannot be read (Is a directory)" in refusal(tmp_path)


def test_an_image_of_another_size_than_annotated_is_refused(tmp_path, picture):
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(picture))
    assert re.search(r"is 48x64 pixels \(height x width\), .* says 48x65", refusal(path, width=65))
    assert "without EXIF rotation" in refusal(path, height=WIDTH, width=HEIGHT)


def test_an_image_of_one_pixel_is_read(tmp_path):
    path = tmp_path / "dot.png"
    path.write_bytes(encode(np.full((1, 1, 3), 9, dtype=np.uint8), ".png"))
    assert read_image(path, height=1, width=1).tolist() == [[[9, 9, 9]]]


def test_every_coco_image_is_complete(shared_folder):
    files = sorted((shared_folder / "coco_mini").glob("*2017/*.jpg"))
    assert len(files) == 84
    assert all(is_complete_jpeg(file.read_bytes()) for file in files)
    # Without the end marker, only the walk through the segments can tell.
    assert all(is_complete_jpeg(file.read_bytes() + b"tail") for file in files)
    assert not any(is_complete_jpeg(file.read_bytes()[:-2]) for file in files)


# Pictures that a person hands in


def two_colours(height: int = 40, width: int = 60) -> np.ndarray:
    """Red on the left, green on the right, darker towards the bottom: no turn or mirror leaves it as it is."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    shade = np.linspace(255, 120, height).astype(np.uint8)[:, None]
    image[:, : width // 2, 0] = shade
    image[:, width // 2 :, 1] = shade
    return image


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda image: image),
        (2, np.fliplr),
        (3, lambda image: np.rot90(image, 2)),
        (4, np.flipud),
        (5, lambda image: np.transpose(image, (1, 0, 2))),
        (6, lambda image: np.rot90(image, -1)),
        (7, lambda image: np.rot90(np.transpose(image, (1, 0, 2)), 2)),
        (8, np.rot90),
    ],
)
def test_a_photo_is_turned_upright_as_its_exif_says_and_a_training_image_is_not(tmp_path, orientation, upright):
    path = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(two_colours()).save(path, quality=100, subsampling=0, exif=exif)
    stored = read_image(path, height=40, width=60)
    np.testing.assert_array_equal(read_photo(path), upright(stored))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "LA", "CMYK", "I;16"])
def test_any_colour_type_becomes_three_channels_of_eight_bits(tmp_path, mode):
    if mode == "I;16":
        path = tmp_path / "photo.png"
        Image.fromarray(two_colours()[..., 0].astype(np.uint16) * 257).save(path)
    else:
        path = tmp_path / ("photo.jpg" if mode == "CMYK" else "photo.png")
        Image.fromarray(two_colours()).convert(mode).save(path)
    photo = read_photo(path)
    assert photo.shape == (40, 60, 3)
    assert photo.dtype == np.uint8
    if mode in ("RGB", "RGBA", "L", "P", "1"):
        expected = np.asarray(Image.fromarray(two_colours()).convert(mode).convert("RGB"))
        assert np.abs(photo.astype(int) - expected).max() <= 1
    if mode == "CMYK":
        assert np.abs(photo.astype(int) - two_colours()).mean() < 6


def test_the_smallest_and_the_widest_pictures_are_read(tmp_path):
    for height, width in ((1, 1), (1, 20_000), (20_000, 2)):
        path = tmp_path / f"{width}.png"
        Image.fromarray(np.full((height, width, 3), 7, dtype=np.uint8)).save(path)
        assert read_photo(path).shape == (height, width, 3)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "bomb.png"
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 999))]
    whole = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(whole))
    with pytest.raises(InputError, match=r"more than the 250000000 pixels that are read") as raised:
        read_photo(path)
    assert str(raised.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the image file is empty"),
        (b"<html>no such page</html>", "holds a web page or XML, not an image"),
        (b"GIF89a", "no image that OpenCV can decode"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "the JPEG is cut off"),
        (b"plain text", "no image that OpenCV can decode"),
    ],
)
def test_what_is_no_photo_is_told_in_one_line(tmp_path, content, message):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        read_photo(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tif"])
def test_a_photo_cut_short_is_refused(tmp_path, ending):
    path = tmp_path / f"photo.{ending}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=f"photo.{ending}: "):
        read_photo(path)


def test_of_an_animation_the_first_picture_is_taken(tmp_path):
    first, second = (Image.fromarray(np.full((9, 9, 3), value, dtype=np.uint8)) for value in (10, 200))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert abs(int(read_photo(tmp_path / "a.gif").mean()) - 10) < 3


def test_a_format_whose_size_cannot_be_asked_first_is_refused(tmp_path):
    path = tmp_path / "photo.pam"
    path.write_bytes(b"P7\nWIDTH 30000\nHEIGHT 30000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + b"\0" * 99)
    with pytest.raises(InputError, match="no image that OpenCV can decode"):
        read_photo(path)
