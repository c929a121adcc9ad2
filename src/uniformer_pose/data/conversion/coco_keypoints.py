"""COCO JSON with keypoints of its own, as other programs write it, to a ``Source``.

The category's ``keypoints`` and ``skeleton`` give the skeleton. What coordinates on EXIF-turned pictures refer to shows
in the sizes of the file, else ``info.image_orientation`` says it. What a reader of COCO would find in an annotation
beside box and keypoints (iscrowd, segmentation, attributes) is kept.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from uniformer_pose.data.categories import DEFAULT_PERSON_CATEGORY, category_names, counted_categories
from uniformer_pose.data.coco_json import CategoryRecord, read_json, stated_orientation
from uniformer_pose.data.conversion.derived_skeleton import limbs_from_coco, order_by_name
from uniformer_pose.data.conversion.source import (
    FloatArray,
    Log,
    Settings,
    Source,
    SourceImage,
    SourcePerson,
    find_inside,
    folder_of,
    plain_id,
    plain_keypoints,
    plain_number,
)
from uniformer_pose.errors import InputError

_WRITTEN_BY_US = {"id", "image_id", "category_id", "bbox", "keypoints", "num_keypoints", "area", "iscrowd"}


def read_coco_keypoints(source: Path, settings: Settings, log: Log) -> Source:
    """The data set of an annotation file, and of ``val_source`` for validation.

    Raises InputError where a file is no COCO file, or has no such category.
    """
    train = _read(source, settings.images, settings, log)
    if settings.val_source is None:
        return train
    val = _read(settings.val_source, settings.val_images or settings.images, settings, log)
    order = order_by_name(train.keypoint_names, val.keypoint_names, str(settings.val_source), log)
    images = [
        replace(image, people=[replace(person, keypoints=person.keypoints[order]) for person in image.people])
        for image in val.splits["train"]
    ]
    return replace(train, splits={**train.splits, "val": images})


def _read(file: Path, images: Path | None, settings: Settings, log: Log) -> Source:
    folder = folder_of(images or file.parent)
    content = read_json(file)
    if not isinstance(content, dict) or not _list(content, "images", file):
        raise InputError(f"{file}: has no list 'images' with an entry; give a COCO keypoint file")
    categories, annotations, skeletons = _with_plain_ids(content, file, log)
    used = [record["category_id"] for record in annotations if type(record["category_id"]) is int]
    counted = counted_categories(categories, used, file, None, settings.categories, option="category")
    if len(counted) > 1:
        log.notes.append(f"{file.name}: {category_names(counted)}; category=<name> takes one of them alone")
    others = sum(record["category_id"] not in counted for record in annotations)
    if others:
        log.notes.append(f"{file.name}: {others} annotations of other categories are not converted")
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for record in annotations:
        if record["category_id"] in counted:
            by_image[record["image_id"]].append(record)
    own = next((entry for entry in categories if entry.id in counted and entry.keypoints), None)
    names = own.keypoints if own is not None else settings.skeleton and settings.skeleton.keypoint_names
    if not names:
        raise InputError(
            f"{file}: no category lists keypoints; give their names with skeleton=<name or YAML file>, or add them to "
            "the category, in the annotations' order"
        )
    limbs = (
        limbs_from_coco(skeletons[own.id], len(names), str(file), log) if own and settings.skeleton is None else None
    )
    converted = _images(content, by_image, len(names), file, folder, log)
    return Source(names, next(iter(counted.values()), "person"), {"train": converted}, limbs=limbs)


def _list(content: dict[str, Any], name: str, file: Path) -> list[Any]:
    found = content.get(name) or []
    if not isinstance(found, list):
        raise InputError(f"{file}: {name!r} is {found!r:.40}; it must be a list")
    return found


def _with_plain_ids(
    content: dict[str, Any], file: Path, log: Log
) -> tuple[list[CategoryRecord], list[dict[str, Any]], dict[int, Any]]:
    """Categories, with whole numbers for ids of any kind, the annotations that refer to them, and limbs by category."""
    listed = [entry for entry in _list(content, "categories", file) if isinstance(entry, dict)]
    keys = [plain_id(entry.get("id"), log) for entry in listed]
    numbers: dict[Any, Any] = {key: key if type(key) is int else -place for place, key in enumerate(keys, start=1)}
    if len(keys) == 1:
        numbers[None] = numbers[keys[0]]  # an annotation without a category is of the only one
    categories = []
    for entry, key in zip(listed, keys, strict=True):
        names = entry.get("keypoints")
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
        shown = entry.get("name") or entry.get("supercategory") or "person"
        keypoints = [str(name) for name in names] if isinstance(names, list) else []
        categories.append(CategoryRecord(numbers[key], str(shown), keypoints))
    annotations = []
    for number, record in enumerate(_list(content, "annotations", file), start=1):
        if not isinstance(record, dict):
            log.problem(f"{file}: annotation number {number} is no object")
            continue
        ids = {name: plain_id(record.get(name), log) for name in ("id", "image_id", "category_id")}
        category = ids["category_id"]
        ids["category_id"] = numbers.get(category, DEFAULT_PERSON_CATEGORY if category is None else category)
        annotations.append({**record, **ids})
    skeletons = {numbers[key]: entry.get("skeleton") for entry, key in zip(listed, keys, strict=True)}
    return categories, annotations, skeletons


def _images(
    content: dict[str, Any],
    by_image: dict[Any, list[dict[str, Any]]],
    num_keypoints: int,
    file: Path,
    folder: Path,
    log: Log,
) -> list[SourceImage]:
    """The images that are there, with their people; ids of the file stay where they can."""
    orientation = stated_orientation(content.get("info"), file)
    everybody = [record["id"] for records in by_image.values() for record in records]
    keep_ids = len({key for key in everybody if isinstance(key, int) and key > 0}) == len(everybody)
    if not keep_ids:
        log.notes.append(f"{file.name}: annotation ids are absent, repeated, below 1 or words; now from 1")
    images: dict[Any, SourceImage] = {}
    names: set[str] = set()
    for number, record in enumerate(content["images"], start=1):
        key = plain_id(record.get("id"), log) if isinstance(record, dict) else None
        name = record.get("file_name") if isinstance(record, dict) else None
        if key is None or not isinstance(name, str) or key in images or name in names:
            log.problem(f"{file}: image number {number} needs an id and a file_name of its own")
            continue
        records, place = by_image.pop(key, []), f"{file}: image {key}"
        with log.leaving_out(place):
            path = find_inside(folder, name, log)
            names.add(name)
            people = [_person(r, num_keypoints, file, log, keep_id=keep_ids) for r in records]
            height, width = plain_number(record.get("height")), plain_number(record.get("width"))
            size = (height, width) if min(height, width) > 0 else None
            inside = path.relative_to(folder).as_posix()
            known = [person for person in people if person is not None]
            images[key] = SourceImage(path, inside, known, place, size, key, orientation)  # type: ignore[arg-type]
    for image_id, records in by_image.items():
        for record in records:
            log.problem(
                f"{file}: annotation {record['id']} is in image {image_id!r:.40}, which is not listed or unusable"
            )
    if not all(isinstance(key, int) for key in images):
        log.notes.append(f"{file.name}: image ids are no whole numbers; they are numbered from 1")
        return [replace(image, image_id=None) for image in images.values()]
    return list(images.values())


def _person(record: dict[str, Any], num_keypoints: int, file: Path, log: Log, *, keep_id: bool) -> SourcePerson | None:
    """An annotation as it stands; None, and a problem, where its keypoints are of another number."""
    place = f"{file}: annotation {record['id']}"
    try:
        keypoints = _keypoints(record.get("keypoints"), num_keypoints, log)
    except InputError as error:
        log.problem(f"{place} {error}")
        return None
    box = record.get("bbox")
    sides = [plain_number(side) for side in box] if isinstance(box, list) and len(box) == 4 else [math.nan] * 4
    area = plain_number(record.get("area"))
    others = {key: value for key, value in record.items() if key not in _WRITTEN_BY_US and _is_json(value)}
    if len(others) < len(record.keys() - _WRITTEN_BY_US):
        log.repairs["further fields with NaN or infinity left out"] += 1
    crowd = record.get("iscrowd")
    others["iscrowd"] = int(crowd is True or plain_number(crowd) > 0)
    annotation_id = record["id"] if keep_id else None
    return SourcePerson(np.array(sides), keypoints, place, area if area > 0 else None, annotation_id, others)


def _keypoints(values: Any, number: int, log: Log) -> FloatArray:
    if values is None or values == []:  # of a detection set: a person without labelled keypoints
        log.repairs["annotations without keypoints read as people of whom none is labelled"] += 1
        return np.zeros((number, 3))
    if isinstance(values, list) and all(isinstance(row, list) for row in values):
        values = [value for row in values for value in row]
    if isinstance(values, list) and len(values) == 2 * number:
        log.repairs["annotations of x and y alone read as visible where they are not 0"] += 1
        rows = np.array([plain_number(value) for value in values]).reshape(-1, 2)
        return np.column_stack([rows, np.where((np.nan_to_num(rows) > 0).any(axis=1), 2, 0)])
    if not isinstance(values, list) or len(values) != 3 * number:
        found = f"{len(values)} numbers" if isinstance(values, list) else f"{values!r:.40}"
        raise InputError(f"has {found} in 'keypoints'; it needs {3 * number}, x, y, visibility of {number} keypoints")
    return plain_keypoints(values, log)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True
