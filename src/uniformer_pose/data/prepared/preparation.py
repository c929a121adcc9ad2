"""Image files to a prepared folder: divided, compared with their source, and written shard by shard.

A shard is written beside its place and moved there when it is whole, with a file that says what it was made from. So
an interrupted preparation continues after its last whole shard, and one that is repeated makes only those anew whose
images have changed. The manifest comes last: without it there is no prepared folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from uniformer_pose.data.coco import ImageOrientation, PersonInstances
from uniformer_pose.data.images import Remark, decode_image, read_file, remark_line
from uniformer_pose.data.prepared.jpeg_intervals import NotDivisible, divide_jpeg
from uniformer_pose.data.prepared.jpeg_window import DamagedError, decode_quadrilateral
from uniformer_pose.data.prepared.shards import BAD_SHARD, FORMAT, MANIFEST_NAME, UNCOMPRESSED, file_digest, shard_name
from uniformer_pose.errors import InputError

_LOCK_NAME = ".lock"
_SPARE_BYTES = 100_000_000
_GROWTH = 1.1  # of a file by being divided; 1.04 for COCO


@dataclass(frozen=True)
class Source:
    """One image file as it was found; ``bytes`` -1: it was not. ``problem``: why it must not be opened."""

    name: str
    path: str
    height: int
    width: int
    bytes: int
    time: int
    problem: str = ""
    uncompressed: bool = False
    orientation: ImageOrientation | None = None


@dataclass(frozen=True)
class StoredRecord:
    """One image ready to be stored, or ``problem``: why it cannot be. ``whole``: why it is stored as it was.

    ``remarks`` as ``DecodedImage`` has them.
    """

    data: bytes = b""
    table_start: int = 0
    scan_start: int = 0
    digest: str = ""
    whole: str = ""
    problem: str = ""
    remarks: tuple[Remark, ...] = ()


@dataclass
class Preparation:
    """What was done: images, how many of them ``uncompressed``, ``whole`` files by reason, ``bad`` ones with their
    problem, shards made and reused; ``remarks`` on the images, a sentence each.
    """

    images: int = 0
    bytes: int = 0
    source_bytes: int = 0
    uncompressed: int = 0
    made: int = 0
    reused: int = 0
    whole: Counter[str] = field(default_factory=Counter)
    bad: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def prepare_images(
    people: PersonInstances,
    folder: str | Path,
    *,
    workers: int = 4,
    images_per_shard: int = 256,
    uncompressed_gb: float | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> Preparation:
    """Write the images of ``people`` to a prepared folder, in ``workers`` processes (0: in this one).

    What ``divide_jpeg`` leaves free of the image folder's size is used for images without compression, which are read
    fastest: those whose decoding costs most, by their people. ``uncompressed_gb`` says otherwise how much that may be.
    ``on_progress`` is called with the images done, and how many there are.

    The result does not depend on ``workers``. Raises InputError for a folder with something else in it, one that
    another process is writing to, and a disk that is full; what was written stays and is continued.
    """
    if images_per_shard < 1 or workers < 0 or (uncompressed_gb or 0) < 0:
        raise InputError(
            f"images_per_shard={images_per_shard}, workers={workers}, uncompressed_gb={uncompressed_gb}: use at least "
            "1, 0 and 0"
        )
    folder = Path(folder).expanduser()
    try:
        with _only_writer(folder):
            return _prepare(people, folder, workers, images_per_shard, uncompressed_gb, on_progress)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror or error}); free space or give to=<another folder>, then "
            "run the same command again: it continues"
        ) from error


def _prepare(
    people: PersonInstances,
    folder: Path,
    workers: int,
    images_per_shard: int,
    uncompressed_gb: float | None,
    on_progress: Callable[[int, int | None], None] | None,
) -> Preparation:
    sources = [_source(people, index) for index in range(people.num_images)]
    room = _room_for_pixels(people, sources) if uncompressed_gb is None else uncompressed_gb * 1e9
    for index in _worth_their_pixels(people, sources, room):
        sources[index] = replace(sources[index], uncompressed=True)
    batches = [sources[first : first + images_per_shard] for first in range(0, len(sources), images_per_shard)]
    parts = [_finished_part(folder, number, batch) for number, batch in enumerate(batches)]
    missing = [number for number, part in enumerate(parts) if part is None]
    done = len(sources) - sum(len(batches[number]) for number in missing)
    result = Preparation(reused=len(batches) - len(missing), made=len(missing))
    if missing:
        needed = sum(_stored_bytes(source) for number in missing for source in batches[number])
        free = shutil.disk_usage(folder).free
        if free < needed + _SPARE_BYTES:
            raise InputError(
                f"{folder}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free; give to=<folder>"
            )
        (folder / MANIFEST_NAME).unlink(missing_ok=True)  # it no longer tells the truth from here on
        with _records((source for number in missing for source in batches[number]), workers) as records:
            for number in missing:
                parts[number] = _write_shard(
                    folder, number, _counted(batches[number], records, done, len(sources), on_progress)
                )
                done += len(batches[number])
    _write_manifest(folder, [part for part in parts if part is not None], people.image_orientation or "stored", result)
    for path in folder.glob("shard_*"):
        if path.stem not in {Path(shard_name(number)).stem for number in range(len(batches))}:
            path.unlink()
    return result


def _stored_bytes(source: Source) -> float:
    """About how many bytes an image takes in its shard."""
    return source.height * source.width * 3 if source.uncompressed else _GROWTH * max(source.bytes, 0)


def _room_for_pixels(people: PersonInstances, sources: list[Source]) -> float:
    """How many bytes more than the divided images take the image folder does: all of its files count."""
    own = sum(max(source.bytes, 0) for source in sources)
    with_others = sum(path.stat().st_size for path in people.image_folder.rglob("*") if path.is_file())
    return with_others - own * _GROWTH


def _worth_their_pixels(people: PersonInstances, sources: list[Source], room: float) -> list[int]:
    """Which images gain most by the byte from lying there without compression, as many as ``room`` bytes hold.

    Saved at each visit to a person is the decoding of what a crop shows: about the padded box in a square, so that it
    can turn, at most the picture.
    """
    pixels = people.image_heights.astype(np.float64) * people.image_widths
    square = (1.25 * people.boxes_xywh[:, 2:].max(axis=1)) ** 2
    of_person = people.image_of_instance
    shown = np.bincount(of_person, np.minimum(square / pixels[of_person], 1.0), minlength=len(sources))
    source_bytes = np.array([source.bytes for source in sources], dtype=np.float64)
    extra = pixels * 3 - source_bytes * _GROWTH
    order = np.argsort(-shown * source_bytes / (pixels * 3), kind="stable")
    usable = order[(source_bytes[order] > 0) & (extra[order] > 0)]
    chosen: list[int] = usable[np.cumsum(extra[usable]) <= room].tolist()
    return chosen


def _counted(
    batch: list[Source],
    records: Iterator[StoredRecord],
    done: int,
    total: int,
    on_progress: Callable[[int, int | None], None] | None,
) -> Iterator[tuple[Source, StoredRecord]]:
    for index, source in enumerate(batch, start=1):
        yield source, next(records)
        if on_progress is not None:
            on_progress(done + index, total)


def _source(people: PersonInstances, index: int) -> Source:
    name, path, size, changed, problem = str(people.file_names[index]), "", -1, -1, ""
    try:
        path = str(people.image_path(index))
        found = Path(path).stat()
        size, changed = found.st_size, found.st_mtime_ns
    except InputError as error:
        problem = str(error)
    except OSError:
        pass  # reading it will say why
    height, width = int(people.image_heights[index]), int(people.image_widths[index])
    return Source(name, path, height, width, size, changed, problem, orientation=people.image_orientation)


def prepare_image(source: Source) -> StoredRecord:
    """One image file to its record. What is stored gives the pixels of the file, or the file itself is stored."""
    if source.problem:
        return StoredRecord(problem=source.problem)
    path = Path(source.path)
    try:
        data = read_file(path)
        image = decode_image(path, data, height=source.height, width=source.width, orientation=source.orientation)
    except InputError as error:
        return StoredRecord(problem=str(error))
    digest = file_digest(data)
    if source.uncompressed:
        return StoredRecord(image.pixels.tobytes(), UNCOMPRESSED, digest=digest, remarks=image.remarks)
    if source.orientation == "displayed" and image.exif != 1:
        return StoredRecord(data, digest=digest, whole="a picture that EXIF turns")
    try:
        divided = divide_jpeg(data)
        right, bottom = source.width - 1, source.height - 1
        window = decode_quadrilateral(
            divided.data[: divided.scan_start],
            lambda first, number: divided.data[divided.scan_start + first : divided.scan_start + first + number],
            divided.table_start,
            np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], dtype=np.float64),
            height=source.height,
            width=source.width,
        )
        if window is None or not np.array_equal(window[0], image.pixels):
            raise NotDivisible("a JPEG whose pixels would change")
    except (NotDivisible, DamagedError) as reason:
        return StoredRecord(data, digest=digest, whole=str(reason), remarks=image.remarks)
    return StoredRecord(divided.data, divided.table_start, divided.scan_start, digest, remarks=image.remarks)


@contextlib.contextmanager
def _records(sources: Iterable[Source], workers: int) -> Iterator[Iterator[StoredRecord]]:
    """The records of ``sources`` in their order, made by worker processes."""
    if workers == 0:
        yield map(prepare_image, sources)
        return
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_begin_worker) as pool:
        yield pool.imap(prepare_image, sources, chunksize=4)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer, once
    cv2.setNumThreads(0)


def _write_shard(folder: Path, number: int, images: Iterator[tuple[Source, StoredRecord]]) -> dict[str, Any]:
    """Write one shard and the file that says what is in it; returns what that file holds."""
    path = folder / shard_name(number)
    unfinished = path.with_suffix(".unfinished")
    rows: list[dict[str, int | str]] = []
    sources, bad, whole = [], {}, Counter[str]()
    remarks: dict[Remark, list[str]] = {}
    with unfinished.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for source, record in images:
                sources.append(source)
                row: dict[str, int | str] = {
                    "shards": number,
                    "offsets": 0,
                    "lengths": len(record.data),
                    "table_starts": record.table_start,
                    "scan_starts": record.scan_start,
                    "heights": source.height,
                    "widths": source.width,
                    "source_bytes": max(source.bytes, 0),
                    "source_times": max(source.time, 0),
                    "digests": record.digest,
                }
                if record.problem:
                    bad[source.name] = record.problem
                    row["shards"] = BAD_SHARD
                else:
                    member = tarfile.TarInfo(source.name + ".rgb" * (record.table_start == UNCOMPRESSED))
                    member.size = len(record.data)
                    tar.addfile(member, io.BytesIO(record.data))
                    row["offsets"] = tar.offset - -(-len(record.data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                    if record.whole:
                        whole[record.whole] += 1
                    for kind in record.remarks:
                        remarks.setdefault(kind, []).append(source.name)
                rows.append(row)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    part = {
        "made_from": _fingerprint(sources),
        "shard_bytes": path.stat().st_size,
        "file_names": [source.name for source in sources],
        "images": {name: [row[name] for row in rows] for name in rows[0]},
        "bad": bad,
        "whole": dict(whole),
        "remarks": remarks,
    }
    _write_json(path.with_suffix(".json"), part)
    return part


def _finished_part(folder: Path, number: int, batch: list[Source]) -> dict[str, Any] | None:
    """What a shard holds that need not be made again; None if it has to be."""
    path = folder / shard_name(number)
    try:
        part = json.loads(path.with_suffix(".json").read_bytes())
        finished = (
            part["made_from"] == _fingerprint(batch) and part["shard_bytes"] == path.stat().st_size and not part["bad"]
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return part if finished and isinstance(part, dict) else None


def _fingerprint(sources: list[Source]) -> str:
    described = [FORMAT, [[s.name, s.height, s.width, s.bytes, s.time, s.uncompressed, s.orientation] for s in sources]]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _write_manifest(
    folder: Path, parts: list[dict[str, Any]], orientation: ImageOrientation, result: Preparation
) -> None:
    names = [name for part in parts for name in part["file_names"]]
    images = {field: [value for part in parts for value in part["images"][field]] for field in parts[0]["images"]}
    bad = {name: problem for part in parts for name, problem in part["bad"].items()}
    shard_bytes = [part["shard_bytes"] for part in parts]
    remarkable: dict[Remark, list[str]] = {}
    for part in parts:
        for kind, files in part["remarks"].items():
            remarkable.setdefault(kind, []).extend(files)
    result.remarks = [remark_line(kind, files[0], len(files)) for kind, files in remarkable.items()]
    _write_json(
        folder / MANIFEST_NAME,
        {
            "format": FORMAT,
            "image_orientation": orientation,
            "shard_bytes": shard_bytes,
            "bad": bad,
            "remarks": result.remarks,
            "file_names": names,
            "images": images,
        },
    )
    result.images, result.bytes, result.bad = len(names), sum(shard_bytes), bad
    result.uncompressed = images["table_starts"].count(UNCOMPRESSED)
    result.source_bytes = sum(images["source_bytes"])
    for part in parts:
        result.whole.update(part["whole"])


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file that is there whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump(content, file, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


@contextlib.contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Keep the folder to this process; it is made if need be."""
    if folder.is_dir() and not (folder / _LOCK_NAME).exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: holds other files; give to=<a new folder>")
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another process is preparing images there; wait for it") from None
        yield
    finally:
        os.close(descriptor)
