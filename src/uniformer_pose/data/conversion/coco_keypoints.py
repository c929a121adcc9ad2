"""COCO JSON with keypoints of its own, as other programs write it, to a ``Source``.

The category's ``keypoints`` and ``skeleton`` give the skeleton.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from uniformer_pose.data.categories import (
    DEFAULT_PERSON_CATEGORY,
    category_names,
    counted_categories,
    listed_categories,
)
from uniformer_pose.data.coco import existing_folder
from uniformer_pose.data.coco_json import Integer, each_record, read_json, stated_orientation
from uniformer_pose.data.conversion.derived_skeleton import order_by_name
from uniformer_pose.data.conversion.source import (
    Log,
    Settings,
    Source,
    SourceImage,
    SourcePerson,
    find_inside,
    plain_number,
)
from uniformer_pose.errors import InputError

T = TypeVar("T")


class _Image(msgspec.Struct):
    id: Integer
    file_name: str
    height: Any = None
    width: Any = None
    crowd_index: float | None = msgspec.field(default=None, name="crowdIndex")


class _Annotation(msgspec.Struct):
    """What matters of an annotation; its numbers may be of any kind."""

    image_id: Integer
    category_id: Integer = DEFAULT_PERSON_CATEGORY
    id: Any = None
    bbox: Any = None
    keypoints: Any = None
    area: Any = None
    iscrowd: Any = None


def read_coco_keypoints(source: Path, settings: Settings, log: Log) -> Source:
    """The data set of an annotation file, and of ``val_source`` for validation.

    Raises InputError where a file is no COCO file, or has no such category.
    """
    train, *others = [_read(*file, settings, log) for file in settings.annotation_files(source).values()]
    if not others:
        return train
    (val,) = others
    order = order_by_name(train.keypoint_names, val.keypoint_names, str(settings.val_source), log)
    images = [
        replace(image, people=[replace(person, keypoints=person.keypoints[order]) for person in image.people])
        for image in val.splits["train"]
    ]
    if train.orientation != val.orientation:
        raise InputError(
            f"{source} and {settings.val_source} differ in info.image_orientation; convert them one by one"
        )
    return replace(train, splits={**train.splits, "val": images})


def _read(file: Path, images: Path | None, settings: Settings, log: Log) -> Source:
    folder = existing_folder(images or file.parent)
    content = read_json(file)
    if not isinstance(content, dict) or not content.get("images"):
        raise InputError(f"{file}: has no list 'images' with an entry; give a COCO keypoint file")
    annotations = _entries(content, "annotations", _Annotation, file, log)
    listed = listed_categories(content, file)
    used = [record.category_id for record in annotations]
    counted = counted_categories(listed, used, file, None, settings.categories, option="category")
    log.notes.append(f"{file.name}: {category_names(counted)}; {sum(one not in counted for one in used)} of others")
    own = next((entry for entry in listed if entry.id in counted and entry.keypoints), None)
    names = own.keypoints if own is not None else settings.skeleton and settings.skeleton.keypoint_names
    if not names:
        raise InputError(
            f"{file}: no category lists keypoints; give their names with skeleton=<name or YAML file>, or add them to "
            "the category, in the annotations' order"
        )
    people: dict[int, list[SourcePerson]] = defaultdict(list)
    for record in annotations:
        if record.category_id in counted:
            place = f"{file}: annotation {record.id!r:.40}"
            with log.leaving_out(place):
                people[record.image_id].append(_person(record, len(names), place, log))
    found = _images(_entries(content, "images", _Image, file, log), people, file, folder, log)
    for image_id, alone in people.items():
        with log.leaving_out():
            raise InputError(f"{file}: {len(alone)} people are in image {image_id}, which is not listed or unusable")
    limbs = None if own is None else _limbs(content["categories"][listed.index(own)].get("skeleton"), len(names))
    orientation = stated_orientation(content.get("info"), file)
    category = next(iter(counted.values()))
    return Source(names, category, {"train": found}, limbs=limbs, orientation=orientation)


def _entries(content: dict[str, Any], name: str, kind: type[T], file: Path, log: Log) -> list[T]:
    """The entries of a list that are of a kind; the others are problems."""
    listed = content.get(name)
    if not isinstance(listed, list):
        raise InputError(f"{file}: has {listed!r:.40} in {name!r}; it must be a list")
    records, problems = each_record(listed, kind)
    for number, problem in problems.items():
        with log.leaving_out():
            raise InputError(f"{file}: entry {number + 1} of {name!r} {problem}")
    return [record for record in records if record is not None]


def _images(
    records: list[_Image], people: dict[int, list[SourcePerson]], file: Path, folder: Path, log: Log
) -> list[SourceImage]:
    """The images that are there, with their ``people``, who are taken out of these."""
    images: dict[int, SourceImage] = {}
    for record in records:
        with log.leaving_out(f"{file}: image {record.id}"):
            if record.id in images:
                raise InputError("has the id of an earlier one")
            path = find_inside(folder, record.file_name, log)
            sides = plain_number(record.height), plain_number(record.width)
            size = sides if all(side > 0 for side in sides) else None
            name = path.relative_to(folder).as_posix()
            images[record.id] = SourceImage(path, name, people.pop(record.id, []), size, record.id, record.crowd_index)
    return list(images.values())


def _person(record: _Annotation, num_keypoints: int, place: str, log: Log) -> SourcePerson:
    """An annotation as it stands; InputError where its keypoints are of another number."""
    values = record.keypoints
    if not values:  # of a detection set
        log.repairs["annotations without keypoints read as people of whom none is labelled"] += 1
        values = [0] * (3 * num_keypoints)
    if not isinstance(values, list) or len(values) != 3 * num_keypoints:
        found = f"{len(values)} numbers" if isinstance(values, list) else f"{values!r:.40}"
        needed = f"it needs {3 * num_keypoints}, x, y, visibility of {num_keypoints} keypoints"
        raise InputError(f"has {found} in 'keypoints'; {needed}")
    box = record.bbox if isinstance(record.bbox, list) and len(record.bbox) == 4 else [None] * 4
    sides, keypoints = (np.array([plain_number(number) for number in numbers]) for numbers in (box, values))
    area = plain_number(record.area)
    is_crowd = plain_number(record.iscrowd) > 0
    return SourcePerson(sides, keypoints.reshape(-1, 3), place, area if area > 0 else None, is_crowd)


def _limbs(pairs: object, num_keypoints: int) -> list[tuple[int, int]]:
    """Pairs of indices from 0 out of a category's, which count from 1; none where they join no keypoints.

    They are only drawn, so that another figure's are no reason to stop.
    """
    try:
        found = np.asarray(pairs or [], dtype=np.int64).reshape(-1, 2) - 1
    except (TypeError, ValueError, OverflowError):
        return []
    fit = ((found >= 0) & (found < num_keypoints)).all()
    return [(first, second) for first, second in found.tolist()] if fit else []
