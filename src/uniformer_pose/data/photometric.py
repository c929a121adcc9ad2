"""Photometric augmentation of a crop: colours, sharpness, noise and covered areas; nothing moves.

The transforms are albumentations' (2.0.8, the last release under the MIT licence), behind an interface of
plain numbers, so that another library could stand here. Only transforms that leave every pixel in its place
are used, and the keypoints are never handed over: none can be moved or lost.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.errors import InputError


class PhotometricAugmentation:
    """Changes the looks of one crop; each effect is applied with its own probability, in the order below.

    ``color``: brightness, contrast and saturation are multiplied by a factor within ``1 -+ color_strength``,
    the hue turns by at most ``hue_strength`` of the colour circle (0 to 0.5). ``gray``: colours are removed.
    ``contrast_equalization``: CLAHE, local equalisation of the brightness. ``blur``: Gaussian, with a
    deviation of up to ``blur_max_sigma`` crop pixels. ``noise``: Gaussian, with a deviation of up to
    ``noise_max_std`` of the full brightness. ``compression``: JPEG of a quality from
    ``compression_min_quality`` (1 to 100) to 95. ``dropout``: one to ``dropout_max_areas`` rectangles, each
    of up to ``dropout_max_size`` of the crop's height and width, are painted black; keypoints under them stay
    labelled, to be inferred from their surroundings.

    A probability of 0 leaves an effect out. Raises InputError for a number out of its range.
    """

    def __init__(
        self,
        color_probability: float = 0.5,
        color_strength: float = 0.2,
        hue_strength: float = 0.03,
        gray_probability: float = 0.05,
        contrast_equalization_probability: float = 0.05,
        blur_probability: float = 0.1,
        blur_max_sigma: float = 2.0,
        noise_probability: float = 0.1,
        noise_max_std: float = 0.05,
        compression_probability: float = 0.1,
        compression_min_quality: int = 40,
        dropout_probability: float = 0.3,
        dropout_max_areas: int = 4,
        dropout_max_size: float = 0.2,
    ) -> None:
        probabilities = {
            "color_probability": color_probability,
            "gray_probability": gray_probability,
            "contrast_equalization_probability": contrast_equalization_probability,
            "blur_probability": blur_probability,
            "noise_probability": noise_probability,
            "compression_probability": compression_probability,
            "dropout_probability": dropout_probability,
        }
        for name, probability in probabilities.items():
            if not 0 <= probability <= 1:
                raise InputError(f"{name} {probability} is not a probability; use a number from 0 to 1")
        ranges: dict[str, tuple[float, float, float]] = {
            "color_strength": (color_strength, 0, 1),
            "hue_strength": (hue_strength, 0, 0.5),
            "blur_max_sigma": (blur_max_sigma, 0.1, 100),
            "noise_max_std": (noise_max_std, 0, 1),
            "compression_min_quality": (compression_min_quality, 1, 95),
            "dropout_max_areas": (dropout_max_areas, 1, 100),
            "dropout_max_size": (dropout_max_size, 0.05, 1),
        }
        for name, (value, lowest, highest) in ranges.items():
            if not lowest <= value <= highest:
                raise InputError(f"{name} {value}: use a number from {lowest:g} to {highest:g}")
        library = _albumentations()
        factors = (1 - color_strength, 1 + color_strength)
        areas = (1, dropout_max_areas)
        sizes = (0.05, dropout_max_size)
        # Whether an effect is applied is drawn here, so within the library each one always is (p=1).
        effects = [
            (
                color_probability,
                library.ColorJitter(factors, factors, factors, (-hue_strength, hue_strength), p=1.0),
            ),
            (gray_probability, library.ToGray(p=1.0)),
            (contrast_equalization_probability, library.CLAHE(clip_limit=(1.0, 4.0), p=1.0)),
            # Kernel size 0: the library derives it from the drawn deviation.
            (blur_probability, library.GaussianBlur(blur_limit=0, sigma_limit=(0.1, blur_max_sigma), p=1.0)),
            (noise_probability, library.GaussNoise(std_range=(0.0, noise_max_std), p=1.0)),
            (
                compression_probability,
                library.ImageCompression(quality_range=(compression_min_quality, 95), p=1.0),
            ),
            (dropout_probability, library.CoarseDropout(areas, sizes, sizes, fill=0, p=1.0)),
        ]
        self._probabilities = np.array([probability for probability, _ in effects])
        self._transforms: list[Any] = [transform for _, transform in effects]

    def __call__(self, image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """A changed copy of an (H, W, 3) RGB image, 0 to 255; the same for the same state of ``rng``.

        The same amount is drawn at each call. Every transform gets a seed of its own: the library's
        ``Compose.set_random_seed`` hands one seed to all of them, whose draws are then the same numbers
        (measured: three transforms of probability 0.5 were applied all together or not at all).
        """
        applied = rng.random(len(self._transforms)) < self._probabilities
        seeds = rng.integers(2**32, size=len(self._transforms))
        changed = image.copy()
        for index in np.flatnonzero(applied):
            transform = self._transforms[index]
            transform.set_random_seed(int(seeds[index]))
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
