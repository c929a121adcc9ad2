"""YOLO-pose text labels, as Ultralytics lays them out, to people.

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
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from uniformer_pose.data.conversion.derived_skeleton import skeleton_and_order
from uniformer_pose.data.conversion.plain_values import FloatArray, Repairs, plain_keypoints, plain_number
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
    is_folder,
    path_inside,
    split_by_share,
    text_of,
)
from uniformer_pose.errors import InputError
from uniformer_pose.nearest_name import did_you_mean
from uniformer_pose.skeleton import Skeleton

_IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_MOST_KEYPOINTS, _MOST_CLASSES = 1_000, 100_000  # more are a mistake, or meant to fill the memory
_SPLITS: tuple[SplitName, SplitName] = ("train", "val")


def read_yolo_pose(source: Path, settings: ConversionSettings) -> SourceDataset:
    """The dataset of a data.yaml, or of the folder that holds one.

    Without ``images``, train and val are relative to what ``path`` says if that lies in the folder of data.yaml, else
    to that folder; no file outside it is read. Raises InputError where the file is no such description, or names
    folders that are not there.
    """
    file = source / "data.yaml" if source.is_dir() else source
    content = _read_yaml(file)
    num_keypoints, dimensions = _keypoint_shape(content, file)
    classes, notes = _chosen_classes(content, file, settings.categories)
    names = _keypoint_names(content, num_keypoints, min(classes), settings.skeleton)
    flips = content.get("flip_idx")
    if flips is not None and not (isinstance(flips, list) and all(type(flip) is int for flip in flips)):
        raise InputError(f"{file}: flip_idx must be a list of {num_keypoints} whole numbers")
    skeleton, order, assumptions = skeleton_and_order(settings, names, str(file), flip_indices=flips)
    notes += assumptions
    root = _root(content, file, settings.images)
    repairs = Repairs()
    listed = {
        split: _listed_images(root, content[split], f"{file}: {split}", repairs)
        for split in _SPLITS
        if content.get(split)
    }
    if "train" not in listed:
        raise InputError(f"{file}: has no 'train'; name the folder of training images")
    _require_labels(root, listed)
    folders = {split: Path(os.path.commonpath([path.parent for path in found])) for split, found in listed.items()}
    paths = {split: [path.relative_to(folders[split]).as_posix() for path in found] for split, found in listed.items()}
    if "val" not in paths:
        folders["val"] = folders["train"]
        paths = split_by_share(paths["train"], settings.val_share, settings.seed)
        notes.append(f"no 'val': {len(paths['val'])} of the images, drawn by their names, are for validation")
    if content.get("test"):
        notes.append("'test' is not converted")
    finisher = PersonFinisher(skeleton, settings, repairs, "displayed", fractions=True)

    def read(split: SplitName, image_name: str, problems: Problems) -> SourceImage | None:
        path = folders[split] / image_name
        people = []
        try:
            path_inside(root, path.relative_to(root).as_posix())
            lines = _label_lines(root, path)
            for number, line in enumerate(lines, start=1):
                place = f"{label_file(path)}:{number}"
                try:
                    person = _person(line, place, num_keypoints, dimensions, set(classes), repairs)
                except InputError as error:
                    problems.add(f"{place}: {error}")
                    continue
                people += [] if person is None else [person]
            return finisher.image(path, image_name, people, order, problems)
        except InputError as error:
            problems.add(str(error))
            return None

    return SourceDataset(skeleton, classes[min(classes)], paths, read, notes, repairs=repairs)


def label_file(image: Path) -> Path:
    """Where the labels of an image are: the last folder called images becomes labels; else beside the image."""
    parts = list(image.parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _person(
    line: str, place: str, num_keypoints: int, dimensions: int, classes: set[int], repairs: Repairs
) -> SourcePerson | None:
    """The person of one label line, in fractions of the picture; None for another class."""
    fields = line.split()
    length = 5 + num_keypoints * dimensions
    if len(fields) not in (5, length):
        raise InputError(f"has {len(fields)} numbers, kpt_shape makes it {length}")
    if plain_number(fields[0]) not in classes:
        return None
    center_x, center_y, width, height = map(plain_number, fields[1:5])
    box = np.array([center_x - width / 2, center_y - height / 2, width, height])
    if len(fields) == 5:
        repairs["boxes without keypoints read as people without labels"] += 1
        return SourcePerson(box, np.zeros((num_keypoints, 3)), place=place)
    keypoints = plain_keypoints(fields[5:], repairs) if dimensions == 3 else _of_two_numbers(fields[5:])
    return SourcePerson(box, keypoints, place=place)


def _of_two_numbers(fields: Sequence[str]) -> FloatArray:
    points = np.array([plain_number(text) for text in fields]).reshape(-1, 2)
    absent = (points < 0).any(axis=1) | (points == 0).all(axis=1)
    return np.column_stack([points, np.where(absent, 0, 2)])


def _label_lines(root: Path, image: Path) -> list[str]:
    labels = label_file(image)
    if not labels.resolve().is_relative_to(root):
        raise InputError(f"{labels}: leads out of {root}; give images=<folder that holds images and labels>")
    return [line for line in text_of(labels).splitlines() if line.strip()] if labels.exists() else []


def _require_labels(root: Path, listed: dict[SplitName, list[Path]]) -> None:
    """A wrong folder would otherwise give a dataset of empty pictures."""
    for split, images in listed.items():
        if not any(label_file(image).is_file() for image in images):
            expected = label_file(images[0])
            raise InputError(f"{root}: none of the {len(images)} {split} images has its label file, such as {expected}")


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text_of(file))
    except yaml.YAMLError as error:
        raise InputError(f"{file}: not valid YAML ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(content, dict):
        raise InputError(f"{file}: not a description of a YOLO dataset; it needs train, names and kpt_shape")
    return content


def _keypoint_shape(content: dict[str, Any], file: Path) -> tuple[int, int]:
    shape = content.get("kpt_shape")
    if not (
        isinstance(shape, list)
        and len(shape) == 2
        and type(shape[0]) is int
        and 0 < shape[0] <= _MOST_KEYPOINTS
        and shape[1] in (2, 3)
    ):
        raise InputError(
            f"{file}: kpt_shape is {shape!r:.40}; a pose dataset has [number of keypoints, 2 or 3] there, with at most "
            f"{_MOST_KEYPOINTS} keypoints"
        )
    return shape[0], int(shape[1])


def _chosen_classes(
    content: dict[str, Any], file: Path, categories: list[str | int] | None
) -> tuple[dict[int, str], list[str]]:
    """Index and name of the classes to take, and a note on the others."""
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if names is None and type(content.get("nc")) is int and content["nc"] <= _MOST_CLASSES:
        names = {index: str(index) for index in range(content["nc"])}
    if not isinstance(names, dict) or not names or not all(type(index) is int for index in names):
        raise InputError(f"{file}: 'names' must list the classes, as a list or as number: name")
    listed = {index: str(name) for index, name in names.items()}
    if categories is None and len(listed) > 1:
        found = ", ".join(listed.values())[:200]
        raise InputError(
            f"{file}: has the classes {found}; choose with category=<name>, or several with category=[a,b]"
        )
    for wanted in categories or []:
        if wanted not in listed and str(wanted) not in listed.values():
            raise InputError(f"{file}: has no class {wanted!r}; {did_you_mean(str(wanted), listed.values())}")
    asked = set(listed) if categories is None else {*categories, *map(str, categories)}
    chosen = {index: name for index, name in listed.items() if index in asked or name in asked}
    others = ", ".join(name for index, name in listed.items() if index not in chosen)
    return chosen, [f"objects of class {others} are not converted"] if others else []


def _keypoint_names(
    content: dict[str, Any], num_keypoints: int, class_index: int, skeleton: Skeleton | None
) -> list[str]:
    """``kpt_names``, by class or one list for all; else the skeleton's, else numbers."""
    given = content.get("kpt_names")
    if isinstance(given, dict):
        given = given.get(class_index)
    if isinstance(given, list) and len(given) == num_keypoints:
        return [str(name) for name in given]
    if skeleton is not None and skeleton.num_keypoints == num_keypoints:
        return list(skeleton.keypoint_names)
    return [f"keypoint_{number}" for number in range(1, num_keypoints + 1)]


def _root(content: dict[str, Any], file: Path, images: Path | None) -> Path:
    """The folder that everything lies in, resolved."""
    if images is not None:
        return existing_folder_of(images)
    home = file.parent.resolve()
    stated = home / str(content.get("path") or ".")
    if not is_folder(stated):
        return home  # the dataset was moved, as most are
    if not stated.resolve().is_relative_to(home):
        raise InputError(
            f"{file}: its path {content['path']} leads out of {home}; if that is meant, give images={stated}"
        )
    return stated.resolve()


def _listed_images(root: Path, entry: object, place: str, repairs: Repairs) -> list[Path]:
    """The image files of one folder, one list of files, or several of them; sorted, each once."""
    found: set[Path] = set()
    for one in entry if isinstance(entry, list) else [entry]:
        relative = str(one).replace("\\", "/")
        if relative.startswith("../") and not is_folder(root / relative):
            relative = relative.removeprefix("../")  # as Roboflow writes it: from a folder that nobody has
        if PurePosixPath(relative).is_absolute() and Path(relative).resolve().is_relative_to(root):
            relative = Path(relative).resolve().relative_to(root).as_posix()
        try:
            path = path_inside(root, relative)
        except InputError as error:
            raise InputError(f"{place}: {error}; give images=<folder that holds the images>") from error
        if path.is_dir():
            files = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
            found |= {file for file in files if file.suffix.lower() in _IMAGE_SUFFIXES}
        elif path.is_file() and path.suffix == ".txt":
            found |= {_listed(root, path, line, repairs) for line in text_of(path).splitlines() if line.strip()}
        else:
            raise InputError(f"{place}: {str(path)!r} is neither a folder nor a list of images (.txt)")
    if not found:
        raise InputError(f"{place}: no images there ({', '.join(sorted(_IMAGE_SUFFIXES))})")
    return sorted(found)


def _listed(root: Path, file: Path, line: str, repairs: Repairs) -> Path:
    """One line of a list of images: from the list's folder if it begins with ./, else from the root."""
    name = line.strip()
    if name.startswith(("./", ".\\")):
        name = (file.parent.relative_to(root) / name[2:]).as_posix()
    try:
        return find_inside(root, name, repairs)
    except InputError as error:
        raise InputError(f"{file}: {error}; give images=<folder that holds the images>") from error
