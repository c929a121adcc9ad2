"""The affine map between an image and its person crops, one or many at once.

The numbers are those of MMPose's top-down transforms (``TopdownAffine`` with ``GetBBoxCenterScale``), which the
published results rest on: the padded box, grown to the crop's aspect ratio, fills the crop. "Fills" has two
conventions: plain, the box's edges meet the crop's edges at 0 and ``width``; unbiased (UDP; Huang et al., CVPR 2020,
section 3), they meet the centres of the first and the last pixel, 0 and ``width - 1``, and the unit of length is
"pixels minus one".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from uniformer_pose.errors import InputError

FloatArray = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class CropSpec:
    """What all crops of a model have in common: their size in pixels, what they show, and the convention.

    ``padding``: the crop shows the box times this. ``unbiased``: lengths count in "pixels minus one" (udp).
    Raises InputError for less than two pixels a side and for a padding that is not positive.
    """

    height: int
    width: int
    padding: float = 1.25
    unbiased: bool = False

    def __post_init__(self) -> None:
        if self.height < 2 or self.width < 2:
            raise InputError(f"crop of {self.height}x{self.width} pixels (height x width): use at least 2x2")
        if not (math.isfinite(self.padding) and self.padding > 0):
            raise InputError(
                f"padding {self.padding}: the factor on the box's size must be a positive number, 1.25 by default"
            )

    @cached_property
    def unit_lengths(self) -> FloatArray:
        """(width, height) of a crop in the convention's unit: pixels, or pixels minus one."""
        return np.array([self.width, self.height], dtype=np.float64) - (1.0 if self.unbiased else 0.0)

    @cached_property
    def corners(self) -> FloatArray:
        """(4, 2) centres of the pixels in a crop's corners, in crop pixels."""
        right, bottom = self.width - 1, self.height - 1
        return np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], dtype=np.float64)

    def around(self, boxes_xywh: npt.ArrayLike) -> CropGeometry:
        """The upright crops around (..., 4) boxes: padded, the shorter side grown to the crop's aspect ratio.

        Boxes are left, top, width, height in image pixels; they may reach outside the image. The aspect ratio is that
        of whole pixels in both conventions, as in MMPose. Raises InputError that names the first box without area or
        with a number that is not finite, and how many there are.
        """
        boxes = np.asarray(boxes_xywh, dtype=np.float64)
        center = boxes[..., :2] + boxes[..., 2:] / 2
        padded = boxes[..., 2:] * self.padding
        aspect_ratio = np.array([self.width / self.height, 1.0])
        extent = np.maximum(padded, padded[..., ::-1] * aspect_ratio / aspect_ratio[::-1])
        if not (np.isfinite(center + extent).all() and (boxes[..., 2:] > 0).all()):
            raise _degenerate(boxes.reshape(-1, 4))
        return CropGeometry(self, center, extent)


@dataclass(frozen=True, eq=False)
class CropGeometry:
    """Where crops lie in their image, and the maps between the two.

    A point in the image goes to the crop by: mirror (if ``mirrored``), turn, scale; all three about ``center`` (...,
    2), x, y in image pixels, which lands in the middle of the crop. ``extent`` (..., 2): width, height of the regions
    that the crops show, before turning. Pixel centres have whole-number coordinates in both frames.

    ``rotation_degrees``: MMPose's value. Its two warps turn opposite ways: seen in the crop (y down), a positive
    angle turns the person counter-clockwise in the plain convention and clockwise in the unbiased one. ``mirrored``:
    without rotation that is ``crop[:, ::-1]`` in the unbiased convention, and one crop pixel further right in the plain
    one. Left and right keypoints are not swapped here: that is the skeleton's business.
    """

    spec: CropSpec
    center: FloatArray
    extent: FloatArray
    rotation_degrees: float = 0.0
    mirrored: bool = False

    def __getitem__(self, rows: Any) -> CropGeometry:
        """Some of the crops, chosen as from an array."""
        return replace(self, center=self.center[rows], extent=self.extent[rows])

    @cached_property
    def matrix(self) -> FloatArray:
        """(..., 2, 3) affine matrices from image pixels to crop pixels."""
        linear = self._linear
        shift = self.spec.unit_lengths / 2 - (linear @ self.center[..., None])[..., 0]
        return np.concatenate([linear, shift[..., None]], axis=-1)

    def crop(self, image: Pixels, *, into: Pixels | None = None) -> Pixels:
        """The (..., height, width, 3) crops of one (H, W, 3) image: bilinear, zeros outside the image.

        They are written to ``into``, where it is given: contiguous memory of that shape.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise InputError(
                f"image of shape {image.shape} and type {image.dtype}: a crop needs (height, width, 3) of "
                "type uint8; convert it first"
            )
        height, width = self.spec.height, self.spec.width
        crops = np.empty((*self.center.shape[:-1], height, width, 3), dtype=np.uint8) if into is None else into
        for matrix, crop in zip(self.matrix.reshape(-1, 2, 3), crops.reshape(-1, height, width, 3), strict=True):
            cv2.warpAffine(
                image, matrix, (width, height), dst=crop, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
            )
        return crops

    def to_crop(self, points_in_image: npt.ArrayLike) -> FloatArray:
        """(..., K, 2) points (x, y) in crop pixels, from image pixels; they may lie outside the crop."""
        points = np.asarray(points_in_image, dtype=np.float64)
        mapped: FloatArray = (points - self.center[..., None, :]) @ np.swapaxes(self._linear, -1, -2)
        return mapped + self.spec.unit_lengths / 2

    def to_image(self, points_in_crop: npt.ArrayLike) -> FloatArray:
        """(..., K, 2) points (x, y) in image pixels, from crop pixels: the inverse of ``to_crop``."""
        points = np.asarray(points_in_crop, dtype=np.float64)
        unit_lengths = self.spec.unit_lengths
        mapped: FloatArray = ((points - unit_lengths / 2) * (self.extent / unit_lengths)[..., None, :]) @ self._turn
        return mapped + self.center[..., None, :]

    @cached_property
    def _turn(self) -> FloatArray:
        """(2, 2) mirroring and then rotation: orthogonal, so its transpose is its inverse."""
        angle = math.radians(self.rotation_degrees if self.spec.unbiased else -self.rotation_degrees)
        cosine, sine = math.cos(angle), math.sin(angle)
        rotation = np.array([[cosine, -sine], [sine, cosine]])
        return rotation * [-1.0, 1.0] if self.mirrored else rotation

    @cached_property
    def _linear(self) -> FloatArray:
        """(..., 2, 2): crop pixels per image pixel along the crop's axes, times the turn."""
        linear: FloatArray = (self.spec.unit_lengths / self.extent)[..., None] * self._turn
        return linear


def _degenerate(boxes: FloatArray) -> InputError:
    """What to say of boxes (N, 4), one of which cannot be shown."""
    good = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    first = int(np.argmin(good))
    count = f" ({int((~good).sum())} of {len(boxes)} boxes are like this)" if len(boxes) > 1 else ""
    return InputError(
        f"box {boxes[first].tolist()} (x, y, width, height): width and height must be positive and all "
        f"four finite; correct the box or leave it out{count}"
    )
