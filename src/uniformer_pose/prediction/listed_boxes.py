"""Boxes of people that a file lists: COCO annotations, or a detector's results.

Detector results know pictures by number, by name, or by the name without its ending. A number stands for the picture
whose name is that number, as in COCO (``000000000139.jpg`` is 139), unless an annotation file says its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.categories import counted_categories, listed_categories
from uniformer_pose.data.coco_json import ImageOrientation, read_json, stated_orientation
from uniformer_pose.errors import InputError
from uniformer_pose.prediction.boxes import PersonBoxes
from uniformer_pose.prediction.sources import Source, number_in_name

Image = npt.NDArray[np.uint8]
PictureId = Any
"""A number, or a name; None where there is none."""


@dataclass(frozen=True)
class ListedBoxes:
    """A ``BoxFinder``: the boxes (P, 5) xywh and score that a file lists for each picture, by its name or number.

    ``images``: what the file says of a picture beside them. ``orientation``: what the boxes refer to, None where the
    file does not say, which then is ``assumed``: ``stored`` in annotations, as in COCO; ``displayed`` in detections.
    ``left_out`` counts the entries that are no boxes by reason. Pictures that are not listed have nobody, and are
    counted.
    """

    file: Path
    boxes: Mapping[PictureId, list[list[float]]]
    images: Mapping[PictureId, Mapping[str, Any]]
    categories: Mapping[int, str]
    orientation: ImageOrientation | None
    assumed: ImageOrientation
    left_out: Mapping[str, int]
    unlisted: list[str] = field(default_factory=list)

    def __call__(self, names: Sequence[str], _images: Sequence[Image]) -> list[PersonBoxes]:
        """The file's boxes of each picture, by its name."""
        self.unlisted.extend(name for name in names if self._key(name) is None)
        rows = [np.array(self.boxes.get(self._key(name), [])).reshape(-1, 5) for name in names]
        return [PersonBoxes(boxes[:, :4], boxes[:, 4]) for boxes in rows]

    def remarks(self) -> list[str]:
        """How many boxes there are, why others were left out, and how many pictures the file does not list."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        count = sum(map(len, self.boxes.values()))
        said = f" (left out: {reasons})" if reasons else ""
        lines = [f"{self.file}: {count} boxes on {len(self.boxes)} pictures{said}"]
        if self.unlisted:
            lines.append(f"{self.file} does not list {len(self.unlisted)} pictures, first {self.unlisted[0]}")
        return lines

    def size_of(self, name: str) -> tuple[int | None, int | None]:
        """Height and width in pixels that the file gives a picture; None where it is silent."""
        image = self.images.get(self._key(name), {})
        height, width = image.get("height"), image.get("width")
        sized = type(height) is int and type(width) is int and height > 0 < width
        return (height, width) if sized else (None, None)

    def numbers(self, names: Sequence[str]) -> dict[str, int]:
        """The image ids that the file gives to pictures."""
        keys = {name: self._key(name) for name in names}
        said = {name: self.images.get(key, {}).get("id", key) for name, key in keys.items()}
        return {name: number for name, number in said.items() if type(number) is int}

    def require_boxes_on(self, names: Sequence[str]) -> None:
        """InputError unless the file has a box on one of these pictures at least, and tells them apart."""
        matched = {name: key for name in names if (key := self._key(name)) is not None}
        if not matched:
            listed = ", ".join(map(str, list(self.boxes)[:3]))
            raise InputError(
                f"{self.file}: lists none of the {len(names)} pictures of the source, such as {names[:1]}; it lists "
                f"{listed}. A picture is found by its file_name, or by an image_id that is its name, the name without "
                "its ending, or its number"
            )
        if not any(self.boxes[key] for key in matched.values()):
            raise InputError(f"{self.file}: has no box on the {len(matched)} pictures of the source that it lists")
        first: dict[PictureId, str] = {}
        for name, key in matched.items():
            if first.setdefault(key, name) != name:
                raise InputError(f"{self.file}: {key} may be {first[key]} or {name}; give boxes with their file_name")

    def _key(self, name: str) -> PictureId:
        path = PurePosixPath(name)
        ways = (name, path.name, path.with_suffix("").as_posix(), path.stem, number_in_name(name))
        return next((known for known in ways if known is not None and known in self.boxes), None)


def read_listed_boxes(path: str | Path, *, categories: Sequence[str | int] | None = None) -> ListedBoxes:
    """The boxes of a COCO annotation file (with ``images`` and ``annotations``) or of detector results (a list).

    ``categories`` by name or id: those that count, see ``counted_categories``. Entries of another category, crowds, and
    boxes without area or with numbers that are not finite are left out and counted. Raises InputError for a file that
    is neither, and for one of which no box is left.
    """
    path = Path(path).expanduser()
    content = read_json(path)
    if not isinstance(content, dict | list):
        raise InputError(f"{path}: holds neither COCO annotations nor a list of detections")
    annotations: dict[str, Any] = content if isinstance(content, dict) else {"annotations": content}
    listed = _objects(annotations, "images", path) if content is annotations else []
    names = {_plain(image.get("id")): image.get("file_name") for image in listed}
    if None in names or not all(isinstance(name, str) for name in names.values()):
        raise InputError(f"{path}: an image of the list has no id or no file_name")
    entries = _objects(annotations, "annotations", path)
    used = [number for entry in entries if listed and type(number := entry.get("category_id")) is int]
    named = listed_categories(annotations, path)
    counted = counted_categories(named, used, path, None, categories, option="boxes_category")
    boxes: dict[PictureId, list[list[float]]] = {str(name): [] for name in names.values()}
    left_out: Counter[str] = Counter()
    for position, entry in enumerate(entries):
        said = entry.get("file_name") or _plain(entry.get("image_id"))
        if not isinstance(said, str | int):
            raise InputError(f"{path}: entry {position} does not say its picture; give it an image_id or a file_name")
        key = names.get(said, None if listed else said)
        if reason := "of a picture that is not listed" if key is None else _why_not(entry, counted):
            left_out[reason] += 1
        else:
            boxes.setdefault(key, []).append([*entry["bbox"], entry.get("score", 1.0)])
    found = ListedBoxes(
        path,
        boxes,
        images={image["file_name"]: {**image, "id": _plain(image["id"])} for image in listed},
        categories=counted,
        orientation=stated_orientation(annotations.get("info"), path),
        assumed="stored" if content is annotations else "displayed",
        left_out=left_out,
    )
    if not any(boxes.values()):
        theirs = Counter(_plain(entry.get("category_id")) for entry in entries).most_common(5)
        ours = ", ".join(f"{number} ({name})" for number, name in list(counted.items())[:5])
        raise InputError(
            f"{found.remarks()[0]}; nobody to pose. Category {ours} counts, and the file has "
            f"{', '.join(f'{category} ({count} boxes)' for category, count in theirs)}; choose with boxes_category=<id "
            "or name>"
        )
    return found


def listed_boxes_for(source: Source, boxes: str, category: Any) -> ListedBoxes | None:
    """The boxes of the file that ``boxes`` names, for pictures of this source; None where it names none."""
    if boxes in ("full", "detector"):
        if category is not None:
            raise InputError(f"boxes_category={category}: chooses among the boxes of a file; give boxes=<file>")
        return None
    listed = read_listed_boxes(boxes, categories=[category] if isinstance(category, str | int) else category)
    if any(item.kind == "video" for item in source.items):
        raise InputError(f"boxes={boxes}: a file has boxes of pictures, not of videos; use a detector")
    listed.require_boxes_on([item.name for item in source.items])
    return listed


def _objects(content: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    found = content.get(key)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise InputError(f"{path}: has no list of objects {key!r}; give COCO annotations or detector results")
    return found


def _why_not(entry: Mapping[str, Any], counted: Mapping[int, str]) -> str | None:
    """Why an entry is no box of a person; None if it is one."""
    category, box = _plain(entry.get("category_id")), entry.get("bbox")
    if category is not None and category not in counted:
        return "of another category"
    if entry.get("iscrowd", 0):
        return "crowds"
    numbers = [*box, entry.get("score", 1.0)] if isinstance(box, list) else []
    usable = len(numbers) == 5 and all(type(n) in (int, float) and abs(n) < 1e7 for n in numbers)  # nor NaN
    return None if usable and numbers[2] > 0 and numbers[3] > 0 else "without a usable box"


def _plain(value: Any) -> PictureId:
    """An id as it is meant: 7, 7.0, "7" and "0007" are the number 7; None for what is no id."""
    if isinstance(value, str):
        number = number_in_name(value) if value.isdigit() else None
        return value if number is None else number
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None
