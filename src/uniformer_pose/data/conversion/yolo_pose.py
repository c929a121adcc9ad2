"""YOLO-pose text labels, as Ultralytics lays them out, to a ``Source``.

A data.yaml names image folders (``train``, ``val``; below ``path``), ``kpt_shape`` [K, 2 or 3], the classes ``names``,
and often ``flip_idx`` and ``kpt_names``. For ``.../images/x.jpg`` the labels are ``.../labels/x.txt``; an image without
such a file has nobody in it. A line is one person: class, centre x, centre y, width and height of the box, then x, y
(and the visibility, where the second number of kpt_shape is 3) of every keypoint. Coordinates are fractions of the
picture as viewers show it, EXIF rotation applied; times its width or height they are COCO's pixel coordinates. With two
numbers a keypoint, one that is not labelled is negative or (0, 0).

Source: docs.ultralytics.com/datasets/pose.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from uniformer_pose.data.categories import category_names, counted_categories
from uniformer_pose.data.coco_json import CategoryRecord
from uniformer_pose.data.conversion.source import (
    FloatArray,
    Log,
    Settings,
    Source,
    SourceImage,
    SourcePerson,
    SplitName,
    find_inside,
    folder_of,
    is_inside,
    plain_keypoints,
    plain_number,
    text_of,
)
from uniformer_pose.errors import InputError

_IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_MOST_KEYPOINTS = 1_000  # more are a mistake, or meant to fill the memory


def read_yolo_pose(source: Path, settings: Settings, log: Log) -> Source:
    """The data set of a data.yaml, or of the folder that holds one.

    Without ``images``, train and val are relative to what ``path`` says if that lies in the folder of data.yaml, else
    to that folder; no file outside it is read. Raises InputError where the file is no such description, or names
    folders that are not there.
    """
    file = source / "data.yaml" if source.is_dir() else source
    content = _read_yaml(file)
    num_keypoints, dimensions = _keypoint_shape(content, file)
    listed = _listed_classes(content, num_keypoints, settings, file)
    classes = counted_categories(listed, [], file, None, settings.categories, option="category")
    first = next(entry for entry in listed if entry.id in classes)
    _note_classes(listed, classes, log)
    flips = content.get("flip_idx")
    if flips is not None and not (isinstance(flips, list) and all(type(flip) is int for flip in flips)):
        raise InputError(f"{file}: flip_idx must be a list of {num_keypoints} whole numbers")
    root = folder_of(settings.images or file.parent)
    stated = str(content.get("path") or "")
    if settings.images is None and stated and is_inside(root, stated) and (root / stated).is_dir():
        root = (root / stated).resolve()  # else the data set was moved, as most are
    if not content.get("train"):
        raise InputError(f"{file}: has no 'train'; name the folder of training images")
    names: tuple[SplitName, ...] = ("train", "val")
    found = {split: _images_of(root, content[split], f"{file}: {split}", log) for split in names if content.get(split)}
    for split, images in found.items():
        if not any(label_file(image).is_file() for image in images):  # a wrong folder would give empty pictures
            expected = label_file(images[0])
            raise InputError(f"{root}: none of the {len(images)} {split} images has its label file, such as {expected}")
    if content.get("test"):
        log.notes.append("'test' is not converted")
    shape = (num_keypoints, dimensions)
    splits = {split: _with_people(images, root, shape, set(classes), log) for split, images in found.items()}
    return Source(first.keypoints or [], classes[first.id], splits, flip_indices=flips, fractions=True)


def label_file(image: Path) -> Path:
    """Where the labels of an image are: the last folder called images becomes labels; else beside the image."""
    parts = list(image.parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _with_people(
    images: Sequence[Path], root: Path, shape: tuple[int, int], classes: set[int], log: Log
) -> list[SourceImage]:
    folder = Path(os.path.commonpath([image.parent for image in images]))
    found = []
    for image in images:
        with log.leaving_out():
            labels = label_file(image)
            for path in (image, labels):
                if path.exists() and not is_inside(root, path.relative_to(root).as_posix()):
                    raise InputError(f"{path}: leads out of {root}; give images=<folder of pictures and labels>")
            people = []
            for number, line in enumerate(text_of(labels).splitlines() if labels.exists() else [], start=1):
                place = f"{labels}:{number}"
                with log.leaving_out(place):
                    person = _person(line, place, shape, classes, log) if line.strip() else None
                    people += [] if person is None else [person]
            name = image.relative_to(folder).as_posix()
            found.append(SourceImage(image, name, people, orientation="displayed"))
    return found


def _person(line: str, place: str, shape: tuple[int, int], classes: set[int], log: Log) -> SourcePerson | None:
    """The person of one label line, in fractions of the picture; None for another class."""
    fields = line.split()
    num_keypoints, dimensions = shape
    length = 5 + num_keypoints * dimensions
    if len(fields) not in (5, length):
        raise InputError(f"has {len(fields)} numbers, kpt_shape makes it {length}")
    if plain_number(fields[0]) not in classes:
        return None
    center_x, center_y, width, height = map(plain_number, fields[1:5])
    box = np.array([center_x - width / 2, center_y - height / 2, width, height])
    if len(fields) == 5:
        log.repairs["boxes without keypoints read as people without labels"] += 1
        return SourcePerson(box, np.zeros((num_keypoints, 3)), place)
    keypoints = plain_keypoints(fields[5:], log) if dimensions == 3 else _of_two_numbers(fields[5:])
    return SourcePerson(box, keypoints, place)


def _of_two_numbers(fields: Sequence[str]) -> FloatArray:
    points = np.array([plain_number(text) for text in fields]).reshape(-1, 2)
    absent = (points < 0).any(axis=1) | (points == 0).all(axis=1)
    return np.column_stack([points, np.where(absent, 0, 2)])


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text_of(file))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: not valid YAML ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(content, dict):
        raise InputError(f"{file}: not a description of a YOLO dataset; it needs train, names and kpt_shape")
    return content


def _keypoint_shape(content: dict[str, Any], file: Path) -> tuple[int, int]:
    match content.get("kpt_shape"):
        case [int(number), 2 | 3 as dimensions] if 0 < number <= _MOST_KEYPOINTS and type(number) is int:
            return number, int(dimensions)
    raise InputError(
        f"{file}: kpt_shape is {content.get('kpt_shape')!r:.40}; a pose dataset has [number of keypoints, 2 or 3] "
        f"there, with at most {_MOST_KEYPOINTS} keypoints"
    )


def _listed_classes(
    content: dict[str, Any], num_keypoints: int, settings: Settings, file: Path
) -> list[CategoryRecord]:
    """The classes, with their keypoints."""
    names = content.get("names")
    listed = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(listed, dict) or not listed or not all(type(index) is int for index in listed):
        raise InputError(f"{file}: 'names' must list the classes, as a list or as number: name")
    return [
        CategoryRecord(index, str(name), _keypoint_names(content, num_keypoints, index, settings))
        for index, name in sorted(listed.items())
    ]


def _note_classes(listed: Sequence[CategoryRecord], classes: dict[int, str], log: Log) -> None:
    others = ", ".join(str(entry.name) for entry in listed if entry.id not in classes)
    if others:
        log.notes.append(f"objects of class {others[:200]} are not converted")
    if len(classes) > 1:
        log.notes.append(f"{category_names(classes)}; category=<name> takes one of them alone")


def _keypoint_names(content: dict[str, Any], num_keypoints: int, class_index: int, settings: Settings) -> list[str]:
    """``kpt_names``, by class or one list for all; else the skeleton's, else numbers."""
    given = content.get("kpt_names")
    if isinstance(given, dict):
        given = given.get(class_index)
    if isinstance(given, list) and len(given) == num_keypoints:
        return [str(name) for name in given]
    if settings.skeleton is not None and settings.skeleton.num_keypoints == num_keypoints:
        return list(settings.skeleton.keypoint_names)
    return [f"keypoint_{number}" for number in range(1, num_keypoints + 1)]


def _images_of(root: Path, entry: object, place: str, log: Log) -> list[Path]:
    """The image files of one folder, or of several; sorted."""
    found: set[Path] = set()
    for one in entry if isinstance(entry, list) else [entry]:
        try:
            path = find_inside(root, str(one), log)
        except InputError as error:
            raise InputError(f"{place}: {error}; give images=<folder that holds the images>") from error
        if not path.is_dir():
            raise InputError(f"{place}: {path} is no folder; name the folder that holds the images")
        files = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
        found |= {file for file in files if file.suffix.lower() in _IMAGE_SUFFIXES}
    if not found:
        raise InputError(f"{place}: no images there ({', '.join(sorted(_IMAGE_SUFFIXES))})")
    return sorted(found)
