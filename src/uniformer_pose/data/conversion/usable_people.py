"""People as a source has them -> people that training can use, on pictures as viewers show them.

A keypoint that cannot be used is one without label; it does not cost the person. Pictures with an EXIF orientation have
two frames: the pixels as stored, and the picture as viewers show it, to which everything is brought.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from uniformer_pose.data.coco import ImageOrientation
from uniformer_pose.data.coco_json import LARGEST_NUMBER
from uniformer_pose.data.conversion.source import (
    FloatArray,
    Log,
    Settings,
    Source,
    SourceImage,
    SourcePerson,
    SplitName,
)
from uniformer_pose.data.exif import TURNED_BY_A_QUARTER, exif_orientation, turned
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
_MIRRORED = frozenset({2, 4, 5, 7})
_SHORTEST_SIDE = 0.001  # pixel: as boxes are written
_OVER_THE_EDGE = 1.0  # pixel: annotation tools round
_MARGIN = 0.1  # of a box that is drawn around keypoints, of its larger side


@dataclass(frozen=True, eq=False)
class Finisher:
    """People as a source has them -> what training reads, on pictures as they are displayed."""

    source: Source
    skeleton: Skeleton
    order: npt.NDArray[np.int64]
    settings: Settings
    log: Log

    def splits(
        self, splits: Mapping[SplitName, Sequence[SourceImage]], on_progress: Callable[[int, int], None]
    ) -> dict[SplitName, list[SourceImage]]:
        """Images with their displayed sizes and people that can be used; what cannot is a problem of the log."""
        headers: dict[SplitName, list[tuple[SourceImage, ImageHeader]]] = {split: [] for split in splits}
        total, done = sum(map(len, splits.values())), 0
        for split, images in splits.items():
            for image in images:
                with self.log.leaving_out(image.place):
                    headers[split].append((image, read_header(image.file)))
                done += 1
                on_progress(done, total)
        shown = {split: _shown_by_sizes(found) for split, found in headers.items()}
        finished: dict[SplitName, list[SourceImage]] = {split: [] for split in splits}
        for split, found in headers.items():
            names: set[str] = set()
            for image, header in found:
                with self.log.leaving_out(image.place):
                    if image.name in names:
                        raise InputError(f"{image.file} is named twice")
                    names.add(image.name)
                    finished[split].append(self._image(image, header, shown[split] or shown["train"] or shown["val"]))
        return finished

    def _image(self, image: SourceImage, header: ImageHeader, by_others: ImageOrientation | None) -> SourceImage:
        frame = frame_of(image, header, self.settings.exif, by_others, self.log)
        height, width = header.displayed if frame == "displayed" else header.stored
        people = []
        for raw in image.people:
            with self.log.leaving_out(raw.place):
                person = self._person(raw, height, width)
                if person is not None and frame == "stored":
                    person = stored_to_displayed(person, header, self.skeleton)
                people += [] if person is None else [person]
        return replace(image, people=people, size=header.displayed)

    def _person(self, raw: SourcePerson, height: int, width: int) -> SourcePerson | None:
        scale = np.array([width, height] if self.source.fractions else [1, 1], dtype=np.float64)
        ordered = raw.keypoints[self.order]
        scaled = np.column_stack([ordered[:, :2] * scale, ordered[:, 2]])
        confidence = self.settings.min_confidence
        keypoints = _usable_keypoints(scaled, height, width, min_confidence=confidence, log=self.log)
        box = _usable_box(raw.box_xywh * np.tile(scale, 2), keypoints, height, width, self.log)
        return None if box is None else replace(raw, box_xywh=box, keypoints=keypoints)


def _shown_by_sizes(found: Sequence[tuple[SourceImage, ImageHeader]]) -> ImageOrientation | None:
    """What coordinates refer to, from the first image whose size tells."""
    told = (header.shown_by(image.size) for image, header in found)
    return next((frame for frame in told if frame is not None), None)


@dataclass(frozen=True)
class ImageHeader:
    """(height, width) as ``stored`` and as viewers show it, and the EXIF orientation: 1 as it is, 2 to 8 turned."""

    stored: tuple[int, int]
    exif: int = 1

    @property
    def displayed(self) -> tuple[int, int]:
        """Height and width as viewers show the picture."""
        return self.stored[::-1] if self.exif in TURNED_BY_A_QUARTER else self.stored

    def shown_by(self, size: tuple[float, float] | None) -> ImageOrientation | None:
        """Which frame a source means that gives this height and width; None: it does not show."""
        if size is None or self.stored == self.displayed:
            return None
        return "displayed" if size == self.displayed else "stored"


def read_header(path: Path) -> ImageHeader:
    """The header of an image file, without decoding its pixels; InputError where it is no image."""
    if not path.is_file():
        raise InputError(f"{path}: no such image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images and odd metadata: the pixels are not decoded here
            with Image.open(path, formats=_FORMATS) as image:
                size = image.height, image.width
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return ImageHeader(size, exif_orientation(data))
    except Exception:  # whatever a damaged header leads Pillow into: there is no list of it
        raise InputError(f"{path}: not an image that can be read") from None


def frame_of(
    image: SourceImage,
    header: ImageHeader,
    exif: ImageOrientation | None,
    shown_by_others: ImageOrientation | None,
    log: Log,
) -> ImageOrientation:
    """What an image's coordinates refer to: what the user, its size, the source or other images' sizes say.

    InputError where none does, and for an image of another size.
    """
    if image.size is not None and not any(image.size == size for size in (header.stored, header.displayed)):
        found, stated = "{}x{}".format(*header.stored), "{:g}x{:g}".format(*image.size)
        raise InputError(f"{image.file} is {found} pixels (height x width), the source says {stated}")
    said = exif or header.shown_by(image.size) or image.orientation
    if said is not None or header.exif == 1:
        return said or "displayed"
    if image.size is None:
        raise InputError(
            f"{image.file}: has EXIF orientation {header.exif}; give exif=displayed if the points were placed on the "
            "picture as viewers turn it, or exif=stored"
        )
    taken = shown_by_others or "stored"
    log.repairs[f"EXIF-turned pictures whose sizes fit both ways read as annotated as {taken}; else give exif="] += 1
    return taken


def stored_to_displayed(person: SourcePerson, header: ImageHeader, skeleton: Skeleton) -> SourcePerson:
    """A person annotated on the pixels as they are stored, on the picture as viewers show it.

    Keypoints are pixel centres, boxes lie between pixel edges. In a mirrored picture a left hand looks like a right
    one, so left and right change places with the mirroring. Outlines would lie where nothing is, and are left out.
    """
    if header.exif == 1:
        return person
    points = _displayed_points(person.keypoints[:, :2], header, 1)
    keypoints = np.where(person.keypoints[:, 2:] > 0, np.column_stack([points, person.keypoints[:, 2]]), 0.0)
    if header.exif in _MIRRORED:
        keypoints = keypoints[skeleton.mirror_permutation]
    corners = np.array([person.box_xywh[:2], person.box_xywh[:2] + person.box_xywh[2:]])
    corners = _displayed_points(corners, header, 0)
    box = np.concatenate([corners.min(axis=0), np.ptp(corners, axis=0)])
    others = {key: value for key, value in person.other_fields.items() if key != "segmentation"}
    return replace(person, box_xywh=box, keypoints=keypoints, other_fields=others)


def _displayed_points(points: FloatArray, header: ImageHeader, last: int) -> FloatArray:
    """(N, 2) points of the stored picture in the displayed one, whose last x is its width minus ``last``."""
    numbers = turned(np.arange(4, dtype=np.uint8).reshape(2, 2), header.exif)
    corner, right, down = (np.argwhere(numbers == number)[0, ::-1] for number in (0, 1, 2))
    end = np.array(header.displayed[::-1]) - last
    return np.asarray(corner * end + points[:, :1] * (right - corner) + points[:, 1:] * (down - corner))


def _usable_keypoints(keypoints: FloatArray, height: int, width: int, *, min_confidence: float, log: Log) -> FloatArray:
    """Keypoints (K, 3) in pixels of a picture of this size, visibility 0, 1 or 2, zeros where not labelled.

    Visibilities between whole numbers make all of a person's confidences: visible from ``min_confidence`` on. Raises
    InputError where labelled keypoints are there, and all of them outside the picture.
    """
    points, seen = keypoints[:, :2], keypoints[:, 2].copy()

    def unlabel(where: npt.NDArray[np.bool_], what: str) -> None:
        seen[where] = 0
        log.repairs[f"{what} read as not labelled"] += int(where.sum())

    unlabel(~np.isfinite(seen), "visibilities that are no number (NaN, null)")
    unlabel(np.asarray(seen < 0), "visibilities below 0")
    if (seen % 1 != 0).any():
        certain = seen >= min_confidence
        log.repairs[f"confidences of at least {min_confidence:g} read as visible"] += int(certain.sum())
        unlabel(~certain & (seen > 0), f"confidences below {min_confidence:g}")
        seen[certain] = 2
    unlabel(np.asarray(seen > 2), "visibilities above 2")
    unlabel((seen > 0) & ~(np.abs(points) <= LARGEST_NUMBER).all(axis=1), "labelled keypoints without coordinates")
    labelled = seen > 0
    with np.errstate(invalid="ignore"):
        beyond = labelled & ((points < -_OVER_THE_EDGE) | (points > (width, height))).any(axis=1)
    if beyond.any() and beyond.sum() == labelled.sum():
        x, y = points[beyond][0]
        raise InputError(
            f"all of its {beyond.sum()} labelled keypoints are outside the picture of {height}x{width} pixels (height "
            f"x width), the first at x {x:g}, y {y:g}; check the unit of the coordinates, and the image"
        )
    unlabel(beyond, "labelled keypoints outside their picture")
    return np.where(seen[:, None] > 0, np.column_stack([points, seen]), 0.0)


def _usable_box(box_xywh: FloatArray, keypoints: FloatArray, height: int, width: int, log: Log) -> FloatArray | None:
    """The box if it has an area in the picture, else one around the labelled keypoints; None without either.

    A drawn box is larger than the keypoints by a margin all around, as far as the picture goes. Raises InputError where
    the keypoints are too few, or in one place.
    """
    low, high = box_xywh[:2], box_xywh[:2] + box_xywh[2:]
    if (box_xywh[2:] >= _SHORTEST_SIDE).all() and (high > 0).all() and (low < (width - 1, height - 1)).all():
        return box_xywh
    labelled = keypoints[keypoints[:, 2] > 0, :2]
    if not len(labelled):
        log.repairs["people with neither a usable box nor a labelled keypoint left out"] += 1
        return None
    extent = np.ptp(labelled, axis=0)
    if extent.max() <= 0:
        raise InputError(
            f"has no usable box, and {len(labelled)} labelled keypoints, around which none can be drawn; give a box "
            "of x, y, width, height"
        )
    log.repairs["boxes drawn around the keypoints, where no usable one was given"] += 1
    reach = _MARGIN * float(extent.max())
    low = np.clip(labelled.min(axis=0) - reach, 0, (max(width - 2, 0), max(height - 2, 0)))
    high = np.clip(labelled.max(axis=0) + reach, 0, (width, height))
    return np.concatenate([low, np.maximum(high - low, 1.0)])
