"""Boxes of people that a file lists: COCO annotations, or a detector's results.

Detector results know pictures by number, by name, or by the name without its ending. A number stands for the picture
whose name is that number, as in COCO (``000000000139.jpg`` is 139), unless an annotation file says its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from uniformer_pose.data.categories import counted_categories, listed_categories
from uniformer_pose.data.coco_json import ImageOrientation, ImageRecord, each_record, read_json, stated_orientation
from uniformer_pose.errors import InputError
from uniformer_pose.prediction.boxes import PersonBoxes
from uniformer_pose.prediction.sources import Source, number_in_name

Image = npt.NDArray[np.uint8]


class _Entry(msgspec.Struct, gc=False):
    """A detection, or what of an annotation makes a box."""

    image_id: int | float | str | None = None
    file_name: str | None = None
    category_id: int | None = None
    bbox: list[float] | None = None
    score: float = 1.0
    iscrowd: int | bool = 0


@dataclass(frozen=True)
class ListedBoxes:
    """A ``BoxFinder``: the ``boxes`` that a file lists for each picture of a source; the others have nobody.

    ``ids`` and ``sizes``, (height, width) in pixels, of pictures of which the file says them. ``orientation``: what the
    boxes refer to, None where the file does not say, which then is ``assumed``: ``stored`` in annotations, as in COCO;
    ``displayed`` in detections.
    """

    boxes: Mapping[str, PersonBoxes]
    ids: Mapping[str, int]
    sizes: Mapping[str, tuple[int, int]]
    categories: Mapping[int, str]
    orientation: ImageOrientation | None
    assumed: ImageOrientation
    lines: list[str]

    def __call__(self, names: Sequence[str], _images: Sequence[Image]) -> list[PersonBoxes]:
        """The file's boxes of each picture, by its name."""
        nobody = PersonBoxes(np.empty((0, 4)), np.empty(0))
        return [self.boxes.get(name, nobody) for name in names]

    def remarks(self) -> list[str]:
        """How many boxes there are, why others were left out, and how many pictures the file does not list."""
        return self.lines


def read_listed_boxes(
    path: str | Path, names: Sequence[str], *, categories: Sequence[str | int] | None = None
) -> ListedBoxes:
    """The boxes of a COCO annotation file or of detector results (a list) for the pictures of these ``names``.

    ``categories`` by name or id: those that count, see ``counted_categories``. Entries of another category, crowds, and
    boxes without area or with numbers that are not finite are left out and counted. Raises InputError for a file that
    is neither, for one without a box on any of the pictures, and where two of them may be the same one of the file.
    """
    path = Path(path).expanduser()
    content = read_json(path)
    is_list = isinstance(content, list)
    annotations: dict[str, Any] = {"annotations": content} if is_list else content
    if not isinstance(content, dict | list) or not isinstance(annotations.get("annotations"), list):
        raise InputError(f"{path}: holds neither COCO annotations nor a list of detections")
    images = {} if is_list else {str(image.id): image for image in _images(annotations, path)}
    entries = each_record(annotations["annotations"], _Entry)[0]
    used = [entry.category_id for entry in entries if entry and entry.category_id is not None and images]
    counted = counted_categories(
        listed_categories(annotations, path), used, path, None, categories, option="boxes_category"
    )
    of_picture, left_out = _sorted(entries, None if is_list else images, counted)
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    count = sum(map(len, of_picture.values()))
    lines = [f"{path}: {count} boxes on {len(of_picture)} pictures" + (f" (left out: {reasons})" if reasons else "")]
    if not count:
        theirs = Counter(entry.category_id for entry in entries if entry is not None).most_common(5)
        ours = ", ".join(f"{number} ({name})" for number, name in list(counted.items())[:5])
        raise InputError(
            f"{lines[0]}; nobody to pose. Category {ours} counts, and the file has "
            f"{', '.join(f'{category} ({count} boxes)' for category, count in theirs)}; choose with boxes_category=<id "
            "or name>"
        )
    keys = _keys(path, names, of_picture)
    if unlisted := [name for name in names if name not in keys]:
        lines.append(f"{path} does not list {len(unlisted)} pictures, first {unlisted[0]}")
    records = {str(image.file_name): image for image in images.values()}
    said = {name: records[key] for name, key in keys.items() if key in records}
    numbers = {name: said[name].id if name in said else number_in_name(key) for name, key in keys.items()}
    return ListedBoxes(
        boxes={name: _boxes(of_picture[key]) for name, key in keys.items()},
        ids={name: number for name, number in numbers.items() if number is not None},
        sizes={name: (image.height, image.width) for name, image in said.items() if image.height and image.width},
        categories=counted,
        orientation=stated_orientation(annotations.get("info"), path),
        assumed="displayed" if is_list else "stored",
        lines=lines,
    )


def listed_boxes_for(source: Source, boxes: str, category: Any) -> ListedBoxes | None:
    """The boxes of the file that ``boxes`` names, for pictures of this source; None where it names none."""
    if boxes in ("full", "detector"):
        if category is not None:
            raise InputError(f"boxes_category={category}: chooses among the boxes of a file; give boxes=<file>")
        return None
    if any(item.kind == "video" for item in source.items):
        raise InputError(f"boxes={boxes}: a file has boxes of pictures, not of videos; use a detector")
    categories = [category] if isinstance(category, str | int) else category
    return read_listed_boxes(boxes, [item.name for item in source.items], categories=categories)


def _images(annotations: dict[str, Any], path: Path) -> list[ImageRecord]:
    listed = annotations.get("images")
    if not isinstance(listed, list):
        raise InputError(f"{path}: has no list 'images'; give COCO annotations or a list of detections")
    images, problems = each_record(listed, ImageRecord)
    for index, problem in problems.items():
        raise InputError(f"{path}: image number {index + 1} {problem}")
    if any(image is None or image.file_name is None for image in images):
        raise InputError(f"{path}: an image of the list has no file_name")
    return [image for image in images if image is not None]


def _sorted(
    entries: Sequence[_Entry | None], images: Mapping[str, ImageRecord] | None, counted: Mapping[int, str]
) -> tuple[dict[str, list[_Entry]], Counter[str]]:
    """The boxes by picture, of ``images`` where they are listed; and how many entries are none, by reason."""
    of_picture: dict[str, list[_Entry]] = {str(image.file_name): [] for image in (images or {}).values()}
    left_out: Counter[str] = Counter()
    for entry in entries:
        said = None if entry is None else _picture(entry)
        if images is not None:
            said = str(images[said].file_name) if said is not None and said in images else None
        if entry is None:
            left_out["without a usable box"] += 1
        elif reason := "of no listed picture" if said is None else _why_not(entry, counted):
            left_out[reason] += 1
        else:
            of_picture.setdefault(str(said), []).append(entry)
    return of_picture, left_out


def _picture(entry: _Entry) -> str | None:
    """The name of an entry's picture, or its number as a text: 7, 7.0, "7" and "0007" are the number 7."""
    said = entry.file_name or entry.image_id
    if isinstance(said, str):
        number = number_in_name(said) if said.isdigit() else None
        return said if number is None else str(number)
    return str(int(said)) if said is not None and abs(said) < float("inf") else None  # NaN is not below


def _why_not(entry: _Entry, counted: Mapping[int, str]) -> str | None:
    """Why an entry is no box of a person; None if it is one."""
    if entry.category_id is not None and entry.category_id not in counted:
        return "of another category"
    if entry.iscrowd:
        return "crowds"
    try:
        return None if len(_boxes([entry])) else "without a usable box"
    except InputError:
        return "without a usable box"


def _boxes(entries: Sequence[_Entry]) -> PersonBoxes:
    return PersonBoxes(np.array([entry.bbox for entry in entries]), np.array([entry.score for entry in entries]))


def _keys(path: Path, names: Sequence[str], known: Mapping[str, Collection[_Entry]]) -> dict[str, str]:
    """Under what the file knows each of the pictures that it knows."""
    names_of: dict[str, str] = {}
    for name in names:
        file = PurePosixPath(name)
        ways = (name, file.name, file.with_suffix("").as_posix(), file.stem, str(number_in_name(name)))
        if (key := next((way for way in ways if way in known), None)) is None:
            continue
        if names_of.setdefault(key, name) != name:
            raise InputError(f"{path}: {key} may be {names_of[key]} or {name}; give boxes with their file_name")
    if not names_of:
        raise InputError(
            f"{path}: lists none of the {len(names)} pictures of the source, such as {names[0]}; it lists "
            f"{', '.join(list(known)[:3])}. A picture is known by its name, with or without its ending, or its number"
        )
    if not any(known[key] for key in names_of):
        raise InputError(f"{path}: has no box on the {len(names_of)} pictures of the source that it lists")
    return {name: key for key, name in names_of.items()}
