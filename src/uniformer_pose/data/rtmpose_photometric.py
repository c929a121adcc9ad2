"""Changes of a crop's pixels as RTMPose draws them: MMPose 1.3.2, rtmpose-m_8xb256-420e_coco-256x192.

Colours are MMDetection's ``YOLOXHSVRandomAug``; blur and covered area are what albumentations draws for that config,
with OpenCV alone: three calls, and no question of what an argument was called in which release.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le

from uniformer_pose.config import check_arguments
from uniformer_pose.ranges import Share

_HUES = 180  # OpenCV's hue in 8 bits: half degrees of the colour circle
_KERNELS = (3, 5, 7)
_SMALLEST_DROPOUT = 0.2


@dataclass(frozen=True)
class RTMPosePhotometric:
    """Changes the looks of one crop: colours, then blur, then a covered area; each is drawn by itself.

    ``hue_reach`` (of 180), ``saturation_reach`` and ``value_reach`` (of 255): uniform within plus or minus the reach,
    kept with probability 1/2 each, cut to a whole number and added in OpenCV's HSV, the hue around the circle, the
    others up to 0 and 255. ``blur_probability`` and ``median_blur_probability``: mean and median of a square of 3, 5 or
    7 pixels, equally often. ``dropout_probability``: one black rectangle anywhere within the crop, its height and width
    each uniform from 0.2 to ``dropout_max_size`` of the crop's; keypoints under it stay labelled, to
    be inferred from their surroundings.

    Raises InputError for a number out of its range.
    """

    hue_reach: Annotated[float, Ge(0), Le(90)] = 5.0
    saturation_reach: Annotated[float, Ge(0), Le(255)] = 30.0
    value_reach: Annotated[float, Ge(0), Le(255)] = 30.0
    blur_probability: Share = 0.1
    median_blur_probability: Share = 0.1
    dropout_probability: Share = 1.0
    dropout_max_size: Annotated[float, Ge(_SMALLEST_DROPOUT), Le(1)] = 0.4

    def __post_init__(self) -> None:
        check_arguments(RTMPosePhotometric, vars(self))

    def __call__(self, image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """A changed copy of an (H, W, 3) RGB image, 0 to 255; the same for the same state of ``rng``.

        All numbers are drawn at each call, so that switching one part off changes no other.
        """
        reaches = (self.hue_reach, self.saturation_reach, self.value_reach)
        gains = (rng.uniform(-1, 1, 3) * reaches * (rng.random(3) < 0.5)).astype(int)
        blur, median_blur, dropout = rng.random(3)
        blur_kernel, median_kernel = (_KERNELS[which] for which in rng.integers(len(_KERNELS), size=2))
        sizes, place = rng.uniform(_SMALLEST_DROPOUT, self.dropout_max_size, 2), rng.random(2)

        changed = _shifted_colours(image, gains)
        if blur < self.blur_probability:
            changed = cv2.blur(changed, (blur_kernel, blur_kernel))
        if median_blur < self.median_blur_probability:
            changed = cv2.medianBlur(changed, median_kernel)
        if dropout < self.dropout_probability:
            shape = np.array(image.shape[:2])
            covered = (shape * sizes).astype(int)
            (top, left), (height, width) = (place * (shape - covered + 1)).astype(int), covered
            changed[top : top + height, left : left + width] = 0
        return np.asarray(changed, dtype=np.uint8)


def _shifted_colours(image: npt.NDArray[np.uint8], gains: npt.NDArray[np.int_]) -> cv2.typing.MatLike:
    """An RGB image with whole numbers added to its hue, saturation and value."""
    levels = np.arange(256)
    table = np.stack([(levels + gains[0]) % _HUES, *(np.clip(levels + gain, 0, 255) for gain in gains[1:])], axis=-1)
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table[None].astype(np.uint8))
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
