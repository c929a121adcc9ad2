"""The EXIF orientation of image files, read from their bytes in microseconds, and pixels turned by it.

A TIFF's own orientation is not meant: decoders always apply it, whatever is asked of them.
"""

from __future__ import annotations

import io
import mmap
import struct
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Bytes = bytes | bytearray | mmap.mmap
Pixels = npt.NDArray[np.uint8]

TURNED_BY_A_QUARTER = frozenset({5, 6, 7, 8})
_ORIENTATION_TAG = 0x0112
_EXIF = b"Exif\0\0"
_VALUE_LAYOUTS = {3: "H", 4: "I"}  # by type: SHORT, LONG

# The meanings are EXIF 2.3's.
_TURNS: dict[int, Callable[[Pixels], npt.NDArray[np.generic]]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: lambda pixels: cv2.transpose(pixels),
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def exif_orientation(data: Bytes) -> int:
    """How viewers turn the picture of an image file's bytes: 1 not at all, 2 to 8 as EXIF defines it.

    1 also where there is no EXIF, a damaged one, or one that gives another number.
    """
    try:
        if data[4:8] == b"ftyp":
            return _in_avif(data)
        start = _exif_start(data)
        return 1 if start < 0 else _orientation_in(data, start)
    except (struct.error, IndexError):
        return 1


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """(H, W, 3) stored pixels as viewers show them; H and W change places for orientations 5 to 8."""
    return pixels if orientation == 1 else np.asarray(_TURNS[orientation](pixels), dtype=np.uint8)


def _exif_start(data: Bytes) -> int:
    """Where the TIFF structure of the EXIF begins, -1 where there is none."""
    start = -1
    if data[:2] == b"\xff\xd8":
        return _in_jpeg(data)
    if data[:4] == b"\x89PNG":
        start = _chunk(data, 8, b"eXIf", ">I4s", overhead=12)
    elif data[:4] == b"RIFF":
        start = _chunk(data, 12, b"EXIF", "<4sI", overhead=8)
    return start + len(_EXIF) if start >= 0 and data[start : start + len(_EXIF)] == _EXIF else start


def _in_avif(data: Bytes) -> int:
    """AVIF says it in boxes of its own, which Pillow reads as an orientation."""
    try:
        with Image.open(io.BytesIO(bytes(data))) as header:
            value = header.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # whatever a damaged header leads Pillow into: there is no list of it
        return 1
    return value if value in range(2, 9) else 1


def _in_jpeg(data: Bytes) -> int:
    position, end = 2, len(data) - 4
    while position < end and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xE1 and data[position + 4 : position + 10] == _EXIF:
            return position + 10
        if marker == 0xDA:  # picture data follow
            return -1
        if marker == 0xFF or marker <= 0x01 or 0xD0 <= marker <= 0xD8:  # a fill byte; markers without a segment
            position += 1 if marker == 0xFF else 2
        else:
            position += 2 + (data[position + 2] << 8) + data[position + 3]
    return -1


def _chunk(data: Bytes, position: int, name: bytes, layout: str, *, overhead: int) -> int:
    """Where the content of a PNG's or WebP's chunk begins, -1 where there is no such chunk."""
    while position + 8 <= len(data):
        fields = struct.unpack(layout, data[position : position + 8])
        found, length = fields if layout.startswith("<") else fields[::-1]
        if found == name:
            return position + 8
        position += overhead + length + (length & 1 if layout.startswith("<") else 0)
    return -1


def _orientation_in(data: Bytes, start: int) -> int:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(data[start : start + 4]))
    if order is None:
        return 1
    (directory,) = struct.unpack(f"{order}I", data[start + 4 : start + 8])
    (entries,) = struct.unpack(f"{order}H", data[start + directory : start + directory + 2])
    for place in range(start + directory + 2, start + directory + 2 + 12 * entries, 12):
        tag, kind, _count = struct.unpack(f"{order}HHI", data[place : place + 8])
        if tag == _ORIENTATION_TAG and kind in _VALUE_LAYOUTS:
            layout = f"{order}{_VALUE_LAYOUTS[kind]}"
            (value,) = struct.unpack(layout, data[place + 8 : place + 8 + struct.calcsize(layout)])
            return value if 2 <= value <= 8 else 1
    return 1
