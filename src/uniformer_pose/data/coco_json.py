"""COCO's JSON files as typed records: the one reader of annotation and detection files, and of the fields in them.

What a record must hold is said by its type here. A file that does not is refused by an InputError of one line, which
names file, record and value. ``each_record`` and the functions for single fields tell of all such records instead.
"""

from __future__ import annotations

import codecs
import gc
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from itertools import chain
from operator import getitem
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton

T = TypeVar("T")
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

LARGEST_NUMBER = 1e9
"""Of a coordinate, size or score: single precision would make infinity of 1e39, and no picture is as large."""

ImageOrientation = Literal["stored", "displayed"]

Problems = dict[int, str]
"""Position of a record -> what is wrong with a field of it, as the end of a sentence that begins with its name."""

Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Pixels = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
# pycocotools marks an unmatched detection by annotation id 0, so a person with id 0 is never found.
_PositiveId = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class ImageRecord(msgspec.Struct, gc=False):
    """An image; ``height`` and ``width`` in pixels. Only who opens or crops it needs more than the ``id``."""

    id: Integer
    file_name: str | None = None
    height: _Pixels | None = None
    width: _Pixels | None = None


class AnnotationRecord(msgspec.Struct, gc=False):
    """A person: ``bbox`` x, y, width, height, and x, y, visibility of each of the ``keypoints``, in image pixels.

    ``area`` is that of the segment, in square pixels. Which of these must be there depends on the category and the use.
    """

    id: _PositiveId
    image_id: Integer
    category_id: Integer
    bbox: list[float] | None = None
    keypoints: list[float] | None = None
    iscrowd: _Count | bool = 0
    area: float | None = None
    num_keypoints: _Count | bool | None = None


class CategoryRecord(msgspec.Struct, gc=False):
    """A category, and the names of its keypoints."""

    id: Integer
    name: str | int | None = None
    keypoints: list[str] | None = None


class AnnotationFile(msgspec.Struct, gc=False):
    """An annotation file; ``annotations`` is None where the file has no such list, as for a public test set."""

    images: list[ImageRecord]
    annotations: list[AnnotationRecord] | None = None
    categories: list[CategoryRecord] | None = None
    info: Any = None


class DetectionRecord(msgspec.Struct, gc=False):
    """A detector's box in image pixels."""

    image_id: Integer
    category_id: Integer
    bbox: list[float]
    score: float


def read_annotation_file(file: Path) -> AnnotationFile:
    """A COCO annotation file with at least one image."""
    content = _decoded(read_bytes(file), AnnotationFile, file, "an annotation file is an object with images")
    if not content.images:
        raise InputError(f"{file}: has an empty list 'images'; an annotation file holds at least one entry there")
    return content


def read_detection_file(file: Path) -> list[DetectionRecord]:
    """A COCO detection file with at least one box."""
    what = "a detection file is a list of image_id, category_id, bbox and score"
    records = _decoded(read_bytes(file), list[DetectionRecord], file, what)
    if not records:
        raise InputError(f"{file}: holds no detections; give a file with at least one box, or use the annotated boxes")
    return records


def read_json(file: Path) -> Any:
    """What a JSON file holds, as dicts and lists; NaN and infinity, which Python writes, are read."""
    return _plain(read_bytes(file), file)


def read_bytes(file: Path) -> bytes:
    """A file's bytes; without the mark that editors on Windows put in front of UTF-8, which is no part of JSON."""
    try:
        return file.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{file}: cannot be read ({reason}); give the path of a COCO JSON file") from error


def each_record(records: Sequence[object], kind: type[T]) -> tuple[list[T | None], Problems]:
    """Every record of a list as the type ``kind``, None where it is not, and what is wrong with those."""
    typed: list[T | None] = []
    problems: Problems = {}
    for index, record in enumerate(records):
        try:
            typed.append(msgspec.convert(record, kind))
        except _UNFIT as error:
            typed.append(None)
            problems[index] = _what_is_wrong(error, record)[1]
    return typed, problems


def _decoded(data: bytes, kind: type[T], file: Path, what: str) -> T:
    try:
        with garbage_collection_paused():
            return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        content = _plain(data, file)  # slow, but it reads NaN, and shows what is wrong
    if not isinstance(content, dict if issubclass(kind, msgspec.Struct) else list):
        raise InputError(f"{file}: {what}, not {_json_name(content)}")
    try:
        return msgspec.convert(content, kind)
    except _UNFIT as error:
        record, problem = _what_is_wrong(error, content)
        raise InputError(f"{file}: {record}{problem}") from None


def _plain(data: bytes, file: Path) -> Any:
    try:
        with garbage_collection_paused():
            return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        # ValueError covers text that is not UTF-8 and JSON that is malformed, cut off, or empty.
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: not valid JSON ({reason}); check that the file is complete") from error


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Looking for cycles among millions of new lists, of which none is garbage, takes as long as making them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


_UNFIT = (msgspec.ValidationError, UnicodeError)  # half of a surrogate pair is JSON, but no text


def _what_is_wrong(error: Exception, content: Any) -> tuple[str, str]:
    """The record that an error is about, with a space, and what is wrong with it: ``has '3' in 'bbox'; ...``."""
    if isinstance(error, UnicodeError):
        return "", "has a text that is not Unicode; write it anew"
    sentence, _, path = str(error).partition(" - at `$")
    steps: list[Any] = [int(index) if index else name for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", path)]
    to_record = 1 if isinstance(content, list) else 2 if steps[:1] and steps[0] in _RECORD_NAMES else 0
    record = ""
    if 0 < to_record <= len(steps):
        record = _record_name(content, *steps[:to_record])
        content = reduce(getitem, steps[:to_record], content)
        steps = steps[to_record:]
    missing = re.match(r"Object missing required field `(\w+)", sentence)
    if missing:
        return record, f"has no '{missing[1]}'; add it or remove the entry"
    value = reduce(getitem, steps, content)
    where = f"has {value!r:.40} in '{steps[0]}'" if steps else f"is {value!r:.40}"
    return record, f"{where}; {sentence[0].lower()}{sentence[1:]}"


_RECORD_NAMES = {"images": "image", "annotations": "annotation", "categories": "category"}


def _record_name(content: Any, *steps: Any) -> str:
    if len(steps) == 1:
        return f"detection number {steps[0]} "
    known = content[steps[0]][steps[1]]
    known = known.get("id") if isinstance(known, dict) else None
    name = _RECORD_NAMES[steps[0]]
    return f"{name} {known} " if type(known) is int and known > 0 else f"{name} number {steps[1] + 1} "


def _json_name(content: Any) -> str:
    names: dict[object, str] = {dict: "an object", list: "a list", str: "a text"}
    return names.get(type(content), f"{content!r:.40}")


def stated_orientation(info: object, file: Path) -> ImageOrientation | None:
    """What an annotation file's coordinates refer to, by its ``info.image_orientation``; None if it is silent.

    Raises InputError for anything but ``stored`` and ``displayed``.
    """
    stated = info.get("image_orientation") if isinstance(info, dict) else None
    if stated not in (None, *get_args(ImageOrientation)):
        raise InputError(
            f"{file}: info.image_orientation is {stated!r:.40}; write stored (coordinates refer to the pixels as they "
            "lie in the files), displayed (to pictures turned as their EXIF says), or leave it out"
        )
    return stated


def image_problem(record: ImageRecord) -> str | None:
    """Why an image cannot be opened by its entry: nameless, sizeless, or outside the image folder."""
    name = record.file_name
    for field in ("file_name", "height", "width"):
        if getattr(record, field) is None:
            return f"has no '{field}'; add it or remove the entry"
    if not name or "\0" in name:
        return f"has file_name {name!r}; give the name of an image file"
    if name[0] == "/" or (".." in name and ".." in PurePosixPath(name).parts):
        return (
            f"has file_name {name!r}, which leaves the image folder; names must be relative to the folder and without "
            "'..'"
        )
    return None


def boxes_of(records: Sequence[AnnotationRecord] | Sequence[DetectionRecord]) -> tuple[FloatArray, Problems]:
    """(records, 4) boxes of any sign and size, NaN where there is none, and what is wrong with those."""
    return _number_rows([record.bbox for record in records], 4, "bbox", "x, y, width, height in pixels")


def keypoints_of(records: Sequence[AnnotationRecord], skeleton: Skeleton) -> tuple[FloatArray, Problems]:
    """(records, K, 3) x, y and visibility, NaN where they cannot be used, and what is wrong with those.

    A crowd without keypoints has none that is labelled.
    """
    unlabelled = [0.0] * (3 * skeleton.num_keypoints)
    meaning = f"x, y, visibility of the {skeleton.num_keypoints} keypoints of skeleton {skeleton.name}"
    rows, problems = _number_rows(
        [record.keypoints or unlabelled if record.iscrowd else record.keypoints for record in records],
        len(unlabelled),
        "keypoints",
        meaning,
    )
    keypoints = rows.reshape(-1, skeleton.num_keypoints, 3)
    odd = ~np.isin(keypoints[..., 2], (0, 1, 2)).all(axis=1)
    keypoints[odd] = np.nan
    for index in np.flatnonzero(odd).tolist():
        problems.setdefault(
            index,
            "has a visibility other than 0 (not labelled), 1 (hidden) and 2 (visible); correct the third number of "
            "each keypoint",
        )
    return keypoints, problems


def scores_of(records: Sequence[DetectionRecord]) -> tuple[FloatArray, Problems]:
    """(records,) scores, NaN where they are no numbers, and what is wrong with those."""
    rows, problems = _number_rows([[record.score] for record in records], 1, "score", "the detector's confidence")
    return rows[:, 0], problems


def _number_rows(
    values: Sequence[Sequence[float] | None], length: int, field: str, meaning: str
) -> tuple[FloatArray, Problems]:
    lengths = np.array([-1 if row is None else len(row) for row in values], dtype=np.int64)
    fits = lengths == length
    rows = np.full((len(values), length), np.nan)
    flat = chain.from_iterable(row for row in values if row is not None and len(row) == length)
    rows[fits] = np.fromiter(flat, np.float64, int(fits.sum()) * length).reshape(-1, length)
    usable = (np.abs(rows) <= LARGEST_NUMBER).all(axis=1)  # false for NaN
    problems: Problems = {}
    for index in np.flatnonzero(~usable).tolist():
        if lengths[index] < 0:
            problems[index] = f"has no '{field}'; add it or remove the entry"
        elif not fits[index]:
            problems[index] = f"has {lengths[index]} numbers in '{field}'; it needs {length} ({meaning})"
        else:
            value = next(value for value in rows[index].tolist() if not abs(value) <= LARGEST_NUMBER)
            problems[index] = (
                f"has {value!r:.40} in '{field}'; it needs finite numbers below {LARGEST_NUMBER:g} ({meaning})"
            )
    rows[~usable] = np.nan
    return rows, problems


def refuse(problems: Problems, records: Sequence[AnnotationRecord] | Sequence[DetectionRecord], file: Path) -> None:
    """InputError for the first of the problems, naming file and record."""
    for index, problem in problems.items():
        record = records[index]
        name = f"annotation {record.id}" if isinstance(record, AnnotationRecord) else f"detection number {index}"
        raise InputError(f"{file}: {name} {problem}")


def refuse_repeated_ids(ids: IntArray, kind: Literal["image", "annotation", "category"], file: Path) -> None:
    """InputError where an id is given twice."""
    unique, counts = np.unique(ids, return_counts=True)
    repeated = unique[counts > 1]
    if len(repeated):
        plural = "categories" if kind == "category" else f"{kind}s"
        raise InputError(
            f"{file}: {kind} id {repeated[0]} is given to {counts[counts > 1][0]} {plural} "
            f"({len(repeated)} ids are repeated); every {kind} needs an id of its own"
        )


def places_of(image_ids: IntArray, known: IntArray, file: Path, records: str) -> IntArray:
    """Index of each image id among those that are ``known``; InputError where one is not."""
    order = np.argsort(known)
    position = np.minimum(np.searchsorted(known, image_ids, sorter=order), len(known) - 1)
    found: IntArray = order[position]
    unknown = known[found] != image_ids
    if unknown.any():
        missing = np.unique(image_ids[unknown])
        examples = ", ".join(map(str, missing[:3].tolist())) + (", ..." if len(missing) > 3 else "")
        raise InputError(
            f"{file}: {int(unknown.sum())} {records} are in {len(missing)} images that the annotation file does not "
            f"list (image_id {examples}); give files of the same data set"
        )
    return found
