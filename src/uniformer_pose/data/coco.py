"""COCO annotations and detections -> person instances: flat arrays, no object per person.

``coco_json`` reads the files, ``categories`` says whose records count, and ``annotation_parts`` gives those of an
annotation file, for training and for scoring.

Two kinds of defect are told apart. What makes a file contradict itself or the skeleton (a missing field, a
NaN, a repeated id) is an InputError that names the file and the entry. What is ordinary in good files (a
crowd, a person without labelled keypoints, a box without area) is left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.categories import counted_categories, require_counted
from uniformer_pose.data.coco_json import (
    LARGEST_NUMBER,
    AnnotationFile,
    FloatArray,
    ImageOrientation,
    ImageRecord,
    IntArray,
    boxes_are_uncut,
    boxes_of,
    garbage_collection_paused,
    image_problem,
    keypoints_of,
    places_of,
    read_annotation_file,
    read_detection_file,
    refuse,
    refuse_repeated_ids,
    scores_of,
    stated_counts_of,
    stated_orientation,
    typed_annotations,
)
from uniformer_pose.data.people import PersonInstances
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton

__all__ = ["ImageOrientation", "PersonInstances", "read_detections", "read_ground_truth"]

BoolArray = npt.NDArray[np.bool_]
Columns = dict[str, npt.NDArray[Any]]
"""Arrays of one length by their names: those of ``PersonInstances`` that hold a row per instance."""

AREA_OF_BOX = 0.53
"""Of width x height: what a person fills of its box on average, and what data sets without areas are scored by."""

AreaSource = Literal["annotated", "box"]

_MANY_BOXES, _SHARE_BEYOND = 10, 0.1  # boxes that are told to be corners
_AT_ONCE = 10_000  # annotations as objects of Python: 2 kB each


def read_ground_truth(
    annotation_file: str | Path,
    image_folder: str | Path,
    skeleton: Skeleton,
    *,
    categories: Sequence[str | int] | None = None,
    content: AnnotationFile[Any] | None = None,
) -> PersonInstances:
    """The annotated people of a COCO keypoint file: no crowd, a box with area, a labelled keypoint.

    A box's corners are moved into [0, W - 1] and [0, H - 1], as MMPose does for training and for evaluation with
    annotated boxes, unless the file says that they are ``uncut``. How many keypoints are labelled is counted from the
    visibilities, so ``num_keypoints`` is not needed; nor are ``area``, ``segmentation`` and ``iscrowd`` (absent means
    no crowd).

    ``categories``: names or ids of those whose annotations are people; None leaves it to ``counted_categories``.
    ``content``: what the file holds, where it has been read. Raises InputError on a file that is structurally wrong
    (see the module's text), and where it has annotations but none of a category that counts.
    """
    file = Path(annotation_file)
    content = content or read_annotation_file(file)
    folder, images = existing_folder(image_folder), images_of(content.images, file)
    counted = categories_of(content, file, skeleton, categories)
    num_read, orientation = len(content.annotations or []), stated_orientation(content.info, file)
    uncut, left_out = boxes_are_uncut(content.info, file), Counter[str]()
    parts = [
        _people_of(part, images.sizes_wh, left_out, uncut=uncut)
        for part in annotation_parts(content, file, skeleton, counted)
    ]
    del content  # a large file's text goes before its arrays are copied
    return sorted_by_image(
        folder,
        images,
        parts,
        counts=counts_of(num_read, parts, left_out),
        categories=counted,
        source_file=file,
        image_orientation=orientation,
    )


def _people_of(found: Annotations, sizes_wh: npt.NDArray[np.int32], left_out: Counter[str], *, uncut: bool) -> Columns:
    """The annotated people to train on; ``sizes_wh`` are those of all images."""
    low, inside = clipped_boxes(found.boxes_xywh, sizes_wh[found.image_of_record])
    kept = kept_of(
        {
            "crowd": found.is_crowd,
            "without labelled keypoint": (found.keypoints[..., 2] == 0).all(axis=1),
            "with a box without area": (found.boxes_xywh[:, 2:] <= 0).any(axis=1),
            "with a box outside the image": (inside <= 0).any(axis=1),
        },
        left_out,
    )
    return {
        "image_of_instance": found.image_of_record[kept].astype(np.int32),
        "instance_ids": found.ids[kept],
        "boxes_xywh": (found.boxes_xywh if uncut else np.concatenate([low, inside], axis=1))[kept],
        "box_scores": np.ones(int(kept.sum()), dtype=np.float32),
        "keypoints_in_image": found.keypoints[kept, :, :2].astype(np.float32),
        "visibility": found.keypoints[kept, :, 2].astype(np.uint8),
    }


def read_detections(
    detection_file: str | Path,
    annotation_file: str | Path,
    image_folder: str | Path,
    skeleton: Skeleton,
    *,
    categories: Sequence[str | int] | None = None,
) -> PersonInstances:
    """The person boxes of a COCO detection file: a list of image_id, category_id, bbox and score.

    Boxes are not clipped and keep their scores. The annotation file gives names and sizes of the images, and with
    ``categories`` says which categories count (``counted_categories``). Raises InputError on a structurally wrong file,
    on images the annotation file does not know, and where no detection is of a category that counts.
    """
    file, images_file = Path(detection_file), Path(annotation_file)
    content, records = read_annotation_file(images_file), read_detection_file(file)
    folder, images = existing_folder(image_folder), images_of(content.images, images_file)
    counted = categories_of(content, images_file, skeleton, categories)
    image_ids = _integers(record.image_id for record in records)
    image_of_record = places_of(image_ids, images.ids, np.argsort(images.ids), file, "detections")
    category_ids = _integers(record.category_id for record in records)
    require_counted(category_ids.tolist(), counted, file, "detections")
    scores, problems = scores_of(records)
    refuse(problems, records, file)
    boxes, problems = boxes_of(records)
    refuse(problems, records, file)
    sizes = images.sizes_wh[image_of_record]
    _refuse_corners(boxes, sizes, file)
    touches = (boxes[:, :2] + boxes[:, 2:] > 0).all(axis=1) & (boxes[:, :2] < sizes).all(axis=1)
    left_out: Counter[str] = Counter()
    kept = kept_of(
        {
            "of another category": ~np.isin(category_ids, list(counted)),
            "with a box without area": (boxes[:, 2:] <= 0).any(axis=1),
            "with a box outside the image": ~touches,
        },
        left_out,
    )
    num_kept = int(kept.sum())
    parts: list[Columns] = [
        {
            "image_of_instance": image_of_record[kept].astype(np.int32),
            "instance_ids": np.flatnonzero(kept),
            "boxes_xywh": boxes[kept],
            "box_scores": scores[kept].astype(np.float32),
            "keypoints_in_image": np.zeros((num_kept, skeleton.num_keypoints, 2), dtype=np.float32),
            "visibility": np.zeros((num_kept, skeleton.num_keypoints), dtype=np.uint8),
        }
    ]
    return sorted_by_image(
        folder,
        images,
        parts,
        counts=counts_of(len(records), parts, left_out),
        categories=counted,
        record="detection",
        source_file=file,
        image_orientation=stated_orientation(content.info, images_file),
    )


def _refuse_corners(boxes: FloatArray, sizes_wh: npt.NDArray[np.int32], file: Path) -> None:
    """InputError where boxes are two corners each: as such all lie in their images, as x, y, width, height not."""
    ends = boxes[:, :2] + boxes[:, 2:]
    beyond = (ends > 1.05 * sizes_wh + 1).any(axis=1)
    as_corners = (boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= sizes_wh + 1)
    if len(boxes) >= _MANY_BOXES and as_corners.all() and beyond.mean() > _SHARE_BEYOND:
        raise InputError(
            f"{file}: its boxes look like corners x1, y1, x2, y2, as in a sample of Human-Art's: all {len(boxes)} fit "
            f"their images so, and {int(beyond.sum())} end far outside as x, y, width, height; write the latter, or "
            "give annotated boxes (gt)"
        )


@dataclass(frozen=True, eq=False)
class Annotations:
    """G annotations of the categories that count, in the file's order: what is trained on and scored is among them.

    ``image_of_record`` (G,) indexes the file's images, ``category_ids`` (G,) are as in the file. ``boxes_xywh`` (G, 4)
    are of any sign and size, ``keypoints`` (G, K, 3) x, y and visibility, all in image pixels. ``areas`` (G,) in square
    pixels are NaN and ``num_keypoints`` (G,) -1 where the file has none of these keypoints.
    """

    ids: IntArray
    image_of_record: IntArray
    category_ids: IntArray
    is_crowd: BoolArray
    boxes_xywh: FloatArray
    keypoints: FloatArray
    areas: FloatArray
    num_keypoints: IntArray


def categories_of(
    content: AnnotationFile[Any], file: Path, skeleton: Skeleton, chosen: Sequence[str | int] | None
) -> dict[int, str]:
    """The categories of a file that count, by ``counted_categories``."""
    used = (record.category_id for record in typed_annotations(content, file))
    return counted_categories(content.categories, used, file, skeleton, chosen)


def annotations_of(
    content: AnnotationFile[Any], file: Path, skeleton: Skeleton, counted: Mapping[int, str]
) -> Annotations:
    """All the annotations that count, in one piece: see ``annotation_parts``."""
    parts = list(annotation_parts(content, file, skeleton, counted))
    return Annotations(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Annotations)))


def annotation_parts(
    content: AnnotationFile[Any], file: Path, skeleton: Skeleton, counted: Mapping[int, str]
) -> Iterator[Annotations]:
    """The annotations that count, some thousand at a time and at least one part.

    InputError for the first that cannot be used, and at the end where ids are repeated or none counts.
    """
    if content.annotations is None:
        raise InputError(f"{file}: has no list 'annotations'; give a COCO keypoint file")
    images = _integers(record.id for record in content.images)
    refuse_repeated_ids(images, "image", file)
    order = np.argsort(images)  # once: there may be millions
    records, ids, category_ids = typed_annotations(content, file), [], set()
    for _ in range(len(content.annotations) // _AT_ONCE + 1):
        with garbage_collection_paused():
            part = list(islice(records, _AT_ONCE))
        category_ids |= {record.category_id for record in part}
        part = [record for record in part if record.category_id in counted]
        keypoints, problems = keypoints_of(part, skeleton)
        refuse(problems, part, file)
        boxes, problems = boxes_of(part)
        refuse(problems, part, file)
        ids.append(_integers(record.id for record in part))
        image_ids = _integers(record.image_id for record in part)
        yield Annotations(
            ids=ids[-1],
            image_of_record=places_of(image_ids, images, order, file, "annotations"),
            category_ids=_integers(record.category_id for record in part),
            is_crowd=np.array([bool(record.iscrowd) for record in part], dtype=np.bool_),
            boxes_xywh=boxes,
            keypoints=keypoints,
            areas=np.array([np.nan if record.area is None else record.area for record in part], dtype=np.float64),
            num_keypoints=stated_counts_of(part, skeleton),
        )
    refuse_repeated_ids(np.concatenate(ids), "annotation", file)
    require_counted(category_ids, counted, file, "annotations")


@dataclass(frozen=True, eq=False)
class ImageEntries:
    """The M images of an annotation file, in its order, as ``PersonInstances`` holds them; ``sizes_wh`` (M, 2)."""

    ids: IntArray
    file_names: npt.NDArray[np.str_]
    sizes_wh: npt.NDArray[np.int32]


def images_of(records: Sequence[ImageRecord], file: Path) -> ImageEntries:
    """The images of an annotation file; InputError for the first that cannot be used, or a repeated id."""
    ids = _integers(record.id for record in records)
    refuse_repeated_ids(ids, "image", file)
    for record in records:
        problem = image_problem(record)
        if problem is not None:
            raise InputError(f"{file}: image {record.id} {problem}")
    return ImageEntries(
        ids=ids,
        file_names=np.array([record.file_name for record in records], dtype=np.str_),
        sizes_wh=np.array([(record.width, record.height) for record in records], dtype=np.int32),
    )


def clipped_boxes(boxes_xywh: FloatArray, sizes_wh: npt.NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    """Left top (N, 2) and width and height (N, 2) of boxes whose corners are moved into [0, size - 1]."""
    low = np.clip(boxes_xywh[:, :2], 0, sizes_wh - 1)
    return low, np.clip(boxes_xywh[:, :2] + boxes_xywh[:, 2:], 0, sizes_wh - 1) - low


def existing_folder(image_folder: str | Path) -> Path:
    """The folder's absolute path, its links followed; InputError where there is none."""
    folder = Path(image_folder)
    if not folder.is_dir():
        raise InputError(f"image folder {folder} does not exist; give the folder that holds the image files")
    return folder.resolve()


def _integers(values: Iterable[int]) -> IntArray:
    return np.fromiter(values, dtype=np.int64)


def kept_of(reasons: Mapping[str, Any], left_out: Counter[str]) -> BoolArray:
    """Which records none of the reasons leaves out; ``left_out`` counts the others, each once, under the first."""
    kept = np.ones(len(next(iter(reasons.values()))), dtype=np.bool_)
    for reason, applies in reasons.items():
        left_out[reason] += int((kept & applies).sum())
        kept &= ~applies
    return kept


def counts_of(num_read: int, parts: Sequence[Columns], left_out: Counter[str]) -> dict[str, int]:
    """The ``counts`` of ``PersonInstances``."""
    kept = sum(len(part["instance_ids"]) for part in parts)
    return {"read": num_read, "kept": kept, "of another category": num_read - kept - left_out.total()} | left_out


def sorted_by_image(folder: Path, images: ImageEntries, parts: Sequence[Columns], **others: Any) -> PersonInstances:
    """Sort the instances by image and keep only the images that hold one; the parts are used up, to save memory."""
    columns: dict[str, Any] = {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}
    image_of_instance = columns.pop("image_of_instance")
    order = np.argsort(image_of_instance, kind="stable")
    used, compact = np.unique(image_of_instance[order], return_inverse=True)
    return PersonInstances(
        image_folder=folder,
        image_ids=images.ids[used],
        file_names=images.file_names[used],
        image_heights=images.sizes_wh[used, 1],
        image_widths=images.sizes_wh[used, 0],
        image_of_instance=compact.astype(np.int32),
        **{name: columns.pop(name)[order] for name in list(columns)},
        **others,
    )


def areas_of(found: Annotations, area: AreaSource, file: Path) -> FloatArray:
    """(G,) areas in square pixels, by which OKS judges errors: as annotated, or from the boxes."""
    if area == "box":
        return AREA_OF_BOX * _box_areas(found.boxes_xywh)
    wrong = np.flatnonzero(~((found.areas >= 0) & (found.areas <= LARGEST_NUMBER)))
    if len(wrong):
        raise InputError(
            f"{file}: {len(wrong)} of {len(found.ids)} annotations have no 'area' of 0 or more square pixels, first "
            f"annotation {found.ids[wrong[0]]}, and evaluation needs it; correct it, or set data.area=box to take "
            f"{AREA_OF_BOX:g} x width x height of the box, as for CrowdPose"
        )
    return found.areas


def _box_areas(boxes_xywh: FloatArray) -> FloatArray:
    return np.asarray(np.maximum(boxes_xywh[:, 2:], 0).prod(axis=1))


AREA_IS_BOX = (
    "width x height of their box, as OCHuman, AP-10K and Human-Art define it: AP compares with that of such sets, not "
    f"with COCO's, since OKS allows errors {AREA_OF_BOX**-0.5:.2g} times those for {AREA_OF_BOX:g} of the box "
    "(data.area=box)"
)


def areas_that_are_boxes(areas: FloatArray, boxes_xywh: FloatArray) -> BoolArray:
    """(n,) whose area is that of the box, to the digits in files: a definition, since no segment fills its box."""
    return np.asarray((areas > 0) & np.isclose(areas, _box_areas(boxes_xywh), rtol=1e-3))


def implausible_areas(areas: FloatArray, boxes_xywh: FloatArray) -> list[tuple[BoolArray, str]]:
    """People whose area is far too small for their box, and those whose area is larger than any segment in it.

    In COCO half of the people fill 0.4 to 0.6 of their box, and hardly one less than 0.05 or more than 0.98. Where half
    of a file's people are below 0.2, areas and boxes do not belong together, and all of these count. An area that is
    the box is no mistake (``areas_that_are_boxes``). ``areas`` (n,) and ``boxes_xywh`` (n, 4) are in pixels; NaN is
    skipped. Each entry: who (n,), and what it does to AP, in words.
    """
    shares = areas / np.maximum(_box_areas(boxes_xywh), 1e-6)  # a box without area is smaller than any segment
    known = np.isfinite(shares) & ~areas_that_are_boxes(areas, boxes_xywh)
    low = 0.05 if not known.any() or np.median(shares[known]) >= 0.2 else 0.2
    found = []
    for where, direction in ((known & (shares < low), "low"), (known & (shares >= 0.98), "high")):
        if where.any():
            tolerance = np.sqrt(np.median(shares[where]) / AREA_OF_BOX)
            effect = (
                f"AP is too {direction}, since OKS allows errors {tolerance:.2g} times those for {AREA_OF_BOX:g} x "
                "width x height of the box"
            )
            found.append((where, effect))
    return found
