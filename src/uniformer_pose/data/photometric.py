"""Photometric augmentation of a crop: colours, sharpness, noise and covered areas; nothing moves.

The transforms are albumentations' (2.0.8, the last release under the MIT licence), behind an interface of
plain numbers, so that another library could stand here. Only transforms that leave every pixel in its place
are used, and the keypoints are never handed over: none can be moved or lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le

from uniformer_pose.config import check_arguments
from uniformer_pose.ranges import Share

Photometric = Callable[[npt.NDArray[np.uint8], np.random.Generator], npt.NDArray[np.uint8]]
"""Changes the looks of one (H, W, 3) RGB crop, without touching its argument; moves nothing."""


@dataclass(frozen=True)
class PhotometricAugmentation:
    """Changes the looks of one crop; each effect is applied with its own probability, in the order below.

    ``color``: brightness, contrast and saturation are multiplied by a factor within ``1 -+ color_strength``, the hue
    turns by at most ``hue_strength`` of the colour circle. ``contrast_equalization``: CLAHE. ``blur``: Gaussian, its
    deviation in crop pixels. ``noise``: Gaussian, its deviation a part of the full brightness. ``compression``: JPEG of
    a quality from ``compression_min_quality`` to 95. ``dropout``: black rectangles, each of up to ``dropout_max_size``
    of the crop's height and width; keypoints under them stay labelled, to be inferred from their surroundings.

    Raises InputError for a number out of its range.
    """

    color_probability: Share = 0.5
    color_strength: Share = 0.2
    hue_strength: Annotated[float, Ge(0), Le(0.5)] = 0.03
    gray_probability: Share = 0.05
    contrast_equalization_probability: Share = 0.05
    blur_probability: Share = 0.1
    blur_max_sigma: Annotated[float, Ge(0.1), Le(100)] = 2.0
    noise_probability: Share = 0.1
    noise_max_std: Share = 0.05
    compression_probability: Share = 0.1
    compression_min_quality: Annotated[int, Ge(1), Le(95)] = 40
    dropout_probability: Share = 0.3
    dropout_max_areas: Annotated[int, Ge(1), Le(100)] = 4
    dropout_max_size: Annotated[float, Ge(0.05), Le(1)] = 0.2

    def __post_init__(self) -> None:
        check_arguments(PhotometricAugmentation, vars(self))
        _ = self._effects  # workers that are forked need not import the library each

    @cached_property
    def _effects(self) -> list[tuple[float, Any]]:
        """Each effect's probability and transform, in their order; whether one is applied is drawn here (so p=1)."""
        library = _albumentations()
        factors = (1 - self.color_strength, 1 + self.color_strength)
        hues, qualities = (-self.hue_strength, self.hue_strength), (self.compression_min_quality, 95)
        sizes = (0.05, self.dropout_max_size)
        # Kernel size 0 of the blur: the library derives it from the drawn deviation.
        return [
            (self.color_probability, library.ColorJitter(factors, factors, factors, hues, p=1)),
            (self.gray_probability, library.ToGray(p=1)),
            (self.contrast_equalization_probability, library.CLAHE(clip_limit=(1.0, 4.0), p=1)),
            (self.blur_probability, library.GaussianBlur(blur_limit=0, sigma_limit=(0.1, self.blur_max_sigma), p=1)),
            (self.noise_probability, library.GaussNoise(std_range=(0.0, self.noise_max_std), p=1)),
            (self.compression_probability, library.ImageCompression(quality_range=qualities, p=1)),
            (self.dropout_probability, library.CoarseDropout((1, self.dropout_max_areas), sizes, sizes, fill=0, p=1)),
        ]

    def __call__(self, image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """A changed copy of an (H, W, 3) RGB image, 0 to 255; the same for the same state of ``rng``.

        The same amount is drawn at each call. Every transform gets a seed of its own: ``Compose.set_random_seed`` hands
        one seed to all, and transforms of one probability are then applied all together or not at all.
        """
        draws = rng.random(len(self._effects))
        seeds = rng.integers(2**32, size=len(self._effects))
        changed = image.copy()
        for (probability, transform), draw, seed in zip(self._effects, draws, seeds, strict=True):
            if draw < probability:
                transform.set_random_seed(int(seed))
                changed = transform(image=changed)["image"]
        return changed


def _albumentations() -> ModuleType:
    """The albumentations library, imported on first use because that takes seconds.

    Unless told not to, it asks the network for a newer version while it is imported.
    """
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations

    module: ModuleType = albumentations
    return module
