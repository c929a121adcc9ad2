"""Image files -> what is wrong with each, by the rules of the training, and which of them show the same pixels."""

from __future__ import annotations

import hashlib
import mmap
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from uniformer_pose.data.coco import ImageOrientation
from uniformer_pose.data.exif import TURNED_BY_A_QUARTER, exif_orientation
from uniformer_pose.data.images import DecodedImage, decode_image, read_file
from uniformer_pose.errors import InputError

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
        return self.width if self.orientation in TURNED_BY_A_QUARTER else self.height

    @property
    def displayed_width(self) -> int:
        """Width as viewers show the picture."""
        return self.height if self.orientation in TURNED_BY_A_QUARTER else self.width


@dataclass(frozen=True)
class ExaminedImage:
    """``kind`` of defect with its ``detail``, None for a good image; ``digest`` of the pixels where they can be read.

    Two images of one digest have the same size and the same pixels on a grid of about 128 by 128. ``remarks``: kinds of
    remark on a good image, with their details.
    """

    kind: str | None
    detail: str
    digest: bytes | None
    remarks: tuple[tuple[str, str], ...] = ()


def read_header(path: Path) -> ImageHeader | None:
    """The header of an image file, without decoding its pixels; None where it is no image of a common format."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images and odd metadata: the pixels are not decoded here
            with Image.open(path, formats=_FORMATS) as image:
                size = image.height, image.width
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return ImageHeader(*size, exif_orientation(data))
    except Exception:  # whatever a damaged header leads Pillow into: there is no list of it
        return None


def examine_image(
    path: Path, folder: Path, *, height: int, width: int, orientation: ImageOrientation | None = None
) -> ExaminedImage:
    """Read an image as training does, and grade what training would say.

    ``folder`` is the absolute image folder that ``path`` must not lead out of; ``height``, ``width`` and
    ``orientation`` are the annotation file's.
    """
    try:
        if not path.resolve().is_relative_to(folder):
            return ExaminedImage("image_outside_folder", f"links to {path.resolve()}", None)
        image = decode_image(path, read_file(path), height=height, width=width, orientation=orientation)
    except (InputError, OSError, RuntimeError) as error:  # the last two: a link that leads to itself
        detail = " ".join(str(error).split()).removeprefix(f"{path}: ")
        kind = _kind_of_refusal(path, height=height, width=width, orientation=orientation)
        return ExaminedImage(kind, detail, None)
    return ExaminedImage(None, "", _digest(image.pixels), _remarks(image))


def _remarks(image: DecodedImage) -> tuple[tuple[str, str], ...]:
    found = {
        "turned": (
            "image_with_exif_rotation",
            f"EXIF orientation {image.exif}, read as stored; set data.image_orientation=displayed, or =stored",
        ),
        "few bits": ("image_of_few_bits", f"uses {image.bits} of {image.of_bits} bits"),
    }
    return tuple(found[kind] for kind in image.remarks)


def examine_images(
    folder: Path,
    file_names: Sequence[str],
    heights: Sequence[int],
    widths: Sequence[int],
    *,
    workers: int,
    on_image: Callable[[], None],
    orientation: ImageOrientation | None = None,
) -> list[ExaminedImage]:
    """Every image of a split, in order, by ``workers`` threads; ``on_image`` is called as each is done.

    Threads, because decoding and hashing release the interpreter's lock and share the memory.
    """

    def examine(index: int) -> ExaminedImage:
        return examine_image(
            folder / file_names[index],
            folder,
            height=heights[index],
            width=widths[index],
            orientation=orientation,
        )

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


def _kind_of_refusal(path: Path, *, height: int, width: int, orientation: ImageOrientation | None) -> str:
    """Under which name a file is counted that the reader refuses."""
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
    stored, displayed = (header.height, header.width), (header.displayed_height, header.displayed_width)
    if (displayed if orientation == "displayed" else stored) == (height, width):
        return "image_cut_off"
    return "image_size_of_turned_picture" if (height, width) in (stored, displayed) else "image_size_differs"
