"""COCO annotation and detection files to person instances: flat arrays, no object per person.

``read_ground_truth`` and ``read_detections`` stop at the first defect; the functions for single fields are public
because ``data/checking`` asks them about one entry at a time, to find every defect by the rules of the training.

Large files (150,000 people are 240 MB of JSON, most of it outlines) are read by a parser that passes over the fields
that nothing here needs, and kept as an index (``annotation_cache``). Where that parser stumbles, Python's reads the
file, slowly, whose objections are the ones that a user sees.

Two kinds of defect are told apart. What makes a file contradict itself or the skeleton (a missing field, a
NaN, a repeated id) is an InputError that names the file and the entry. What is ordinary in good files (a
crowd, a person without labelled keypoints, a box without area) is left out and counted.
"""

from __future__ import annotations

import codecs
import gc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypedDict, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from uniformer_pose.data.annotation_cache import WORTH_KEEPING, Arrays, digest_of, remembered_arrays
from uniformer_pose.errors import InputError, printable
from uniformer_pose.skeleton import Skeleton, plain_name

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LARGEST_NUMBER = 1e9
"""Of a coordinate, size or score: single precision would make infinity of 1e39, and no picture is as large."""

ImageOrientation = Literal["stored", "displayed"]

AREA_OF_BOX = 0.53
"""Of width x height: what a person fills of its box on average, and what data sets without areas are scored by."""

AreaSource = Literal["annotated", "box"]

DEFAULT_PERSON_CATEGORY = 1  # COCO's, where no category lists keypoints


@dataclass(frozen=True, eq=False)
class PersonInstances:
    """N person boxes, with their keypoints where annotated, in M images; only images with a box are held.

    Everything is a flat numpy array, so that worker processes share the memory: Python objects would be
    copied page by page as their reference counts change. Instances are sorted by image, within an image in
    the file's order.

    ``image_folder`` is absolute, its links followed. ``image_ids`` (M,), ``file_names`` (M,) relative to the
    folder, ``image_heights`` and ``image_widths`` (M,) in pixels. ``image_of_instance`` (N,) indexes these.
    ``instance_ids`` (N,) are annotation ids, or positions in the detection file from 0. ``boxes_xywh`` (N,
    4): left, top, width, height in image pixels, width and height positive. ``box_scores`` (N,), 1 for
    annotated boxes. ``keypoints_in_image`` (N, K, 2) are (x, y) in image pixels. ``visibility`` (N, K): 0 not
    labelled, 1 labelled but hidden, 2 visible; 0 throughout for detections. ``counts``: the entries ``read``
    and ``kept``, then how many were left out for each reason. ``categories``: ids and names of those that count
    (``counted_categories``). ``record`` and ``source_file`` say where an instance stands, for messages.
    ``image_orientation``: whether all of this refers to the pictures as they are ``stored`` or as they are
    ``displayed``, turned as their EXIF says; None where nobody said so, which is COCO's ``stored``.
    """

    image_folder: Path
    image_ids: IntArray
    file_names: npt.NDArray[np.str_]
    image_heights: npt.NDArray[np.int32]
    image_widths: npt.NDArray[np.int32]
    image_of_instance: npt.NDArray[np.int32]
    instance_ids: IntArray
    boxes_xywh: FloatArray
    box_scores: npt.NDArray[np.float32]
    keypoints_in_image: npt.NDArray[np.float32]
    visibility: npt.NDArray[np.uint8]
    counts: dict[str, int] = field(default_factory=dict)
    categories: Mapping[int, str] = field(default_factory=dict)
    record: Literal["annotation", "detection"] = "annotation"
    source_file: Path = Path()
    image_orientation: ImageOrientation | None = None

    def __len__(self) -> int:
        return len(self.instance_ids)

    @property
    def num_images(self) -> int:
        """How many images hold at least one instance (M)."""
        return len(self.image_ids)

    @property
    def boxes_per_image(self) -> IntArray:
        """(M,) how many instances each image holds."""
        return np.bincount(self.image_of_instance, minlength=self.num_images).astype(np.int64)

    def first_images(self, num_images: int) -> PersonInstances:
        """The instances of the first ``num_images`` images; the others are counted as left out."""
        if num_images < 1:
            raise InputError(f"the first {num_images} images; use at least 1")
        kept = int(np.searchsorted(self.image_of_instance, num_images))
        if kept == len(self):
            return self
        reason = f"after the first {num_images} images"
        return replace(
            self,
            image_ids=self.image_ids[:num_images],
            file_names=self.file_names[:num_images],
            image_heights=self.image_heights[:num_images],
            image_widths=self.image_widths[:num_images],
            image_of_instance=self.image_of_instance[:kept],
            instance_ids=self.instance_ids[:kept],
            boxes_xywh=self.boxes_xywh[:kept],
            box_scores=self.box_scores[:kept],
            keypoints_in_image=self.keypoints_in_image[:kept],
            visibility=self.visibility[:kept],
            counts={**self.counts, "kept": kept, reason: len(self) - kept},
        )

    def with_orientation(self, orientation: ImageOrientation | None) -> PersonInstances:
        """The same people, with another word on what their coordinates refer to; None changes nothing."""
        return self if orientation is None else replace(self, image_orientation=orientation)

    def image_path(self, image_index: int) -> Path:
        """Where one image lies; InputError if a link leads out of the image folder.

        The check is made here, as an image is opened, because following the links of every image of a large
        set at the start would take minutes on a network file system.
        """
        path = self.image_folder / str(self.file_names[image_index])
        if not path.resolve().is_relative_to(self.image_folder):
            raise InputError(
                f"{path}: links to a file outside the image folder; put a copy of the image into the folder"
            )
        return path

    def describe(self, instance_index: int) -> str:
        """Words that lead to one instance's entry: ``annotation 12 of train.json``."""
        return f"{self.record} {self.instance_ids[instance_index]} of {self.source_file.name}"

    def summary(self) -> str:
        """One line: which categories count, how many entries were kept of how many, and why the others were not."""
        left_out = [f"{n} {reason}" for reason, n in self.counts.items() if n and reason not in ("read", "kept")]
        because = f" (left out: {', '.join(left_out)})" if left_out else ""
        of = f", {category_names(self.categories)}" if self.categories else ""
        return (
            f"{self.source_file.name}{of}: kept {len(self)} of {self.counts.get('read', len(self))} "
            f"{self.record}s in {self.num_images} images{because}"
        )


def read_ground_truth(
    annotation_file: str | Path,
    image_folder: str | Path,
    skeleton: Skeleton,
    *,
    clip_boxes: bool = True,
    categories: Sequence[str | int] | None = None,
) -> PersonInstances:
    """The annotated people of a COCO keypoint file: no crowd, a box with area, a labelled keypoint.

    With ``clip_boxes`` a box's corners are moved into [0, W - 1] and [0, H - 1], as MMPose does for training
    and for evaluation with annotated boxes. How many keypoints are labelled is counted from the visibilities,
    so ``num_keypoints`` is not needed; nor are ``area``, ``segmentation`` and ``iscrowd`` (absent means no
    crowd).

    ``categories``: names or ids of those whose annotations are people; None leaves it to ``counted_categories``.
    Raises InputError on a file that is structurally wrong (see the module's text), and where it has annotations but
    none of a category that counts.
    """
    file = Path(annotation_file)
    data = _read_bytes(file)

    def read() -> PersonInstances:
        content = _annotation_object(_needed_fields(data, file, _AnnotationFields), file)
        return ground_truth_of(content, file, image_folder, skeleton, clip_boxes=clip_boxes, categories=categories)

    return _remembered([data], [skeleton, clip_boxes, categories], read, "annotation", file, image_folder)


def ground_truth_of(
    content: dict[str, Any],
    file: Path,
    image_folder: str | Path,
    skeleton: Skeleton,
    *,
    clip_boxes: bool = True,
    categories: Sequence[str | int] | None = None,
) -> PersonInstances:
    """The people of ``read_ground_truth`` from what the file holds; ``file`` names it in messages."""
    folder = existing_folder(image_folder)
    images = read_images(content, file)
    entries(content, "annotations", file)
    found = counted_annotations(content, file, skeleton, images.ids, categories)
    selection = _Selection(len(found.records), {"of another category": found.num_read - len(found.records)})
    selection.leave_out(found.is_crowd, "crowd")

    remaining = selection.remaining()
    chosen = [found.records[i] for i in remaining]
    keypoints = read_keypoints(chosen, skeleton, file, lambda i: found.name(remaining[i]))
    boxes = read_boxes(chosen, file, lambda i: found.name(remaining[i]))
    image_of_record = found.image_of_record[remaining]
    selection.leave_out_of(remaining, np.all(keypoints[..., 2] == 0, axis=1), "without labelled keypoint")
    boxes = _leave_out_boxes(boxes, images, image_of_record, remaining, selection, clip=clip_boxes)

    kept = selection.kept[remaining]
    return _assemble(
        folder,
        images,
        image_of_record[kept],
        instance_ids=found.ids[remaining][kept],
        boxes_xywh=boxes[kept],
        box_scores=np.ones(int(kept.sum()), dtype=np.float32),
        keypoints_in_image=keypoints[kept, :, :2].astype(np.float32),
        visibility=keypoints[kept, :, 2].astype(np.uint8),
        counts=selection.counts(),
        categories=found.categories,
        record="annotation",
        source_file=file,
        image_orientation=stated_orientation(content, file),
    )


@dataclass(frozen=True, eq=False)
class CountedAnnotations:
    """The annotations of the categories that count, in the file's order: what is trained on and scored is among them.

    ``num_read`` is how many annotations the file has. ``records``, ``ids``, ``is_crowd`` and ``image_of_record``, an
    index among the images, have one element for each that counts.
    """

    categories: dict[int, str]
    num_read: int
    records: list[Any]
    ids: IntArray
    image_of_record: IntArray
    is_crowd: BoolArray

    def name(self, index: int) -> str:
        """What messages call an annotation."""
        return f"annotation {self.ids[index]}"


def counted_annotations(
    content: dict[str, Any],
    file: Path,
    skeleton: Skeleton,
    image_ids: IntArray,
    categories: Sequence[str | int] | None = None,
) -> CountedAnnotations:
    """Which annotations of a file count, by ``counted_categories``; InputError where ids, images or crowds are unclear.

    ``image_ids`` are those of the file's images.
    """
    counted = counted_categories(content, file, skeleton, categories)
    records = list_of(content, "annotations", file)
    ids = integers(records, "id", file, lambda i: f"annotation number {i + 1}")
    _refuse_repeated_ids(ids, "annotation", file)
    if (ids <= 0).any():
        # pycocotools marks an unmatched detection by annotation id 0, so a person with id 0 is never found.
        first = int(ids[ids <= 0][0])
        raise InputError(
            f"{file}: annotation id {first} is not positive; COCO evaluation needs ids from 1 on, renumber"
        )

    def name(index: int) -> str:
        return f"annotation {ids[index]}"

    image_of_record = look_up_images(integers(records, "image_id", file, name), image_ids, file, "annotation")
    category_ids = integers(records, "category_id", file, name)
    require_counted(category_ids, counted, file, file, "annotations")
    kept = np.flatnonzero(np.isin(category_ids, list(counted)))
    chosen = [records[index] for index in kept]
    crowds = counts_or(0, chosen, "iscrowd", file, lambda i: name(kept[i]))
    return CountedAnnotations(counted, len(records), chosen, ids[kept], image_of_record[kept], crowds > 0)


def read_detections(
    detection_file: str | Path,
    annotation_file: str | Path,
    image_folder: str | Path,
    skeleton: Skeleton,
    *,
    score_threshold: float = 0.0,
    categories: Sequence[str | int] | None = None,
) -> PersonInstances:
    """The person boxes of a COCO detection file: a list of image_id, category_id, bbox and score.

    Boxes are not clipped and keep their scores; those below ``score_threshold`` are left out. The annotation
    file gives names and sizes of the images, and with ``categories`` says which categories count
    (``counted_categories``). Raises InputError on a structurally wrong file, on images the annotation file does not
    know, and where no detection is of a category that counts.
    """
    file, images_file = Path(detection_file), Path(annotation_file)
    images_data, data = _read_bytes(images_file), _read_bytes(file)

    def read() -> PersonInstances:
        content = _annotation_object(_needed_fields(images_data, images_file, _ImageFields), images_file)
        records = _detection_list(_needed_fields(data, file, list[_DetectionRecord]), file)
        counted = counted_categories(content, images_file, skeleton, categories)
        return _detections_of(records, file, content, images_file, image_folder, skeleton, score_threshold, counted)

    settings = [skeleton, score_threshold, categories]
    return _remembered([images_data, data], settings, read, "detection", file, image_folder)


def _detections_of(
    records: list[Any],
    file: Path,
    content: dict[str, Any],
    images_file: Path,
    image_folder: str | Path,
    skeleton: Skeleton,
    score_threshold: float,
    counted: Mapping[int, str],
) -> PersonInstances:
    folder = existing_folder(image_folder)
    images = read_images(content, images_file)

    def name(index: int) -> str:
        return f"detection number {index}"

    image_ids = integers(records, "image_id", file, name)
    image_of_record = look_up_images(image_ids, images.ids, file, "detection")
    scores = read_scores(records, file, name)
    boxes = read_boxes(records, file, name)
    selection = _Selection(len(records))
    category_ids = integers(records, "category_id", file, name)
    require_counted(category_ids, counted, file, images_file, "detections")
    selection.leave_out(~np.isin(category_ids, list(counted)), "of another category")
    selection.leave_out(scores < score_threshold, f"with a score below {score_threshold:g}")
    everything = np.arange(len(records))
    boxes = _leave_out_boxes(boxes, images, image_of_record, everything, selection, clip=False)

    kept = selection.kept
    num_kept = int(kept.sum())
    return _assemble(
        folder,
        images,
        image_of_record[kept],
        instance_ids=everything[kept],
        boxes_xywh=boxes[kept],
        box_scores=scores[kept].astype(np.float32),
        keypoints_in_image=np.zeros((num_kept, skeleton.num_keypoints, 2), dtype=np.float32),
        visibility=np.zeros((num_kept, skeleton.num_keypoints), dtype=np.uint8),
        counts=selection.counts(),
        categories=counted,
        record="detection",
        source_file=file,
        image_orientation=stated_orientation(content, images_file),
    )


def stated_orientation(content: dict[str, Any], file: Path) -> ImageOrientation | None:
    """What an annotation file's coordinates and sizes refer to, from ``info.image_orientation``; None if it is silent.

    Raises InputError for anything but ``stored`` and ``displayed``.
    """
    info = content.get("info")
    stated = info.get("image_orientation") if isinstance(info, dict) else None
    if stated not in (None, *get_args(ImageOrientation)):
        raise InputError(
            f"{file}: info.image_orientation is {stated!r:.40}; write stored (coordinates refer to the pixels as they "
            "lie in the files), displayed (to pictures turned as their EXIF says), or leave it out"
        )
    return stated


@dataclass(frozen=True, eq=False)
class ImageEntries:
    """The images of an annotation file, in its order, as ``PersonInstances`` holds them."""

    ids: IntArray
    file_names: npt.NDArray[np.str_]
    heights: npt.NDArray[np.int32]
    widths: npt.NDArray[np.int32]


class _Selection:
    """Which records are kept; each one left out is counted once, under the first reason that applied."""

    def __init__(self, num_records: int, left_out_before: Mapping[str, int] | None = None) -> None:
        self.kept: BoolArray = np.ones(num_records, dtype=np.bool_)
        self._left_out = dict(left_out_before or {})
        self._num_read = num_records + sum(self._left_out.values())

    def leave_out(self, condition: BoolArray, reason: str) -> None:
        self._left_out[reason] = int((self.kept & condition).sum())
        self.kept &= ~condition

    def leave_out_of(self, indices: IntArray, condition: BoolArray, reason: str) -> None:
        everywhere = np.zeros(len(self.kept), dtype=np.bool_)
        everywhere[indices[condition]] = True
        self.leave_out(everywhere, reason)

    def remaining(self) -> IntArray:
        return np.flatnonzero(self.kept)

    def counts(self) -> dict[str, int]:
        return {"read": self._num_read, "kept": int(self.kept.sum()), **self._left_out}


def _assemble(
    folder: Path,
    images: ImageEntries,
    image_of_instance: IntArray,
    *,
    instance_ids: IntArray,
    boxes_xywh: FloatArray,
    box_scores: npt.NDArray[np.float32],
    keypoints_in_image: npt.NDArray[np.float32],
    visibility: npt.NDArray[np.uint8],
    counts: dict[str, int],
    categories: Mapping[int, str],
    record: Literal["annotation", "detection"],
    source_file: Path,
    image_orientation: ImageOrientation | None,
) -> PersonInstances:
    """Sort the instances by image and keep only the images that hold one."""
    order = np.argsort(image_of_instance, kind="stable")
    used, compact = np.unique(image_of_instance[order], return_inverse=True)
    return PersonInstances(
        image_folder=folder,
        image_ids=images.ids[used],
        file_names=images.file_names[used],
        image_heights=images.heights[used],
        image_widths=images.widths[used],
        image_of_instance=compact.astype(np.int32),
        instance_ids=instance_ids[order].astype(np.int64),
        boxes_xywh=boxes_xywh[order],
        box_scores=box_scores[order],
        keypoints_in_image=keypoints_in_image[order],
        visibility=visibility[order],
        counts=counts,
        categories=categories,
        record=record,
        source_file=source_file,
        image_orientation=image_orientation,
    )


def _remembered(
    contents: Sequence[bytes],
    settings: Sequence[object],
    read: Callable[[], PersonInstances],
    record: Literal["annotation", "detection"],
    file: Path,
    image_folder: str | Path,
) -> PersonInstances:
    """What ``read`` gives, from the index where there is one for these contents and settings; small files as they are.

    Only what has been read without an error is kept. The text of this module is a part of the key, so that other rules
    make another index.
    """
    if sum(map(len, contents)) < WORTH_KEEPING:
        return read()
    key = digest_of([*contents, Path(__file__).read_bytes()], [record, *settings])
    arrays = remembered_arrays(key, lambda: _index_of(read()), _is_index)
    counts = dict(zip(arrays["reasons"].tolist(), arrays["numbers"].tolist(), strict=True))
    counted = dict(zip(arrays["category_ids"].tolist(), arrays["category_names"].tolist(), strict=True))
    return PersonInstances(
        image_folder=existing_folder(image_folder),
        counts=counts,
        categories=counted,
        record=record,
        source_file=file,
        image_orientation=_ORIENTATIONS[int(arrays["image_orientation"])],
        **{name: arrays[name] for name in _TYPES_IN_INDEX.keys() - _CONVERTED_FROM_INDEX},
    )


# Of which kind, and with which axes: M images, N instances, K keypoints, C counts, L categories.
_TYPES_IN_INDEX = {
    "image_ids": ("int64", "M"),
    "file_names": ("U", "M"),
    "image_heights": ("int32", "M"),
    "image_widths": ("int32", "M"),
    "image_of_instance": ("int32", "N"),
    "instance_ids": ("int64", "N"),
    "boxes_xywh": ("float64", "N4"),
    "box_scores": ("float32", "N"),
    "keypoints_in_image": ("float32", "NK2"),
    "visibility": ("uint8", "NK"),
    "reasons": ("U", "C"),
    "numbers": ("int64", "C"),
    "category_ids": ("int64", "L"),
    "category_names": ("U", "L"),
    "image_orientation": ("int64", ""),
}
_CONVERTED_FROM_INDEX = {"reasons", "numbers", "category_ids", "category_names", "image_orientation"}
_ORIENTATIONS: tuple[ImageOrientation | None, ...] = (None, *get_args(ImageOrientation))


def _index_of(people: PersonInstances) -> Arrays:
    converted: dict[str, npt.NDArray[Any]] = {
        "reasons": np.array(list(people.counts), np.str_),
        "numbers": np.array([*people.counts.values()], int),
        "category_ids": np.array(list(people.categories), int),
        "category_names": np.array([*people.categories.values()], np.str_),
        "image_orientation": np.array(_ORIENTATIONS.index(people.image_orientation)),
    }
    return {name: converted[name] if name in converted else getattr(people, name) for name in _TYPES_IN_INDEX}


def _is_index(arrays: Arrays) -> bool:
    """Whether the arrays have the names, types and axes of an index."""
    if arrays.keys() != _TYPES_IN_INDEX.keys():
        return False
    lengths = {"4": 4, "2": 2}
    for name, (kind, axes) in _TYPES_IN_INDEX.items():
        array = arrays[name]
        if array.ndim != len(axes) or (array.dtype.kind != "U" if kind == "U" else array.dtype != kind):
            return False
        if any(lengths.setdefault(axis, length) != length for axis, length in zip(axes, array.shape, strict=True)):
            return False
    return True


def _leave_out_boxes(
    boxes: FloatArray,
    images: ImageEntries,
    image_of_box: IntArray,
    record_of_box: IntArray,
    selection: _Selection,
    *,
    clip: bool,
) -> FloatArray:
    """The boxes, clipped if asked; those without area or outside their image leave the selection."""
    selection.leave_out_of(record_of_box, np.any(boxes[:, 2:] <= 0, axis=1), "with a box without area")
    sizes = np.stack([images.widths[image_of_box], images.heights[image_of_box]], axis=1).astype(np.float64)
    corners = np.stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    clipped = np.clip(corners, 0, sizes - 1)
    inside = clipped[1] - clipped[0]
    if clip:
        selection.leave_out_of(record_of_box, ~(inside > 0).all(axis=1), "with a box outside the image")
        return np.concatenate([clipped[0], inside], axis=1)
    touches = (corners[1] > 0).all(axis=1) & (corners[0] < sizes).all(axis=1)
    selection.leave_out_of(record_of_box, ~touches, "with a box outside the image")
    return boxes


def existing_folder(image_folder: str | Path) -> Path:
    """The folder's absolute path, its links followed; InputError where there is none."""
    folder = Path(image_folder)
    if not folder.is_dir():
        raise InputError(f"image folder {folder} does not exist; give the folder that holds the image files")
    return folder.resolve()


class _ImageRecord(TypedDict, total=False):
    id: Any
    file_name: Any
    height: Any
    width: Any


class _PersonRecord(TypedDict, total=False):
    id: Any
    image_id: Any
    category_id: Any
    iscrowd: Any
    keypoints: Any
    bbox: Any
    area: Any
    num_keypoints: Any


class _DetectionRecord(TypedDict, total=False):
    image_id: Any
    category_id: Any
    bbox: Any
    score: Any


class _CategoryOfRecord(TypedDict, total=False):
    category_id: Any


class _ImageFields(TypedDict, total=False):
    """What reading detections needs of an annotation file."""

    info: Any
    images: list[_ImageRecord]
    categories: Any
    annotations: list[_CategoryOfRecord]


class _AnnotationFields(TypedDict, total=False):
    """What reading people needs of an annotation file."""

    info: Any
    images: list[_ImageRecord]
    categories: Any
    annotations: list[_PersonRecord]


def read_json(file: Path) -> Any:
    """What a JSON file holds; InputError where it cannot be read or is no JSON."""
    return _everything(_read_bytes(file), file)


def read_annotated_people(file: Path) -> dict[str, Any]:
    """What training and evaluation read of a COCO annotation file; InputError where that is no JSON object."""
    return _annotation_object(_needed_fields(_read_bytes(file), file, _AnnotationFields), file)


def read_annotation_file(file: Path) -> dict[str, Any]:
    """What a COCO annotation file holds; InputError where that is no JSON object."""
    return _annotation_object(read_json(file), file)


def read_detection_file(file: Path) -> list[Any]:
    """The entries of a COCO detection file; InputError where it is no list, or an empty one."""
    return _detection_list(read_json(file), file)


def _read_bytes(file: Path) -> bytes:
    """A file's bytes; without the mark that editors on Windows put in front of UTF-8, which is no part of JSON."""
    try:
        return file.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{file}: cannot be read ({reason}); give the path of a COCO JSON file") from error


def _needed_fields(data: bytes, file: Path, fields: Any) -> Any:
    """What a JSON text holds, at least the ``fields`` (a type of dicts and lists); the values as Python reads them."""
    try:
        with _garbage_collection_paused():
            return msgspec.json.decode(data, type=fields)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # Not JSON, or with NaN, or not made of the expected lists and objects: Python's parser accepts more, and who
        # reads its result says what is wrong with which entry.
        return _everything(data, file)


def _everything(data: bytes, file: Path) -> Any:
    try:
        with _garbage_collection_paused():
            return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        # ValueError covers text that is not UTF-8 and JSON that is malformed, cut off, or empty.
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: not valid JSON ({reason}); check that the file is complete") from error


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Looking for cycles among millions of new lists, of which none is garbage, takes as long as making them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _annotation_object(content: Any, file: Path) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise InputError(
            f"{file}: an annotation file is an object with images and annotations, not a "
            f"{type(content).__name__}; "
            "give a COCO keypoint file"
        )
    return content


def _detection_list(records: Any, file: Path) -> list[Any]:
    if not isinstance(records, list):
        raise InputError(
            f"{file}: a detection file is a list of image_id, category_id, bbox and score, not an object; "
            "give the detector's results, not an annotation file"
        )
    if not records:
        raise InputError(f"{file}: holds no detections; give a file with at least one box, or use the annotated boxes")
    return records


def list_of(content: dict[str, Any], key: str, file: Path) -> list[Any]:
    """The list ``key`` of an annotation file; InputError where it is absent."""
    found = content.get(key)
    if not isinstance(found, list):
        raise InputError(f"{file}: has no list {key!r}; an annotation file holds at least one entry there")
    return found


def entries(content: dict[str, Any], key: str, file: Path) -> list[Any]:
    """The list ``key`` of an annotation file; InputError where it is absent or empty."""
    found = list_of(content, key, file)
    if not found:
        raise InputError(f"{file}: has an empty list {key!r}; an annotation file holds at least one entry there")
    return found


def read_images(content: dict[str, Any], file: Path) -> ImageEntries:
    """The images of an annotation file; InputError for the first entry that cannot be used, or a repeated id."""
    records = entries(content, "images", file)
    read_image_ids(records, file)
    return images_of(records, file)


def read_image_ids(records: Sequence[Any], file: Path) -> IntArray:
    """(images,) ids of image entries; InputError for one without, or a repeated one."""
    ids = integers(records, "id", file, lambda i: f"image number {i + 1}")
    _refuse_repeated_ids(ids, "image", file)
    return ids


def images_of(records: Sequence[Any], file: Path, *, first_number: int = 1) -> ImageEntries:
    """Image entries as arrays; ``first_number`` is the place in the file, from 1, of the first. Ids may repeat."""
    ids = integers(records, "id", file, lambda i: f"image number {first_number + i}")

    def name(index: int) -> str:
        return f"image {ids[index]}"

    sizes = {}
    for side in ("height", "width"):
        sizes[side] = integers(records, side, file, name)
        wrong = np.flatnonzero((sizes[side] < 1) | (sizes[side] > np.iinfo(np.int32).max))
        if len(wrong):
            raise InputError(
                f"{file}: {name(wrong[0])} has {side} {sizes[side][wrong[0]]}; give its size in pixels, at least 1"
            )
    file_names = _column(records, "file_name", file, name)
    for index, file_name in enumerate(file_names):
        if not isinstance(file_name, str) or not file_name or "\0" in file_name:
            raise InputError(f"{file}: {name(index)} has file_name {file_name!r}; give the name of an image file")
        if file_name[0] == "/" or (".." in file_name and ".." in PurePosixPath(file_name).parts):
            raise InputError(
                f"{file}: {name(index)} has file_name {file_name!r}, which leaves the image folder; "
                "names must be relative to the folder and without '..'"
            )
    return ImageEntries(
        ids=ids,
        file_names=np.array(file_names, dtype=np.str_),
        heights=sizes["height"].astype(np.int32),
        widths=sizes["width"].astype(np.int32),
    )


def read_keypoints(records: Sequence[Any], skeleton: Skeleton, file: Path, name: Callable[[int], str]) -> FloatArray:
    """(records, K, 3) x, y and visibility of annotations; ``name(i)`` says which one record i is, for messages."""
    flat = number_rows(
        records,
        "keypoints",
        3 * skeleton.num_keypoints,
        file,
        name,
        meaning=f"x, y, visibility of the {skeleton.num_keypoints} keypoints of skeleton {skeleton.name}",
    )
    keypoints = flat.reshape(-1, skeleton.num_keypoints, 3)
    odd = ~np.isin(keypoints[..., 2], (0, 1, 2)).all(axis=1)
    if odd.any():
        raise InputError(
            f"{file}: {name(int(np.flatnonzero(odd)[0]))} has a visibility other than 0 (not labelled), "
            "1 (hidden) and 2 (visible); correct the third number of each keypoint"
        )
    return keypoints


def read_boxes(records: Sequence[Any], file: Path, name: Callable[[int], str]) -> FloatArray:
    """(records, 4) boxes of annotations or detections, of any sign and size."""
    return number_rows(records, "bbox", 4, file, name, meaning="x, y, width, height in pixels")


def read_scores(records: Sequence[Any], file: Path, name: Callable[[int], str]) -> FloatArray:
    """(records,) scores of detections."""
    return number_rows(records, "score", None, file, name, meaning="the detector's confidence")[:, 0]


def counted_categories(
    content: dict[str, Any],
    file: Path,
    skeleton: Skeleton | None,
    chosen: Sequence[str | int] | None = None,
    *,
    option: str = "data.categories",
) -> dict[int, str]:
    """Ids and names of the categories whose records count, annotations and detections alike: the rule for all readers.

    ``chosen`` gives them by name or id. Else they are those that list keypoint names; where none does, the one that is
    called person; where none is, all that are listed; where none are, all that the annotations use. Several are one
    class: they are trained on and scored together.

    Keypoint names that they list must be those of ``skeleton``, in its order; where it is None, the same in all of
    them. InputError where they are not, or where the file has none that is ``chosen``; it names ``option``.
    """
    listed = _listed_categories(content, file)
    if chosen is not None:
        ids = _chosen_ids(chosen, listed, file, option)
    else:
        ids = [number for number, entry in listed.items() if entry.get("keypoints")]
        ids = ids or [number for number, entry in listed.items() if plain_name(entry.get("name")) == "person"]
        ids = ids or list(listed) or _used_categories(content) or [DEFAULT_PERSON_CATEGORY]
    _require_same_keypoints({number: listed[number] for number in ids if number in listed}, file, skeleton, option)
    return {number: str(listed.get(number, {}).get("name", number)) for number in ids}


def _listed_categories(content: dict[str, Any], file: Path) -> dict[int, dict[str, Any]]:
    categories = content.get("categories") or []
    if not isinstance(categories, list) or not all(isinstance(entry, dict) for entry in categories):
        raise InputError(f"{file}: 'categories' must be a list of objects; correct it or leave it out")
    ids = integers(categories, "id", file, lambda i: f"category {categories[i].get('name')!r}")
    _refuse_repeated_ids(ids, "category", file)
    return dict(zip(ids.tolist(), categories, strict=True))


def _chosen_ids(chosen: Sequence[str | int], listed: dict[int, dict[str, Any]], file: Path, option: str) -> list[int]:
    ids: list[int] = []
    for wanted in chosen:
        if type(wanted) is int:
            found = [wanted] if wanted in listed or not listed else []
        else:
            found = [n for n, entry in listed.items() if plain_name(entry.get("name")) == plain_name(wanted)]
        if not found:
            known = ", ".join(f"{entry.get('name')} ({number})" for number, entry in listed.items())
            raise InputError(f"{option}: {file} has no category {wanted!r}; it lists {known[:200] or 'none'}")
        ids += found
    if not ids:
        raise InputError(f"{option}=[]: give names or ids of categories, or null")
    return sorted(set(ids))


def _used_categories(content: dict[str, Any]) -> list[int]:
    records = content.get("annotations")
    records = records if isinstance(records, list) else []
    used = [record.get("category_id") for record in records if isinstance(record, dict)]
    return sorted({number for number in used if type(number) is int})


def _require_same_keypoints(
    counted: dict[int, dict[str, Any]], file: Path, skeleton: Skeleton | None, option: str
) -> None:
    with_keypoints = {number: entry["keypoints"] for number, entry in counted.items() if entry.get("keypoints")}
    if not with_keypoints:
        return
    first = next(iter(with_keypoints))
    names, owner = (
        (with_keypoints[first], f"category {first}")
        if skeleton is None
        else (skeleton.keypoint_names, f"skeleton {skeleton.name}")
    )
    advice = "choose the skeleton of this data set" if skeleton is not None else "they cannot be one class"
    if len(with_keypoints) > 1:
        advice += f", or some of the categories with {option}=[{counted[first].get('name', first)}]"
    for number, theirs in with_keypoints.items():
        if not isinstance(theirs, list) or len(theirs) != len(names):
            found = len(theirs) if isinstance(theirs, list) else f"{theirs!r:.40} in place of"
            raise InputError(f"{file}: category {number} lists {found} keypoints, {owner} has {len(names)}; {advice}")
        for position, (their, our) in enumerate(zip(theirs, names, strict=True), start=1):
            if plain_name(their) != plain_name(our):
                raise InputError(
                    f"{file}: keypoint {position} is {their!r} in category {number} and {our!r} in {owner}; {advice}"
                )


def category_names(counted: Mapping[int, str]) -> str:
    """The categories in words, for a message: ``category person``, or ``categories cat, dog as one class``."""
    names = [printable(name) for name in counted.values()]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"category {shown}" if len(names) == 1 else f"categories {shown} as one class"


def require_counted(
    category_ids: IntArray, counted: Mapping[int, str], file: Path, counted_in: Path, records: str
) -> None:
    """InputError where there are records and not one is of a category that counts."""
    if not len(category_ids) or np.isin(category_ids, list(counted)).any():
        return
    theirs = ", ".join(map(str, np.unique(category_ids)[:10].tolist()))
    ours = ", ".join(f"{number} ({name})" for number, name in list(counted.items())[:10])
    raise InputError(
        f"{file}: none of its {len(category_ids)} {records} is of a category that counts: they are of {theirs}, and in "
        f"{counted_in.name} {ours} counts; correct category_id, or choose with data.categories=[<name or id>, ...]"
    )


def _refuse_repeated_ids(ids: IntArray, kind: str, file: Path) -> None:
    unique, counts = np.unique(ids, return_counts=True)
    repeated = unique[counts > 1]
    if len(repeated):
        plural = "categories" if kind == "category" else f"{kind}s"
        raise InputError(
            f"{file}: {kind} id {repeated[0]} is given to {counts[counts > 1][0]} {plural} "
            f"({len(repeated)} ids are repeated); every {kind} needs an id of its own"
        )


def look_up_images(image_ids: IntArray, known: IntArray, file: Path, kind: str) -> IntArray:
    """Index of each image id among those that are ``known``."""
    order = np.argsort(known)
    position = np.searchsorted(known, image_ids, sorter=order)
    found: IntArray = order[np.minimum(position, len(order) - 1)] if len(order) else np.zeros_like(image_ids)
    unknown = known[found] != image_ids if len(order) else np.ones_like(image_ids, dtype=np.bool_)
    if unknown.any():
        missing = np.unique(image_ids[unknown])
        examples = ", ".join(map(str, missing[:3].tolist())) + (", ..." if len(missing) > 3 else "")
        raise InputError(
            f"{file}: {int(unknown.sum())} {kind}s are in {len(missing)} images that the annotation file "
            "does not list "
            f"(image_id {examples}); give files of the same data set"
        )
    return found


def _column(records: Sequence[Any], field_name: str, file: Path, name: Callable[[int], str]) -> list[Any]:
    try:
        return [record[field_name] for record in records]
    except (KeyError, TypeError, IndexError):
        for index, record in enumerate(records):
            if not isinstance(record, dict):
                raise InputError(f"{file}: {name(index)} is {record!r:.40}, not an object; correct it") from None
            if field_name not in record:
                raise InputError(f"{file}: {name(index)} has no {field_name!r}; add it or remove the entry") from None
        raise


def integers(records: Sequence[Any], field_name: str, file: Path, name: Callable[[int], str]) -> IntArray:
    """(records,) whole numbers of one field; InputError for the first record without one."""
    values = _column(records, field_name, file, name)
    # The exact type, because a text of digits, a fraction or a truth value would be converted without a word.
    if set(map(type, values)) - {int} or (values and not -(2**63) <= min(values) <= max(values) < 2**63):
        for index, value in enumerate(values):
            if type(value) is not int or not -(2**63) <= value < 2**63:
                raise InputError(f"{file}: {name(index)} has {field_name} {value!r:.40}; it must be a whole number")
    return np.array(values, dtype=np.int64)


def read_areas(
    records: Sequence[Any], boxes_xywh: FloatArray, area: AreaSource, file: Path, name: Callable[[int], str]
) -> FloatArray:
    """(records,) areas in square pixels, by which OKS judges errors: as annotated, or from the boxes (records, 4)."""
    if area == "box":
        return AREA_OF_BOX * _box_areas(boxes_xywh)
    absent = [index for index, record in enumerate(records) if record.get("area") is None]
    if absent:
        raise InputError(
            f"{file}: {len(absent)} of {len(records)} annotations have no 'area', first {name(absent[0])}, and "
            f"evaluation needs it; add it, or set data.area=box to take {AREA_OF_BOX:g} x width x height of the box, "
            "as for CrowdPose"
        )
    areas = number_rows(records, "area", None, file, name, meaning="square pixels of the person")[:, 0]
    negative = np.flatnonzero(areas < 0)
    if len(negative):
        raise InputError(
            f"{file}: {name(int(negative[0]))} has area {areas[negative[0]]:g}; correct it, or set data.area=box"
        )
    return areas


def _box_areas(boxes_xywh: FloatArray) -> FloatArray:
    sides = np.maximum(boxes_xywh[:, 2:], 0)
    return np.asarray(sides[:, 0] * sides[:, 1])


@dataclass(frozen=True, eq=False)
class ImplausibleAreas:
    """People whose area no segment of a person in their box would have; ``where`` (n,) and the effect on OKS."""

    where: BoolArray
    tolerance: float
    """Median over them: the error that OKS allows, by the error that it would allow for ``AREA_OF_BOX`` of the box."""

    def effect(self) -> str:
        """What it does, in words."""
        direction = "low" if self.tolerance < 1 else "high"
        return (
            f"AP is too {direction}, since OKS allows errors {self.tolerance:.2g} times those for {AREA_OF_BOX:g} x "
            "width x height of the box"
        )


def implausible_areas(areas: FloatArray, boxes_xywh: FloatArray) -> list[ImplausibleAreas]:
    """People whose area is far too small for their box, and those whose area is that of the box or larger.

    In COCO half of the people fill 0.4 to 0.6 of their box, and hardly one less than 0.05 or more than 0.98. Where half
    of a file's people are below 0.2, areas and boxes do not belong together, and all of these count. ``areas`` (n,) and
    ``boxes_xywh`` (n, 4) are in pixels; NaN is passed over.
    """
    shares = areas / np.maximum(_box_areas(boxes_xywh), 1e-6)  # a box without area is smaller than any segment
    known = np.isfinite(shares)
    low = 0.05 if not known.any() or np.median(shares[known]) >= 0.2 else 0.2
    return [
        ImplausibleAreas(where, float(np.sqrt(np.median(shares[where]) / AREA_OF_BOX)))
        for where in (known & (shares < low), known & (shares >= 0.98))
        if where.any()
    ]


def counts_or(
    default: int | IntArray, records: Sequence[Any], field_name: str, file: Path, name: Callable[[int], str]
) -> IntArray:
    """(records,) counts from 0 on, or true and false, of one field; ``default`` where a record leaves it out."""
    defaults = np.broadcast_to(default, len(records)).tolist()
    values = [record.get(field_name, other) for record, other in zip(records, defaults, strict=True)]
    for index, value in enumerate(values):
        if type(value) not in (int, bool) or not 0 <= value < 2**63:
            raise InputError(f"{file}: {name(index)} has {field_name} {value!r:.40}; give a count, or leave it out")
    return np.array(values, dtype=np.int64)


def number_rows(
    records: Sequence[Any],
    field_name: str,
    length: int | None,
    file: Path,
    name: Callable[[int], str],
    *,
    meaning: str,
) -> FloatArray:
    """(records, length) finite numbers of one field; ``length`` None for a field that is a single number."""
    values = _column(records, field_name, file, name)
    if length is None:
        rows: list[Any] = [[value] for value in values]
        length = 1
    else:
        rows = values
        for index, row in enumerate(rows):
            if not isinstance(row, list) or len(row) != length:
                found = f"{len(row)} numbers" if isinstance(row, list) else f"{row!r:.40}"
                raise InputError(f"{file}: {name(index)} has {found} in {field_name!r}; it needs {length} ({meaning})")
    try:
        if set(map(type, chain.from_iterable(rows))) - {int, float}:
            raise OverflowError
        numbers = np.fromiter(chain.from_iterable(rows), dtype=np.float64, count=len(rows) * length)
        if not (np.abs(numbers) <= LARGEST_NUMBER).all():
            raise OverflowError
    except OverflowError:
        for index, row in enumerate(rows):
            for value in row:
                # An integer of 400 digits is a number to Python, and none to numpy; NaN fails the comparison.
                if type(value) not in (int, float) or not abs(value) <= LARGEST_NUMBER:
                    raise InputError(
                        f"{file}: {name(index)} has {value!r:.40} in {field_name!r}; it needs finite numbers "
                        f"below {LARGEST_NUMBER:g} ({meaning})"
                    ) from None
        raise
    return numbers.reshape(len(rows), length)
