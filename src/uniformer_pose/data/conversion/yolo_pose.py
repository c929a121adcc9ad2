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
from typing import Annotated, Literal

import msgspec
import numpy as np
import yaml

from uniformer_pose.data.categories import category_names, counted_categories
from uniformer_pose.data.coco import existing_folder
from uniformer_pose.data.coco_json import CategoryRecord
from uniformer_pose.data.conversion.source import (
    SPLITS,
    Log,
    Settings,
    Source,
    SourceImage,
    SourcePerson,
    SplitName,
    find_inside,
    is_inside,
    plain_number,
    text_of,
)
from uniformer_pose.errors import InputError, one_line

_IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

Folders = str | list[str]
_KeypointNumber = Annotated[int, msgspec.Meta(ge=1, le=1_000)]  # more are a mistake, or meant to fill the memory


class _Description(msgspec.Struct):
    """A data.yaml."""

    train: Folders
    names: list[str] | dict[int, str]
    kpt_shape: tuple[_KeypointNumber, Literal[2, 3]]
    val: Folders | None = None
    path: str | None = None
    flip_idx: list[int] | None = None
    kpt_names: dict[int, list[str]] | list[str] | None = None


def read_yolo_pose(source: Path, settings: Settings, log: Log) -> Source:
    """The data set of a data.yaml, or of the folder that holds one.

    Without ``images``, train and val are relative to what ``path`` says if that lies in the folder of data.yaml, else
    to that folder; no file outside it is read. Raises InputError where the file is no such description, or names
    folders that are not there.
    """
    file = source / "data.yaml" if source.is_dir() else source
    content = _read_yaml(file)
    listed = _listed_classes(content, settings)
    classes = counted_categories(listed, [], file, None, settings.categories, option="category")
    log.notes.append(f"{category_names(classes)}, of {len(listed)} classes")
    first = next(entry for entry in listed if entry.id in classes)
    root = existing_folder(settings.images or file.parent)
    if settings.images is None and content.path and is_inside(root, content.path) and (root / content.path).is_dir():
        root = (root / content.path).resolve()  # else the data set was moved, as most are
    splits: dict[SplitName, list[SourceImage]] = {}
    for split in SPLITS:
        folders = getattr(content, split)
        if folders:
            images = _images_of(root, folders, f"{file}: {split}", log)
            splits[split] = _with_people(images, root, content.kpt_shape, set(classes), log)
    names, flips = first.keypoints or [], content.flip_idx
    return Source(names, classes[first.id], splits, flip_indices=flips, orientation="displayed", fractions=True)


def label_file(image: Path) -> Path:
    """Where the labels of an image are: the last folder called images becomes labels; else beside the image."""
    before, found, after = str(image.with_suffix(".txt")).rpartition(f"{os.sep}images{os.sep}")
    return Path(f"{before}{os.sep}labels{os.sep}{after}" if found else after)


def _with_people(
    images: Sequence[Path], root: Path, shape: tuple[int, int], classes: set[int], log: Log
) -> list[SourceImage]:
    if not any(label_file(image).is_file() for image in images):  # a wrong folder would give empty pictures
        expected = label_file(images[0])
        raise InputError(f"{root}: none of {len(images)} images has its label file, such as {expected}")
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
                    people += _people_of(line, place, shape, classes, log)
            name = image.relative_to(folder).as_posix()
            found.append(SourceImage(image, name, people))
    return found


def _people_of(line: str, place: str, shape: tuple[int, int], classes: set[int], log: Log) -> list[SourcePerson]:
    """The person of one label line, in fractions of the picture; nobody in an empty one or of another class."""
    fields = [plain_number(field) for field in line.split()]
    num_keypoints, dimensions = shape
    length = 5 + num_keypoints * dimensions
    if fields and len(fields) not in (5, length):
        raise InputError(f"has {len(fields)} numbers, kpt_shape makes it {length}")
    if not fields or fields[0] not in classes:
        return []
    center_x, center_y, width, height = fields[1:5]
    box = np.array([center_x - width / 2, center_y - height / 2, width, height])
    if len(fields) == 5:
        log.repairs["boxes without keypoints read as people without labels"] += 1
        return [SourcePerson(box, np.zeros((num_keypoints, 3)), place)]
    keypoints = np.array(fields[5:]).reshape(num_keypoints, dimensions)
    if dimensions == 2:
        absent = (keypoints < 0).any(axis=1) | (keypoints == 0).all(axis=1)
        keypoints = np.column_stack([keypoints, np.where(absent, 0, 2)])
    return [SourcePerson(box, keypoints, place)]


def _read_yaml(file: Path) -> _Description:
    try:
        return msgspec.convert(yaml.safe_load(text_of(file)), _Description)
    except (yaml.YAMLError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: no description of YOLO poses ({one_line(error)})") from error


def _listed_classes(content: _Description, settings: Settings) -> list[CategoryRecord]:
    """The classes with their keypoints: ``kpt_names``, by class or for all; else the skeleton's, or numbers."""
    named = dict(enumerate(content.names)) if isinstance(content.names, list) else content.names
    number, chosen = content.kpt_shape[0], settings.skeleton
    keypoints = [f"keypoint_{number}" for number in range(1, number + 1)]
    if chosen is not None and chosen.num_keypoints == number:
        keypoints = list(chosen.keypoint_names)
    given = content.kpt_names
    own = {index: given.get(index, []) if isinstance(given, dict) else given or [] for index in named}
    return [
        CategoryRecord(index, name, own[index] if len(own[index]) == number else keypoints)
        for index, name in sorted(named.items())
    ]


def _images_of(root: Path, folders: Folders, place: str, log: Log) -> list[Path]:
    """The image files of one folder, or of several; sorted."""
    found: set[Path] = set()
    for one in folders if isinstance(folders, list) else [folders]:
        try:
            path = find_inside(root, one, log)
        except InputError as error:
            raise InputError(f"{place}: {error}; give images=<folder that holds the images>") from error
        files = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
        found |= {file for file in files if file.suffix.lower() in _IMAGE_SUFFIXES}
    if not found:
        suffixes = ", ".join(sorted(_IMAGE_SUFFIXES))
        raise InputError(f"{place}: no images there ({suffixes}); name the folder that holds them")
    return sorted(found)
