"""Image files to pixels, and the images of a data set to crops.

One reader decodes, turns, checks the size and makes 8 bits of any depth. Whether pictures are turned as their EXIF says
is a property of the data (``PersonInstances.image_orientation``).
"""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from uniformer_pose.data.coco import ImageOrientation, PersonInstances
from uniformer_pose.data.crop_geometry import CropGeometry, Pixels
from uniformer_pose.data.exif import JPEG_START, TURNED_BY_A_QUARTER, exif_orientation, jpeg_segments, turned
from uniformer_pose.errors import InputError

if TYPE_CHECKING:
    from uniformer_pose.data.prepared import PreparedImages

MOST_PIXELS = 250_000_000
"""Of a picture that a person hands in: 750 MB once decoded, more than any camera makes."""

BadImagePolicy = Literal["error", "skip"]
Remark = Literal["turned", "few bits"]

_REMARKS: tuple[Remark, ...] = ("turned", "few bits")
_PNG_BIT_DEPTH = 24
_DEEP_STARTS = (b"II", b"MM", b"P2", b"P3", b"P5", b"P6", b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51")  # TIFF, PNM, JPEG 2000
_JPEG_END = b"\xff\xd9"


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """``pixels`` (height, width, 3) RGB, 0 to 255; ``exif`` orientation, 1 to 8; ``remarks``: see ``remark_line``."""

    pixels: Pixels
    exif: int = 1
    remarks: tuple[Remark, ...] = ()


class SkippedImage(InputError):  # noqa: N818  # the caller leaves the image out; it is no failure
    """An image that cannot be read where such images are to be left out."""


class ImageSource:
    """The crops of people, out of their image files, or of a prepared folder that gives the same pixels in less time.

    An image that cannot be used raises an InputError with its path and the annotation, or, with ``on_bad_image`` skip,
    a ``SkippedImage``. What is remarkable about the images is said once, whichever process reads them.
    """

    def __init__(
        self,
        people: PersonInstances,
        *,
        prepared: PreparedImages | None = None,
        on_bad_image: BadImagePolicy = "error",
    ) -> None:
        import torch  # reading a photo does not need it

        self.people = people
        self.prepared = prepared
        self.on_bad_image = on_bad_image
        # Following an image's links costs a twentieth of decoding it, so it is done once.
        self._links_followed = np.zeros(people.num_images, dtype=np.bool_)
        self._said = torch.zeros(len(_REMARKS), dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]

    def crop(self, index: int, geometry: CropGeometry, *, into: Pixels | None = None) -> Pixels:
        """The crops that ``geometry`` takes of the image of person ``index``; see ``CropGeometry.crop``."""
        image_index = int(self.people.image_of_instance[index])
        try:
            pixels = None if self.prepared is None else self.prepared.pixels(image_index, geometry)
            return geometry.crop(self._file(image_index) if pixels is None else pixels, into=into)
        except InputError as error:
            kind = SkippedImage if self.on_bad_image == "skip" else InputError
            raise kind(f"{error} ({self.people.describe(index)})") from error
        except Exception as error:
            file = self.people.image_folder / str(self.people.file_names[image_index])
            error.add_note(f"while reading {file} ({self.people.describe(index)})")
            raise

    def expect(self, visits: Iterable[tuple[int, CropGeometry]]) -> None:
        """Prepare for the crops of these people, to be asked for next: a store answers all of them at the same time."""
        if self.prepared is not None:
            self.prepared.expect((int(self.people.image_of_instance[index]), geometry) for index, geometry in visits)

    def _file(self, image_index: int) -> Pixels:
        """(height, width, 3) RGB pixels of an image file."""
        image = read_image_of(self.people, image_index, links_are_followed=bool(self._links_followed[image_index]))
        self._links_followed[image_index] = True
        for kind in image.remarks:
            place = _REMARKS.index(kind)
            if not self._said[place]:
                self._said[place] = 1
                line = remark_line(kind, str(self.people.file_names[image_index]))
                _warn(f"{self.people.source_file.name}: {line}")
        return image.pixels


def read_image_of(people: PersonInstances, image_index: int, *, links_are_followed: bool = False) -> DecodedImage:
    """One image of ``people``, in the frame that their coordinates refer to; InputError where it cannot be read."""
    name = people.image_folder / str(people.file_names[image_index])
    path = name if links_are_followed else people.image_path(image_index)
    height, width = int(people.image_heights[image_index]), int(people.image_widths[image_index])
    return decode_image(path, read_file(path), height=height, width=width, orientation=people.image_orientation)


def decode_image(
    path: str | Path,
    data: bytes | bytearray,
    *,
    height: int | None = None,
    width: int | None = None,
    orientation: ImageOrientation | None = None,
    assumed: ImageOrientation = "stored",
    option: str = "data.image_orientation",
) -> DecodedImage:
    """The picture in an image file's bytes; ``path`` is for messages.

    ``orientation``: the pixels as they are ``stored``, or ``displayed``, turned as EXIF says; None: nobody said what
    coordinates on it refer to, so that it is as ``assumed``, with a remark if that makes a difference. ``height`` and
    ``width`` are what the annotation file says, None where there is none. Grey, palette, transparent and deeper
    pictures become three channels of 8 bits; of a deeper one, the bits that it uses.

    Raises InputError, naming the path, if there is no whole image, if its size is another one (naming ``option`` where
    only the other orientation has that size), or if it has negative pixels. Not noticed: a JPEG damaged in its middle
    with its end intact, which common decoders accept too.
    """
    pixels, few_bits = _stored(path, data)
    exif = exif_orientation(data)
    read_as = orientation or assumed
    if read_as == "displayed":
        pixels = turned(pixels, exif)
    if height is not None and width is not None and pixels.shape[:2] != (height, width):
        hint = "use the images that were annotated"
        if pixels.shape[1::-1] == (height, width) and exif in TURNED_BY_A_QUARTER:
            hint = f"its EXIF turns it by a quarter: set {option}={_other(read_as)}"
        raise InputError(
            f"{path}: the image is {pixels.shape[0]}x{pixels.shape[1]} pixels (height x width), the annotation file "
            f"says {height}x{width}; {hint}"
        )
    if exif == 1 and not few_bits:
        return DecodedImage(pixels)
    is_so = {"turned": exif != 1 and orientation is None, "few bits": few_bits}
    return DecodedImage(pixels, exif, tuple(kind for kind in _REMARKS if is_so[kind]))


def read_photo(path: str | Path, *, most_pixels: int = MOST_PIXELS) -> Pixels:
    """(height, width, 3) RGB pixels of a person's own picture, upright as its EXIF says; see ``decode_photo``."""
    return decode_photo(path, most_pixels=most_pixels).pixels


def decode_photo(
    path: str | Path,
    *,
    most_pixels: int = MOST_PIXELS,
    height: int | None = None,
    width: int | None = None,
    orientation: ImageOrientation | None = "displayed",
    assumed: ImageOrientation = "displayed",
) -> DecodedImage:
    """A person's own picture, upright as its EXIF orientation says unless told otherwise; see ``decode_image``.

    Of an animation the first picture is taken. Raises InputError also for more than ``most_pixels``, before they are
    decoded.
    """
    path = Path(path)
    data = read_file(path)
    pixels = _claimed_pixels(data)
    if pixels is None:  # OpenCV may know the format, but who knows how large it claims to be
        raise _not_decoded(path, data)
    if pixels > most_pixels:
        raise InputError(f"{path}: more than the {most_pixels} pixels that are read; make it smaller first")
    option = "image_orientation"  # of src/predict.py
    return decode_image(path, data, height=height, width=width, orientation=orientation, assumed=assumed, option=option)


def remark_line(
    kind: Remark,
    first: str,
    count: int | None = None,
    *,
    assumed: ImageOrientation = "stored",
    option: str = "data.image_orientation",
) -> str:
    """What a user should hear of pictures with a remark; ``first`` is an example, ``count`` how many, if known."""
    pictures = f"pictures such as {first}" if count is None else f"{count} pictures (first {first})"
    if kind == "few bits":
        return f"{pictures} use a part of their bits, such as 12 of 16; those that they use are read"
    return (
        f"{pictures} have an EXIF orientation and are read as {assumed}, because no info.image_orientation says what "
        f"their coordinates refer to; {option}={_other(assumed)} reads them as {_other(assumed)}, "
        f"{option}={assumed} confirms what is done"
    )


def eight_bits(pixels: npt.NDArray[Any]) -> tuple[Pixels, bool]:
    """Pixels of whole numbers as 8 bits, and whether they used a part of their bits only (8, 10, 12, 14 of 16).

    A sensor of 12 bits fills a file of 16 to a sixteenth: taken as 16 bits it would be nearly black. Raises InputError
    for negative numbers and for fractions.
    """
    if pixels.dtype == np.uint8:
        return pixels, False
    if pixels.dtype.kind not in "iu" or pixels.min(initial=0) < 0:
        raise InputError("has negative or fractional pixels; convert it to 8 bits")
    of_bits = 8 * pixels.dtype.itemsize - (pixels.dtype.kind == "i")
    largest = int(pixels.max(initial=0))
    bits = next(bits for bits in (8, 10, 12, 14, 16, 24, of_bits) if bits <= of_bits and largest < 1 << bits)
    return (pixels >> (bits - 8)).astype(np.uint8), largest > 0 and bits != of_bits


def is_complete_jpeg(data: bytes | bytearray) -> bool:
    """Whether a JPEG has its end marker after the start of its picture data, in which none can stand.

    Decoders differ on cut-off files: OpenCV fills the missing rows with grey, Pillow raises. Trailing bytes are common
    and harmless; an embedded preview has an end marker of its own, hence the look behind the header's segments.
    """
    if data.endswith(_JPEG_END):
        return True
    return any(marker == 0xDA and data.rfind(_JPEG_END, start) >= 0 for marker, start, _ in jpeg_segments(data))


def read_file(path: Path) -> bytes:
    """The bytes of an image file; InputError that names it where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "no such image file" if missing else f"cannot be read ({error.strerror or type(error).__name__})"
        raise InputError(f"{path}: {reason}; check the image folder and its permissions") from error


def _warn(line: str) -> None:
    from lightning.pytorch.utilities import rank_zero_warn  # a reader of files does not need it until here

    rank_zero_warn(line)


def _other(orientation: ImageOrientation) -> ImageOrientation:
    return "stored" if orientation == "displayed" else "displayed"


def _stored(path: str | Path, data: bytes | bytearray) -> tuple[Pixels, bool]:
    """The pixels as they lie in the file, and whether they used a part of their bits only."""
    image = None
    deep = data.startswith(_DEEP_STARTS) or (data.startswith(b"\x89PNG") and data[_PNG_BIT_DEPTH:][:1] == b"\x10")
    # Not RGB with more than 8 bits: OpenCV 5.0 makes noise of a TIFF of 16 bits then.
    colour = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH if deep else cv2.IMREAD_COLOR_RGB
    if data and (not data.startswith(JPEG_START) or is_complete_jpeg(data)):
        with contextlib.suppress(cv2.error):  # for example more pixels than OPENCV_IO_MAX_IMAGE_PIXELS
            image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), colour | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise _not_decoded(path, data)
    if not deep:
        return np.asarray(image, dtype=np.uint8), False
    try:
        pixels, few_bits = eight_bits(np.asarray(image))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return np.ascontiguousarray(pixels[..., ::-1]), few_bits


def _not_decoded(path: str | Path, data: bytes | bytearray) -> InputError:
    """What to say of bytes that are no picture."""
    if not data:
        return InputError(f"{path}: the image file is empty; fetch it again")
    if data.startswith(JPEG_START) and not is_complete_jpeg(data):
        return InputError(f"{path}: the JPEG is cut off after {len(data)} bytes; fetch it again")
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
