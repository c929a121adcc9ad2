"""The prepared folder: shards, which are tar files of images, and a manifest that says where each image lies.

Why not LitData or WebDataset: both read a shard from its beginning and shuffle what they have read so far, so an
epoch's order depends on buffers and processes, and an interrupted one is not continued exactly. Here an image is one
contiguous range of one file, found by its number: the order stays ``EpochSampler``'s, on any number of workers and
nodes, and a file system over object storage serves it by range requests. The members are ordinary JPEGs all the same:
``tar xf`` unpacks them, and WebDataset reads them.

Nothing in a shard depends on boxes, crop sizes or augmentation: one prepared folder serves them all. It goes stale only
when the images change or others are asked for, and that is what is checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.coco import PersonInstances
from uniformer_pose.data.crop_geometry import CropGeometry
from uniformer_pose.data.images import decode_image
from uniformer_pose.data.prepared.jpeg_window import DamagedError, decode_quadrilateral
from uniformer_pose.errors import InputError

FORMAT = 2
MANIFEST_NAME = "manifest.json"
HOW_TO_PREPARE = "run python src/prepare.py with this data again"
BAD_SHARD = -1
UNCOMPRESSED = -1
"""In the place of a table of intervals: the record is the picture's pixels, row by row, RGB."""

_MOST_MANIFEST_BYTES = 1 << 30
_SECONDS_OF_CHECKING = 5.0


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Where M images lie, as flat arrays of length M.

    ``shards``: number of the shard, ``BAD_SHARD`` for an image that could not be read when it was prepared;
    ``offsets``, ``lengths``: its bytes there. ``table_starts``, ``scan_starts``: of a divided JPEG (see
    ``jpeg_intervals``), both 0 for a file that is stored as it was, ``UNCOMPRESSED`` and 0 for plain pixels.
    ``heights``, ``widths``: in pixels. ``source_bytes``, ``source_times`` (nanoseconds) and ``digests`` of the files
    they were made from.
    """

    shards: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    table_starts: npt.NDArray[np.int64]
    scan_starts: npt.NDArray[np.int64]
    heights: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]
    source_bytes: npt.NDArray[np.int64]
    source_times: npt.NDArray[np.int64]
    digests: npt.NDArray[np.str_]


class PreparedImages:
    """The images of some people out of a prepared folder; ``image_index`` counts as in ``people``.

    Raises InputError with one line if the folder is none, damaged, or stale: if images of ``people`` are not in it,
    have another size or orientation, or their files are no longer those that were prepared. Files are looked at for at
    most five seconds, which is enough for all of COCO on a local disk; where the image folder is not at hand, they are
    not.
    """

    def __init__(self, folder: str | Path, people: PersonInstances) -> None:
        self.folder = Path(folder).expanduser()
        manifest = read_manifest(self.folder)
        self._stored = _of_people(self.folder, manifest, people)
        self._bad: dict[str, str] = manifest["bad"]
        self._orientation = people.image_orientation
        self.remarks: list[str] = manifest["remarks"]
        """What a user should hear of the images, as ``remark_line`` has it."""
        self._names = people.file_names
        self._shard_bytes: list[int] = manifest["shard_bytes"]
        self._open_files: dict[int, int] = {}
        self._own = threading.local()
        for number in np.unique(self._stored.shards).tolist():
            if number != BAD_SHARD:
                _check_shard(self.folder / shard_name(number), self._shard_bytes[number])
        _require_same_files(self.folder, self._stored, people)

    def require_good(self, image_index: int) -> None:
        """Raise InputError with what was wrong with an image that could not be prepared."""
        if self._stored.shards[image_index] == BAD_SHARD:
            raise InputError(self._bad.get(str(self._names[image_index]), "it could not be read when it was prepared"))

    def crop(self, image_index: int, geometry: CropGeometry) -> npt.NDArray[np.uint8]:
        """The crop that ``geometry`` takes of the image: the same pixels as from the image file."""
        self.require_good(image_index)
        height, width = int(self._stored.heights[image_index]), int(self._stored.widths[image_index])
        table_start = int(self._stored.table_starts[image_index])
        if not table_start:
            data = self._read(image_index, 0, int(self._stored.lengths[image_index]))
            name = self._describe(image_index)
            image = decode_image(name, data, height=height, width=width, orientation=self._orientation).pixels
            return geometry.crop(image)
        scan_start = int(self._stored.scan_starts[image_index])
        last_x, last_y = geometry.spec.width - 1, geometry.spec.height - 1
        corners = geometry.to_image([[0, 0], [last_x, 0], [last_x, last_y], [0, last_y]])
        if table_start == UNCOMPRESSED:
            image = self._canvas(height, width)
            top = min(max(int(corners[:, 1].min()) - 3, 0), height - 1)
            bottom = min(max(int(corners[:, 1].max()) + 4, top + 1), height)
            self._read_into(image_index, top * width * 3, image[top:bottom].data)
            return geometry.crop(image)
        try:
            window = decode_quadrilateral(
                self._read(image_index, 0, scan_start),
                lambda first, number: self._read(image_index, scan_start + first, number),
                table_start,
                corners,
                height=height,
                width=width,
            )
        except DamagedError as error:
            raise InputError(f"{self._describe(image_index)}: damaged ({error}); {HOW_TO_PREPARE}") from error
        # At its place in the whole picture, so that the same numbers go into the same interpolation. What else is in
        # the picture is left from others, and not looked at.
        image = self._canvas(height, width)
        if window is not None:
            pixels, top, left = window
            image[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        return geometry.crop(image)

    def _canvas(self, height: int, width: int) -> npt.NDArray[np.uint8]:
        """An (height, width, 3) array for this thread to draw on; always the same memory, which is in use already."""
        size = height * width * 3
        canvas: npt.NDArray[np.uint8] | None = getattr(self._own, "canvas", None)
        if canvas is None or len(canvas) < size:
            canvas = self._own.canvas = np.zeros(size, dtype=np.uint8)
        return canvas[:size].reshape(height, width, 3)

    def _read(self, image_index: int, first: int, number: int) -> bytearray:
        """Bytes of one image's record."""
        data = bytearray(number)
        self._read_into(image_index, first, data)
        return data

    def _read_into(self, image_index: int, first: int, memory: bytearray | memoryview) -> None:
        """Fill ``memory`` from one image's record. No memory map: a file that is cut off would end the process."""
        number = memoryview(memory).nbytes
        shard = int(self._stored.shards[image_index])
        if not 0 <= first <= first + number <= self._stored.lengths[image_index]:
            raise InputError(f"{self._describe(image_index)}: damaged; {HOW_TO_PREPARE}")
        try:
            if shard not in self._open_files:
                self._open_files[shard] = os.open(self.folder / shard_name(shard), os.O_RDONLY)
            found = os.preadv(self._open_files[shard], [memory], int(self._stored.offsets[image_index]) + first)
        except OSError as error:
            raise InputError(f"{self._describe(image_index)}: cannot be read ({error.strerror})") from error
        if found != number:
            raise InputError(f"{self._describe(image_index)}: cut off; {HOW_TO_PREPARE}")

    def _describe(self, image_index: int) -> str:
        shard = shard_name(int(self._stored.shards[image_index]))
        return f"{self.folder / shard}, image {self._names[image_index]}"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_open_files", "_own")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _open_files={}, _own=threading.local())

    def __del__(self) -> None:
        for descriptor in getattr(self, "_open_files", {}).values():
            os.close(descriptor)


def shard_name(number: int) -> str:
    """The file name of shard ``number``, from 0."""
    return f"shard_{number:05d}.tar"


def file_digest(data: bytes) -> str:
    """What an image file is recognised by after its time has changed."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder, checked; InputError where there is none or it is damaged."""
    path = folder / MANIFEST_NAME
    try:
        if path.stat().st_size > _MOST_MANIFEST_BYTES:
            raise InputError(f"{path}: larger than any manifest; {HOW_TO_PREPARE}")
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        started = "was not finished" if any(folder.glob("shard_*")) else "holds no prepared images"
        raise InputError(f"data.prepared={folder}: {started}; {HOW_TO_PREPARE}, or set data.prepared=null") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); {HOW_TO_PREPARE}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path}: made by another version of this program; {HOW_TO_PREPARE}")
    try:
        _check_manifest(manifest)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: damaged ({error}); {HOW_TO_PREPARE}") from error
    return manifest


def _check_manifest(manifest: dict[str, Any]) -> None:
    names, bad, shard_bytes = manifest["file_names"], manifest["bad"], manifest["shard_bytes"]
    texts = [*names, *bad, *bad.values(), *manifest["remarks"], manifest["image_orientation"]]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("names that are no text")
    if not all(type(size) is int and size >= 0 for size in shard_bytes):
        raise ValueError("sizes of shards that are no sizes")
    images = StoredImages(**{name: np.asarray(values) for name, values in manifest["images"].items()})
    for name, values in vars(images).items():
        wanted = "U" if name == "digests" else "i"
        if values.shape != (len(names),) or (values.dtype.kind != wanted and len(names)):
            raise ValueError(f"{name} are not one for each image")
        if wanted == "i" and len(names) and values.min() < BAD_SHARD:
            raise ValueError(f"{name} are negative")
    good = images.shards != BAD_SHARD
    if not good.any():
        return
    if images.shards.max() >= len(shard_bytes):
        raise ValueError("a shard that there is not")
    room = np.array(shard_bytes, dtype=np.int64)[images.shards[good]] - images.lengths[good]
    if (images.offsets[good] > room).any() or images.offsets[good].min() < 0 or images.lengths[good].min() < 0:
        raise ValueError("an image behind the end of its shard")
    pixels = images.table_starts == UNCOMPRESSED
    if (pixels & good & (images.lengths != images.heights * images.widths * 3)).any():
        raise ValueError("pixels of another number than the picture has")
    if (images.scan_starts > images.lengths)[good].any() or (images.table_starts > images.scan_starts)[good].any():
        raise ValueError("an image whose parts are out of order")


def _of_people(folder: Path, manifest: dict[str, Any], people: PersonInstances) -> StoredImages:
    """The stored images in the order of ``people``'s."""
    wanted = people.image_orientation or "stored"
    if manifest["image_orientation"] != wanted:
        raise InputError(
            f"data.prepared={folder}: its pictures are as {manifest['image_orientation']}, {people.source_file.name} "
            f"refers to pictures as {wanted}; {HOW_TO_PREPARE}, or give the data.image_orientation that it was "
            "prepared with"
        )
    row_of_name = {name: row for row, name in enumerate(manifest["file_names"])}
    rows = [row_of_name.get(name, -1) for name in people.file_names.tolist()]
    missing = [name for name, row in zip(people.file_names.tolist(), rows, strict=True) if row < 0]
    if missing:
        raise InputError(
            f"data.prepared={folder}: {len(missing)} of the {people.num_images} images with people in "
            f"{people.source_file.name} are not in it, such as {missing[0]}; {HOW_TO_PREPARE}"
        )
    images = StoredImages(**{name: np.asarray(values)[rows] for name, values in manifest["images"].items()})
    other_size = (images.heights != people.image_heights) | (images.widths != people.image_widths)
    if other_size.any():
        first = int(np.flatnonzero(other_size)[0])
        raise InputError(
            f"data.prepared={folder}: {people.file_names[first]} was prepared as {images.heights[first]}x"
            f"{images.widths[first]} pixels (height x width), {people.source_file.name} says "
            f"{people.image_heights[first]}x{people.image_widths[first]}; {HOW_TO_PREPARE}"
        )
    return images


def _check_shard(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except OSError:
        raise InputError(f"{path}: missing or not readable; {HOW_TO_PREPARE}") from None
    if found != size:
        raise InputError(f"{path}: has {found} bytes instead of {size}; {HOW_TO_PREPARE}")


def _require_same_files(folder: Path, stored: StoredImages, people: PersonInstances) -> None:
    """Stop if an image file is another one than was prepared: by its size, then its time, then its content."""
    if not people.image_folder.is_dir():
        return
    stop = time.monotonic() + _SECONDS_OF_CHECKING
    # In an order that reaches all parts of the set, should the time not be enough for every file.
    for index in np.random.default_rng(0).permutation(people.num_images).tolist():
        if time.monotonic() > stop:
            return
        path = people.image_folder / str(people.file_names[index])
        try:
            found = path.stat()
            same = found.st_size == stored.source_bytes[index] and (
                found.st_mtime_ns == stored.source_times[index]
                or file_digest(path.read_bytes()) == stored.digests[index]
            )
        except OSError:
            continue  # the folder is only partly at hand; the pixels come from the shards
        if not same:
            raise InputError(
                f"data.prepared={folder}: {path} has changed since it was prepared; {HOW_TO_PREPARE}, "
                "or set data.prepared=null"
            )
