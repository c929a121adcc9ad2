"""What the readers of foreign formats have in common: images with people in stored pixels, and what could not be used.

A reader first lists the images of each split, which is quick, and then reads them one by one, so that a large set is
never in memory as a whole.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.checking.image_check import ImageHeader, read_header
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton

FloatArray = npt.NDArray[np.float64]
SplitName = Literal["train", "val"]
Exif = Literal["displayed", "stored"]

_MOST_PROBLEMS = 100  # so many are a wrong setting, not some bad lines
_LONGEST_NAME, _LONGEST_PATH = 255, 4095  # bytes, on Linux
_MIRRORING_ORIENTATIONS = frozenset({2, 4, 5, 7})


@dataclass(frozen=True, eq=False)
class SourcePerson:
    """``box_xywh`` (4,) and ``keypoints`` (K, 3) in stored pixels; ``area`` None where the source has none.

    Keypoints are x, y, visibility in COCO's meaning, zeros where not labelled. ``annotation_id`` and ``other_fields``
    are those of a COCO source.
    """

    box_xywh: FloatArray
    keypoints: FloatArray
    area: float | None = None
    annotation_id: int | None = None
    other_fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SourceImage:
    """One image file with its people; ``height`` and ``width`` as stored."""

    path: Path
    height: int
    width: int
    people: list[SourcePerson]
    image_id: int | None = None


class Problems:
    """Everything that cannot be converted, in one sentence each; too many end the conversion."""

    def __init__(self, *, allowed: bool) -> None:
        self.allowed = allowed
        self.sentences: list[str] = []

    def add(self, sentence: str) -> None:
        """Take note of what is left out; InputError when it is clear that the conversion will not be wanted."""
        self.sentences.append(sentence)
        if not self.allowed and len(self.sentences) >= _MOST_PROBLEMS:
            self.refuse()

    def refuse(self) -> None:
        """InputError with the first problem, unless there is none or they are allowed."""
        if self.sentences and not self.allowed:
            more = len(self.sentences) - 1
            others = f" (and {more}{' or more' if more + 1 >= _MOST_PROBLEMS else ''} like it)" if more else ""
            raise InputError(
                f"{self.sentences[0]}{others}; correct it, or on_problem=skip leaves out what cannot be used and lists "
                "it in left_out.txt"
            )


@dataclass(eq=False)
class SourceDataset:
    """A foreign dataset: the names of each split's images, and how to read one of them.

    ``read(split, name, problems)`` gives None for an image that cannot be used. ``notes`` are for the user: what is
    left out on purpose, what was assumed. ``problems`` are those of entries that belong to no image.
    """

    skeleton: Skeleton
    category: str
    images: dict[SplitName, list[str]]
    read: Callable[[SplitName, str, Problems], SourceImage | None]
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def split_by_share(names: Sequence[str], val_share: float, seed: int) -> dict[SplitName, list[str]]:
    """Training and validation names, in the order given; which ones depends on the names and the seed only.

    At least one image goes to validation. Raises InputError where nothing would stay to train on.
    """
    if not 0 < val_share < 1:
        raise InputError(f"val_share={val_share}: give the share of images for validation, above 0 and below 1")
    if len(names) < 2:
        raise InputError(f"{len(names)} images cannot be divided into training and validation; give at least 2")
    number = min(len(names) - 1, max(1, round(val_share * len(names))))

    def drawn(name: str) -> bytes:
        return hashlib.blake2b(f"{seed}/{name}".encode(errors="surrogateescape"), digest_size=8).digest()

    chosen = set(sorted(names, key=drawn)[:number])
    return {"train": [n for n in names if n not in chosen], "val": [n for n in names if n in chosen]}


def path_inside(folder: Path, name: str) -> Path:
    """The path of a name below a folder; InputError where it, or a link on its way, leads out of the folder.

    ``folder`` must be resolved.
    """
    relative = PurePosixPath(name.replace("\\", "/"))
    path = folder / relative
    if "\0" in name or not name.strip():
        raise InputError(f"{name!r} is no file name")
    if len(os.fsencode(path)) > _LONGEST_PATH or any(len(os.fsencode(part)) > _LONGEST_NAME for part in relative.parts):
        raise InputError(f"{name[:40]!r}... is too long for a file name")
    if relative.is_absolute() or ".." in relative.parts or not path.resolve().is_relative_to(folder):
        raise InputError(f"{name!r} leads out of {folder}")
    return path


def header_of(path: Path) -> ImageHeader:
    """Size and orientation of an image; InputError where there is none that can be read."""
    if not path.is_file():
        raise InputError(f"{path}: no such image")
    header = read_header(path)
    if header is None:
        raise InputError(f"{path}: not an image that can be read")
    return header


def require_exif_choice(path: Path, header: ImageHeader, exif: Exif | None) -> Exif:
    """What the coordinates on this picture refer to; InputError where nobody said so and it matters."""
    if exif is None and header.orientation != 1:
        raise InputError(
            f"{path}: has EXIF orientation {header.orientation}; give exif=displayed if the points were placed on the "
            "picture as viewers turn it, or exif=stored"
        )
    return exif or "stored"


def displayed_to_stored(person: SourcePerson, header: ImageHeader, skeleton: Skeleton) -> SourcePerson:
    """A person annotated on the picture as viewers show it, in the pixels as they are stored.

    Keypoints are pixel centres, boxes lie between pixel edges. In a mirrored picture a left hand looks like a right
    one, so left and right change places with the mirroring.
    """
    if header.orientation == 1:
        return person
    points = _displayed_points_to_stored(person.keypoints[:, :2], header, pixel_edges=False)
    keypoints = np.where(person.keypoints[:, 2:] > 0, np.column_stack([points, person.keypoints[:, 2]]), 0.0)
    if header.orientation in _MIRRORING_ORIENTATIONS:
        keypoints = keypoints[skeleton.mirror_permutation]
    corners = np.array([person.box_xywh[:2], person.box_xywh[:2] + person.box_xywh[2:]])
    corners = _displayed_points_to_stored(corners, header, pixel_edges=True)
    box = np.concatenate([corners.min(axis=0), np.ptp(corners, axis=0)])
    return SourcePerson(box, keypoints, person.area, person.annotation_id, person.other_fields)


def _displayed_points_to_stored(points: FloatArray, header: ImageHeader, *, pixel_edges: bool) -> FloatArray:
    """(N, 2) points of the displayed picture in the stored one; the meanings of 2 to 8 are EXIF 2.3's, tag 0x0112."""
    x, y = points[:, 0], points[:, 1]
    last = 0 if pixel_edges else 1
    right, bottom = header.width - last, header.height - last
    stored_x, stored_y = {
        2: (right - x, y),
        3: (right - x, bottom - y),
        4: (x, bottom - y),
        5: (y, x),
        6: (y, bottom - x),
        7: (right - y, bottom - x),
        8: (right - y, x),
    }[header.orientation]
    return np.column_stack([stored_x, stored_y])


def box_around(keypoints: FloatArray, *, margin: float) -> FloatArray:
    """The box of a person's labelled keypoints (K, 3), larger by ``margin`` of its larger side all around.

    Raises InputError with fewer than two labelled keypoints, or all of them in one place.
    """
    labelled = keypoints[keypoints[:, 2] > 0, :2]
    extent = np.ptp(labelled, axis=0) if len(labelled) else np.zeros(2)
    if extent.max() <= 0:
        raise InputError(
            f"has no box, and {len(labelled)} labelled keypoints, of which no box can be made; give the columns "
            "box_x, box_y, box_width, box_height"
        )
    reach = margin * extent.max()
    return np.concatenate([labelled.min(axis=0) - reach, np.maximum(extent + 2 * reach, 1.0)])


def finite_number(text: str) -> float:
    """A finite number from text; InputError for anything else."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{text.strip()!r:.40} is no finite number")
    return number


def visibility_of(text: str) -> int:
    """COCO's visibility from text (``2`` or ``2.0``); InputError for anything but 0, 1 and 2."""
    number = finite_number(text)
    if number not in (0, 1, 2):
        raise InputError(f"visibility {text.strip()!r:.40} is none of 0 (not labelled), 1 (hidden), 2 (visible)")
    return int(number)
