"""Annotation files -> every defect in them, by the rules of the reader, and the people that are sound.

The reader stops at the first entry that it cannot use. Here its functions are asked about every entry; what they refuse
is counted and set aside, and the rest is looked into further.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.categories import category_names, counted_categories
from uniformer_pose.data.checking.left_right import left_right_suspicions
from uniformer_pose.data.checking.report import Findings, Severity, Split
from uniformer_pose.data.coco import AreaSource, PersonInstances, ground_truth_of, implausible_areas
from uniformer_pose.data.coco_json import (
    AnnotationFile,
    AnnotationRecord,
    CategoryRecord,
    ImageRecord,
    boxes_of,
    each_record,
    image_problem,
    keypoints_of,
    read_json,
)
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.skeleton import Skeleton

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_OVER_THE_EDGE = 1.0  # pixel: annotation tools round
_FAR_FROM_BOX = 0.2  # of the box's larger side

Add = Callable[..., None]
T = TypeVar("T", ImageRecord, AnnotationRecord)


def check_annotations(
    split: Split,
    skeleton: Skeleton,
    *,
    categories: Sequence[str | int] | None = None,
    area: AreaSource = "annotated",
    max_images: int | None = None,
) -> PersonInstances | None:
    """The people of a split's annotation file, None where there are none that can be read; defects go to its findings.

    ``max_images``: entries are all checked, since the reader stops at any; people only in the first images.
    """
    file, add = split.annotations, split.findings.add
    content = read_json(file)
    if not isinstance(content, dict) or not _list(content, "images"):
        raise InputError(f"{file}: has no list 'images' with an entry; give a COCO keypoint file")
    images = _usable(content, "images", ImageRecord, split.findings, image_problem)
    listed, problems = each_record(_list(content, "categories"), CategoryRecord)
    for number, problem in problems.items():
        add("entry_invalid", f"entry {number + 1} of 'categories' {problem}")
    known = [entry for entry in listed if entry is not None]
    image_ids = {image.id for image in images}

    def without_image(record: AnnotationRecord) -> str | None:
        return None if record.image_id in image_ids else f"is in image {record.image_id}, which is absent or unusable"

    annotations = _usable(content, "annotations", AnnotationRecord, split.findings, without_image)
    try:
        used = [record.category_id for record in annotations]
        counted = counted_categories(known, used, file, skeleton, categories)
    except InputError as error:
        add("category_keypoints_differ", without_file(error, file))
        return None
    if len(counted) > 1:
        add("several_categories", category_names(counted))
    everything = {*counted, *(entry.id for entry in known)}
    for record in annotations:
        if record.category_id not in everything:
            detail = f"annotation {record.id} is of category {record.category_id}"
            add("annotation_of_unknown_category", detail, annotation_id=record.id)
    usable = _with_box_and_keypoints([a for a in annotations if a.category_id in counted], skeleton, split.findings)
    sound = AnnotationFile(images, usable, known, content.get("info"))
    people = _as_read(sound, split, skeleton, categories, area) if usable else None
    if people is None or not len(people):
        add("no_people", f"no annotation of {file.name} is a person with a box and a labelled keypoint")
        return None
    if max_images is not None:
        people = people.first_images(max_images)
        chosen = set(people.image_ids.tolist())
        usable = [record for record in usable if record.image_id in chosen]
    _check_people(_Records.of(usable, images, skeleton), people, skeleton, split, area)
    for name, most in zip(skeleton.keypoint_names, people.visibility.max(axis=0).tolist(), strict=True):
        if not most:
            add("keypoint_never_labelled", f"{name} in none of {len(people)} people")
    return people


def without_file(error: InputError, file: Path) -> str:
    """A reader's sentence without the file it begins with: the report says it once."""
    return str(error).removeprefix(f"{file}: ")


def _list(content: dict[str, Any], name: str) -> list[Any]:
    found = content.get(name)
    return found if isinstance(found, list) else []


def _usable(
    content: dict[str, Any],
    name: str,
    kind: type[T],
    findings: Findings,
    problem_of: Callable[[T], str | None],
) -> list[T]:
    """The entries of a list whose fields have the right types, with ids of their own and no other problem."""
    typed, problems = each_record(_list(content, name), kind)
    sound: dict[int, T] = {}
    for number, record in enumerate(typed):
        problem = problems.get(number) if record is None else problem_of(record)
        if record is not None and record.id in sound:
            problem = f"has the id {record.id} of an earlier one"
        if record is not None and problem is None:
            sound[record.id] = record
        else:
            findings.add("entry_invalid", f"entry {number + 1} of {name!r} {problem}")
    return list(sound.values())


def _with_box_and_keypoints(
    records: Sequence[AnnotationRecord], skeleton: Skeleton, findings: Findings
) -> list[AnnotationRecord]:
    problems = keypoints_of(records, skeleton)[1] | boxes_of(records)[1]
    for index, problem in sorted(problems.items()):
        record_id = records[index].id
        findings.add("entry_invalid", f"annotation {record_id} {problem}", annotation_id=record_id)
    return [record for index, record in enumerate(records) if index not in problems]


def _as_read(
    sound: AnnotationFile,
    split: Split,
    skeleton: Skeleton,
    categories: Sequence[str | int] | None,
    area: AreaSource,
) -> PersonInstances | None:
    """What training reads. No error must be overlooked for which it or evaluation stops: they have the last word."""
    try:
        people = ground_truth_of(sound, split.annotations, split.images, skeleton, categories=categories)
        if split.name == "val" and (area == "box" or all(a.area is not None for a in sound.annotations or [])):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they say is counted below
                CocoGroundTruth.of(sound, split.annotations, skeleton, categories=categories, area=area)
    except InputError as error:
        split.findings.add("entry_invalid", without_file(error, split.annotations))
        return None
    return people


@dataclass(frozen=True, eq=False)
class _Records:
    """N people as annotated: boxes (N, 4), points (N, K, 2), visibility (N, K), width and height of images (N, 2)."""

    records: Sequence[AnnotationRecord]
    file_names: list[str]
    ids: npt.NDArray[np.int64]
    boxes: FloatArray
    points: FloatArray
    visibility: FloatArray
    sizes: FloatArray

    @classmethod
    def of(cls, everybody: Sequence[AnnotationRecord], images: Sequence[ImageRecord], skeleton: Skeleton) -> _Records:
        """Without crowds."""
        records = [record for record in everybody if not record.iscrowd]
        by_id = {image.id: image for image in images}
        own = [by_id[record.image_id] for record in records]
        keypoints = keypoints_of(records, skeleton)[0]
        return cls(
            records,
            [str(image.file_name) for image in own],
            np.array([record.id for record in records], dtype=np.int64),
            boxes_of(records)[0],
            keypoints[..., :2],
            keypoints[..., 2],
            np.array([(image.width, image.height) for image in own], dtype=np.float64).reshape(-1, 2),
        )


def _check_people(of: _Records, people: PersonInstances, skeleton: Skeleton, split: Split, area: AreaSource) -> None:
    """Count the defects of the people's boxes, keypoints and areas."""
    scored: Severity = "error" if split.name == "val" else "remark"

    def add(kind: str, where: BoolArray, detail: Callable[[int], str], severity: Severity | None = None) -> None:
        for i in np.flatnonzero(where).tolist():
            words, person = f"annotation {of.ids[i]} {detail(i)}", int(of.ids[i])
            split.findings.add(kind, words, file_name=of.file_names[i], annotation_id=person, severity=severity)

    labelled = np.asarray(of.visibility > 0)
    anybody = np.asarray(labelled.any(axis=1))
    kept = np.isin(of.ids, people.instance_ids)
    add(
        "box_unusable",
        np.asarray(anybody & ~kept),
        lambda i: f"has the box {_row(of.boxes[i])}; its image is {_row(of.sizes[i])}",
    )
    beyond = ((of.points < -_OVER_THE_EDGE) | (of.points > of.sizes[:, None])).any(axis=2) & labelled
    add(
        "keypoint_outside_image",
        np.asarray(beyond.any(axis=1)),
        lambda i: f"has {beyond[i].sum()}, one at {_row(of.points[i][beyond[i]][0])}; its image is {_row(of.sizes[i])}",
    )
    low, high = of.boxes[:, None, :2], of.boxes[:, None, :2] + of.boxes[:, None, 2:]
    reach = _FAR_FROM_BOX * of.boxes[:, 2:].max(axis=1, initial=0)
    far = np.maximum(low - of.points, of.points - high).max(axis=2) > reach[:, None]
    far &= labelled & ~beyond & kept[:, None]
    add("keypoint_outside_box", far.any(axis=1), lambda i: f"has {far[i].sum()} of {labelled[i].sum()} there")
    said = [record.num_keypoints for record in of.records]
    decides = [n is not None and bool(n) != is_so for n, is_so in zip(said, anybody.tolist(), strict=True)]
    add(
        "num_keypoints_wrong",
        np.array(decides, dtype=np.bool_),
        lambda i: f"says {said[i]} and has {labelled[i].sum()} labelled",
        scored,
    )
    images = np.array([record.image_id for record in of.records], dtype=np.float64)
    rows = np.concatenate([images[:, None], of.boxes, of.points.reshape(len(images), -1)], axis=1)
    again = np.ones(len(rows), dtype=np.bool_)
    again[np.unique(rows, axis=0, return_index=True)[1]] = False
    add("annotation_repeated", again, lambda _: "repeats an earlier one of its image")
    if area == "annotated":
        _check_areas(of, anybody, kept, add, scored)
    for sentence in left_right_suspicions(of.points[kept], of.visibility[kept], of.boxes[kept], skeleton):
        split.findings.add("left_right_swapped", sentence)


def _check_areas(of: _Records, anybody: BoolArray, kept: BoolArray, add: Add, scored: Severity) -> None:
    areas = np.array([np.nan if record.area is None else record.area for record in of.records], dtype=np.float64)
    missing = np.isnan(areas) | ((areas <= 0) & anybody)
    add("area_missing", missing, lambda i: "has no area" if np.isnan(areas[i]) else f"has area {areas[i]:g}", scored)
    judged = np.flatnonzero(kept & ~missing)
    for found in implausible_areas(areas[judged], of.boxes[judged]):
        where = np.zeros(len(areas), dtype=np.bool_)
        where[judged[found.where]] = True
        words = "has area {:g} in a box of {:g} x {:g}: " + found.effect()
        add("area_implausible", where, lambda i, words=words: words.format(areas[i], *of.boxes[i, 2:]))


def _row(numbers: FloatArray) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
