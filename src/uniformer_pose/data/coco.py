"""COCO annotations and detections -> person instances: flat arrays, no object per person.

``coco_json`` reads the files, ``categories`` says whose records count, and ``read_annotations`` gives those of an
annotation file, for training and for scoring.

Two kinds of defect are told apart. What makes a file contradict itself or the skeleton (a missing field, a
NaN, a repeated id) is an InputError that names the file and the entry. What is ordinary in good files (a
crowd, a person without labelled keypoints, a box without area) is left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.categories import counted_categories, require_counted
from uniformer_pose.data.coco_json import (
    LARGEST_NUMBER,
    AnnotationFile,
    AnnotationRecord,
    FloatArray,
    ImageOrientation,
    ImageRecord,
    IntArray,
    boxes_of,
    image_problem,
    keypoints_of,
    places_of,
    read_annotation_file,
    read_detection_file,
    refuse,
    refuse_repeated_ids,
    scores_of,
    stated_orientation,
)
from uniformer_pose.data.people import PER_INSTANCE, PersonInstances
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton

__all__ = ["ImageOrientation", "PersonInstances", "read_detections", "read_ground_truth"]

BoolArray = npt.NDArray[np.bool_]

AREA_OF_BOX = 0.53
"""Of width x height: what a person fills of its box on average, and what data sets without areas are scored by."""

AreaSource = Literal["annotated", "box"]


def read_ground_truth(
    annotation_file: str | Path,
    image_folder: str | Path,
    skeleton: Skeleton,
    *,
    categories: Sequence[str | int] | None = None,
) -> PersonInstances:
    """The annotated people of a COCO keypoint file: no crowd, a box with area, a labelled keypoint.

    A box's corners are moved into [0, W - 1] and [0, H - 1], as MMPose does for training and for evaluation with
    annotated boxes. How many keypoints are labelled is counted from the visibilities, so ``num_keypoints`` is not
    needed; nor are ``area``, ``segmentation`` and ``iscrowd`` (absent means no crowd).

    ``categories``: names or ids of those whose annotations are people; None leaves it to ``counted_categories``.
    Raises InputError on a file that is structurally wrong (see the module's text), and where it has annotations but
    none of a category that counts.
    """
    file = Path(annotation_file)
    return ground_truth_of(read_annotation_file(file), file, image_folder, skeleton, categories=categories)


def ground_truth_of(
    content: AnnotationFile,
    file: Path,
    image_folder: str | Path,
    skeleton: Skeleton,
    *,
    categories: Sequence[str | int] | None = None,
) -> PersonInstances:
    """The people of ``read_ground_truth`` from what the file holds; ``file`` names it in messages."""
    folder = existing_folder(image_folder)
    images = images_of(content.images, file)
    if content.annotations is not None and not content.annotations:
        raise InputError(f"{file}: has an empty list 'annotations'; an annotation file holds at least one entry there")
    found = annotations_of(content, file, skeleton, categories)
    low, inside = clipped_boxes(found.boxes_xywh, images.sizes_wh[found.image_of_record])
    kept, counts = _kept(
        found.num_read,
        {
            "crowd": found.is_crowd,
            "without labelled keypoint": (found.keypoints[..., 2] == 0).all(axis=1),
            "with a box without area": (found.boxes_xywh[:, 2:] <= 0).any(axis=1),
            "with a box outside the image": (inside <= 0).any(axis=1),
        },
    )
    return _sorted_by_image(
        folder,
        images,
        found.image_of_record[kept],
        instance_ids=found.ids[kept],
        boxes_xywh=np.concatenate([low, inside], axis=1)[kept],
        box_scores=np.ones(int(kept.sum()), dtype=np.float32),
        keypoints_in_image=found.keypoints[kept, :, :2].astype(np.float32),
        visibility=found.keypoints[kept, :, 2].astype(np.uint8),
        counts=counts,
        categories=found.categories,
        source_file=file,
        image_orientation=stated_orientation(content.info, file),
    )


@dataclass(frozen=True, eq=False)
class Annotations:
    """The G annotations of the categories that count, in the file's order: what is trained on and scored is among them.

    ``num_read`` is how many annotations the file has, ``image_ids`` (M,) those of its images, in its order;
    ``image_of_record`` (G,) indexes these. ``boxes_xywh`` (G, 4) are of any sign and size, ``keypoints`` (G, K, 3) x, y
    and visibility, all in image pixels.
    """

    image_ids: IntArray
    categories: dict[int, str]
    num_read: int
    records: list[AnnotationRecord]
    ids: IntArray
    image_of_record: IntArray
    is_crowd: BoolArray
    boxes_xywh: FloatArray
    keypoints: FloatArray


def annotations_of(
    content: AnnotationFile, file: Path, skeleton: Skeleton, categories: Sequence[str | int] | None = None
) -> Annotations:
    """The annotations that count, by ``counted_categories``; InputError for the first that cannot be used."""
    records = content.annotations
    if records is None:
        raise InputError(f"{file}: has no list 'annotations'; give a COCO keypoint file")
    image_ids = _integers(record.id for record in content.images)
    refuse_repeated_ids(image_ids, "image", file)
    refuse_repeated_ids(_integers(record.id for record in records), "annotation", file)
    image_of_record = places_of(_integers(record.image_id for record in records), image_ids, file, "annotations")
    category_ids = _integers(record.category_id for record in records)
    counted = counted_categories(content.categories, category_ids.tolist(), file, skeleton, categories)
    require_counted(category_ids, counted, file, file, "annotations")
    rows = np.flatnonzero(np.isin(category_ids, list(counted)))
    chosen = [records[row] for row in rows.tolist()]
    keypoints, problems = keypoints_of(chosen, skeleton)
    refuse(problems, chosen, file)
    boxes, problems = boxes_of(chosen)
    refuse(problems, chosen, file)
    return Annotations(
        image_ids=image_ids,
        categories=counted,
        num_read=len(records),
        records=chosen,
        ids=_integers(record.id for record in chosen),
        image_of_record=image_of_record[rows],
        is_crowd=np.array([bool(record.iscrowd) for record in chosen], dtype=np.bool_),
        boxes_xywh=boxes,
        keypoints=keypoints,
    )


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
    folder = existing_folder(image_folder)
    images = images_of(content.images, images_file)
    used = (record.category_id for record in content.annotations or [])
    counted = counted_categories(content.categories, used, images_file, skeleton, categories)
    image_of_record = places_of(_integers(record.image_id for record in records), images.ids, file, "detections")
    category_ids = _integers(record.category_id for record in records)
    require_counted(category_ids, counted, file, images_file, "detections")
    scores, problems = scores_of(records)
    refuse(problems, records, file)
    boxes, problems = boxes_of(records)
    refuse(problems, records, file)
    sizes = images.sizes_wh[image_of_record]
    touches = (boxes[:, :2] + boxes[:, 2:] > 0).all(axis=1) & (boxes[:, :2] < sizes).all(axis=1)
    kept, counts = _kept(
        len(records),
        {
            "of another category": ~np.isin(category_ids, list(counted)),
            "with a box without area": (boxes[:, 2:] <= 0).any(axis=1),
            "with a box outside the image": ~touches,
        },
    )
    num_kept = int(kept.sum())
    return _sorted_by_image(
        folder,
        images,
        image_of_record[kept],
        instance_ids=np.flatnonzero(kept),
        boxes_xywh=boxes[kept],
        box_scores=scores[kept].astype(np.float32),
        keypoints_in_image=np.zeros((num_kept, skeleton.num_keypoints, 2), dtype=np.float32),
        visibility=np.zeros((num_kept, skeleton.num_keypoints), dtype=np.uint8),
        counts=counts,
        categories=counted,
        record="detection",
        source_file=file,
        image_orientation=stated_orientation(content.info, images_file),
    )


@dataclass(frozen=True, eq=False)
class ImageEntries:
    """The M images of an annotation file, in its order, as ``PersonInstances`` holds them."""

    ids: IntArray
    file_names: npt.NDArray[np.str_]
    heights: npt.NDArray[np.int32]
    widths: npt.NDArray[np.int32]

    @property
    def sizes_wh(self) -> FloatArray:
        """(M, 2) width and height."""
        return np.stack([self.widths, self.heights], axis=1).astype(np.float64)


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
        heights=np.array([record.height for record in records], dtype=np.int32),
        widths=np.array([record.width for record in records], dtype=np.int32),
    )


def clipped_boxes(boxes_xywh: FloatArray, sizes_wh: FloatArray) -> tuple[FloatArray, FloatArray]:
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


def _kept(num_read: int, reasons: Mapping[str, Any]) -> tuple[BoolArray, dict[str, int]]:
    """Which records none of the reasons leaves out, and the counts; each is counted once, under the first reason."""
    num_records = len(next(iter(reasons.values())))
    kept = np.ones(num_records, dtype=np.bool_)
    left_out = {"of another category": num_read - num_records}
    for reason, applies in reasons.items():
        left_out[reason] = int((kept & applies).sum())
        kept &= ~applies
    return kept, {"read": num_read, "kept": int(kept.sum()), **left_out}


def _sorted_by_image(folder: Path, images: ImageEntries, image_of_instance: IntArray, **fields: Any) -> PersonInstances:
    """Sort the instances by image and keep only the images that hold one."""
    order = np.argsort(image_of_instance, kind="stable")
    used, compact = np.unique(image_of_instance[order], return_inverse=True)
    sorted_fields = {name: value[order] if name in PER_INSTANCE else value for name, value in fields.items()}
    return PersonInstances(
        image_folder=folder,
        image_ids=images.ids[used],
        file_names=images.file_names[used],
        image_heights=images.heights[used],
        image_widths=images.widths[used],
        image_of_instance=compact.astype(np.int32),
        **sorted_fields,
    )


def areas_of(records: Sequence[AnnotationRecord], boxes_xywh: FloatArray, area: AreaSource, file: Path) -> FloatArray:
    """(records,) areas in square pixels, by which OKS judges errors: as annotated, or from the boxes (records, 4)."""
    if area == "box":
        return AREA_OF_BOX * _box_areas(boxes_xywh)
    absent = [record.id for record in records if record.area is None]
    if absent:
        raise InputError(
            f"{file}: {len(absent)} of {len(records)} annotations have no 'area', first annotation {absent[0]}, and "
            f"evaluation needs it; add it, or set data.area=box to take {AREA_OF_BOX:g} x width x height of the box, "
            "as for CrowdPose"
        )
    areas = np.array([record.area for record in records], dtype=np.float64)
    wrong = np.flatnonzero(~((areas >= 0) & (areas <= LARGEST_NUMBER)))
    if len(wrong):
        raise InputError(
            f"{file}: annotation {records[wrong[0]].id} has {areas[wrong[0]]:g} in 'area'; it needs a finite number of "
            "square pixels, 0 or more; correct it, or set data.area=box"
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
