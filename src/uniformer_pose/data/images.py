"""Image files to pixels, with a sentence for every file that is not what the annotations say."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from uniformer_pose.errors import InputError

MOST_PIXELS = 250_000_000
"""Of a picture that a person hands in: 750 MB once decoded, more than any camera makes."""

_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"


def read_image(path: str | Path, *, height: int, width: int) -> npt.NDArray[np.uint8]:
    """(height, width, 3) RGB pixels of an image file, 0 to 255.

    ``height`` and ``width`` are what the annotation file says. The pixels are taken as stored: an EXIF
    orientation is not applied, because COCO's keypoints refer to the stored pixels. Grey, palette,
    transparent and 16-bit images become three channels of 8 bits.

    Raises InputError, naming the path, if there is no such file, if it is no image, if it is cut off, or if
    its size is another one. Not noticed: a JPEG damaged in its middle with its end intact, which common
    decoders accept too.
    """
    path = Path(path)
    return decode_image(path, read_file(path), height=height, width=width)


def decode_image(path: str | Path, data: bytes | bytearray, *, height: int, width: int) -> npt.NDArray[np.uint8]:
    """What ``read_image`` makes of a file's bytes; ``path`` is for messages."""
    image = _decoded(path, data, cv2.IMREAD_IGNORE_ORIENTATION)
    found_height, found_width = image.shape[:2]
    if (found_height, found_width) != (height, width):
        turned = (found_width, found_height) == (height, width)
        hint = "annotate the stored pixels, without EXIF rotation" if turned else "use the images that were annotated"
        raise InputError(
            f"{path}: the image is {found_height}x{found_width} pixels (height x width), the annotation file "
            "says "
            f"{height}x{width}; {hint}"
        )
    return image


def read_photo(path: str | Path, *, most_pixels: int = MOST_PIXELS) -> npt.NDArray[np.uint8]:
    """(height, width, 3) RGB pixels of a person's own picture, 0 to 255, upright as its EXIF orientation says.

    Any colour type becomes three channels of 8 bits: grey, palette, CMYK, 16 bits; transparency is dropped, and of an
    animation the first picture is taken. Raises InputError, naming the path, for what is no whole image, and for more
    than ``most_pixels``, before they are decoded.
    """
    path = Path(path)
    data = read_file(path)
    pixels = _claimed_pixels(data)
    if pixels is None:  # OpenCV may know the format, but who knows how large it claims to be
        raise _not_decoded(path, data)
    if pixels > most_pixels:
        raise InputError(f"{path}: more than the {most_pixels} pixels that are read; make it smaller first")
    return _decoded(path, data, 0)


def is_complete_jpeg(data: bytes | bytearray) -> bool:
    """Whether a JPEG has its end marker after the start of its picture data.

    Decoders differ on cut-off files: OpenCV fills the missing rows with grey from a file, Pillow raises. The
    end marker cannot stand inside picture data (a 0xFF byte there is followed by 0x00 or a restart marker),
    so finding one is proof that the data came to their end; trailing bytes after it are common and harmless.
    An embedded preview image has an end marker of its own, hence the walk over the header's segments.
    """
    if data.endswith(_JPEG_END):
        return True
    position = len(_JPEG_START)
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 4 > len(data):
            return False
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker == 0xDA:  # start of scan: picture data follow
            return data.rfind(_JPEG_END, position) >= 0
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # markers without a segment
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")


def read_file(path: Path) -> bytes:
    """The bytes of an image file; InputError that names it where it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such image file; check the image folder, or remove the image from the annotation file"
        ) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{path}: cannot be read ({reason}); check the file and its permissions") from error


def _decoded(path: str | Path, data: bytes | bytearray, orientation: int) -> npt.NDArray[np.uint8]:
    image = None
    if data and (not data.startswith(_JPEG_START) or is_complete_jpeg(data)):
        with contextlib.suppress(cv2.error):  # for example more pixels than OPENCV_IO_MAX_IMAGE_PIXELS
            image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR_RGB | orientation)
    if image is None:
        raise _not_decoded(path, data)
    return np.asarray(image, dtype=np.uint8)


def _not_decoded(path: str | Path, data: bytes | bytearray) -> InputError:
    """What to say of bytes that are no picture."""
    if not data:
        return InputError(f"{path}: the image file is empty; fetch it again")
    if data.startswith(_JPEG_START) and not is_complete_jpeg(data):
        return InputError(f"{path}: the JPEG is cut off after {len(data)} bytes; fetch it again")
    if data.lstrip()[:1] == b"<":
        return InputError(f"{path}: holds a web page or XML, not an image; fetch the image itself")
    return InputError(f"{path}: no image that OpenCV can decode, or one that is cut off; fetch or convert it again")


def _claimed_pixels(data: bytes) -> int | None:
    """How many pixels the header promises; None where Pillow does not know the format."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as header:
                return header.width * header.height
    except Image.DecompressionBombError:
        return sys.maxsize
    except (OSError, ValueError, SyntaxError):
        return None
