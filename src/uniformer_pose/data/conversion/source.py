"""What a reader of a foreign format gives, what a user can say about it, and where its files may lie."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.coco import ImageOrientation
from uniformer_pose.errors import InputError, printable
from uniformer_pose.skeleton import Skeleton

FloatArray = npt.NDArray[np.float64]
SplitName = Literal["train", "val"]

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

    def refuse(self) -> None:
        """InputError with the first problem, unless there is none or they are to be skipped."""
        if self.problems and not self.skip:
            more = len(self.problems) - 1
            others = f" (and {more}{' or more' if more + 1 >= _MOST_PROBLEMS else ''} like it)" if more else ""
            raise InputError(
                f"{self.problems[0]}{others}; correct it, or on_problem=skip leaves out what cannot be used and lists "
                "it in left_out.txt"
            )


def split_by_share(images: Sequence[SourceImage], val_share: float) -> dict[SplitName, list[SourceImage]]:
    """Training and validation images, in the order given; which ones depends on their names only.

    At least one image goes to validation. Raises InputError where nothing would stay to train on.
    """
    if not 0 < val_share < 1:
        raise InputError(f"val_share={val_share}: give the share of images for validation, above 0 and below 1")
    if len(images) < 2:
        raise InputError(f"{len(images)} images cannot be divided into training and validation; give at least 2")
    number = min(len(images) - 1, max(1, round(val_share * len(images))))

    def drawn(image: SourceImage) -> bytes:
        return hashlib.blake2b(f"0/{image.name}".encode(errors="surrogateescape"), digest_size=8).digest()

    chosen = {image.name for image in sorted(images, key=drawn)[:number]}
    return {"train": [i for i in images if i.name not in chosen], "val": [i for i in images if i.name in chosen]}


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
