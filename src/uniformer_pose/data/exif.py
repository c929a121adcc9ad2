"""The EXIF orientation of image files, and pixels turned by it; the segments of a JPEG.

A TIFF's own orientation is not meant: decoders always apply it, whatever is asked of them.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

Bytes = bytes | bytearray | mmap.mmap
Pixels = npt.NDArray[np.uint8]

JPEG_START = b"\xff\xd8"
TURNED_BY_A_QUARTER = frozenset({5, 6, 7, 8})
_ORIENTATION_TAG = 0x0112


def exif_orientation(data: Bytes) -> int:
    """How viewers turn the picture of an image file's bytes: 1 not at all, 2 to 8 as EXIF defines it.

    1 also where there is no EXIF, a damaged one, or one that gives another number.
    """
    try:
        content = _exif_of_jpeg(data) if data[:2] == JPEG_START else _exif_of_another(data)
        if not content:
            return 1
        exif = Image.Exif()
        exif.load(content)
        value = exif.get(_ORIENTATION_TAG)
    except Exception:  # whatever a damaged header leads Pillow into: there is no list of it
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _exif_of_jpeg(data: Bytes) -> bytes:
    """Without Pillow's look at the whole header, which would cost a fiftieth of decoding."""
    contents = (data[start:end] for marker, start, end in jpeg_segments(data) if marker == 0xE1)
    return next((bytes(content) for content in contents if content[:6] == b"Exif\0\0"), b"")


def _exif_of_another(data: Bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as header:
        if header.format == "PNG" and data.find(b"eXIf") >= 0:
            header.load()  # it may stand behind the pixels
        found: bytes = header.info.get("exif", b"")
        return found


def jpeg_segments(data: Bytes) -> Iterator[tuple[int, int, int]]:
    """The markers of a JPEG's header, with first and last byte of their content; the last is 0xDA, of the picture data.

    Of a header that is cut off or damaged, those up to there.
    """
    position = len(JPEG_START)
    while 0 <= (position := data.find(b"\xff", position)) <= len(data) - 4:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # markers without content
            position += 2
        else:
            end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
            yield marker, position + 4, end
            if marker == 0xDA:
                return
            position = end


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """(H, W, ...) stored pixels as viewers show them; H and W change places for orientations 5 to 8."""
    if orientation in TURNED_BY_A_QUARTER:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
