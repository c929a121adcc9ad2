"""COCO JSON with keypoints of its own to people in stored pixels.

The category's ``keypoints`` and ``skeleton`` give the skeleton. Where an image's width and height are those after EXIF
rotation, so are the coordinates, and they are turned back. What a reader of COCO would find in an annotation beside
box and keypoints (iscrowd, segmentation, attributes) is kept.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from uniformer_pose.data.checking.image_check import ImageHeader
from uniformer_pose.data.coco_annotations import entries, number_rows, read_annotation_file, read_boxes
from uniformer_pose.data.conversion.derived_skeleton import derive_skeleton, limbs_from_coco, same_keypoints
from uniformer_pose.data.conversion.source import (
    Exif,
    Problems,
    SourceDataset,
    SourceImage,
    SourcePerson,
    SplitName,
    displayed_to_stored,
    header_of,
    path_inside,
    require_exif_choice,
    split_by_share,
)
from uniformer_pose.errors import InputError
from uniformer_pose.nearest_name import did_you_mean
from uniformer_pose.skeleton import Skeleton

_WRITTEN_ANEW = {"id", "image_id", "category_id", "bbox", "keypoints", "num_keypoints", "area"}
_GEOMETRY = {"segmentation"}  # of the picture as displayed; cannot stay where the pixels are turned


def read_coco_keypoints(
    source: Path,
    *,
    name: str,
    val_source: Path | None = None,
    images: Path | None = None,
    val_images: Path | None = None,
    skeleton: Skeleton | None = None,
    category: str | None = None,
    exif: Exif | None = None,
    val_share: float = 0.1,
    seed: int = 0,
    default_sigma: float = 0.05,
) -> SourceDataset:
    """The dataset of an annotation file, and of a second one for validation; else ``val_share`` of the images.

    ``images`` and ``val_images`` are the folders of the pictures, None: the files' own. ``category`` is needed where
    several list keypoints. Raises InputError where a file is no COCO file, or has no such category.
    """
    files: dict[SplitName, Path] = {"train": source} if val_source is None else {"train": source, "val": val_source}
    folders: dict[SplitName, Path] = {
        "train": (images or source.parent).resolve(),
        "val": (val_images or images or (val_source or source).parent).resolve(),
    }
    for folder in folders.values():
        if not folder.is_dir():
            raise InputError(f"images={folder} is no folder; give the folder of the pictures")
    contents = {split: _Content(file, category) for split, file in files.items()}
    first = contents["train"]
    limbs, notes = limbs_from_coco(first.category.get("skeleton"), len(first.keypoint_names), str(source))
    if skeleton is None:
        derived, assumptions = derive_skeleton(name, first.keypoint_names, default_sigma=default_sigma, limbs=limbs)
        notes += assumptions
    else:
        derived = skeleton
    for content in contents.values():
        same_keypoints(derived, content.keypoint_names, str(content.file))
        notes += content.notes
    if val_source is None:
        paths = split_by_share(list(first.images), val_share, seed)
        notes.append(f"no val_source: {len(paths['val'])} of the images, drawn by their names, are for validation")
    else:
        paths = {split: list(content.images) for split, content in contents.items()}
    of_no_image = [sentence for content in contents.values() for sentence in content.problems]

    def read(split: SplitName, image_name: str, problems: Problems) -> SourceImage | None:
        content = contents.get(split, first)
        record = content.images[image_name]
        try:
            path = path_inside(folders[split], image_name)
            header = header_of(path)
            displayed = _is_displayed(record, header, path, exif)
        except InputError as error:
            problems.add(f"{content.file}: image {record['id']}: {error}")
            return None
        people = []
        for annotation in content.annotations[record["id"]]:
            try:
                person = _person(annotation, derived, content.file, keep_ids=content.keep_ids, displayed=displayed)
            except InputError as error:
                problems.add(str(error))
                continue
            people.append(displayed_to_stored(person, header, derived) if displayed else person)
        return SourceImage(path, header.height, header.width, people, record["id"])

    return SourceDataset(derived, str(first.category["name"]), paths, read, notes, of_no_image)


class _Content:
    """One annotation file: its images by file name, the category's annotations by image id."""

    def __init__(self, file: Path, category: str | None) -> None:
        self.file = file
        self.notes: list[str] = []
        self.problems: list[str] = []
        content = read_annotation_file(file)
        self.category = _chosen_category(content, file, category)
        self.keypoint_names = [str(name) for name in self.category["keypoints"]]
        self.images: dict[str, dict[str, Any]] = {}
        ids: set[int] = set()
        for number, record in enumerate(entries(content, "images", file), start=1):
            usable = isinstance(record, dict) and type(record.get("id")) is int
            image_name = record.get("file_name") if usable else None
            if not isinstance(image_name, str) or record["id"] in ids or image_name in self.images:
                self.problems.append(f"{file}: image number {number} needs an id and a file_name of its own")
                continue
            ids.add(record["id"])
            self.images[image_name] = record
        self.annotations: dict[int, list[dict[str, Any]]] = defaultdict(list)
        others = 0
        own_ids = []
        for number, record in enumerate(content.get("annotations") or [], start=1):
            if not isinstance(record, dict):
                self.problems.append(f"{file}: annotation number {number} is no object")
            elif record.get("category_id") != self.category["id"]:
                others += 1
            elif type(record.get("image_id")) is not int or record["image_id"] not in ids:
                self.problems.append(f"{file}: annotation number {number} is in an image that the file does not list")
            else:
                own_ids.append(record.get("id"))
                self.annotations[record["image_id"]].append(record)
        if others:
            self.notes.append(f"{file.name}: {others} annotations of other categories are not converted")
        whole = [number for number in own_ids if type(number) is int and number > 0]
        self.keep_ids = len(set(whole)) == len(own_ids)
        if own_ids and not self.keep_ids:
            self.notes.append(f"{file.name}: annotation ids are absent, repeated or below 1; they are numbered anew")


def _chosen_category(content: dict[str, Any], file: Path, name: str | None) -> dict[str, Any]:
    listed = [entry for entry in content.get("categories") or [] if isinstance(entry, dict)]
    with_keypoints = {
        str(entry.get("name", entry.get("id"))): entry
        for entry in listed
        if isinstance(entry.get("keypoints"), list) and entry["keypoints"] and type(entry.get("id")) is int
    }
    if not with_keypoints:
        raise InputError(
            f"{file}: no category lists keypoints; add their names to the category, in the annotations' order"
        )
    if name is None and len(with_keypoints) > 1:
        raise InputError(f"{file}: {', '.join(with_keypoints)[:200]} have keypoints; choose one with category=<name>")
    chosen = next(iter(with_keypoints)) if name is None else name
    if chosen not in with_keypoints:
        raise InputError(f"{file}: no category {chosen!r} with keypoints; {did_you_mean(chosen, with_keypoints)}")
    return {**with_keypoints[chosen], "name": chosen}


def _is_displayed(record: dict[str, Any], header: ImageHeader, path: Path, exif: Exif | None) -> bool:
    """Whether coordinates refer to the EXIF-rotated picture: the file's size says it, where it can."""
    size = record.get("height"), record.get("width")
    if None in size:
        return require_exif_choice(path, header, exif) == "displayed"
    stored, displayed = (header.height, header.width), (header.displayed_height, header.displayed_width)
    if size not in (stored, displayed):
        raise InputError(
            f"{path} is {stored[0]}x{stored[1]} pixels (height x width), the file says {size[0]}x{size[1]}"
        )
    if stored != displayed:
        return size == displayed
    return exif == "displayed"


def _person(record: dict[str, Any], skeleton: Skeleton, file: Path, *, keep_ids: bool, displayed: bool) -> SourcePerson:
    def named(_: int) -> str:
        return f"annotation {record.get('id')}"

    box = read_boxes([record], file, named)[0]
    if "keypoints" in record:
        meaning = f"x, y, visibility of the {skeleton.num_keypoints} keypoints"
        length = 3 * skeleton.num_keypoints
        keypoints = number_rows([record], "keypoints", length, file, named, meaning=meaning).reshape(-1, 3)
    else:
        keypoints = np.zeros((skeleton.num_keypoints, 3))  # of a detection set: a person without labelled keypoints
    if not np.isin(keypoints[:, 2], (0, 1, 2)).all():
        raise InputError(f"{file}: annotation {record.get('id')} has a visibility other than 0, 1 and 2")
    keypoints[keypoints[:, 2] == 0] = 0
    area = record.get("area")
    known_area = float(area) if isinstance(area, (int, float)) and 0 < area < 1e15 else None
    left_out = _WRITTEN_ANEW | (_GEOMETRY if displayed else set())
    others = {key: value for key, value in record.items() if key not in left_out}
    annotation_id = record["id"] if keep_ids else None
    return SourcePerson(box, keypoints, known_area, annotation_id, others)
