"""Annotation files -> every defect in them, by the rules of the reader, and the people that are sound.

The reader stops at the first entry that it cannot use. Here its functions are asked about every entry; what they refuse
is counted and set aside, and the rest is looked into further.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.categories import counted_categories
from uniformer_pose.data.checking.left_right import left_right_suspicions
from uniformer_pose.data.checking.report import Severity, Split
from uniformer_pose.data.coco import (
    AREA_IS_BOX,
    Annotations,
    AreaSource,
    PersonInstances,
    annotations_of,
    areas_that_are_boxes,
    categories_of,
    images_of,
    implausible_areas,
    read_ground_truth,
)
from uniformer_pose.data.coco_json import (
    AnnotationFile,
    AnnotationRecord,
    CategoryRecord,
    ImageRecord,
    boxes_of,
    contradicted_flags,
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
Sound = AnnotationFile[AnnotationRecord]
Add = Callable[..., None]
T = TypeVar("T", ImageRecord, AnnotationRecord)

_OVER_THE_EDGE = 1.0  # pixel: annotation tools round
_FAR_FROM_BOX = 0.2  # of the box's larger side


def check_annotations(
    split: Split,
    skeleton: Skeleton,
    *,
    categories: Sequence[str | int] | None = None,
    area: AreaSource = "annotated",
    max_images: int | None = None,
) -> None:
    """Give a split the people of its annotation file, if there are any that can be read, and the defects.

    ``max_images``: entries are all checked, since the reader stops at any; people only in the first images.
    """
    sound = _sound_entries(split, skeleton, categories)
    people = _as_read(sound, split, skeleton, categories, area) if sound is not None and sound.annotations else None
    if sound is None or people is None or not len(people):
        split.add("no_people", f"no annotation of {split.annotations.name} is a person with a box and a keypoint")
        return
    if max_images is not None:
        people = people.first_images(max_images)
        chosen = set(people.image_ids.tolist())
        sound.annotations = [record for record in sound.annotations or [] if record.image_id in chosen]
    split.people = people
    _check_people(sound, split, people, skeleton, categories, area)
    for name, most in zip(skeleton.keypoint_names, people.visibility.max(axis=0).tolist(), strict=True):
        if not most:
            split.add("keypoint_never_labelled", f"{name} in none of {len(people)} people")


def without_file(error: InputError, file: Path) -> str:
    """A reader's sentence without the file it begins with: the report says it once."""
    return str(error).removeprefix(f"{file}: ")


def _sound_entries(split: Split, skeleton: Skeleton, categories: Sequence[str | int] | None) -> Sound | None:
    """The file without the entries that the reader would refuse; None where its categories do not fit the skeleton."""
    file, content = split.annotations, read_json(split.annotations)
    if not isinstance(content, dict) or not _list(content, "images"):
        raise InputError(f"{file}: has no list 'images' with an entry; give a COCO keypoint file")
    images = _usable(content, "images", ImageRecord, split, image_problem)
    listed, problems = each_record(_list(content, "categories"), CategoryRecord)
    for number, problem in problems.items():
        split.add("entry_invalid", f"entry {number + 1} of 'categories' {problem}")
    known = [entry for entry in listed if entry is not None]
    image_ids = {image.id for image in images}

    def without_image(record: AnnotationRecord) -> str | None:
        return None if record.image_id in image_ids else f"is in image {record.image_id}, which is absent or unusable"

    annotations = _usable(content, "annotations", AnnotationRecord, split, without_image)
    try:
        counted = counted_categories(known, [a.category_id for a in annotations], file, skeleton, categories)
    except InputError as error:
        split.add("category_keypoints_differ", without_file(error, file))
        return None
    for record in annotations:
        if record.category_id not in {*counted, *(entry.id for entry in known)}:
            detail = f"annotation {record.id} is of category {record.category_id}"
            split.add("annotation_of_unknown_category", detail, annotation_id=record.id)
    people = [record for record in annotations if record.category_id in counted]
    refused = keypoints_of(people, skeleton)[1] | boxes_of(people)[1]
    for index, problem in sorted(refused.items()):
        split.add("entry_invalid", f"annotation {people[index].id} {problem}", annotation_id=people[index].id)
    usable = [record for index, record in enumerate(people) if index not in refused]
    return AnnotationFile(images, usable, known, content.get("info"))


def _list(content: dict[str, Any], name: str) -> list[Any]:
    found = content.get(name)
    return found if isinstance(found, list) else []


def _usable(
    content: dict[str, Any], name: str, kind: type[T], split: Split, problem_of: Callable[[T], str | None]
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
            split.add("entry_invalid", f"entry {number + 1} of {name!r} {problem}")
    return list(sound.values())


def _as_read(
    sound: Sound,
    split: Split,
    skeleton: Skeleton,
    categories: Sequence[str | int] | None,
    area: AreaSource,
) -> PersonInstances | None:
    """What training reads. No error must be overlooked for which it or evaluation stops: they have the last word."""
    try:
        people = read_ground_truth(split.annotations, split.images, skeleton, categories=categories, content=sound)
        if split.name == "val" and (area == "box" or all(a.area is not None for a in sound.annotations or [])):
            CocoGroundTruth.load(split.annotations, skeleton, categories=categories, area=area, content=sound)
    except InputError as error:
        split.add("entry_invalid", without_file(error, split.annotations))
        return None
    return people


def _check_people(
    sound: Sound,
    split: Split,
    people: PersonInstances,
    skeleton: Skeleton,
    categories: Sequence[str | int] | None,
    area: AreaSource,
) -> None:
    """Count the defects of the people's boxes, keypoints and areas."""
    scored: Severity = "error" if split.name == "val" else "remark"
    images = images_of(sound.images, split.annotations)
    sound.annotations = [record for record in sound.annotations or [] if not record.iscrowd]
    file = split.annotations
    of = annotations_of(sound, file, skeleton, categories_of(sound, file, skeleton, categories))
    file_names, sizes = images.file_names[of.image_of_record], images.sizes_wh[of.image_of_record]
    boxes, points, labelled = of.boxes_xywh, of.keypoints[..., :2], np.asarray(of.keypoints[..., 2] > 0)

    def add(kind: str, where: BoolArray, detail: Callable[[int], str], severity: Severity | None = None) -> None:
        for i in np.flatnonzero(where).tolist():
            words = f"{file_names[i]}: annotation {of.ids[i]} {detail(i)}"
            split.add(kind, words, annotation_id=int(of.ids[i]), severity=severity)

    anybody = np.asarray(labelled.any(axis=1))
    kept = np.isin(of.ids, people.instance_ids)
    lost = np.asarray(anybody & ~kept)
    add("box_unusable", lost, lambda i: f"has the box {_row(boxes[i])}; its image is {_row(sizes[i])}")
    beyond = ((points < -_OVER_THE_EDGE) | (points > sizes[:, None])).any(axis=2) & labelled
    add(
        "keypoint_outside_image",
        np.asarray(beyond.any(axis=1)),
        lambda i: f"has {beyond[i].sum()}, one at {_row(points[i][beyond[i]][0])}; its image is {_row(sizes[i])}",
    )
    low, high = boxes[:, None, :2], boxes[:, None, :2] + boxes[:, None, 2:]
    reach = _FAR_FROM_BOX * boxes[:, 2:].max(axis=1, initial=0)
    far = np.maximum(low - points, points - high).max(axis=2) > reach[:, None]
    far &= labelled & ~beyond & kept[:, None]
    add("keypoint_outside_box", far.any(axis=1), lambda i: f"has {far[i].sum()} of {labelled[i].sum()} there")
    said = of.num_keypoints
    wrong = (said >= 0) & ((said > 0) != anybody)
    hidden = wrong & (said == 0) & (of.keypoints[..., 2] < 2).all(axis=1)  # CrowdPose counts who is visible
    words = "says {} and has {} labelled"
    add("num_keypoints_wrong", wrong & ~hidden, lambda i: words.format(said[i], labelled[i].sum()), scored)
    add("num_keypoints_wrong", hidden, lambda i: words.format(0, labelled[i].sum()) + ", all hidden: not scored")
    flags = [contradicted_flags(record) for record in sound.annotations]
    add("part_flag_wrong", np.array([bool(each) for each in flags]), lambda i: f"says so by {', '.join(flags[i])}")
    rows = np.concatenate([of.image_of_record[:, None], boxes, points.reshape(len(boxes), -1)], axis=1)
    again = np.ones(len(rows), dtype=np.bool_)
    again[np.unique(rows, axis=0, return_index=True)[1]] = False
    add("annotation_repeated", again, lambda _: "repeats an earlier one of its image")
    if area == "annotated":
        _check_areas(of, anybody, kept, add, scored)
        defined = int(areas_that_are_boxes(of.areas, boxes)[kept].sum())
        if defined:
            split.add("area_is_box", f"the area of {defined} of {kept.sum()} people is {AREA_IS_BOX}")
    for sentence in left_right_suspicions(points[kept], of.keypoints[kept, :, 2], boxes[kept], skeleton):
        split.add("left_right_swapped", sentence)


def _check_areas(of: Annotations, anybody: BoolArray, kept: BoolArray, add: Add, scored: Severity) -> None:
    areas = of.areas
    missing = np.isnan(areas) | ((areas <= 0) & anybody)
    add("area_unusable", missing, lambda i: f"has area {areas[i]:g}", scored)
    judged = np.flatnonzero(kept & ~missing)
    for who, effect in implausible_areas(areas[judged], of.boxes_xywh[judged]):
        odd = np.isin(np.arange(len(areas)), judged[who])
        words = "has area {:g} in a box of {:g} x {:g}: " + effect
        add("area_unusable", odd, lambda i, words=words: words.format(areas[i], *of.boxes_xywh[i, 2:]))


def _row(numbers: FloatArray) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
