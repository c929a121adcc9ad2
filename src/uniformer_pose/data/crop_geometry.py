"""The affine map between an image and one person crop.

The numbers are those of MMPose's top-down transforms (``TopdownAffine`` with ``GetBBoxCenterScale``), which
the published results rest on: the padded box, grown to the crop's aspect ratio, fills the crop. Where the
original warps by three point pairs, this is the closed form, so that both directions are exact inverses of
each other.

Two conventions exist for what "fills" means, and they differ by up to one pixel at the crop's far side:

- plain: the box's edges meet the crop's edges at 0 and ``width``; the unit of length is one pixel of
  ``width``;
- unbiased (UDP; Huang et al., "The Devil is in the Details", CVPR 2020, section 3): the box's edges meet the
  centres of the first and the last pixel, 0 and ``width - 1``; the unit of length is "pixels minus one".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from uniformer_pose.errors import InputError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CropGeometry:
    """Where one crop lies in its image, and the maps between the two.

    A point in the image goes to the crop by: mirror (if ``mirrored``), turn, scale; all three about the
    centre, which lands in the middle of the crop. Pixel centres have whole-number coordinates in both frames.

    ``center_x``, ``center_y``: of the region that the crop shows, in image pixels of the image as it is (not
    mirrored). ``extent_width``, ``extent_height``: of that region before turning, in image pixels: the padded
    box, already of the crop's aspect ratio. ``height``, ``width``: of the crop, in pixels.

    ``rotation_degrees``: MMPose's value. Its two warps turn opposite ways: seen in the crop (y down), a
    positive angle turns the person counter-clockwise in the plain convention and clockwise in the unbiased
    one.

    ``mirrored``: the crop shows the mirrored person, which is: mirror the image about ``W - 1`` (column ``x``
    becomes ``W - 1 - x``), mirror the centre likewise, then turn and scale. The image's width cancels out of
    that. Without rotation, a point at ``x`` of the plain crop lies at ``(width - 1) - x`` of an unbiased
    mirrored crop, which is exactly ``crop[:, ::-1]``; in the plain convention it lies at ``width - x``, one
    crop pixel further right than in ``crop[:, ::-1]``. Left and right keypoints are not swapped here: that is
    the skeleton's business.

    Raises InputError unless every number is finite, both extents are positive, and the crop has two pixels a
    side.
    """

    center_x: float
    center_y: float
    extent_width: float
    extent_height: float
    height: int
    width: int
    rotation_degrees: float = 0.0
    unbiased: bool = False
    mirrored: bool = False

    def __post_init__(self) -> None:
        numbers = (self.center_x, self.center_y, self.extent_width, self.extent_height, self.rotation_degrees)
        if not all(math.isfinite(number) for number in numbers):
            raise InputError(
                f"crop with centre ({self.center_x}, {self.center_y}), extent {self.extent_width} x "
                f"{self.extent_height}, rotation {self.rotation_degrees}: every number must be finite; "
                "check the box"
            )
        if self.extent_width <= 0 or self.extent_height <= 0:
            raise InputError(
                f"crop with extent {self.extent_width} x {self.extent_height} image pixels: both must be "
                "positive; check the box and the padding"
            )
        if self.height < 2 or self.width < 2:
            raise InputError(f"crop of {self.height}x{self.width} pixels (height x width): use at least 2x2")

    @classmethod
    def from_box(
        cls,
        box_xywh: Sequence[float] | npt.NDArray[np.floating],
        *,
        height: int,
        width: int,
        padding: float = 1.25,
        unbiased: bool = False,
    ) -> CropGeometry:
        """The upright crop around a person box: padded, then grown to the crop's aspect ratio.

        ``box_xywh``: left, top, width, height in image pixels; it may reach outside the image. Raises
        InputError for a box without area or with a number that is not finite.
        """
        left, top, box_width, box_height = np.asarray(box_xywh, dtype=np.float64).reshape(4).tolist()
        if not (
            math.isfinite(left + top + box_width + box_height)
            and box_width > 0
            and box_height > 0
            and math.isfinite(padding)
            and padding > 0
        ):
            fit_boxes([[left, top, box_width, box_height]], height=height, width=width, padding=padding)  # says why not
        # The arithmetic of fit_boxes, on plain numbers: for one box a fifth of its time, and the same bits.
        aspect_ratio = width / height
        padded_width, padded_height = box_width * padding, box_height * padding
        return cls(
            left + box_width / 2,
            top + box_height / 2,
            max(padded_width, padded_height * aspect_ratio),
            max(padded_height, padded_width / aspect_ratio),
            height,
            width,
            unbiased=unbiased,
        )

    @property
    def matrix(self) -> FloatArray:
        """(2, 3) affine matrix from image pixels to crop pixels."""
        linear = self._linear
        return np.concatenate([linear, (self._middle - linear @ self._center)[:, None]], axis=1)

    def crop(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The (height, width, 3) crop of an (H, W, 3) image: bilinear, zeros outside the image."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise InputError(
                f"image of shape {image.shape} and type {image.dtype}: a crop needs (height, width, 3) of "
                "type uint8; convert it first"
            )
        crop = np.empty((self.height, self.width, 3), dtype=np.uint8)
        warp(image, self.matrix, into=crop)
        return crop

    def to_crop(self, points_in_image: npt.ArrayLike) -> FloatArray:
        """(..., 2) points (x, y) in crop pixels, from image pixels; they may lie outside the crop."""
        points = np.asarray(points_in_image, dtype=np.float64)
        mapped: FloatArray = (points - self._center) @ self._linear.T + self._middle
        return mapped

    def to_image(self, points_in_crop: npt.ArrayLike) -> FloatArray:
        """(..., 2) points (x, y) in image pixels, from crop pixels: the inverse of ``to_crop``."""
        points = np.asarray(points_in_crop, dtype=np.float64)
        mapped: FloatArray = ((points - self._middle) / self._scale) @ self._turn + self._center
        return mapped

    @cached_property
    def _center(self) -> FloatArray:
        return np.array([self.center_x, self.center_y])

    @cached_property
    def _middle(self) -> FloatArray:
        """The crop's middle in crop pixels, where the centre of the region lands."""
        return _unit_lengths(self.height, self.width, self.unbiased) / 2

    @cached_property
    def _scale(self) -> FloatArray:
        """Crop pixels per image pixel along the crop's axes."""
        return _unit_lengths(self.height, self.width, self.unbiased) / [self.extent_width, self.extent_height]

    @cached_property
    def _turn(self) -> FloatArray:
        """(2, 2) mirroring and then rotation: orthogonal, so its transpose is its inverse."""
        angle = math.radians(self.rotation_degrees if self.unbiased else -self.rotation_degrees)
        cosine, sine = math.cos(angle), math.sin(angle)
        rotation = np.array([[cosine, -sine], [sine, cosine]])
        return rotation * [-1.0, 1.0] if self.mirrored else rotation

    @cached_property
    def _linear(self) -> FloatArray:
        return self._scale[:, None] * self._turn


def fit_boxes(
    boxes_xywh: npt.ArrayLike, *, height: int, width: int, padding: float = 1.25
) -> tuple[FloatArray, FloatArray]:
    """(N, 2) centres and (N, 2) extents (width, height), in image pixels, of the crops around (N, 4) boxes.

    The extent is the box times ``padding`` with the shorter side grown so that width : height equals the
    crop's. The aspect ratio is that of whole pixels in both conventions, as in MMPose. Raises InputError that
    names the first box without area or with a number that is not finite, and how many there are.
    """
    if not (math.isfinite(padding) and padding > 0):
        raise InputError(f"padding {padding}: the factor on the box's size must be a positive number, 1.25 by default")
    boxes = np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4)
    degenerate = ~(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1))
    if degenerate.any():
        first = int(np.flatnonzero(degenerate)[0])
        count = f" ({int(degenerate.sum())} of {len(boxes)} boxes are like this)" if len(boxes) > 1 else ""
        raise InputError(
            f"box {boxes[first].tolist()} (x, y, width, height): width and height must be positive and all "
            f"four finite; correct the box or leave it out{count}"
        )
    centers = boxes[:, :2] + boxes[:, 2:] / 2
    padded = boxes[:, 2:] * padding
    aspect_ratio = width / height
    extent_width = np.maximum(padded[:, 0], padded[:, 1] * aspect_ratio)
    extent_height = np.maximum(padded[:, 1], padded[:, 0] / aspect_ratio)
    return centers, np.stack([extent_width, extent_height], axis=1)


def upright_matrices(
    centers: npt.ArrayLike, extents: npt.ArrayLike, *, height: int, width: int, unbiased: bool
) -> FloatArray:
    """(N, 2, 3) affine matrices from image pixels to the pixels of N upright, unmirrored crops of one size.

    ``centers`` and ``extents`` as ``fit_boxes`` gives them; row ``i`` is ``CropGeometry.matrix`` of crop ``i``.
    """
    scales = _unit_lengths(height, width, unbiased) / np.asarray(extents, dtype=np.float64)
    matrices = np.zeros((len(scales), 2, 3))
    matrices[:, 0, 0], matrices[:, 1, 1] = scales.T
    matrices[:, :, 2] = _unit_lengths(height, width, unbiased) / 2 - scales * np.asarray(centers, dtype=np.float64)
    return matrices


def warp(image: npt.NDArray[np.uint8], matrix: FloatArray, *, into: npt.NDArray[np.uint8]) -> None:
    """Fill a (height, width, 3) crop from an (H, W, 3) image by a (2, 3) matrix: bilinear, zeros outside the image."""
    cv2.warpAffine(
        image,
        matrix,
        (into.shape[1], into.shape[0]),
        dst=into,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
    )


def crop_to_image(
    points_in_crop: npt.ArrayLike,
    centers: npt.ArrayLike,
    extents: npt.ArrayLike,
    *,
    height: int,
    width: int,
    unbiased: bool,
) -> FloatArray:
    """(N, K, 2) points in image pixels, from the pixels of N upright, unmirrored crops of one size.

    ``centers`` (N, 2) and ``extents`` (N, 2; width, height) are in image pixels, as ``fit_boxes`` gives them;
    row ``i`` equals ``CropGeometry.to_image`` of crop ``i``.
    """
    points = np.asarray(points_in_crop, dtype=np.float64)
    center = np.asarray(centers, dtype=np.float64)[:, None, :]
    extent = np.asarray(extents, dtype=np.float64)[:, None, :]
    unit_lengths = _unit_lengths(height, width, unbiased)
    mapped: FloatArray = (points - unit_lengths / 2) * (extent / unit_lengths) + center
    return mapped


def _unit_lengths(height: int, width: int, unbiased: bool) -> FloatArray:
    """(width, height) of a crop in the convention's unit: pixels, or pixels minus one."""
    return np.array([width, height], dtype=np.float64) - (1.0 if unbiased else 0.0)
