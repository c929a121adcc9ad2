"""YOLO-pose text labels, as Ultralytics lays them out, to people in pixels.

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

from uniformer_pose.data.checking.image_check import ImageHeader
from uniformer_pose.data.conversion.derived_skeleton import derive_skeleton, same_keypoints
from uniformer_pose.data.conversion.source import (
    Exif,
    Problems,
    SourceDataset,
    SourceImage,
    SourcePerson,
    SplitName,
    displayed_to_stored,
    finite_number,
    header_of,
    path_inside,
    split_by_share,
    visibility_of,
)
from uniformer_pose.errors import InputError
from uniformer_pose.nearest_name import did_you_mean
from uniformer_pose.skeleton import Skeleton

_IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_LARGEST_FRACTION = 1.01  # rounding
_MOST_KEYPOINTS, _MOST_CLASSES = 1_000, 100_000  # more are a mistake, or meant to fill the memory
_SPLITS: tuple[SplitName, SplitName] = ("train", "val")


def read_yolo_pose(
    source: Path,
    *,
    name: str,
    images: Path | None = None,
    skeleton: Skeleton | None = None,
    category: str | None = None,
    exif: Exif | None = None,
    val_share: float = 0.1,
    seed: int = 0,
    default_sigma: float = 0.05,
) -> SourceDataset:
    """The dataset of a data.yaml, or of the folder that holds one.

    ``images`` is the folder that train and val are relative to; None: what ``path`` says if that lies in the folder of
    data.yaml, or that folder itself. No file outside it is read. ``category`` is the class to take, needed where there
    are several. Without a val in the file, ``val_share`` of the images. Raises InputError where the file is no such
    description, or names folders that are not there.
    """
    file = source / "data.yaml" if source.is_dir() else source
    content = _read_yaml(file)
    num_keypoints, dimensions = _keypoint_shape(content, file)
    class_index, class_name, notes = _chosen_class(content, file, category)
    names = _keypoint_names(content, num_keypoints, class_index, skeleton)
    if skeleton is None:
        flips = content.get("flip_idx")
        if flips is not None and not (isinstance(flips, list) and all(type(flip) is int for flip in flips)):
            raise InputError(f"{file}: flip_idx must be a list of {num_keypoints} whole numbers")
        derived, assumptions = derive_skeleton(name, names, default_sigma=default_sigma, flip_indices=flips)
        notes += assumptions
    else:
        derived = same_keypoints(skeleton, names, str(file))
    root = _root(content, file, images)
    folders: dict[SplitName, Path] = {}
    paths: dict[SplitName, list[str]] = {}
    for split in _SPLITS:
        if content.get(split):
            found = _listed_images(root, content[split], f"{file}: {split}")
            folders[split] = _common_folder(found)
            paths[split] = [path.relative_to(folders[split]).as_posix() for path in found]
    if "train" not in paths:
        raise InputError(f"{file}: has no 'train'; name the folder of training images")
    _require_labels(root, folders, paths)
    if "val" not in paths:
        folders["val"] = folders["train"]
        paths = split_by_share(paths["train"], val_share, seed)
        notes.append(f"no 'val': {len(paths['val'])} of the images, drawn by their names, are for validation")
    if content.get("test"):
        notes.append("'test' is not converted")
    line_length = 5 + num_keypoints * dimensions

    def read(split: SplitName, image_name: str, problems: Problems) -> SourceImage | None:
        path = folders[split] / image_name
        try:
            path_inside(root, path.relative_to(root).as_posix())
            header = header_of(path)
            lines = _label_lines(root, path)
        except InputError as error:
            problems.add(str(error))
            return None
        people = []
        for number, line in enumerate(lines, start=1):
            try:
                person = _person(line, header, line_length, dimensions, class_index, stored=exif == "stored")
            except InputError as error:
                problems.add(f"{label_file(path)}:{number}: {error}")
                continue
            if person is not None:
                people.append(person if exif == "stored" else displayed_to_stored(person, header, derived))
        return SourceImage(path, header.height, header.width, people)

    return SourceDataset(derived, class_name, paths, read, notes)


def label_file(image: Path) -> Path:
    """Where the labels of an image are: the last folder called images becomes labels; else beside the image."""
    parts = list(image.parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _person(
    line: str, header: ImageHeader, length: int, dimensions: int, class_index: int, *, stored: bool
) -> SourcePerson | None:
    """The person of one label line, in pixels of the picture it was labelled on; None for another class."""
    fields = line.split()
    if len(fields) != length:
        hint = ": a box without keypoints" if len(fields) == 5 else ""
        raise InputError(f"has {len(fields)} numbers, kpt_shape makes it {length}{hint}")
    if finite_number(fields[0]) != class_index:
        return None
    height = header.height if stored else header.displayed_height
    width = header.width if stored else header.displayed_width
    center_x, center_y, box_width, box_height = (_fraction(text) for text in fields[1:5])
    if box_width <= 0 or box_height <= 0:
        raise InputError(f"has a box of width {box_width:g} and height {box_height:g}")
    box = np.array([(center_x - box_width / 2) * width, (center_y - box_height / 2) * height, 0, 0])
    box[2:] = box_width * width, box_height * height
    rows = [fields[start : start + dimensions] for start in range(5, length, dimensions)]
    return SourcePerson(box, np.array([_keypoint(row, height, width) for row in rows]))


def _keypoint(row: Sequence[str], height: int, width: int) -> tuple[float, float, int]:
    x, y = finite_number(row[0]), finite_number(row[1])
    visibility = visibility_of(row[2]) if len(row) == 3 else 0 if x < 0 or y < 0 or x == y == 0 else 2
    if not visibility:
        return 0.0, 0.0, 0
    return _fraction(row[0]) * width, _fraction(row[1]) * height, visibility


def _fraction(text: str) -> float:
    number = finite_number(text)
    if not 1 - _LARGEST_FRACTION <= number <= _LARGEST_FRACTION:
        raise InputError(f"{text} is no fraction of the picture's size, from 0 to 1")
    return number


def _label_lines(root: Path, image: Path) -> list[str]:
    labels = label_file(image)
    if not labels.resolve().is_relative_to(root):
        raise InputError(f"{labels}: leads out of {root}; give images=<folder that holds images and labels>")
    try:
        text = labels.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{labels}: cannot be read ({type(error).__name__})") from error
    return [line for line in text.splitlines() if line.strip()]


def _require_labels(root: Path, folders: dict[SplitName, Path], paths: dict[SplitName, list[str]]) -> None:
    """A wrong folder would otherwise give a dataset of empty pictures."""
    for split, names in paths.items():
        if names and not any(label_file(folders[split] / name).is_file() for name in names):
            expected = label_file(folders[split] / names[0])
            raise InputError(f"{root}: none of the {len(names)} {split} images has its label file, such as {expected}")


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise InputError(f"{file}: cannot be read ({reason}); give source=<data.yaml of the YOLO dataset>") from error
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


def _chosen_class(content: dict[str, Any], file: Path, category: str | None) -> tuple[int, str, list[str]]:
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if names is None and type(content.get("nc")) is int and content["nc"] <= _MOST_CLASSES:
        names = {index: str(index) for index in range(content["nc"])}
    if not isinstance(names, dict) or not names or not all(type(index) is int for index in names):
        raise InputError(f"{file}: 'names' must list the classes, as a list or as number: name")
    by_name = {str(name): index for index, name in names.items()}
    if category is None and len(by_name) > 1:
        raise InputError(f"{file}: has the classes {', '.join(by_name)[:200]}; choose one with category=<name>")
    chosen = next(iter(by_name)) if category is None else category
    if chosen not in by_name:
        raise InputError(f"{file}: has no class {chosen!r}; {did_you_mean(chosen, by_name)}")
    others = [name for name in by_name if name != chosen]
    return by_name[chosen], chosen, [f"objects of class {', '.join(others)} are not converted"] if others else []


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
        if not images.is_dir():
            raise InputError(f"images={images} is no folder")
        return images.resolve()
    home = file.parent.resolve()
    stated = home / str(content.get("path") or ".")
    if not stated.is_dir():
        return home  # the dataset was moved, as most are
    if not stated.resolve().is_relative_to(home):
        raise InputError(
            f"{file}: its path {content['path']} leads out of {home}; if that is meant, give images={stated}"
        )
    return stated.resolve()


def _listed_images(root: Path, entry: object, place: str) -> list[Path]:
    """The image files of one folder, one list of files, or several of them; sorted, each once."""
    found: set[Path] = set()
    for one in entry if isinstance(entry, list) else [entry]:
        relative = str(one)
        if relative.startswith("../") and not (root / relative).exists():
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
            found |= {
                _listed(root, path, line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
            }
        else:
            raise InputError(f"{place}: {str(path)!r} is neither a folder nor a list of images (.txt)")
    if not found:
        raise InputError(f"{place}: no images there ({', '.join(sorted(_IMAGE_SUFFIXES))})")
    return sorted(found)


def _listed(root: Path, file: Path, line: str) -> Path:
    """One line of a list of images: from the list's folder if it begins with ./, else from the root."""
    name = line.strip()
    start = file.parent if name.startswith("./") else root
    path = start / name
    if not path.resolve().is_relative_to(root) or ".." in PurePosixPath(name).parts:
        raise InputError(f"{file}: {name!r} leads out of {root}; give images=<folder that holds the images>")
    return path


def _common_folder(paths: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([path.parent for path in paths]))
