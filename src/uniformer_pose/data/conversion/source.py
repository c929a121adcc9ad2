"""What a foreign data set says: its images and people, its numbers and names of files, and what a user is told of them.

Training reads annotations strictly. The converter reads what is plain to a person, writes it strictly, and says by kind
how often it had to.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.coco import ImageOrientation
from uniformer_pose.data.coco_json import LARGEST_NUMBER
from uniformer_pose.errors import InputError, printable
from uniformer_pose.skeleton import Skeleton

FloatArray = npt.NDArray[np.float64]
SplitName = Literal["train", "val"]
SPLITS: tuple[SplitName, ...] = ("train", "val")


@dataclass(frozen=True)
class Settings:
    """What a user can say about a source beside where it is; None leaves it to the source or the format.

    ``images``: the folder that names of images are relative to. ``categories``: names or ids of those to take, as one.
    ``exif``: what coordinates on EXIF-turned pictures refer to. ``val_share`` of the images are for validation where
    the source names none.
    """

    images: Path | None = None
    val_source: Path | None = None
    val_images: Path | None = None
    skeleton: Skeleton | None = None
    categories: Sequence[str | int] | None = None
    exif: ImageOrientation | None = None
    val_share: float = 0.1

    def annotation_files(self, source: Path) -> dict[SplitName, tuple[Path, Path | None]]:
        """``source`` and, if there is one, ``val_source``, each with the folder of its images, if that is named."""
        files: dict[SplitName, tuple[Path, Path | None]] = {"train": (source, self.images)}
        if self.val_source is not None:
            files["val"] = self.val_source, self.val_images or self.images
        return files


@dataclass(frozen=True, eq=False)
class SourcePerson:
    """``box_xywh`` (4,) and ``keypoints`` (K, 3): x, y, visibility, NaN for what is no number; ``place`` for messages.

    ``area`` in square pixels is that of the segment, where the source has one; so is ``annotation_id``, which is kept.
    """

    box_xywh: FloatArray
    keypoints: FloatArray
    place: str
    area: float | None = None
    is_crowd: bool = False
    annotation_id: int | None = None


@dataclass(frozen=True, eq=False)
class SourceImage:
    """One image ``file`` with its people; ``name`` is for the written data set, ``size`` height and width if known.

    ``crowd_index`` is CrowdPose's, if the source has it.
    """

    file: Path
    name: str
    people: list[SourcePerson]
    size: tuple[float, float] | None = None
    image_id: int | None = None
    crowd_index: float | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """A foreign data set: its splits, of which ``val`` may be absent, and what its keypoints are.

    ``flip_indices`` are the mirror partners (K), ``limbs`` pairs of indices from 0; both None where the source is
    silent. ``orientation``: what coordinates on EXIF-turned pictures refer to, None where sizes or the user must tell.
    ``fractions``: coordinates are fractions of the picture's width and height. ``uncut_boxes``: boxes are regions to
    crop, of which no part beyond the picture may be cut off. ``others`` are files that are copied, by their new names.
    ``scored_by``: what the data config says of the metric, where that is none of COCO's.
    """

    keypoint_names: Sequence[str]
    category: str
    splits: dict[SplitName, list[SourceImage]]
    flip_indices: Sequence[int] | None = None
    limbs: Sequence[tuple[int, int]] | None = None
    orientation: ImageOrientation | None = None
    fractions: bool = False
    uncut_boxes: bool = False
    others: Mapping[str, Path] = field(default_factory=dict)
    scored_by: Mapping[str, str] = field(default_factory=dict)


class Log:
    """What a user is told: notes, how often each repair was needed, and what cannot be converted, a sentence each."""

    def __init__(self, *, skip: bool = False) -> None:
        self.skip = skip
        self.notes: list[str] = []
        self.problems: list[str] = []
        self.repairs: Counter[str] = Counter()

    @contextmanager
    def leaving_out(self, place: object = "") -> Iterator[None]:
        """An InputError from inside is a problem of this place."""
        try:
            yield
        except InputError as error:
            self.problems.append(printable(f"{place}: {error}" if place else str(error)))

    def lines(self) -> list[str]:
        """Notes, repairs and how much is left out, a line each, as a user reads them."""
        notes = [*self.notes, *(f"{count} {repair}" for repair, count in (+self.repairs).items())]
        notes += [f"{len(self.problems)} left out, listed in conversion.json"] if self.problems else []
        return [f"note: {note}" for note in notes]

    def refuse(self) -> None:
        """InputError with the first problem, unless there is none or they are to be skipped."""
        if self.problems and not self.skip:
            others = f" (and {len(self.problems) - 1} like it)" if len(self.problems) > 1 else ""
            advice = "correct it, or on_problem=skip leaves out what cannot be used and lists it in conversion.json"
            raise InputError(f"{self.problems[0]}{others}; {advice}")


def plain_number(value: object) -> float:
    """A number, also one in a text; NaN where there is none that could be a coordinate, size or score."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if abs(number) <= LARGEST_NUMBER else math.nan


def text_of(file: Path) -> str:
    """A text file in UTF-8, with or without the mark that Windows puts before it; InputError where it is none."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(f"{file}: cannot be read ({reason}); give a text file in UTF-8") from error


def find_inside(folder: Path, name: str, log: Log) -> Path:
    """A file or folder by the name that a source gives it: below the folder, or by as many last parts as are there.

    Names of other machines are absolute, or begin with folders that images= names already; and what looks the same may
    be composed of other characters. InputError where there is none, or where a link on its way leads out of ``folder``,
    which must be resolved.
    """
    relative = PurePosixPath(name.replace("\\", "/"))
    for start in range(len(relative.parts)):
        tail = "/".join(relative.parts[start:]).lstrip("/")
        for form in (tail, unicodedata.normalize("NFC", tail), unicodedata.normalize("NFD", tail)):
            if is_inside(folder, form):
                log.repairs["file names found by their last parts or in another spelling"] += form != str(relative)
                return folder / form
    raise InputError(f"{name!r:.100} is not in {folder}, or leads out of it")


def is_inside(folder: Path, name: str) -> bool:
    """Whether there is such a file or folder below a resolved folder, all links followed."""
    try:
        path = folder / name
        return ".." not in PurePosixPath(name).parts and path.exists() and path.resolve().is_relative_to(folder)
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, a link to itself
        return False
