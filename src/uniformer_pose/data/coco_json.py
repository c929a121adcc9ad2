"""COCO's JSON files as typed records: the one reader of annotation and detection files, and of the fields in them.

What a record must hold is said by its type here. A file that does not is refused by an InputError of one line, which
names file, record and value. ``each_record`` and the functions for single fields tell of all such records instead.
"""

from __future__ import annotations

import codecs
import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import ArrayName, Skeleton

T = TypeVar("T")
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

LARGEST_NUMBER = 1e9
"""Of a coordinate, size or score: single precision would make infinity of 1e39, and no picture is as large."""

ImageOrientation = Literal["stored", "displayed"]

_OTHER_LISTS = {b'"joints_vis"': "MPII's people", b'"keypoint_annotations"': "AI Challenger's images"}

Problems = dict[int, str]
"""Position of a record -> what is wrong with it, as the end of a sentence that begins with its name."""

UNFIT = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
"""What is raised where JSON is malformed, or holds something else than it should."""

Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Pixels = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class ImageRecord(msgspec.Struct, gc=False):
    """An image; ``height`` and ``width`` in pixels. Only who opens or crops it needs more than the ``id``.

    ``crowd_index`` is CrowdPose's: how much the people of an image overlap, 0 to 1.
    """

    id: Integer
    file_name: str | None = None
    height: _Pixels | None = None
    width: _Pixels | None = None
    crowd_index: float | None = msgspec.field(default=None, name="crowdIndex")


class AnnotationRecord(msgspec.Struct, gc=False):
    """A person: ``bbox`` x, y, width, height, and x, y, visibility of each of the ``keypoints``, in image pixels.

    ``area`` is that of the segment, in square pixels. Which of these must be there depends on the category and the use.
    Ids may begin at 0, as ExLPose's do; pycocotools, which marks what is unmatched by 0, never finds that person. The
    last fields are those of published sets with more keypoints (``Skeleton.arrays_in_files``).
    """

    id: _Count
    image_id: Integer
    category_id: Integer
    bbox: list[float] | None = None
    keypoints: list[float] | None = None
    iscrowd: _Count | bool = 0
    area: float | None = None
    num_keypoints: _Count | bool | None = None
    keypoints_21: list[float] | None = None
    foot_kpts: list[float] | None = None
    face_kpts: list[float] | None = None
    lefthand_kpts: list[float] | None = None
    righthand_kpts: list[float] | None = None
    foot_valid: bool | None = None
    face_valid: bool | None = None
    lefthand_valid: bool | None = None
    righthand_valid: bool | None = None


class CategoryRecord(msgspec.Struct, gc=False):
    """A category, and the names of its keypoints."""

    id: Integer
    name: str | int | None = None
    keypoints: list[str] | None = None


class AnnotationFile(msgspec.Struct, Generic[T], gc=False):
    """An annotation file; ``annotations`` is None where the file has no such list, as for a public test set.

    When a file is read they stay text (``msgspec.Raw``) until ``typed_annotations`` makes one after the other an
    ``AnnotationRecord``: as objects of Python, a million people take 2 GB.
    """

    images: list[ImageRecord]
    annotations: list[T] | None = None
    categories: list[CategoryRecord] | None = None
    info: Any = None


class DetectionRecord(msgspec.Struct, gc=False):
    """A detector's box in image pixels."""

    image_id: Integer
    category_id: Integer
    bbox: list[float]
    score: float


class PoseRecord(msgspec.Struct, gc=False):
    """A predicted pose: ``bbox``, and x, y and score of each of the ``keypoints``, in image pixels.

    src/predict.py says of which picture it is by ``file_name`` too, of pictures that EXIF turns what the numbers refer
    to, and of a video the ``frame``.
    """

    image_id: Integer
    keypoints: list[float]
    score: float
    bbox: list[float] | None = None
    file_name: str | None = None
    image_height: _Pixels | None = None
    image_width: _Pixels | None = None
    image_orientation: ImageOrientation | None = None
    frame: int | None = None


_Records = Sequence[AnnotationRecord] | Sequence[DetectionRecord] | Sequence[PoseRecord]


def read_annotation_file(file: Path) -> AnnotationFile[msgspec.Raw]:
    """A COCO annotation file with at least one image."""
    data = read_bytes(file)
    for key, source in _OTHER_LISTS.items():
        if _is_list(data) and key in data[:10_000]:
            raise InputError(f"{file}: is a list of {source}, not of COCO's form; src/convert_data.py writes that")
    if _is_list(data):
        raise InputError(
            f"{file}: not valid COCO JSON (a list of poses or boxes is no annotation file); predicted poses are labels "
            "as data.train_poses"
        )
    content = decoded(data, AnnotationFile[msgspec.Raw], file)
    if not content.images:
        raise InputError(f"{file}: has an empty list 'images'; an annotation file holds at least one entry there")
    return content


def typed_annotations(content: AnnotationFile[Any], file: Path) -> Iterator[AnnotationRecord]:
    """The annotations of a file, in its order; InputError at the first that is none."""
    decode = msgspec.json.Decoder(AnnotationRecord).decode
    number = -1
    try:
        for record in content.annotations or []:
            number += 1
            yield decode(record) if isinstance(record, msgspec.Raw) else record
    except UNFIT as error:
        raise InputError(f"{file}: annotations[{number}]: {_on_one_line(error)}") from None


def read_detection_file(file: Path) -> list[DetectionRecord]:
    """A COCO detection file (a list of image_id, category_id, bbox and score) with at least one box."""
    records = decoded(read_bytes(file), list[DetectionRecord], file)
    if not records:
        raise InputError(f"{file}: holds no detections; give a file with at least one box, or use the annotated boxes")
    return records


def read_pose_file(file: Path) -> list[PoseRecord]:
    """COCO results of keypoints with at least one pose: a list of image_id, keypoints, score and so on."""
    data = read_bytes(file)
    if not _is_list(data):
        raise InputError(
            f"{file}: is no list of poses, as src/predict.py writes it; annotations are data.train_annotations"
        )
    records = decoded(data, list[PoseRecord], file)
    if not records:
        raise InputError(f"{file}: holds no poses; give a file with at least one")
    return records


def _is_list(data: bytes) -> bool:
    return data[:100].lstrip().startswith(b"[")


def read_json(file: Path) -> Any:
    """What a JSON file holds, as dicts and lists; NaN and infinity, which Python writes, are read."""
    try:
        with garbage_collection_paused():
            return json.loads(read_bytes(file).decode("utf-8"))
    except UNFIT as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: not valid JSON ({_on_one_line(error)})") from None


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
        except UNFIT as error:
            typed.append(None)
            problems[index] = f"cannot be read: {_on_one_line(error)}"
    return typed, problems


def decoded(data: bytes, kind: type[T], file: Path) -> T:
    """JSON of a type; NaN and infinity, which Python writes, are taken for null."""
    try:
        with garbage_collection_paused():
            try:
                return msgspec.json.decode(data, type=kind)
            except msgspec.ValidationError:
                raise
            except msgspec.DecodeError:
                return msgspec.json.decode(msgspec.json.encode(json.loads(data.decode("utf-8"))), type=kind)
    except UNFIT as error:
        raise InputError(f"{file}: not valid COCO JSON ({_on_one_line(error)})") from None


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


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


def boxes_are_uncut(info: object, file: Path) -> bool:
    """Whether an annotation file says by ``info.boxes: uncut`` that its boxes are regions to crop as they are.

    Those of MPII are: squares around a centre, also beyond the picture. Raises InputError for any other word.
    """
    stated = info.get("boxes") if isinstance(info, dict) else None
    if stated not in (None, "uncut"):
        raise InputError(f"{file}: info.boxes is {stated!r:.40}; write uncut, or leave it out (boxes end with images)")
    return stated is not None


def image_problem(record: ImageRecord) -> str | None:
    """Why an image cannot be opened by its entry: nameless, sizeless, or outside the image folder."""
    name = record.file_name
    if not name or "\0" in name or record.height is None or record.width is None:
        return f"needs file_name, height and width, and has {name!r}, {record.height} and {record.width}"
    if name[0] == "/" or (".." in name and ".." in PurePosixPath(name).parts):
        return f"has file_name {name!r}, which leaves the image folder; give names relative to the folder, without '..'"
    return None


def boxes_of(records: _Records) -> tuple[FloatArray, Problems]:
    """(records, 4) boxes of any sign and size, NaN where there is none, and what is wrong with those."""
    given = [record.bbox for record in records]
    boxes = _number_rows(given, 4)
    return boxes, _problems(boxes, given, "4 finite numbers in 'bbox': x, y, width, height in pixels")


def keypoints_of(records: Sequence[AnnotationRecord], skeleton: Skeleton) -> tuple[FloatArray, Problems]:
    """(records, K, 3) x, y and visibility, NaN where they cannot be used, and what is wrong with those.

    A crowd without keypoints has none that is labelled. Where ``keypoints`` are others than the skeleton's, they are
    those of its ``arrays_in_files``, joined.
    """
    count = skeleton.num_keypoints
    unlabelled = [0.0] * (3 * count)
    given = [_all_keypoints(record, skeleton) for record in records]
    given = [row or unlabelled if record.iscrowd else row for record, row in zip(records, given, strict=True)]
    rows = _number_rows(given, 3 * count)
    rows[~np.isin(rows[:, 2::3], (0, 1, 2)).all(axis=1)] = np.nan
    arrays = ", ".join(f"{name} {3 * points}" for name, points in skeleton.arrays_in_files)
    needs = (
        f"{3 * count} finite numbers in 'keypoints'{f' (or in its arrays: {arrays})' if arrays else ''}: x, y, "
        f"visibility (0 not labelled, 1 hidden, 2 visible) of the {count} keypoints of skeleton {skeleton.name}"
    )
    return rows.reshape(-1, count, 3), _problems(rows, given, needs)


def stated_counts_of(records: Sequence[AnnotationRecord], skeleton: Skeleton) -> IntArray:
    """(records,) the file's ``num_keypoints``; -1 where it has none, or one that counts ``keypoints`` beside others."""
    elsewhere = any(name != "keypoints" for name, _ in skeleton.arrays_in_files)
    counts = (
        None if elsewhere and len(record.keypoints or ()) != 3 * skeleton.num_keypoints else record.num_keypoints
        for record in records
    )
    return np.fromiter((-1 if count is None else count for count in counts), np.int64, len(records))


def _all_keypoints(record: AnnotationRecord, skeleton: Skeleton) -> list[float] | None:
    """The numbers of a skeleton's keypoints: ``keypoints``, or its arrays joined; None where one is not whole."""
    count = 3 * skeleton.num_keypoints
    if not skeleton.arrays_in_files or len(record.keypoints or ()) == count:
        return record.keypoints
    joined: list[float] = []
    for name, points in skeleton.arrays_in_files:
        array = _array(record, name)
        if array is None or len(array) != 3 * points:
            return None if len(skeleton.arrays_in_files) > 1 else array
        joined += array
    return joined[:count]


def _array(record: AnnotationRecord, name: ArrayName) -> list[float] | None:
    """One of a record's arrays. Of feet, faces and hands COCO-WholeBody labels what is clear enough to be seen, by any
    visibility above 0, also a fraction (its data_format.md): visible, where 1 would mean hidden.
    """
    array: list[float] | None = getattr(record, name)
    if array is None or not name.endswith("_kpts"):
        return array
    read = array.copy()
    read[2::3] = [2 if 0 < seen <= 2 else seen for seen in array[2::3]]
    return read


def contradicted_flags(record: AnnotationRecord) -> list[str]:
    """Which of COCO-WholeBody's flags, such as face_valid, say other than the visibilities whether a part is labelled.

    The visibilities count, as in the set's own evaluation.
    """
    found = []
    for part in ("foot", "face", "lefthand", "righthand"):
        flag, array = getattr(record, f"{part}_valid"), getattr(record, f"{part}_kpts")
        if flag is not None and array is not None and flag != any(seen > 0 for seen in array[2::3]):
            found.append(f"{part}_valid")
    return found


def scored_keypoints_of(records: Sequence[PoseRecord], skeleton: Skeleton) -> tuple[FloatArray, Problems]:
    """(records, K, 3) x, y and score, NaN where they cannot be used, and what is wrong with those."""
    count = skeleton.num_keypoints
    given = [record.keypoints for record in records]
    rows = _number_rows(given, 3 * count)
    needs = (
        f"{3 * count} finite numbers in 'keypoints': x, y, score of the {count} keypoints of skeleton {skeleton.name}"
    )
    return rows.reshape(-1, count, 3), _problems(rows, given, needs)


def scores_of(records: Sequence[DetectionRecord]) -> tuple[FloatArray, Problems]:
    """(records,) scores, NaN where they are too large, and what is wrong with those."""
    given = [[record.score] for record in records]
    scores = _number_rows(given, 1)
    return scores[:, 0], _problems(scores, given, "a finite number in 'score'")


def _number_rows(given: Sequence[Sequence[float] | None], length: int) -> FloatArray:
    """(rows, length); NaN throughout where there is no such row, or a number that is not finite or too large."""
    missing = [np.nan] * length
    flat = chain.from_iterable(row if row is not None and len(row) == length else missing for row in given)
    rows = np.fromiter(flat, np.float64, len(given) * length).reshape(-1, length)
    rows[~(np.abs(rows) <= LARGEST_NUMBER).all(axis=1)] = np.nan
    return rows


def _problems(rows: FloatArray, given: Sequence[object], needs: str) -> Problems:
    return {
        index: f"needs {needs}; it has {'none' if given[index] is None else given[index]!s:.60}"
        for index in np.flatnonzero(np.isnan(rows[:, 0])).tolist()
    }


def refuse(problems: Problems, records: _Records, file: Path) -> None:
    """InputError for the first of the problems, naming file and record."""
    for index, problem in problems.items():
        record = records[index]
        kind = "pose" if isinstance(record, PoseRecord) else "detection"
        name = f"annotation {record.id}" if isinstance(record, AnnotationRecord) else f"{kind} number {index}"
        raise InputError(f"{file}: {name} {problem}")


def refuse_repeated_ids(ids: IntArray, kind: Literal["image", "annotation", "category"], file: Path) -> None:
    """InputError where an id is given twice."""
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        raise InputError(
            f"{file}: {kind} id {unique[counts > 1][0]} is given {counts[counts > 1][0]} times "
            f"({(counts > 1).sum()} ids are repeated); every {kind} needs an id of its own"
        )


def places_of(image_ids: IntArray, known: IntArray, order: IntArray, file: Path, records: str) -> IntArray:
    """Index of each image id among those that are ``known``, which ``order`` sorts; InputError where one is not."""
    position = np.minimum(np.searchsorted(known, image_ids, sorter=order), len(known) - 1)
    found: IntArray = order[position]
    missing = np.unique(image_ids[known[found] != image_ids])
    if len(missing):
        raise InputError(
            f"{file}: its {records} are in {len(missing)} images that the annotation file does not list (image_id "
            f"{', '.join(map(str, missing[:3].tolist()))}{', ...' if len(missing) > 3 else ''}); give files of the "
            "same data set"
        )
    return found
