"""The prepared folder: the pixels of a data set's images, one after the other in one file, and an index.

A crop then reads the rows of the picture that it shows, and decodes nothing: about five times the crops a second, for
about five times the space of the JPEGs. It depends on no boxes, crop sizes or augmentation, and goes stale only when
the images change or others are asked for, which is checked. Unlike in LitData or WebDataset, whose order depends on
buffers and processes, an image is found by its number: the order stays ``EpochSampler``'s.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from filelock import FileLock, Timeout

from uniformer_pose.data.coco import PersonInstances
from uniformer_pose.data.crop_geometry import CropGeometry, Pixels
from uniformer_pose.data.images import Remark, decode_image, read_file, remark_line
from uniformer_pose.data.remote_pixels import RemoteFile, RemotePixels, is_remote
from uniformer_pose.errors import InputError
from uniformer_pose.files import write_whole

_PIXELS, _INDEX, _LOCK, _PART = "pixels", "index.json", ".lock", ".pixels.part"
_PREPARE_AGAIN = "run python src/prepare.py with this data again, or set data.prepared=null"
_NOT_STORED = -1
_SPARE_BYTES = 100_000_000
_SECONDS_OF_CHECKING = 5.0

_Size = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
_FromZero = Annotated[int, msgspec.Meta(ge=0)]


class _StoredImage(msgspec.Struct, frozen=True, array_like=True):
    """One image: at which byte its pixels begin, row by row, RGB; the file that they were read from, by size, time
    (nanoseconds) and digest of its content. ``start`` -1: it could not be read, and is tried from its file again."""

    name: str
    height: _Size
    width: _Size
    start: Annotated[int, msgspec.Meta(ge=_NOT_STORED)]
    file_bytes: _FromZero = 0
    file_time: _FromZero = 0
    digest: str = ""


class _Index(msgspec.Struct, frozen=True):
    format: Literal[3]
    image_orientation: Literal["stored", "displayed"]
    total_bytes: _FromZero
    images: list[_StoredImage]


@dataclass
class Preparation:
    """What was done: how many ``images``, in how many ``bytes``; what is wrong with the ``bad`` ones, by name;
    ``remarks`` on others, a sentence each."""

    images: int
    bytes: int
    bad: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


class PreparedImages:
    """The images of some people out of a prepared folder; ``image_index`` counts as in ``people``.

    Raises InputError with one line if the folder is none, damaged, or stale: if images of ``people`` are not in it,
    have another size or orientation, or their files, where at hand, are no longer those that were prepared. Files are
    looked at for at most five seconds, which is enough for all of COCO on a local disk.

    The folder may be an address, of which ``cache_gb`` are kept on the local disk; see ``RemotePixels``.
    """

    def __init__(self, folder: str | Path, people: PersonInstances, *, cache_gb: float = 0.0) -> None:
        if is_remote(folder):
            self.folder: str | Path = str(folder).rstrip("/")
            content = RemoteFile(f"{self.folder}/{_INDEX}").read()
            index = _checked_index(f"{self.folder}/{_INDEX}", content)
            self._pixels: LocalPixels | RemotePixels = RemotePixels(
                f"{self.folder}/{_PIXELS}",
                total_bytes=index.total_bytes,
                cache_bytes=int(cache_gb * 1e9),
                version=content,
            )
        else:
            self.folder = Path(folder).expanduser()
            index, self._pixels = _read_index(self.folder), LocalPixels(self.folder / _PIXELS)
        found = self._pixels.size()
        if found != index.total_bytes:
            sizes = f"{found} bytes instead of {index.total_bytes}"
            raise InputError(f"{self.folder}/{_PIXELS}: has {sizes}; {_PREPARE_AGAIN}")
        images = _of_people(self.folder, index, people)
        _require_same_files(self.folder, images, people)
        self._starts = np.array([image.start for image in images], dtype=np.int64)
        self._sizes = np.array([(image.height, image.width) for image in images], dtype=np.int32)
        self._canvas = np.zeros(0, dtype=np.uint8)

    def pixels(self, image_index: int, geometry: CropGeometry) -> Pixels | None:
        """(height, width, 3) RGB: the picture, as far as ``geometry`` shows it; None if it was not stored.

        It is this object's own memory up to the next call. The rows that the crop does not show are another picture's.
        """
        start = int(self._starts[image_index])
        if start == _NOT_STORED:
            return None
        height, width = self._sizes[image_index].tolist()
        if len(self._canvas) < height * width * 3:
            self._canvas = np.zeros(height * width * 3, dtype=np.uint8)
        picture = self._canvas[: height * width * 3].reshape(height, width, 3)
        top, bottom = _rows(geometry, height)
        self._pixels.read_into(picture[top:bottom].data, start + top * width * 3)
        return picture

    def expect(self, visits: Iterable[tuple[int, CropGeometry]]) -> None:
        """Fetch what these images' crops show from a store, at the same time; of a folder nothing."""
        if isinstance(self._pixels, LocalPixels):
            return
        wanted = []
        for image_index, geometry in visits:
            (height, width), start = self._sizes[image_index].tolist(), int(self._starts[image_index])
            if start != _NOT_STORED:
                top, bottom = _rows(geometry, height)
                wanted.append((start + top * width * 3, start + bottom * width * 3))
        self._pixels.fetch(wanted)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_canvas": self._canvas[:0]}


class LocalPixels:
    """The file of a prepared folder. No memory map: a file that is cut off would end the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def size(self) -> int:
        """How many bytes it has, 0 without it."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def read_into(self, memory: memoryview, first: int) -> None:
        """Fill ``memory`` with what begins at byte ``first``."""
        try:
            if self._file is None:
                self._file = os.open(self.path, os.O_RDONLY)
            found = os.preadv(self._file, [memory], first)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from error
        if found != memory.nbytes:
            raise InputError(f"{self.path}: cut off; {_PREPARE_AGAIN}")

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_file": None}

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # type: ignore[arg-type]


def _rows(geometry: CropGeometry, height: int) -> tuple[int, int]:
    """The first row that a crop shows, and the one behind the last, with the neighbours that interpolation reads."""
    ys = geometry.to_image(geometry.spec.corners)[..., 1]
    top = min(max(int(ys.min()) - 3, 0), height - 1)
    return top, min(max(int(ys.max()) + 4, top + 1), height)


def prepare_images(
    people: PersonInstances,
    folder: str | Path,
    *,
    workers: int = 4,
    on_progress: Callable[[int, int], object] | None = None,
) -> Preparation:
    """Write the images of ``people`` to a prepared folder, in ``workers`` threads.

    Raises InputError for a folder with something else in it, one that another process is writing to, and too little
    space.
    """
    folder = Path(folder).expanduser()
    if folder.is_dir() and any(path.name not in (_PIXELS, _INDEX, _LOCK, _PART) for path in folder.iterdir()):
        raise InputError(f"{folder}: holds other files; give to=<a new folder>")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / _LOCK, timeout=0):
            for name in (_INDEX, _PIXELS):  # they no longer tell the truth from here on
                (folder / name).unlink(missing_ok=True)
            return _prepare(people, folder, workers, on_progress or (lambda _done, _of: None))
    except Timeout:
        raise InputError(f"{folder}: another process is preparing images there; wait for it") from None
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{folder}: cannot be written ({reason}); free space or give to=<another folder>") from error


def _prepare(
    people: PersonInstances, folder: Path, workers: int, on_progress: Callable[[int, int], object]
) -> Preparation:
    lengths = people.image_heights.astype(np.int64) * people.image_widths * 3
    starts = (np.cumsum(lengths) - lengths).tolist()
    result = Preparation(people.num_images, int(lengths.sum()))
    free = shutil.disk_usage(folder).free
    if free < result.bytes + _SPARE_BYTES:
        needed = f"{result.bytes / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free"
        raise InputError(f"{folder}: {needed}; give to=<another folder>")
    images: list[_StoredImage] = []
    remarkable: dict[Remark, list[str]] = {}
    with (
        write_whole(folder / _PIXELS, part=folder / _PART) as part,
        part.open("wb") as file,
        ThreadPoolExecutor(workers) as pool,
    ):
        file.truncate(result.bytes)
        try:
            stored = pool.map(lambda i: _store(people, i, starts[i], file.fileno()), range(people.num_images))
            for image, problem, remarks in stored:
                images.append(image)
                if problem is not None:
                    result.bad[image.name] = problem
                for kind in remarks:
                    remarkable.setdefault(kind, []).append(image.name)
                on_progress(len(images), people.num_images)
        finally:
            pool.shutdown(cancel_futures=True)  # where this was interrupted
    result.remarks = [remark_line(kind, names[0], len(names)) for kind, names in remarkable.items()]
    index = _Index(3, people.image_orientation or "stored", result.bytes, images)
    with write_whole(folder / _INDEX) as part:
        part.write_bytes(msgspec.json.encode(index))
    return result


def _store(
    people: PersonInstances, image_index: int, start: int, file: int
) -> tuple[_StoredImage, str | None, tuple[Remark, ...]]:
    """Write one image's pixels to their place; also what is wrong with it and what is remarkable about it."""
    name = str(people.file_names[image_index])
    height, width = int(people.image_heights[image_index]), int(people.image_widths[image_index])
    try:
        path = people.image_path(image_index)
        data, changed = read_file(path), path.stat().st_mtime_ns
        image = decode_image(path, data, height=height, width=width, orientation=people.image_orientation)
    except InputError as error:
        return _StoredImage(name, height, width, _NOT_STORED), str(error), ()
    os.pwrite(file, np.ascontiguousarray(image.pixels).data, start)
    return _StoredImage(name, height, width, start, len(data), changed, _digest(data)), None, image.remarks


def _digest(data: bytes) -> str:
    """What an image file is recognised by after its time has changed."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _read_index(folder: Path) -> _Index:
    """The index of a prepared folder, checked; InputError where there is none or it is damaged."""
    try:
        return _checked_index(folder / _INDEX, (folder / _INDEX).read_bytes())
    except FileNotFoundError:
        raise InputError(f"{folder}: holds no prepared images, or unfinished ones; {_PREPARE_AGAIN}") from None
    except OSError as error:
        raise InputError(f"{folder / _INDEX}: damaged ({error}); {_PREPARE_AGAIN}") from error


def _checked_index(path: str | Path, content: bytes) -> _Index:
    try:
        index = msgspec.json.decode(content, type=_Index)
    except msgspec.MsgspecError as error:
        raise InputError(f"{path}: damaged ({error}); {_PREPARE_AGAIN}") from error
    for image in index.images:
        if image.start + image.height * image.width * 3 > index.total_bytes and image.start != _NOT_STORED:
            raise InputError(f"{path}: damaged ({image.name} is behind the end); {_PREPARE_AGAIN}")
    return index


def _of_people(folder: str | Path, index: _Index, people: PersonInstances) -> list[_StoredImage]:
    """The stored images in the order of ``people``'s; InputError if they are others than are asked for."""
    by_name = {image.name: image for image in index.images}
    names = people.file_names.tolist()
    images = [by_name[name] for name in names if name in by_name]
    sizes = zip(people.image_heights.tolist(), people.image_widths.tolist(), strict=True)
    wanted = people.image_orientation or "stored"
    problem = None
    if index.image_orientation != wanted:
        problem = f"its pictures are as {index.image_orientation}, and wanted as {wanted} (data.image_orientation)"
    elif len(images) < len(names):
        absent = next(name for name in names if name not in by_name)
        problem = f"{len(names) - len(images)} of the {len(names)} images are not in it, such as {absent}"
    elif other := [image for image, size in zip(images, sizes, strict=True) if (image.height, image.width) != size]:
        problem = f"{other[0].name} was prepared as {other[0].height}x{other[0].width} pixels, and is of another size"
    if problem is not None:
        raise InputError(f"data.prepared={folder}: {problem} in {people.source_file.name}; {_PREPARE_AGAIN}")
    return images


def _require_same_files(folder: str | Path, images: list[_StoredImage], people: PersonInstances) -> None:
    """Stop if an image file is another one than was prepared: by its size, then its time, then its content."""
    stop = time.monotonic() + _SECONDS_OF_CHECKING
    # In an order that reaches all parts of the set, should the time not be enough for every file.
    for number in np.random.default_rng(0).permutation(len(images)).tolist():
        image = images[number]
        if time.monotonic() > stop:
            return
        if image.start == _NOT_STORED:
            continue
        path = people.image_folder / image.name
        try:
            found = path.stat()
            same = found.st_size == image.file_bytes and (
                found.st_mtime_ns == image.file_time or _digest(path.read_bytes()) == image.digest
            )
        except OSError:
            continue  # the folder is not at hand, or only partly; the pixels are
        if not same:
            raise InputError(f"data.prepared={folder}: {path} has changed since it was prepared; {_PREPARE_AGAIN}")
