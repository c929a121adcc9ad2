"""Annotation files -> every defect in them, by the rules of the reader, and the people that are sound.

``read_ground_truth`` stops at the first entry that it cannot use. Here its functions are asked about every entry; what
they refuse is counted under a name and set aside, and the rest is looked into further. An entry that is set aside is
not counted again for what follows from its defect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.categories import category_names, counted_categories, listed_categories
from uniformer_pose.data.checking.defects import Example, Findings, Severity
from uniformer_pose.data.checking.left_right import left_right_suspicions
from uniformer_pose.data.coco import (
    AreaSource,
    ImageEntries,
    PersonInstances,
    clipped_boxes,
    ground_truth_of,
    images_of,
    implausible_areas,
)
from uniformer_pose.data.coco_json import (
    LARGEST_NUMBER,
    AnnotationFile,
    AnnotationRecord,
    CategoryRecord,
    ImageRecord,
    Problems,
    boxes_of,
    each_record,
    image_problem,
    keypoints_of,
)
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_OVER_THE_EDGE = 1.0  # pixel: annotation tools round, and COCO's own boxes do it
_FAR_FROM_BOX = 0.2  # of the box's larger side


@dataclass(eq=False)
class CheckedPeople:
    """What stays of an annotation file when the defects are set aside.

    ``images``: the usable image entries, None where there is none. ``people``: as the reader gives them, None where
    nothing could be read. ``categories``: ids and names of those that count. ``counts`` by name. ``suspects``: why a
    person of this annotation id is doubtful, for the contact sheet.
    """

    images: ImageEntries | None = None
    people: PersonInstances | None = None
    categories: dict[int, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    suspects: dict[int, str] = field(default_factory=dict)


def check_annotations(
    content: dict[str, Any],
    file: Path,
    image_folder: Path,
    skeleton: Skeleton,
    findings: Findings,
    *,
    scored: bool,
    categories: Sequence[str | int] | None = None,
    area: AreaSource = "annotated",
) -> CheckedPeople:
    """Check what an annotation file holds; ``scored``: it is ground truth to evaluate on, so areas are needed.

    ``categories``: see ``counted_categories``; ``area``: what evaluation takes for a person's.

    Raises InputError where the file has no list of images: then it is no annotation file.
    """
    checked = CheckedPeople()
    image_records = content.get("images")
    if not isinstance(image_records, list) or not image_records:
        raise InputError(f"{file}: has no list 'images' with at least one entry; give a COCO keypoint file")
    sound_images = _sound_images(image_records, findings)
    checked.counts["images"] = len(image_records)
    if sound_images:
        checked.images = images_of(sound_images, file)
    records = content.get("annotations")
    records = records if isinstance(records, list) else []
    try:
        listed = listed_categories(content, file)
        used = (entry.get("category_id") for entry in records if isinstance(entry, dict))
        used_ids = [number for number in used if type(number) is int]
        checked.categories = counted_categories(listed, used_ids, file, skeleton, categories)
    except InputError as error:
        findings.add("category_keypoints_differ", without_file(error, file))
        return checked
    if len(checked.categories) > 1:
        findings.add("several_categories", category_names(checked.categories))
    if not records:
        findings.add("no_people", f"{file.name} has no annotations")
        return checked
    checked.counts["annotations"] = len(records)
    people = _people(records, image_records, listed, checked, findings)
    if people and checked.images is not None:
        usable = _check_people(people, checked.images, checked, skeleton, findings, scored=scored, area=area)
        sound = AnnotationFile(sound_images, usable, listed, content.get("info"))
        if usable:
            checked.people = ground_truth_of(sound, file, image_folder, skeleton, categories=categories)
    if checked.people is None or not len(checked.people):
        findings.add("no_people", f"no annotation of {file.name} is a person with a box and a labelled keypoint")
    else:
        _check_never_labelled(checked.people, skeleton, findings)
        checked.counts["people"] = len(checked.people)
        unlabelled = "without labelled keypoint"
        checked.counts[unlabelled] = checked.people.counts[unlabelled]
        checked.counts["images with people"] = checked.people.num_images
    return checked


def without_file(error: InputError | str, file: Path) -> str:
    """A reader's sentence without the file it begins with: the report says it once."""
    return str(error).removeprefix(f"{file}: ")


def _sound_images(records: Sequence[Any], findings: Findings) -> list[ImageRecord]:
    """The image entries that the reader can use, ids unique; the others are counted."""
    typed, problems = each_record(records, ImageRecord)
    for index, record in enumerate(typed):
        problem = None if record is None else image_problem(record)
        if problem is not None:
            problems[index] = problem
    for index, problem in problems.items():
        entry = records[index] if isinstance(records[index], dict) else {}
        name, image_id = entry.get("file_name"), entry.get("id")
        kind = "file_name_leaves_folder" if "leaves the image folder" in problem else "image_entry_invalid"
        words = f"image {image_id}" if type(image_id) is int else f"image number {index + 1}"
        findings.add(kind, f"{words} {problem}", file_name=name if isinstance(name, str) else None)
    sound: dict[int, ImageRecord] = {}
    names: dict[PurePosixPath, int] = {}
    for record in (record for index, record in enumerate(typed) if record is not None and index not in problems):
        name = str(record.file_name)
        if record.id in sound:
            detail = f"image id {record.id} is also that of {sound[record.id].file_name}"
            findings.add("image_id_repeated", detail, file_name=name)
            continue
        sound[record.id] = record
        first = names.setdefault(PurePosixPath(name), record.id)
        if first != record.id:
            findings.add("file_name_repeated", f"image {record.id} has the file of image {first}", file_name=name)
    return list(sound.values())


_KINDS_OF_FIELDS = {"bbox": "box_malformed", "keypoints": "keypoints_not_finite", "area": "area_missing"}


def _people(
    records: Sequence[Any],
    image_records: Sequence[Any],
    categories: Sequence[CategoryRecord],
    checked: CheckedPeople,
    findings: Findings,
) -> list[AnnotationRecord]:
    """The annotations of people, without crowds, whose ids, image and category are sound; the others are counted."""
    typed, problems = each_record(records, AnnotationRecord)
    for index, problem in problems.items():
        record = records[index] if isinstance(records[index], dict) else {}
        known_id = record.get("id") if type(record.get("id")) is int else None
        words = f"annotation number {index + 1}" if known_id is None else f"annotation {known_id}"
        field_name = next((name for name in _KINDS_OF_FIELDS if f"in '{name}'" in problem), "")
        kind = _KINDS_OF_FIELDS.get(field_name, "annotation_entry_invalid")
        if known_id is not None and known_id <= 0:
            kind = "annotation_id_not_positive"
        findings.add(kind, f"{words} {problem}", annotation_id=known_id)

    usable_images = set() if checked.images is None else set(checked.images.ids.tolist())
    listed_images = _whole_ids(image_records)
    listed_categories = {entry.id for entry in categories}
    seen: set[int] = set()
    people: list[AnnotationRecord] = []
    crowd = in_unusable_images = 0
    for record in (record for record in typed if record is not None):
        annotation_id, image_id = record.id, record.image_id
        repeated = annotation_id in seen
        seen.add(annotation_id)
        if repeated:
            kind, detail = "annotation_id_repeated", f"annotation id {annotation_id} again, in image {image_id}"
        elif image_id not in listed_images:
            kind, detail = "annotation_of_unknown_image", f"annotation {annotation_id} is in image {image_id}"
        elif record.category_id not in checked.categories:
            kind = "annotation_of_other_category"
            if record.category_id not in listed_categories:
                kind = "annotation_of_unknown_category"
            detail = f"annotation {annotation_id} is of category {record.category_id}"
        elif image_id not in usable_images:
            in_unusable_images += 1
            continue
        elif record.iscrowd:
            crowd += 1
            continue
        else:
            people.append(record)
            continue
        findings.add(kind, detail, annotation_id=annotation_id)
    checked.counts["crowd"] = crowd
    if in_unusable_images:
        checked.counts["in images whose entry is unusable"] = in_unusable_images
    return people


def _check_people(
    records: list[AnnotationRecord],
    images: ImageEntries,
    checked: CheckedPeople,
    skeleton: Skeleton,
    findings: Findings,
    *,
    scored: bool,
    area: AreaSource,
) -> list[AnnotationRecord]:
    """Count the defects of the people's boxes and keypoints; returns those whose box and keypoints can be read."""
    ids = np.array([record.id for record in records], dtype=np.int64)
    places = {image_id: place for place, image_id in enumerate(images.ids.tolist())}
    image_of_record = np.array([places[record.image_id] for record in records], dtype=np.int64)

    def example(index: int, detail: str) -> Example:
        return Example(
            f"annotation {ids[index]} {detail}", str(images.file_names[image_of_record[index]]), int(ids[index])
        )

    def read(field_name: str, values: FloatArray, problems: Problems) -> tuple[FloatArray, BoolArray]:
        """One field of all people, NaN where refused, and where it was not."""
        for index, problem in problems.items():
            kind = _kind_of_field(field_name, problem)
            found = example(index, problem)
            findings.add(kind, found.detail, file_name=found.file_name, annotation_id=found.annotation_id)
            checked.suspects.setdefault(int(ids[index]), kind)
        return values, np.array([index not in problems for index in range(len(records))], dtype=np.bool_)

    boxes, has_box = read("bbox", *boxes_of(records))
    keypoints, has_keypoints = read("keypoints", *keypoints_of(records, skeleton))

    def count(
        kind: str, condition: BoolArray, detail: Callable[[int], str], *, severity: Severity | None = None
    ) -> None:
        findings.add_where(kind, condition, lambda index: example(index, detail(index)), severity=severity)
        for index in np.flatnonzero(condition).tolist():
            checked.suspects.setdefault(int(ids[index]), kind)

    points, visibility = keypoints[..., :2], np.nan_to_num(keypoints[..., 2])
    labelled = np.asarray(visibility > 0)
    anything_labelled = np.asarray(labelled.any(axis=1))
    # Where a box or keypoints could not be read every comparison with NaN is false, and the numbers do not matter.
    with np.errstate(invalid="ignore"):
        size = np.stack([images.widths, images.heights], axis=1)[image_of_record].astype(np.float64)
        has_area = _check_boxes(boxes, has_box, size, anything_labelled | ~has_keypoints, count)
        _check_keypoints(points, visibility, labelled, size, boxes, has_area, count)
    _check_num_keypoints(records, labelled.sum(axis=1), has_keypoints, count, scored=scored)
    _check_areas(records, boxes, has_area, anything_labelled, count, scored=scored, area=area)

    both = has_box & has_keypoints
    rows = np.concatenate([image_of_record[:, None], boxes, keypoints.reshape(len(ids), -1)], axis=1)
    _check_repeated(rows, both, count)
    sound = np.flatnonzero(both & has_area & anything_labelled)
    suspicions = left_right_suspicions(points[sound], visibility[sound], boxes[sound], skeleton)
    face = np.zeros(len(ids), dtype=np.bool_)
    face[sound] = suspicions.face
    count("left_right_swapped_in_face", face, lambda _: "has a mirrored face")
    pairs = np.zeros((len(ids), len(skeleton.left_right_pairs)), dtype=np.bool_)
    pairs[sound] = suspicions.pairs
    count(
        "left_right_swapped_in_person",
        np.asarray(pairs.any(axis=1)),
        lambda index: f"has doubtful {', '.join(_names(skeleton, np.flatnonzero(pairs[index]).tolist()))}",
    )
    for pair in np.flatnonzero(suspicions.throughout).tolist():
        agreement = f"agree with the other pairs in {suspicions.agreement[pair]:.0%} of people"
        findings.add("left_right_swapped_throughout", f"{_names(skeleton, [pair])[0]} {agreement}")
    return [record for record, good in zip(records, both, strict=True) if good]


Count = Callable[..., None]


def _check_boxes(
    boxes: FloatArray, has_box: BoolArray, size: FloatArray, labelled: BoolArray, count: Count
) -> BoolArray:
    """Count boxes without area, outside and partly outside; returns which of them the reader would keep."""
    flat = has_box & (boxes[:, 2:] <= 0).any(axis=1)
    corners = np.stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    _, inside = clipped_boxes(boxes, size)
    outside = has_box & ~flat & (inside <= 0).any(axis=1)
    over = np.maximum(-corners[0], corners[1] - size).max(axis=1)

    def box(index: int) -> str:
        x, y, width, height = boxes[index]
        return f"has the box x {x:g}, y {y:g}, width {width:g}, height {height:g} in an image of {_size(size[index])}"

    for kind, condition in (("box_without_area", flat), ("box_outside_image", outside)):
        count(kind, condition & labelled, box)
        count(kind, condition & ~labelled, box, severity="remark")  # nobody is lost
    kept: BoolArray = has_box & ~flat & ~outside
    count("box_partly_outside", kept & (over > _OVER_THE_EDGE), box)
    return kept


def _check_keypoints(
    points: FloatArray,
    visibility: FloatArray,
    labelled: BoolArray,
    size: FloatArray,
    boxes: FloatArray,
    has_area: BoolArray,
    count: Count,
) -> None:
    stray = (visibility == 0) & (points != 0).any(axis=2) & np.isfinite(points).all(axis=2)
    count("unlabelled_with_coordinates", stray.any(axis=1), lambda i: f"has {stray[i].sum()} of them")
    beyond = ((points < -_OVER_THE_EDGE) | (points > size[:, None])).any(axis=2) & labelled

    def worst(index: int) -> str:
        x, y = points[index][beyond[index]][0]
        return f"has {beyond[index].sum()}, one at x {x:g}, y {y:g}, in an image of {_size(size[index])}"

    count("keypoint_outside_image", beyond.any(axis=1), worst)
    low, high = boxes[:, None, :2], boxes[:, None, :2] + boxes[:, None, 2:]
    reach = _FAR_FROM_BOX * boxes[:, 2:].max(axis=1)
    far = np.maximum(low - points, points - high).max(axis=2) > reach[:, None]
    far &= labelled & ~beyond & has_area[:, None]
    count("keypoint_outside_box", far.any(axis=1), lambda i: f"has {far[i].sum()} of its {labelled[i].sum()} there")


def _check_num_keypoints(
    records: Sequence[AnnotationRecord], counted: IntArray, has_keypoints: BoolArray, count: Count, *, scored: bool
) -> None:
    declared = [
        int(n) if record.num_keypoints is None else record.num_keypoints
        for record, n in zip(records, counted, strict=True)
    ]
    pairs = list(zip(declared, counted.tolist(), strict=True))
    wrong = has_keypoints & np.array([said != is_so for said, is_so in pairs], dtype=np.bool_)
    # Evaluation takes the file's word for who is scored at all.
    decides = wrong & scored & np.array([bool(said) != bool(is_so) for said, is_so in pairs], dtype=np.bool_)

    def detail(index: int) -> str:
        return f"says {declared[index]!r:.20} and has {counted[index]} labelled"

    count("num_keypoints_wrong", decides, detail, severity="error")
    count("num_keypoints_wrong", wrong & ~decides, detail)


def _check_areas(
    records: Sequence[AnnotationRecord],
    boxes: FloatArray,
    has_area: BoolArray,
    labelled: BoolArray,
    count: Count,
    *,
    scored: bool,
    area: AreaSource,
) -> None:
    if area == "box":
        return  # nobody asks for the annotated ones
    given = [record.area for record in records]
    numbers = [v if v is not None and 0 <= v <= LARGEST_NUMBER else np.nan for v in given]
    areas = np.array(numbers, dtype=np.float64)
    severity: Severity = "error" if scored else "remark"

    def detail(index: int) -> str:
        return "has no area (data.area=box)" if given[index] is None else f"has area {given[index]!r:.30}"

    count("area_missing", np.isnan(areas), detail, severity=severity)
    count("area_zero", (areas == 0) & labelled, detail, severity=severity)
    judged = np.flatnonzero(has_area & labelled & (areas != 0))
    for found in implausible_areas(areas[judged], boxes[judged]):
        where = np.zeros(len(records), dtype=np.bool_)
        where[judged[found.where]] = True
        box = "in a box of {:g} x {:g}: " + found.effect()
        count("area_implausible", where, lambda i, box=box: f"{detail(i)} {box.format(*boxes[i, 2:])}")


def _check_repeated(rows: FloatArray, comparable: BoolArray, count: Count) -> None:
    seen: set[bytes] = set()
    repeated = np.zeros(len(rows), dtype=np.bool_)
    for index in np.flatnonzero(comparable):
        row = rows[index].tobytes()
        repeated[index] = row in seen
        seen.add(row)
    count("annotation_repeated", repeated, lambda _: "repeats an earlier one of its image")


def _check_never_labelled(people: PersonInstances, skeleton: Skeleton, findings: Findings) -> None:
    for name, most in zip(skeleton.keypoint_names, people.visibility.max(axis=0).tolist(), strict=True):
        if not most:
            findings.add("keypoint_never_labelled", f"{name} in none of {len(people)} people")


def _kind_of_field(field_name: str, problem: str) -> str:
    """Under which name a box or keypoints are counted that the reader refuses."""
    missing, wrong_number = problem.startswith("has no "), "; it needs finite" not in problem
    if field_name == "bbox":
        return "box_missing" if missing else "box_malformed" if wrong_number else "box_not_finite"
    if "visibility other" in problem:
        return "visibility_invalid"
    return "keypoints_missing" if missing else "keypoints_of_wrong_number" if wrong_number else "keypoints_not_finite"


def _whole_ids(records: Sequence[Any]) -> set[int]:
    """The ids of entries, usable or not; what is no whole number cannot be referred to."""
    return {record["id"] for record in records if isinstance(record, dict) and type(record.get("id")) is int}


def _names(skeleton: Skeleton, pairs: Sequence[int]) -> list[str]:
    return [f"{skeleton.left_right_pairs[pair][0]} and {skeleton.left_right_pairs[pair][1]}" for pair in pairs]


def _size(width_and_height: FloatArray) -> str:
    width, height = width_and_height
    return f"{height:g}x{width:g} (height x width)"
