"""Geometric augmentation: chooses which region a training crop shows, and touches no pixels.

Half body, shift, scale, rotation and mirroring end in one ``CropGeometry``, so the picture is interpolated once.
MMPose's port of UniFormer pose and the original code drew these numbers differently; ``distribution`` chooses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le, Lt

from uniformer_pose.config import check_arguments
from uniformer_pose.data.crop_geometry import CropGeometry, CropSpec
from uniformer_pose.ranges import Count, NotNegative, Positive, Share
from uniformer_pose.skeleton import Skeleton

_STANDARD_NORMAL = NormalDist()
_LOWEST_SHARE = _STANDARD_NORMAL.cdf(-1.0)


@dataclass(frozen=True)
class GeometricAugmentation:
    """Draws the crop of one visit to one person.

    ``half_body_*``: with at least ``half_body_min_keypoints`` labelled keypoints, the crop shows only the upper or the
    lower half: the extent of that half's labelled keypoints times ``half_body_padding``, about their mean. The upper
    half is preferred with ``half_body_upper_probability``; where a half has too few labelled keypoints
    (``half_body_min_*``), the other one is taken, or none. All keypoints stay labelled.

    ``shift_factor`` (of the box, per axis), ``scale_factor`` (about 1) and ``rotation_degrees`` are the reach of the
    draw: none goes further, in either distribution.

    ``truncated_normal`` (the port): a standard normal truncated to [-1, 1], times the reach; the shift is a part
    of the padded box, and of the half-body box where one is shown. ``original``: shift uniform, a part of the box
    without padding, and none with half a body; scale a normal whose deviation is the reach, clipped to it, which
    puts 32 % of the samples exactly at the two ends; rotation a normal of half the reach, clipped. The original code
    drew the shift once per data set; here it is drawn at each visit.

    Raises InputError for a number out of its range.
    """

    flip_probability: Share = 0.5
    half_body_probability: Share = 0.3
    half_body_min_keypoints: int = 9
    half_body_upper_probability: Share = 0.7
    half_body_min_upper_keypoints: Count = 2
    half_body_min_lower_keypoints: Count = 3
    half_body_padding: Positive = 1.5
    shift_probability: Share = 0.3
    shift_factor: NotNegative = 0.16
    scale_probability: Share = 1.0
    scale_factor: Annotated[float, Ge(0), Lt(1)] = 0.5
    rotation_probability: Share = 0.6
    rotation_degrees: Annotated[float, Ge(0), Le(180)] = 80.0
    distribution: Literal["truncated_normal", "original"] = "truncated_normal"

    def __post_init__(self) -> None:
        check_arguments(GeometricAugmentation, vars(self))

    def __call__(
        self,
        rng: np.random.Generator,
        box_xywh: npt.NDArray[np.floating],
        keypoints_in_image: npt.NDArray[np.floating],
        visibility: npt.NDArray[np.integer],
        skeleton: Skeleton,
        spec: CropSpec,
    ) -> CropGeometry:
        """The drawn crop around one person; keypoints (K, 2) and box in image pixels, visibility (K,).

        What is drawn, in this order and always in full, so that switching one part off changes no other: six
        numbers from [0, 1) that decide flip, half body, upper half, shift, scale and rotation; then the sizes
        of the shift in x, the shift in y, the scale and the rotation.
        """
        flip, half_body, upper_half, shift, scale, rotation = rng.random(6).tolist()
        shift_x, shift_y, scale_size, rotation_size = self._draw_sizes(rng)

        original = self.distribution == "original"
        box = np.asarray(box_xywh, dtype=np.float64)
        shift_unit = 1.0 if original else spec.padding
        shown = spec
        if half_body < self.half_body_probability:
            prefer_upper = upper_half < self.half_body_upper_probability
            half_box = self._half_body_box(keypoints_in_image, visibility, skeleton, prefer_upper=prefer_upper)
            if half_box is not None:
                box, shown = half_box, replace(spec, padding=self.half_body_padding)
                shift_unit = 0.0 if original else shown.padding
        geometry = shown.around(box)

        # In both sources the shift is measured before the box grows to the crop's aspect ratio.
        shift_reach = self.shift_factor * shift_unit if shift < self.shift_probability else 0.0
        factor = 1 + self.scale_factor * scale_size if scale < self.scale_probability else 1.0
        angle = self.rotation_degrees * rotation_size if rotation < self.rotation_probability else 0.0
        return replace(
            geometry,
            spec=spec,
            center=geometry.center + np.array([shift_x, shift_y]) * shift_reach * box[2:],
            extent=geometry.extent * factor,
            rotation_degrees=angle,
            mirrored=flip < self.flip_probability,
        )

    def _draw_sizes(self, rng: np.random.Generator) -> tuple[float, float, float, float]:
        """Shift in x and y, scale and rotation, each in [-1, 1] of its reach."""
        if self.distribution == "truncated_normal":
            # By the inverse of the cumulative distribution, so that the number of draws is fixed.
            shares = _LOWEST_SHARE + (1 - 2 * _LOWEST_SHARE) * rng.random(4)
            shift_x, shift_y, scale, rotation = (_STANDARD_NORMAL.inv_cdf(share) for share in shares.tolist())
        else:
            shift_x, shift_y = rng.uniform(-1.0, 1.0, size=2).tolist()
            scale, rotation = np.clip(rng.standard_normal(2) * (1.0, 0.5), -1.0, 1.0).tolist()
        return shift_x, shift_y, scale, rotation

    def _half_body_box(
        self,
        keypoints_in_image: npt.NDArray[np.floating],
        visibility: npt.NDArray[np.integer],
        skeleton: Skeleton,
        *,
        prefer_upper: bool,
    ) -> npt.NDArray[np.float64] | None:
        """Box (xywh, not padded) of one half's labelled keypoints about their mean; None if no half will do."""
        labelled = np.asarray(visibility) > 0
        if labelled.sum() < self.half_body_min_keypoints:
            return None
        halves = (
            (skeleton.indices(skeleton.upper_body), self.half_body_min_upper_keypoints),
            (skeleton.indices(skeleton.lower_body), self.half_body_min_lower_keypoints),
        )
        shown = [half[labelled[half]] for half, least in halves if labelled[half].sum() >= least]
        if not shown:
            return None
        points = np.asarray(keypoints_in_image, dtype=np.float64)[shown[0 if prefer_upper else -1]]
        size = np.ptp(points, axis=0)
        if size.max() < 1:
            return None  # all in one pixel: that shows no body
        size = np.maximum(size, 1.0)  # in one row or column: a box needs area
        return np.concatenate([points.mean(axis=0) - size / 2, size])
