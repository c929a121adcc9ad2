"""What a foreign data set says: its images and people, its numbers and names of files, repaired and counted.

Training reads annotations strictly. The converter reads what is plain to a person, writes it strictly, and says by kind
how often it had to.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.coco import ImageOrientation
from uniformer_pose.data.coco_json import LARGEST_NUMBER
from uniformer_pose.errors import InputError, printable
from uniformer_pose.skeleton import Skeleton

FloatArray = npt.NDArray[np.float64]
SplitName = Literal["train", "val"]

_WHOLE = re.compile(r"\s*[-+]?\d+(\.0*)?\s*")
_MOST_PROBLEMS = 100  # so many are a wrong setting, not some bad lines


@dataclass(frozen=True)
class Settings:
    """What a user can say about a source beside where it is.

    ``images``: the folder that names of images are relative to, None: what the format says, else the source's own.
    ``categories``: names or ids of those to take, as one. ``exif``: what coordinates on EXIF-turned pictures refer to,
    None: what the source or the format says. ``val_share`` of the images are for validation where the source names
    none. ``min_confidence``: where visibilities are confidences, labelled from there on. ``normalised``: coordinates of
    a table are fractions of the size.
    """

    images: Path | None = None
    val_source: Path | None = None
    val_images: Path | None = None
    skeleton: Skeleton | None = None
    categories: Sequence[str | int] | None = None
    exif: ImageOrientation | None = None
    val_share: float = 0.1
    min_confidence: float = 0.5
    normalised: bool = False


@dataclass(frozen=True, eq=False)
class SourcePerson:
    """``box_xywh`` (4,) and ``keypoints`` (K, 3): x, y, visibility, NaN for what is no number; ``place`` for messages.

    ``area``, ``annotation_id`` and ``other_fields`` are those of a COCO source.
    """

    box_xywh: FloatArray
    keypoints: FloatArray
    place: str
    area: float | None = None
    annotation_id: int | None = None
    other_fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SourceImage:
    """One image ``file`` with its people. ``name`` is for the written data set, ``place`` for messages.

    ``size``: height and width if the source has them. ``orientation``: what coordinates refer to where neither the user
    nor the size says it.
    """

    file: Path
    name: str
    people: list[SourcePerson]
    place: str = ""
    size: tuple[float, float] | None = None
    image_id: int | None = None
    orientation: ImageOrientation | None = None


@dataclass(eq=False)
class Source:
    """A foreign data set: its splits, of which ``val`` may be absent, and what its keypoints are.

    ``flip_indices`` are the mirror partners (K), ``limbs`` pairs of indices from 0; both None where the source is
    silent. ``fractions``: coordinates are fractions of the picture's width and height.
    """

    keypoint_names: Sequence[str]
    category: str
    splits: dict[SplitName, list[SourceImage]]
    flip_indices: Sequence[int] | None = None
    limbs: Sequence[tuple[int, int]] | None = None
    fractions: bool = False


class Log:
    """What a user is told: notes, how often each repair was needed, and what cannot be converted, a sentence each."""

    def __init__(self, *, skip: bool = False) -> None:
        self.skip = skip
        self.notes: list[str] = []
        self.problems: list[str] = []
        self.repairs: Counter[str] = Counter()

    def problem(self, sentence: str) -> None:
        """Something is left out; InputError when it is clear that the conversion will not be wanted."""
        self.problems.append(printable(sentence))
        if len(self.problems) >= _MOST_PROBLEMS:
            self.refuse()

    @contextmanager
    def leaving_out(self, place: str = "") -> Iterator[None]:
        """An InputError from inside is a problem of this place."""
        try:
            yield
        except InputError as error:
            self.problem(f"{place}: {error}" if place else str(error))

    def lines(self) -> list[str]:
        """Notes and repairs, a line each, as a user reads them."""
        return [f"note: {note}" for note in (*self.notes, *(f"{n} {what}" for what, n in (+self.repairs).items()))]

    def refuse(self) -> None:
        """InputError with the first problem, unless there is none or they are to be skipped."""
        if self.problems and not self.skip:
            more = len(self.problems) - 1
            others = f" (and {more}{' or more' if more + 1 >= _MOST_PROBLEMS else ''} like it)" if more else ""
            raise InputError(
                f"{self.problems[0]}{others}; correct it, or on_problem=skip leaves out what cannot be used and lists "
                "it in left_out.txt"
            )


def plain_number(value: object) -> float:
    """A number, also one in a text; NaN where there is none that could be a coordinate, size or score."""
    if isinstance(value, bool):
        return math.nan
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if abs(number) <= LARGEST_NUMBER else math.nan


def plain_id(value: object, log: Log) -> int | str | None:
    """An id: a whole number, also as 7.0, "7" or "7.0"; any other text as it is; None where there is none."""
    if type(value) is int and abs(value) < 2**63:
        return value
    if (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and _WHOLE.fullmatch(value)):
        log.repairs['ids written as text or with a decimal point ("7", 7.0) read as whole numbers'] += 1
        return int(str(value).strip().partition(".")[0]) if isinstance(value, str) else int(value)
    return value.strip() or None if isinstance(value, str) else None


def plain_visibility(value: object, log: Log) -> float:
    """A visibility or a confidence as a number, true being 2 (visible); NaN where there is none."""
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        value = value.strip().lower() == "true"
    if isinstance(value, bool):
        log.repairs["visibilities of true and false read as visible and not labelled"] += 1
        return 2.0 if value else 0.0
    return plain_number(value)


def plain_keypoints(values: Sequence[object], log: Log) -> FloatArray:
    """(K, 3) x, y and visibility from 3K values of any kind; NaN where they are no numbers."""
    if set(map(type, values)) <= {int, float}:
        with suppress(OverflowError):  # an integer of 400 digits
            return np.array(values, dtype=np.float64).reshape(-1, 3)
    rows = zip(values[::3], values[1::3], values[2::3], strict=True)
    plain = [(plain_number(x), plain_number(y), plain_visibility(v, log)) for x, y, v in rows]
    return np.array(plain).reshape(-1, 3)


def folder_of(images: Path) -> Path:
    """The folder of the pictures, resolved; InputError where it is none."""
    if not images.is_dir():
        raise InputError(f"images={images} is no folder; give the folder of the pictures")
    return images.resolve()


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
        for form in dict.fromkeys((tail, *(unicodedata.normalize(kind, tail) for kind in ("NFC", "NFD")))):
            if is_inside(folder, form):
                if form != relative.as_posix():
                    log.repairs["file names found by their last parts or in another spelling"] += 1
                return folder / form
    raise InputError(f"{name!r:.100} is not in {folder}, or leads out of it")


def is_inside(folder: Path, name: str) -> bool:
    """Whether there is such a file or folder below a resolved folder, all links followed."""
    try:
        path = folder / name
        return ".." not in PurePosixPath(name).parts and path.exists() and path.resolve().is_relative_to(folder)
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, a link to itself
        return False
