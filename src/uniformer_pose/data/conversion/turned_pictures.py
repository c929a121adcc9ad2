"""Pictures that viewers turn as their EXIF says: which of the two frames coordinates refer to, and the way to it."""

from __future__ import annotations

import mmap
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from uniformer_pose.data.coco import ImageOrientation
from uniformer_pose.data.conversion.source import FloatArray, Log, SourceImage, SourcePerson
from uniformer_pose.data.exif import TURNED_BY_A_QUARTER, exif_orientation
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
_MIRRORED = frozenset({2, 4, 5, 7})


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
    points = _displayed_points(person.keypoints[:, :2], header, pixel_edges=False)
    keypoints = np.where(person.keypoints[:, 2:] > 0, np.column_stack([points, person.keypoints[:, 2]]), 0.0)
    if header.exif in _MIRRORED:
        keypoints = keypoints[skeleton.mirror_permutation]
    corners = np.array([person.box_xywh[:2], person.box_xywh[:2] + person.box_xywh[2:]])
    corners = _displayed_points(corners, header, pixel_edges=True)
    box = np.concatenate([corners.min(axis=0), np.ptp(corners, axis=0)])
    others = {key: value for key, value in person.other_fields.items() if key != "segmentation"}
    return replace(person, box_xywh=box, keypoints=keypoints, other_fields=others)


def _displayed_points(points: FloatArray, header: ImageHeader, *, pixel_edges: bool) -> FloatArray:
    """(N, 2) points of the stored picture in the displayed one; the meanings of 2 to 8 are EXIF 2.3's, tag 0x0112."""
    x, y = points[:, 0], points[:, 1]
    bottom, right = (side - (0 if pixel_edges else 1) for side in header.stored)
    displayed = {
        2: (right - x, y),
        3: (right - x, bottom - y),
        4: (x, bottom - y),
        5: (y, x),
        6: (bottom - y, x),
        7: (bottom - y, right - x),
        8: (y, right - x),
    }
    return np.column_stack(displayed[header.exif])
