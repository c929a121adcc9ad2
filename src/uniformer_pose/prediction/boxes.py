"""Where the people of each picture are: all over it, where a file says, or where a detector finds them.

A file holds COCO annotations or a detector's results. Detector results know pictures by number, by name, or by the
name without its ending. A number stands for the picture whose name is that number, as in COCO (``000000000139.jpg`` is
139), unless the results or an annotation file say its name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.categories import counted_categories, listed_categories
from uniformer_pose.data.coco_json import ImageOrientation, read_json, stated_orientation
from uniformer_pose.errors import InputError
from uniformer_pose.prediction.detection import Detector, KeptBoxes, PersonBoxes, detected_people
from uniformer_pose.prediction.sources import number_in_name

Image = npt.NDArray[np.uint8]


class BoxFinder(Protocol):
    """Names and RGB pixels of some pictures -> the boxes of each."""

    def __call__(self, names: Sequence[str], images: Sequence[Image], /) -> list[PersonBoxes]:
        """The boxes of each picture, in order."""

    def remarks(self) -> list[str]:
        """What a user should know about all boxes found so far, one sentence each."""


class FullPictures:
    """One person fills each picture."""

    def __call__(self, _names: Sequence[str], images: Sequence[Image]) -> list[PersonBoxes]:
        """One box as large as the picture."""
        sizes = [image.shape[:2] for image in images]
        return [PersonBoxes(np.array([[0.0, 0.0, width, height]]), np.ones(1)) for height, width in sizes]

    def remarks(self) -> list[str]:
        """Nothing."""
        return []


class ListedBoxes:
    """The boxes that a file lists; pictures that it does not list have nobody, and are counted."""

    def __init__(self, boxes: BoxesOfFile) -> None:
        self.boxes = boxes
        self._unlisted: list[str] = []

    def __call__(self, names: Sequence[str], _images: Sequence[Image]) -> list[PersonBoxes]:
        """The file's boxes of each picture, by its name."""
        found = [self.boxes.of_picture(name) for name in names]
        self._unlisted += [name for name, listed in zip(names, found, strict=True) if listed is None]
        return [PersonBoxes.empty() if listed is None else listed.boxes for listed in found]

    def remarks(self) -> list[str]:
        """How many pictures the file does not list."""
        if not self._unlisted:
            return []
        return [f"{self.boxes.file} does not list {len(self._unlisted)} pictures, first {self._unlisted[0]}"]


class DetectedBoxes:
    """The people that a detector finds, without those boxes that are not worth a pose.

    ``keep`` is ``kept_boxes`` with its thresholds.
    """

    def __init__(self, detector: Detector, keep: Callable[..., KeptBoxes]) -> None:
        self.detector, self.keep = detector, keep
        self._removed: Counter[str] = Counter()
        self._kept = 0

    def __call__(self, _names: Sequence[str], images: Sequence[Image]) -> list[PersonBoxes]:
        """The kept boxes of each picture, best first."""
        found: list[PersonBoxes] = []
        for image, people in zip(images, detected_people(self.detector, images) if images else [], strict=True):
            kept = self.keep(people, height=image.shape[0], width=image.shape[1])
            self._removed.update(kept.removed)
            self._kept += len(kept)
            found.append(kept)
        return found

    def remarks(self) -> list[str]:
        """How many boxes were kept, and why others were not."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self._removed.items())
        return [f"detector: kept {self._kept} boxes" + (f" (left out: {reasons})" if reasons else "")]


@dataclass(frozen=True)
class ListedPicture:
    """What a file says of one picture; its number, height and width in pixels are None where it is silent."""

    boxes: PersonBoxes
    number: int | None = None
    height: int | None = None
    width: int | None = None


@dataclass(frozen=True)
class BoxesOfFile:
    """The boxes of a file by picture, which is known by its name, by the stem of its name, or by its number.

    ``orientation``: what the boxes refer to, None where the file does not say, which then is ``assumed``: ``stored``
    in annotations, as in COCO; ``displayed`` in detections. ``left_out`` counts the entries that are none, by reason.
    """

    file: Path
    pictures: Mapping[str | int, ListedPicture]
    categories: Mapping[int, str]
    orientation: ImageOrientation | None = None
    assumed: ImageOrientation = "displayed"
    left_out: Mapping[str, int] = field(default_factory=dict)

    def of_picture(self, name: str) -> ListedPicture | None:
        """What the file says of a picture, by its path below the source or else by its last part; None if nothing."""
        key = self._key(name)
        return None if key is None else self.pictures[key]

    def require_boxes_on(self, names: Sequence[str]) -> None:
        """InputError unless the file has a box on one of these pictures at least, and tells them apart."""
        keys = {name: self._key(name) for name in names}
        matched = {name: key for name, key in keys.items() if key is not None}
        if not matched:
            listed = ", ".join(map(str, list(self.pictures)[:3]))
            raise InputError(
                f"{self.file}: lists none of the {len(names)} pictures of the source, such as {names[0]}; it lists "
                f"{listed}. A picture is found by its file_name, or by an image_id that is its name, the name without "
                "its ending, or its number"
            )
        if not any(len(self.pictures[key].boxes) for key in matched.values()):
            raise InputError(f"{self.file}: has no box on the {len(matched)} pictures of the source that it lists")
        first: dict[str | int, str] = {}
        for name, key in matched.items():
            if first.setdefault(key, name) != name:
                raise InputError(
                    f"{self.file}: {key} may be {first[key]} or {name}; give a source with one of them, or boxes with "
                    "the file_name of each"
                )

    def summary(self) -> str:
        """One line: how many boxes there are, and why others were left out."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items() if count)
        return f"{self.file}: {self.num_boxes} boxes on {len(self.pictures)} pictures" + (
            f" (left out: {reasons})" if reasons else ""
        )

    @property
    def num_boxes(self) -> int:
        """How many boxes there are on all pictures."""
        return sum(len(picture.boxes) for picture in self.pictures.values())

    def _key(self, name: str) -> str | int | None:
        path = PurePosixPath(name)
        ways = (name, path.name, path.with_suffix("").as_posix(), path.stem, number_in_name(name))
        return next((known for known in ways if known is not None and known in self.pictures), None)


def boxes_of_file(path: str | Path, *, categories: Sequence[str | int] | None = None) -> BoxesOfFile:
    """The boxes of a COCO annotation file (with ``images`` and ``annotations``) or of detector results (a list).

    ``categories`` by name or id: those that count, see ``counted_categories``. Entries of another category, crowds, and
    boxes without area or with numbers that are not finite are left out and counted. Raises InputError for a file that
    is neither, and for one of which no box is left.
    """
    path = Path(path).expanduser()
    content = read_json(path)
    if not isinstance(content, dict | list):
        raise InputError(f"{path}: holds neither COCO annotations nor a list of detections")
    annotations: dict[str, Any] = content if isinstance(content, dict) else {}
    images, entries = ({}, content) if isinstance(content, list) else _images_and_entries(path, content)
    listed = listed_categories(annotations, path)
    used = [entry["category_id"] for entry in entries if isinstance(entry, dict) and "category_id" in entry]
    used_ids = [number for number in used if type(number) is int] if content is annotations else []
    counted = counted_categories(listed, used_ids, path, None, categories, option="boxes_category")
    left_out: Counter[str] = Counter()
    others: Counter[Any] = Counter()
    found: dict[str | int, list[tuple[list[float], float]]] = {image["file_name"]: [] for image in images.values()}
    for position, entry in enumerate(entries):
        key = _picture_of(path, position, entry)
        category = _plain_id(entry.get("category_id"))
        if key in images:
            key = images[key]["file_name"]
        elif content is annotations:
            left_out["of a picture that is not listed"] += 1
            continue
        if category is not None and category not in counted:
            left_out["of another category"] += 1
            others[category] += 1
        elif entry.get("iscrowd", 0):
            left_out["crowds"] += 1
        elif not _is_box(entry.get("bbox")) or not _is_finite(entry.get("score", 1.0)):
            left_out["without a usable box"] += 1
        else:
            found.setdefault(key, []).append((entry["bbox"], entry.get("score", 1.0)))
    said = {image["file_name"]: (number, image) for number, image in images.items()}
    boxes = BoxesOfFile(
        file=path,
        pictures={key: _listed(rows, *said.get(key, (key, {}))) for key, rows in found.items()},
        categories=counted,
        orientation=stated_orientation(annotations.get("info"), path),
        assumed="stored" if content is annotations else "displayed",
        left_out=left_out,
    )
    if not boxes.num_boxes:
        raise InputError(f"{boxes.summary()}; nobody to pose" + _advice_on_categories(counted, others))
    return boxes


def _listed(rows: Sequence[tuple[list[float], float]], number: Any, image: Mapping[str, Any]) -> ListedPicture:
    boxes = PersonBoxes(np.array([box for box, _ in rows]).reshape(-1, 4), np.array([score for _, score in rows]))
    height, width = (_plain_id(image.get(side)) for side in ("height", "width"))
    sized = isinstance(height, int) and isinstance(width, int) and height > 0 < width
    return ListedPicture(boxes, number if isinstance(number, int) else None, *((height, width) if sized else ()))


def _advice_on_categories(counted: Mapping[int, str], others: Counter[Any]) -> str:
    if not others:
        return ""
    theirs = ", ".join(f"{category} ({count} boxes)" for category, count in others.most_common(5))
    ours = ", ".join(f"{number} ({name})" for number, name in list(counted.items())[:5])
    return f": category {ours} counts, and its boxes are of {theirs}; choose with boxes_category=<id or name>"


def _images_and_entries(path: Path, content: dict[str, Any]) -> tuple[dict[str | int, dict[str, Any]], list[Any]]:
    """The listed images by their ids, and the annotations."""
    images, annotations = content.get("images"), content.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise InputError(f"{path}: has no lists of images and annotations; give COCO annotations or detector results")
    by_id: dict[str | int, dict[str, Any]] = {}
    for position, image in enumerate(images):
        number = _plain_id(image.get("id")) if isinstance(image, dict) else None
        if number is None or not isinstance(image.get("file_name"), str):
            raise InputError(f"{path}: image {position} of the list has no id and file_name")
        by_id[number] = image
    return by_id, annotations


def _picture_of(path: Path, position: int, entry: Any) -> str | int:
    """What an entry says of its picture: a name, or a number."""
    if not isinstance(entry, dict):
        raise InputError(f"{path}: entry {position} is a {type(entry).__name__}; give objects with image_id and bbox")
    name = entry.get("file_name")
    said = name if isinstance(name, str) else _plain_id(entry.get("image_id"))
    if said is None:
        raise InputError(f"{path}: entry {position} does not say its picture; give it an image_id or a file_name")
    return said


def _plain_id(value: Any) -> str | int | None:
    """An id as it is meant: 7, 7.0, "7" and "0007" are the number 7; None for what is no id."""
    if isinstance(value, str):
        number = number_in_name(value) if value.isdigit() else None
        return value if number is None else number
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_finite, value)) and value[2] > 0 and value[3] > 0


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e7 and math.isfinite(value)
