"""Image files -> what is wrong with each, by the rules of the training, and which of them show the same pixels."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from uniformer_pose.data.images import read_image
from uniformer_pose.errors import InputError

_ORIENTATION_TAG = 0x0112
_TURNED_BY_A_QUARTER = frozenset({5, 6, 7, 8})
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
_HASHED_PIXELS_PER_SIDE = 128


@dataclass(frozen=True)
class ImageHeader:
    """Size in pixels as stored, and the EXIF orientation: 1 as it is, 2 to 8 turned or mirrored by viewers."""

    height: int
    width: int
    orientation: int = 1

    @property
    def displayed_height(self) -> int:
        """Height as viewers show the picture."""
        return self.width if self.orientation in _TURNED_BY_A_QUARTER else self.height

    @property
    def displayed_width(self) -> int:
        """Width as viewers show the picture."""
        return self.height if self.orientation in _TURNED_BY_A_QUARTER else self.width


@dataclass(frozen=True)
class ExaminedImage:
    """``kind`` of defect with its ``detail``, None for a good image; ``digest`` of the pixels where they can be read.

    Two images of one digest have the same size and the same pixels on a grid of about 128 by 128.
    """

    kind: str | None
    detail: str
    digest: bytes | None
    orientation: int = 1


def read_header(path: Path) -> ImageHeader | None:
    """The header of an image file, without decoding its pixels; None where it is no image of a common format."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images and odd metadata: the pixels are not decoded here
            with Image.open(path, formats=_FORMATS) as image:
                orientation = image.getexif().get(_ORIENTATION_TAG, 1)
                valid = isinstance(orientation, int) and 1 <= orientation <= 8
                return ImageHeader(image.height, image.width, orientation if valid else 1)
    except Exception:  # whatever a damaged header leads Pillow into: there is no list of it
        return None


def examine_image(path: Path, folder: Path, *, height: int, width: int) -> ExaminedImage:
    """Read an image as training does, and grade what training would say.

    ``folder`` is the absolute image folder that ``path`` must not lead out of, ``height`` and ``width`` are the
    annotation file's.
    """
    try:
        if not path.resolve().is_relative_to(folder):
            return ExaminedImage("image_outside_folder", f"links to {path.resolve()}", None)
        pixels = read_image(path, height=height, width=width)
    except (InputError, OSError, RuntimeError) as error:  # the last two: a link that leads to itself
        detail = " ".join(str(error).split()).removeprefix(f"{path}: ")
        return ExaminedImage(_kind_of_refusal(path, height=height, width=width), detail, None)
    header = read_header(path)
    return ExaminedImage(None, "", _digest(pixels), 1 if header is None else header.orientation)


def examine_images(
    folder: Path,
    file_names: Sequence[str],
    heights: Sequence[int],
    widths: Sequence[int],
    *,
    workers: int,
    on_image: Callable[[], None],
) -> list[ExaminedImage]:
    """Every image of a split, in order, by ``workers`` threads; ``on_image`` is called as each is done.

    Threads, because decoding and hashing release the interpreter's lock and share the memory.
    """

    def examine(index: int) -> ExaminedImage:
        return examine_image(folder / file_names[index], folder, height=heights[index], width=widths[index])

    def counted(examined: Iterator[ExaminedImage]) -> Iterator[ExaminedImage]:
        for image in examined:
            on_image()
            yield image

    if workers < 1:
        return list(counted(map(examine, range(len(file_names)))))
    with ThreadPoolExecutor(workers) as threads:
        try:
            return list(counted(threads.map(examine, range(len(file_names)))))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _digest(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A hash of the size and of pixels evenly spread: hashing all of them would take as long as decoding."""
    height, width = pixels.shape[:2]
    grid = pixels[:: 1 + height // _HASHED_PIXELS_PER_SIDE, :: 1 + width // _HASHED_PIXELS_PER_SIDE]
    return hashlib.blake2b(grid.tobytes(), digest_size=16, key=f"{height}x{width}".encode()).digest()


def _kind_of_refusal(path: Path, *, height: int, width: int) -> str:
    """Under which name a file is counted that ``read_image`` refuses."""
    try:
        with path.open("rb") as file:
            beginning = file.read(512)
    except FileNotFoundError:
        return "image_missing"
    except (OSError, ValueError):
        return "image_unreadable"
    if not beginning:
        return "image_empty"
    if beginning.lstrip()[:1] == b"<":
        return "image_is_a_web_page"
    header = read_header(path)
    if header is None:
        return "image_not_decodable"
    if (header.height, header.width) == (height, width):
        return "image_cut_off"
    turned = header.orientation != 1 and (header.displayed_height, header.displayed_width) == (height, width)
    return "image_size_of_turned_picture" if turned else "image_size_differs"
