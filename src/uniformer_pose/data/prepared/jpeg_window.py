"""A divided JPEG to the pixels of one quadrilateral of it: only the intervals that it touches are decoded.

The intervals' bytes are put together to a smaller JPEG, the rectangle around the quadrilateral; intervals of it that
the quadrilateral does not touch are replaced by grey ones of a few bytes. Decoding takes time by the byte, so a crop of
a quarter of the picture takes about a quarter of the time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from uniformer_pose.data.prepared.jpeg_intervals import TABLE_LAYOUT, TABLE_NAME

_SEGMENT_HEADER = 4
_INTERPOLATION_MARGIN = 2.0  # pixels: the neighbour that bilinear sampling reads, and one for rounding
_CHROMA_MARGIN = 3.0  # pixels more where colour is stored at a lower resolution and interpolated between its samples


class DamagedError(ValueError):
    """The bytes are not what ``divide_jpeg`` wrote."""


def decode_quadrilateral(
    head: bytes | bytearray,
    read_scan: Callable[[int, int], bytes | bytearray],
    table_start: int,
    corners: npt.NDArray[np.float64],
    *,
    height: int,
    width: int,
) -> tuple[npt.NDArray[np.uint8], int, int] | None:
    """RGB pixels around a convex quadrilateral, and the row and column of the first; None if it misses the picture.

    ``head`` is the divided file up to its picture data, of which ``read_scan(first, number)`` gives bytes. ``corners``
    (4, 2): x, y in image pixels, in order around the quadrilateral; ``height``, ``width``: of the whole picture. The
    pixels inside, and those that bilinear sampling there touches, are the whole picture's; others may be grey.

    Raises ``DamagedError`` for other bytes.
    """
    try:
        return _decoded(head, read_scan, table_start, corners, height, width)
    except (struct.error, IndexError, ValueError, OverflowError, cv2.error) as error:
        raise DamagedError(str(error)) from error


def _decoded(
    head: bytes | bytearray,
    read_scan: Callable[[int, int], bytes | bytearray],
    table_start: int,
    corners: npt.NDArray[np.float64],
    height: int,
    width: int,
) -> tuple[npt.NDArray[np.uint8], int, int] | None:
    content = table_start + _SEGMENT_HEADER + len(TABLE_NAME)
    if head[table_start + _SEGMENT_HEADER : content] != TABLE_NAME:
        raise DamagedError("there is no table of intervals")
    mcu_width, mcu_height, mcus, columns, rows, height_position, blank_length = TABLE_LAYOUT.unpack_from(head, content)
    (segment_length,) = struct.unpack_from(">H", head, table_start + 2)
    interval_width = mcu_width * mcus
    if not (
        0 <= columns * interval_width - width < interval_width
        and 0 <= rows * mcu_height - height < mcu_height
        and height_position + 4 <= table_start
    ):
        raise DamagedError("the table of intervals is for another size")
    content += TABLE_LAYOUT.size
    blank = head[content : content + blank_length]
    lengths = np.frombuffer(head, dtype="<u2", count=columns * rows, offset=content + blank_length)

    spans = _touched(corners, interval_width, mcu_height, columns, rows, subsampled=max(mcu_width, mcu_height) > 8)
    if spans is None:
        return None
    top, first, last = spans
    left, right, bottom = int(first.min()), int(last.max()), top + len(first)
    ends = lengths.cumsum(dtype=np.int64)
    at_row = np.arange(top, bottom) * columns
    starts_of_rows = (ends[at_row + first] - lengths[at_row + first]).tolist()
    ends_of_rows = ends[at_row + last - 1].tolist()
    base = min(starts_of_rows)
    scan = read_scan(base, max(ends_of_rows) - base)

    window_height = min(height, bottom * mcu_height) - top * mcu_height
    window_width = min(width, right * interval_width) - left * interval_width
    pieces = [
        head[:height_position],
        struct.pack(">HH", window_height, window_width),
        head[height_position + 4 : table_start],
        head[table_start + 2 + segment_length :],
    ]
    header_length = sum(map(len, pieces))
    before, after = (first - left).tolist(), (right - last).tolist()
    for start, end, grey_before, grey_after in zip(starts_of_rows, ends_of_rows, before, after, strict=True):
        pieces += (blank * grey_before, scan[start - base : end - base], blank * grey_after)
    jpeg = np.frombuffer(bytearray().join(pieces), dtype=np.uint8)

    # The restart markers have to count up from 0 again, and the last one ends the picture.
    column = np.arange(left, right)
    kept = (column >= first[:, None]) & (column < last[:, None])
    window_lengths = np.where(kept, lengths.reshape(rows, columns)[top:bottom, left:right], blank_length)
    markers = window_lengths.cumsum(dtype=np.int64) + (header_length - 1)
    if markers[-1] != len(jpeg) - 1:
        raise DamagedError("the picture data are cut off")
    jpeg[markers] = 0xD0 + (np.arange(len(markers)) & 7)
    jpeg[-1] = 0xD9

    pixels = cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None or pixels.shape != (window_height, window_width, 3):
        raise DamagedError("the picture data cannot be decoded")
    return np.asarray(pixels, dtype=np.uint8), top * mcu_height, left * interval_width


def _touched(
    corners: npt.NDArray[np.float64], cell_width: int, cell_height: int, columns: int, rows: int, *, subsampled: bool
) -> tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Which cells a convex quadrilateral touches: the first row; from there, each row's first cell and that behind its
    last. None if it touches none."""
    margin = _INTERPOLATION_MARGIN + (_CHROMA_MARGIN if subsampled else 0.0)
    points: list[list[float]] = corners.tolist()
    xs, ys = [x for x, _ in points], [y for _, y in points]
    top = max(0, int((min(ys) - margin) // cell_height))
    bottom = min(rows, int((max(ys) + margin) // cell_height) + 1)
    if top >= bottom or max(xs) + margin < 0 or min(xs) - margin >= columns * cell_width:
        return None
    # Two chains of sides lead from the highest corner to the lowest. The shape is convex: within a row of cells, each
    # reaches furthest at the row's edges, or at the outermost corner.
    edges = np.arange(top, bottom) * cell_height - margin
    heights = np.concatenate([edges, edges + (cell_height + 2 * margin)])
    highest, lowest = ys.index(min(ys)), ys.index(max(ys))
    chains = []
    for step in (1, 3):
        chain = [points[highest]]
        index = highest
        while index != lowest:
            index = (index + step) % 4
            chain.append(points[index])
        chains.append(np.interp(heights, [y for _, y in chain], [x for x, _ in chain]))
    leftmost = np.minimum(*chains).reshape(2, -1).min(axis=0)
    rightmost = np.maximum(*chains).reshape(2, -1).max(axis=0)
    for x, y in points:
        first_row = max(0, int((y - margin) // cell_height) - top)
        rows_of_corner = slice(first_row, max(0, int((y + margin) // cell_height) + 1 - top))
        leftmost[rows_of_corner] = np.minimum(leftmost[rows_of_corner], x)
        rightmost[rows_of_corner] = np.maximum(rightmost[rows_of_corner], x)
    first = np.clip((leftmost - margin) // cell_width, 0, columns - 1).astype(np.int64)
    last = np.clip((rightmost + margin) // cell_width + 1, 1, columns).astype(np.int64)
    return top, first, np.maximum(last, first + 1)
