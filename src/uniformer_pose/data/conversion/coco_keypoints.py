"""COCO JSON with keypoints of its own to people.

The category's ``keypoints`` and ``skeleton`` give the skeleton. What coordinates on EXIF-turned pictures refer to shows
in the sizes of the file, else ``info.image_orientation`` says it. What a reader of COCO would find in an annotation
beside box and keypoints (iscrowd, segmentation, attributes) is kept.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from uniformer_pose.data.categories import DEFAULT_PERSON_CATEGORY, category_names, counted_categories
from uniformer_pose.data.coco import ImageOrientation
from uniformer_pose.data.coco_json import CategoryRecord, read_json, stated_orientation
from uniformer_pose.data.conversion.derived_skeleton import limbs_from_coco, order_by_name, skeleton_and_order
from uniformer_pose.data.conversion.plain_values import Repairs, plain_id, plain_keypoints, plain_number
from uniformer_pose.data.conversion.source import (
    ConversionSettings,
    PersonFinisher,
    Problems,
    SourceDataset,
    SourceImage,
    SourcePerson,
    SplitName,
    existing_folder_of,
    find_inside,
    header_of,
    shown_by_size,
    split_by_share,
)
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton

_WRITTEN_BY_US = {"number", "id", "image_id", "category_id", "bbox", "keypoints", "num_keypoints", "area", "iscrowd"}


def read_coco_keypoints(source: Path, settings: ConversionSettings) -> SourceDataset:
    """The dataset of an annotation file, and of ``val_source`` for validation; else ``val_share`` of the images.

    Raises InputError where a file is no COCO file, or has no such category.
    """
    repairs = Repairs()
    files: dict[SplitName, Path] = {"train": source}
    if settings.val_source is not None:
        files["val"] = settings.val_source
    folders: dict[SplitName, Path] = {
        "train": existing_folder_of(settings.images or source.parent),
        "val": existing_folder_of(settings.val_images or settings.images or (settings.val_source or source).parent),
    }
    contents = {split: _Content(file, settings, repairs) for split, file in files.items()}
    first = contents["train"]
    own_limbs = first.limbs if settings.skeleton is None else None
    limbs, notes = limbs_from_coco(own_limbs, len(first.keypoint_names), str(source))
    skeleton, order, assumptions = skeleton_and_order(settings, first.keypoint_names, str(source), limbs=limbs)
    notes += assumptions
    orders = {"train": order}
    if "val" in contents:
        orders["val"], moved = order_by_name(skeleton, contents["val"].keypoint_names, str(settings.val_source))
        notes += moved
        paths = {split: list(content.images) for split, content in contents.items()}
    else:
        paths = split_by_share(list(first.images), settings.val_share, settings.seed)
        notes.append(f"no val_source: {len(paths['val'])} of the images, drawn by their names, are for validation")
    notes += [note for content in contents.values() for note in content.notes]

    def read(split: SplitName, image_name: str, problems: Problems) -> SourceImage | None:
        content = contents.get(split, first)
        record, image_key = content.images[image_name]
        others = partial(content.shown_by_sizes, folders[split])
        finisher = PersonFinisher(skeleton, settings, repairs, content.orientation, shown_by_others=others)
        people = (content.person(annotation, problems) for annotation in content.annotations[image_key])
        try:
            path = find_inside(folders[split], image_name, repairs)
            return finisher.image(
                path,
                path.relative_to(folders[split]).as_posix(),
                (person for person in people if person is not None),
                orders.get(split, order),
                problems,
                size=_size_of(record),
                image_id=image_key if content.keep_image_ids and isinstance(image_key, int) else None,
            )
        except InputError as error:
            problems.add(f"{content.file}: image {record['id']}: {error}")
            return None

    problems = [sentence for content in contents.values() for sentence in content.problems]
    return SourceDataset(skeleton, first.category, paths, read, notes, problems, repairs)


class _Content:
    """One annotation file: its images by file name, the counted categories' annotations by image id."""

    def __init__(self, file: Path, settings: ConversionSettings, repairs: Repairs) -> None:
        self.file, self.repairs = file, repairs
        self.notes: list[str] = []
        self.problems: list[str] = []
        content = read_json(file)
        if not isinstance(content, dict) or not isinstance(content.get("images"), list) or not content["images"]:
            raise InputError(f"{file}: has no list 'images' with at least one entry; give a COCO annotation file")
        self.orientation = stated_orientation(content.get("info"), file)
        self.images = self._images(content["images"])
        self.keep_image_ids = all(isinstance(key, int) for _, key in self.images.values())
        if not self.keep_image_ids:
            self.notes.append(f"{file.name}: image ids are no whole numbers; they are numbered from 1")
        categories, annotations = self._with_plain_ids(content)
        plain = [
            CategoryRecord(entry["id"], str(entry.get("name", entry["id"])), [str(name) for name in entry["keypoints"]])
            for entry in categories
        ]
        used = [record["category_id"] for record in annotations if type(record["category_id"]) is int]
        counted = counted_categories(plain, used, file, None, settings.categories, option="category")
        if len(counted) > 1:
            self.notes.append(f"{file.name}: {category_names(counted)}; category=<name> takes one of them alone")
        self._read_categories([entry for entry in categories if entry["id"] in counted], settings.skeleton)
        self.annotations = self._by_image(annotations, set(counted))

    @cache  # noqa: B019  # a file has as many of these as folders, one
    def shown_by_sizes(self, folder: Path) -> ImageOrientation | None:
        """What coordinates refer to, from the first image whose size tells."""
        for name, (record, _) in self.images.items():
            with suppress(InputError):
                shown = shown_by_size(header_of(find_inside(folder, name, Repairs())), _size_of(record))
                if shown is not None:
                    return shown
        return None

    def _images(self, records: list[Any]) -> dict[str, tuple[dict[str, Any], int | str]]:
        """Entry and id of every image by its name."""
        images: dict[str, tuple[dict[str, Any], int | str]] = {}
        ids: set[int | str] = set()
        for number, record in enumerate(records, start=1):
            key = plain_id(record.get("id"), self.repairs) if isinstance(record, dict) else None
            name = record.get("file_name") if isinstance(record, dict) else None
            if key is None or not isinstance(name, str) or key in ids or name in images:
                self.problems.append(f"{self.file}: image number {number} needs an id and a file_name of its own")
                continue
            ids.add(key)
            images[name] = record, key
        return images

    def _list(self, content: dict[str, Any], name: str) -> list[Any]:
        found = content.get(name) or []
        if not isinstance(found, list):
            raise InputError(f"{self.file}: {name!r} is {found!r:.40}; it must be a list")
        return found

    def _with_plain_ids(self, content: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Categories, with whole numbers for ids of any kind, and the annotations that refer to them."""
        listed = [entry for entry in self._list(content, "categories") if isinstance(entry, dict)]
        keys = [plain_id(entry.get("id"), self.repairs) for entry in listed]
        numbers: dict[Any, Any] = {key: key if type(key) is int else -place for place, key in enumerate(keys, start=1)}
        if len(keys) == 1:
            numbers[None] = numbers[keys[0]]  # an annotation without a category is of the only one
        annotations = []
        for number, record in enumerate(self._list(content, "annotations"), start=1):
            if not isinstance(record, dict):
                self.problems.append(f"{self.file}: annotation number {number} is no object")
                continue
            ids = {name: plain_id(record.get(name), self.repairs) for name in ("id", "image_id", "category_id")}
            category = ids["category_id"]
            ids["category_id"] = numbers.get(category, DEFAULT_PERSON_CATEGORY if category is None else category)
            annotations.append({**record, **ids, "number": number})
        categories = []
        for entry, key in zip(listed, keys, strict=True):
            names = entry.get("keypoints")
            names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
            categories.append({**entry, "id": numbers[key], "keypoints": names if isinstance(names, list) else []})
        return categories, annotations

    def _read_categories(self, counted: list[dict[str, Any]], skeleton: Skeleton | None) -> None:
        with_keypoints = next((entry for entry in counted if entry.get("keypoints")), {})
        self.limbs = with_keypoints.get("skeleton")
        names = [entry.get("name") or entry.get("supercategory") or "person" for entry in counted] or ["person"]
        above = {entry.get("supercategory") for entry in counted}
        self.category = str((len(names) > 1 and len(above) == 1 and above.pop()) or names[0])
        if not with_keypoints and skeleton is None:
            raise InputError(
                f"{self.file}: no category lists keypoints; give their names with skeleton=<name or YAML file>, or add "
                "them to the category, in the annotations' order"
            )
        given = () if skeleton is None else skeleton.keypoint_names
        self.keypoint_names = [str(name) for name in with_keypoints.get("keypoints", given)]

    def _by_image(self, records: list[dict[str, Any]], counted: set[int]) -> dict[int | str, list[dict[str, Any]]]:
        known = {key for _, key in self.images.values()}
        by_image: dict[int | str, list[dict[str, Any]]] = defaultdict(list)
        for record in (record for record in records if record["category_id"] in counted):
            if record["image_id"] in known:
                by_image[record["image_id"]].append(record)
            else:
                place = f"{self.file}: annotation number {record['number']}"
                self.problems.append(f"{place} is in an image that the file does not list")
        others = sum(record["category_id"] not in counted for record in records)
        if others:
            self.notes.append(f"{self.file.name}: {others} annotations of other categories are not converted")
        ids = [record["id"] for records in by_image.values() for record in records]
        self.keep_ids = len({key for key in ids if isinstance(key, int) and key > 0}) == len(ids)
        if not self.keep_ids:
            self.notes.append(
                f"{self.file.name}: annotation ids are absent, repeated, below 1 or words; they are numbered from 1"
            )
        return by_image

    def person(self, record: dict[str, Any], problems: Problems) -> SourcePerson | None:
        """An annotation as it stands; None, and a problem, where its keypoints are of another number."""
        place = f"{self.file}: annotation {record['id']}"
        try:
            keypoints = self._keypoints(record.get("keypoints"))
        except InputError as error:
            problems.add(f"{place} {error}")
            return None
        box = record.get("bbox")
        sides = [plain_number(side) for side in box] if isinstance(box, list) and len(box) == 4 else [math.nan] * 4
        area = plain_number(record.get("area"))
        others = {key: value for key, value in record.items() if key not in _WRITTEN_BY_US and _is_json(value)}
        if len(others) < len(record.keys() - _WRITTEN_BY_US):
            self.repairs["further fields with NaN or infinity left out"] += 1
        crowd = record.get("iscrowd")
        others["iscrowd"] = int(crowd is True or plain_number(crowd) > 0)
        return SourcePerson(
            np.array(sides),
            keypoints,
            area if area > 0 else None,
            record["id"] if self.keep_ids else None,
            others,
            place,
        )

    def _keypoints(self, values: Any) -> Any:
        number = len(self.keypoint_names)
        if values is None or values == []:  # of a detection set: a person without labelled keypoints
            self.repairs["annotations without keypoints read as people of whom none is labelled"] += 1
            return np.zeros((number, 3))
        if isinstance(values, list) and all(isinstance(row, list) for row in values):
            values = [value for row in values for value in row]
        if isinstance(values, list) and len(values) == 2 * number:
            self.repairs["annotations of x and y alone read as visible where they are not 0"] += 1
            rows = np.array([plain_number(value) for value in values]).reshape(-1, 2)
            return np.column_stack([rows, np.where((np.nan_to_num(rows) > 0).any(axis=1), 2, 0)])
        if not isinstance(values, list) or len(values) != 3 * number:
            found = f"{len(values)} numbers" if isinstance(values, list) else f"{values!r:.40}"
            raise InputError(
                f"has {found} in 'keypoints'; it needs {3 * number}, x, y, visibility of {number} keypoints"
            )
        return plain_keypoints(values, self.repairs)


def _size_of(image: dict[str, Any]) -> tuple[float, float] | None:
    """Height and width; None where the file leaves one to the picture."""
    size = plain_number(image.get("height")), plain_number(image.get("width"))
    return size if min(size) > 0 else None


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True
