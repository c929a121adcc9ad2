"""What the readers of foreign formats have in common: from an image's name and raw people to people as displayed.

A reader first lists the images of each split, which is quick, and then reads them one by one, so that a large set is
never in memory as a whole.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.checking.image_check import ImageHeader, read_header
from uniformer_pose.data.coco import ImageOrientation
from uniformer_pose.data.conversion.plain_values import FloatArray, Repairs, usable_box, usable_keypoints
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton

SplitName = Literal["train", "val"]

_MOST_PROBLEMS = 100  # so many are a wrong setting, not some bad lines
_LONGEST_NAME, _LONGEST_PATH = 255, 4095  # bytes, on Linux
_MIRRORING_ORIENTATIONS = frozenset({2, 4, 5, 7})


@dataclass(frozen=True)
class ConversionSettings:
    """What a user can say about a source beside where it is.

    ``images`` is the folder that names of images are relative to, None: what the format says, else the source's own.
    ``category``, one or several that become one, is needed where they differ. ``exif`` says what the coordinates of
    EXIF-rotated pictures refer to, None: what the source or the format says. ``val_share`` of the images are for
    validation where the source names none. ``min_confidence``, where visibilities are confidences: labelled from there
    on. ``box_margin`` is added to boxes that are drawn around keypoints. ``normalised``: the coordinates of a table are
    fractions of the size.
    """

    name: str
    images: Path | None = None
    val_source: Path | None = None
    val_images: Path | None = None
    skeleton: Skeleton | None = None
    category: str | int | list[str | int] | None = None
    exif: ImageOrientation | None = None
    val_share: float = 0.1
    seed: int = 0
    default_sigma: float = 0.05
    min_confidence: float = 0.5
    box_margin: float = 0.1
    normalised: bool = False

    @property
    def categories(self) -> list[str | int] | None:
        """The categories that were asked for, by name or id."""
        return self.category if self.category is None or isinstance(self.category, list) else [self.category]


@dataclass(frozen=True, eq=False)
class SourcePerson:
    """``box_xywh`` (4,) and ``keypoints`` (K, 3): x, y, visibility; ``area`` None where the source has none.

    From a reader: as the source has them, NaN for what is no number, and ``place`` says where it stands. In a
    ``SourceImage``: in pixels of the displayed picture, zeros where not labelled. ``annotation_id`` and
    ``other_fields`` are those of a COCO source.
    """

    box_xywh: FloatArray
    keypoints: FloatArray
    area: float | None = None
    annotation_id: int | None = None
    other_fields: dict[str, Any] = field(default_factory=dict)
    place: str = ""


@dataclass(frozen=True, eq=False)
class SourceImage:
    """One image file with its people; ``height`` and ``width`` as displayed, ``file_name`` for the written dataset."""

    path: Path
    file_name: str
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
    left out on purpose, what was assumed. ``problems`` are those of entries that belong to no image. ``repairs`` grows
    as images are read.
    """

    skeleton: Skeleton
    category: str
    images: dict[SplitName, list[str]]
    read: Callable[[SplitName, str, Problems], SourceImage | None]
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    repairs: Repairs = field(default_factory=Repairs)


@dataclass(frozen=True, eq=False)
class PersonFinisher:
    """Raw people of an image -> a ``SourceImage``, by rules that hold for all formats.

    ``orientation``: what coordinates refer to
    where neither the user nor the image's size says it; None: the user is asked, or with sizes, which then fit both
    ways, ``shown_by_others`` says what other images of the source show. ``fractions``: coordinates are fractions of
    the picture's width and height.
    """

    skeleton: Skeleton
    settings: ConversionSettings
    repairs: Repairs
    orientation: ImageOrientation | None
    fractions: bool = False
    shown_by_others: Callable[[], ImageOrientation | None] = lambda: None

    def image(
        self,
        path: Path,
        file_name: str,
        people: Iterable[SourcePerson],
        order: npt.NDArray[np.int64],
        problems: Problems,
        *,
        size: tuple[float, float] | None = None,
        image_id: int | None = None,
    ) -> SourceImage:
        """The image with all of its people that can be used; ``size``: height and width, if the source has them.

        Raises InputError where there is no such image, or one of another size.
        """
        header = header_of(path)
        displayed = (header.displayed_height, header.displayed_width)
        is_displayed = self._refers_to(path, header, size) == "displayed"
        height, width = displayed if is_displayed else (header.height, header.width)
        finished = []
        for raw in people:
            try:
                person = self._person(replace(raw, keypoints=raw.keypoints[order]), height, width)
            except InputError as error:
                problems.add(f"{raw.place}: {error}")
                continue
            if person is not None:
                finished.append(person if is_displayed else stored_to_displayed(person, header, self.skeleton))
        return SourceImage(path, file_name, *displayed, finished, image_id)

    def _person(self, raw: SourcePerson, height: int, width: int) -> SourcePerson | None:
        scale = np.array([width, height, width, height] if self.fractions else [1, 1, 1, 1], dtype=np.float64)
        scaled = np.column_stack([raw.keypoints[:, :2] * scale[:2], raw.keypoints[:, 2]])
        keypoints = usable_keypoints(
            scaled, height, width, min_confidence=self.settings.min_confidence, repairs=self.repairs
        )
        margin = self.settings.box_margin
        box = usable_box(raw.box_xywh * scale, keypoints, height, width, margin=margin, repairs=self.repairs)
        return None if box is None else replace(raw, box_xywh=box, keypoints=keypoints)

    def _refers_to(self, path: Path, header: ImageHeader, size: tuple[float, float] | None) -> ImageOrientation:
        """What coordinates on this picture refer to: what the user, its size, the format or other pictures say."""
        sizes = (header.height, header.width), (header.displayed_height, header.displayed_width)
        if size is not None and tuple(size) not in sizes:
            raise InputError(
                f"{path} is {header.height}x{header.width} pixels (height x width), the source says "
                f"{size[0]:g}x{size[1]:g}"
            )
        said = self.settings.exif or shown_by_size(header, size) or self.orientation
        if said is not None or header.orientation == 1:
            return said or "displayed"
        if size is None:
            raise InputError(
                f"{path}: has EXIF orientation {header.orientation}; give exif=displayed if the points were placed on "
                "the picture as viewers turn it, or exif=stored"
            )
        others = self.shown_by_others()
        taken = others or "stored"
        self.repairs[
            f"EXIF-turned pictures whose sizes fit both ways read as annotated as {taken}; else give exif="
        ] += 1
        return taken


def shown_by_size(header: ImageHeader, size: tuple[float, float] | None) -> ImageOrientation | None:
    """Whether a source that gives this height and width means the picture as displayed or as stored; None: either."""
    if size is None or (header.height, header.width) == (header.displayed_height, header.displayed_width):
        return None
    return "displayed" if size[0] == header.displayed_height else "stored"


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


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; not for a name that none can have."""
    try:
        return path.is_dir()
    except OSError:
        return False


def existing_folder_of(images: Path) -> Path:
    """The folder of the pictures, resolved; InputError where it is none."""
    if not is_folder(images):
        raise InputError(f"images={images} is no folder; give the folder of the pictures")
    return images.resolve()


def text_of(file: Path) -> str:
    """A text file in UTF-8, with or without the mark that Windows puts before it; InputError where it is none."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(f"{file}: cannot be read ({reason}); give a text file in UTF-8") from error


def path_inside(folder: Path, name: str) -> Path:
    """The path of a name below a folder; InputError where it, or a link on its way, leads out of the folder.

    ``folder`` must be resolved.
    """
    relative = _path_of(name)
    path = folder / relative
    if relative.is_absolute() or ".." in relative.parts or not path.resolve().is_relative_to(folder):
        raise InputError(f"{name!r} leads out of {folder}")
    return path


def find_inside(folder: Path, name: str, repairs: Repairs) -> Path:
    """An image by the name that a source gives it: below the folder, or by as many of its last parts as are there.

    Names of other machines are absolute, or begin with folders that images= names already; and what looks the same may
    be composed of other characters. InputError where the name, or a link on its way, leads out of the folder.
    """
    relative = _path_of(name)
    absolute = relative.is_absolute() or relative.parts[0][1:] == ":"  # C:
    inside = folder if absolute else path_inside(folder, name)
    for start in range(int(absolute), len(relative.parts)):
        tail = "/".join(relative.parts[start:])
        for form in dict.fromkeys((tail, unicodedata.normalize("NFC", tail), unicodedata.normalize("NFD", tail))):
            if (folder / form).is_file():
                if form == relative.as_posix():
                    return inside
                repairs["file names found by their last parts, or in another spelling, in the image folder"] += 1
                return path_inside(folder, form)
    if absolute:
        raise InputError(f"{name!r} leads out of {folder}, which has no image with the last part of this name")
    return inside


def _path_of(name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    try:
        longest, length = max((len(os.fsencode(part)) for part in path.parts), default=0), len(os.fsencode(path))
    except UnicodeEncodeError:
        longest = length = 0
    if "\0" in name or not name.strip() or not length:
        raise InputError(f"{name!r} is no file name")
    if length > _LONGEST_PATH or longest > _LONGEST_NAME:
        raise InputError(f"{name[:40]!r}... is too long for a file name")
    return path


def header_of(path: Path) -> ImageHeader:
    """Size and orientation of an image; InputError where there is none that can be read."""
    if not path.is_file():
        raise InputError(f"{path}: no such image")
    header = read_header(path)
    if header is None:
        raise InputError(f"{path}: not an image that can be read")
    return header


def stored_to_displayed(person: SourcePerson, header: ImageHeader, skeleton: Skeleton) -> SourcePerson:
    """A person annotated on the pixels as they are stored, on the picture as viewers show it.

    Keypoints are pixel centres, boxes lie between pixel edges. In a mirrored picture a left hand looks like a right
    one, so left and right change places with the mirroring. Outlines would lie where nothing is, and are left out.
    """
    if header.orientation == 1:
        return person
    points = _stored_points_to_displayed(person.keypoints[:, :2], header, pixel_edges=False)
    keypoints = np.where(person.keypoints[:, 2:] > 0, np.column_stack([points, person.keypoints[:, 2]]), 0.0)
    if header.orientation in _MIRRORING_ORIENTATIONS:
        keypoints = keypoints[skeleton.mirror_permutation]
    corners = np.array([person.box_xywh[:2], person.box_xywh[:2] + person.box_xywh[2:]])
    corners = _stored_points_to_displayed(corners, header, pixel_edges=True)
    box = np.concatenate([corners.min(axis=0), np.ptp(corners, axis=0)])
    others = {key: value for key, value in person.other_fields.items() if key != "segmentation"}
    return replace(person, box_xywh=box, keypoints=keypoints, other_fields=others)


def _stored_points_to_displayed(points: FloatArray, header: ImageHeader, *, pixel_edges: bool) -> FloatArray:
    """(N, 2) points of the stored picture in the displayed one; the meanings of 2 to 8 are EXIF 2.3's, tag 0x0112."""
    x, y = points[:, 0], points[:, 1]
    last = 0 if pixel_edges else 1
    right, bottom = header.width - last, header.height - last
    displayed = {
        2: (right - x, y),
        3: (right - x, bottom - y),
        4: (x, bottom - y),
        5: (y, x),
        6: (bottom - y, x),
        7: (bottom - y, right - x),
        8: (y, right - x),
    }
    return np.column_stack(displayed[header.orientation])
