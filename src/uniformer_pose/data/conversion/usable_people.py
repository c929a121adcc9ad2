"""People as a source has them -> people that training can use, in pixels of the pictures that they were annotated on.

A keypoint that cannot be used is one without label; it does not cost the person. Pictures with an EXIF orientation have
two frames, the pixels as ``stored`` and the picture as viewers show it, ``displayed``; a data set has one of them.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from uniformer_pose.data.coco import ImageOrientation, clipped_boxes
from uniformer_pose.data.coco_json import LARGEST_NUMBER
from uniformer_pose.data.conversion.source import FloatArray, Log, Source, SourceImage, SplitName
from uniformer_pose.data.exif import TURNED_BY_A_QUARTER, exif_orientation
from uniformer_pose.errors import InputError

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
_OVER_THE_EDGE = 1.0  # pixel: annotation tools round
_MARGIN = 0.1  # of a box that is drawn around keypoints, of its larger side
_CONFIDENT = 0.5  # where visibilities are confidences: labelled from there on


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
        frames: dict[tuple[float, float], ImageOrientation] = {self.displayed: "displayed", self.stored: "stored"}
        return frames.get(size) if size is not None and len(frames) == 2 else None


def read_header(path: Path) -> ImageHeader:
    """The header of an image file, without decoding its pixels; InputError where it is no image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images and odd metadata: the pixels are not decoded here
            with Image.open(path, formats=_FORMATS) as image:
                size = image.height, image.width
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return ImageHeader(size, exif_orientation(data))
    except Exception:  # whatever a damaged header leads Pillow into: there is no list of it
        raise InputError(f"{path}: no image that can be read") from None


def usable_splits(
    source: Source,
    order: npt.NDArray[np.int64],
    exif: ImageOrientation | None,
    log: Log,
    on_progress: Callable[[int, int], None],
) -> tuple[dict[SplitName, list[SourceImage]], ImageOrientation]:
    """Images with their sizes and the people that can be used, and the frame of both; what cannot is a problem.

    ``order`` (K,): where the keypoints of the skeleton stand in the source. The frame is what the user says (``exif``),
    or the sizes of images, or the source; else it is COCO's, the pixels as stored.
    """
    images = [(split, image) for split, found in source.splits.items() for image in found]
    headers: dict[Path, ImageHeader] = {}
    for done, (_, image) in enumerate(images, start=1):
        with log.leaving_out():
            headers[image.file] = read_header(image.file)
        on_progress(done, len(images))
    readable = [(split, image, headers[image.file]) for split, image in images if image.file in headers]
    told = [frame for _, image, header in readable if (frame := header.shown_by(image.size)) is not None]
    frame = exif or (told[0] if told else source.orientation)
    usable: dict[SplitName, dict[str, SourceImage]] = {split: {} for split in source.splits}
    for split, image, header in readable:
        with log.leaving_out():
            if image.name in usable[split]:
                raise InputError(f"{image.file} is named twice")
            size = _size(image, header, frame, log)
            scale = np.array([*size[::-1], 1] if source.fractions else [1, 1, 1], dtype=np.float64)
            people = []
            for person in image.people:
                with log.leaving_out(person.place):
                    keypoints = _usable_keypoints(person.keypoints[order] * scale, *size, log)
                    box = _usable_box(person.box_xywh * scale[[0, 1, 0, 1]], keypoints, *size, log)
                    people += [] if box is None else [replace(person, box_xywh=box, keypoints=keypoints)]
            usable[split][image.name] = replace(image, people=people, size=size)
    return {split: list(found.values()) for split, found in usable.items()}, frame or "stored"


def _size(image: SourceImage, header: ImageHeader, frame: ImageOrientation | None, log: Log) -> tuple[int, int]:
    """Height and width of an image in its data set's frame; InputError for another size, or an unknown frame."""
    size = header.displayed if frame == "displayed" else header.stored
    if image.size is not None and image.size != (float(size[0]), float(size[1])):
        found, stated = "{}x{}".format(*size), "{:g}x{:g}".format(*image.size)
        raise InputError(
            f"{image.file} is {found} pixels (height x width) as {frame or 'stored'}, the source says {stated}"
        )
    if header.exif != 1 and frame is None:
        if image.size is None:
            raise InputError(
                f"{image.file}: has EXIF orientation {header.exif}; give exif=displayed if the points were placed on "
                "the picture as viewers turn it, or exif=stored"
            )
        log.repairs["EXIF-turned pictures whose sizes fit both ways read as annotated as stored; else give exif="] += 1
    return size


def _usable_keypoints(keypoints: FloatArray, height: int, width: int, log: Log) -> FloatArray:
    """Keypoints (K, 3) in pixels of a picture of this size, visibility 0, 1 or 2, zeros where not labelled.

    Visibilities between whole numbers make all of a person's confidences. Raises InputError where labelled keypoints
    are there, and all of them outside the picture.
    """
    points, seen = keypoints[:, :2], keypoints[:, 2].copy()

    def unlabel(where: npt.NDArray[np.bool_], what: str) -> None:
        seen[where] = 0
        log.repairs[f"{what} read as not labelled"] += int(where.sum())

    unlabel(~((seen >= 0) & (seen <= 2)), "visibilities that are none of 0, 1, 2")
    if (seen % 1 != 0).any():
        certain = seen >= _CONFIDENT
        log.repairs[f"confidences of at least {_CONFIDENT:g} read as visible"] += int(certain.sum())
        unlabel(~certain & (seen > 0), f"confidences below {_CONFIDENT:g}")
        seen[certain] = 2
    unlabel((seen > 0) & ~(np.abs(points) <= LARGEST_NUMBER).all(axis=1), "labelled keypoints without coordinates")
    beyond = (seen > 0) & ((points < -_OVER_THE_EDGE) | (points > (width, height))).any(axis=1)
    if beyond.any() and beyond.sum() == (seen > 0).sum():
        x, y = points[beyond][0]
        raise InputError(
            f"all of its {beyond.sum()} labelled keypoints are outside the picture of {height}x{width} pixels (height "
            f"x width), the first at x {x:g}, y {y:g}; check the unit of the coordinates, and the image"
        )
    unlabel(beyond, "labelled keypoints outside their picture")
    return np.where(seen[:, None] > 0, np.column_stack([points, seen]), 0.0)


def _usable_box(box_xywh: FloatArray, keypoints: FloatArray, height: int, width: int, log: Log) -> FloatArray | None:
    """The box if training would use it, else one around the labelled keypoints; None without either.

    A drawn box is larger than the keypoints by a margin all around, as far as the picture goes. Raises InputError where
    the keypoints are too few, or in one place.
    """
    _, inside = clipped_boxes(box_xywh[None], np.array([[width, height]], dtype=np.float64))
    if (box_xywh[2:] > 0).all() and (inside > 0).all() and np.abs(box_xywh).max() <= LARGEST_NUMBER:
        return box_xywh
    labelled = keypoints[keypoints[:, 2] > 0, :2]
    if not len(labelled):
        log.repairs["people with neither a usable box nor a labelled keypoint left out"] += 1
        return None
    reach = _MARGIN * float(np.ptp(labelled, axis=0).max())
    if reach <= 0:
        raise InputError("has no usable box, and none can be drawn around its keypoints; give x, y, width, height")
    log.repairs["boxes drawn around the keypoints, where no usable one was given"] += 1
    low = np.clip(labelled.min(axis=0) - reach, 0, (max(width - 2, 0), max(height - 2, 0)))
    high = np.clip(labelled.max(axis=0) + reach, 0, (width, height))
    return np.concatenate([low, np.maximum(high - low, 1.0)])
