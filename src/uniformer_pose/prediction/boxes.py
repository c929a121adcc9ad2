"""Where the people of each picture are: all over it, where a file says, or where a detector finds them.

A file holds COCO annotations or a detector's results. Detector results know pictures by number. A number stands for the
picture whose name is that number, as in COCO (``000000000139.jpg`` is 139), unless the results or an annotation file
say its name.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from uniformer_pose.errors import InputError, one_line
from uniformer_pose.prediction.detection import Detector, KeptBoxes, PersonBoxes, detected_people
from uniformer_pose.prediction.people import PERSON_CATEGORY_ID

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
        found = []
        for name in names:
            listed = self.boxes.of_picture(name)
            if listed is None:
                self._unlisted.append(name)
            found.append(PersonBoxes.empty() if listed is None else listed)
        return found

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
class BoxesOfFile:
    """The boxes of a file by picture; ``left_out`` counts the entries that are none, by reason."""

    file: Path
    by_name: Mapping[str, PersonBoxes]
    by_number: Mapping[int, PersonBoxes]
    number_of_name: Mapping[str, int]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def of_picture(self, name: str) -> PersonBoxes | None:
        """The boxes of a picture, by its path below the source or else by its last part; None if it is not listed."""
        path = PurePosixPath(name)
        for known in (name, path.name):
            if known in self.by_name:
                return self.by_name[known]
        return self.by_number.get(int(path.stem)) if _is_number(path.stem) else None

    def summary(self) -> str:
        """One line: how many boxes there are, and why others were left out."""
        boxes = [*self.by_name.values(), *self.by_number.values()]
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items() if count)
        return f"{self.file}: {sum(map(len, boxes))} boxes on {len(boxes)} pictures" + (
            f" (left out: {reasons})" if reasons else ""
        )


def boxes_of_file(path: str | Path, *, category_id: int = PERSON_CATEGORY_ID) -> BoxesOfFile:
    """The boxes of a COCO annotation file (with ``images`` and ``annotations``) or of detector results (a list).

    Entries of another category, crowds, and boxes without area or with numbers that are not finite are left out and
    counted. Raises InputError for a file that is neither.
    """
    path = Path(path).expanduser()
    content = _read(path)
    if isinstance(content, dict):
        entries, names = _annotations(path, content)
    elif isinstance(content, list):
        entries, names = content, {}
    else:
        raise InputError(f"{path}: holds neither COCO annotations nor a list of detections")
    left_out: Counter[str] = Counter()
    found: dict[str | int, list[tuple[list[float], float]]] = {key: [] for key in names.values()}
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InputError(
                f"{path}: entry {position} is a {type(entry).__name__}; give objects with image_id and bbox"
            )
        said = entry.get("file_name", entry.get("image_id"))
        if not isinstance(said, str | int) or isinstance(said, bool):
            raise InputError(f"{path}: entry {position} does not say its picture; give it an image_id or a file_name")
        key: str | int = names.get(said, said)
        if entry.get("category_id", category_id) != category_id:
            left_out["of another category"] += 1
        elif entry.get("iscrowd", 0):
            left_out["crowds"] += 1
        elif not _is_box(entry.get("bbox")) or not _is_finite(entry.get("score", 1.0)):
            left_out["without a usable box"] += 1
        else:
            found.setdefault(key, []).append((entry["bbox"], entry.get("score", 1.0)))
    boxes = {
        key: PersonBoxes(np.array([box for box, _ in rows]).reshape(-1, 4), np.array([score for _, score in rows]))
        for key, rows in found.items()
    }
    return BoxesOfFile(
        file=path,
        by_name={key: value for key, value in boxes.items() if isinstance(key, str)},
        by_number={key: value for key, value in boxes.items() if isinstance(key, int)},
        number_of_name={name: number for number, name in names.items()},
        left_out=left_out,
    )


def _annotations(path: Path, content: dict[str, Any]) -> tuple[list[Any], dict[Any, str]]:
    images, annotations = content.get("images"), content.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise InputError(f"{path}: has no lists of images and annotations; give COCO annotations or detector results")
    names = {}
    for position, image in enumerate(images):
        number, name = (image.get("id"), image.get("file_name")) if isinstance(image, dict) else (None, None)
        if not isinstance(number, int) or not isinstance(name, str):
            raise InputError(f"{path}: image {position} of the list has no whole number id and file_name")
        names[number] = name
    return annotations, names


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{path}: cannot be read ({reason}); boxes= is full, none or a JSON file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({one_line(error)}); give COCO annotations or detections") from error


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_finite, value)) and value[2] > 0 and value[3] > 0


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e7 and math.isfinite(value)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19
