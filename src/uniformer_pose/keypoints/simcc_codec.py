"""Keypoints in crop pixels to two vectors of bins, one for each axis, and such vectors back to keypoints and scores.

SimCC: Li et al., "SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation", ECCV 2022; sections
3.1 and 3.2. RTMPose (Jiang et al., arXiv 2303.07399) chooses the Gaussian's width by the crop's side. The numbers are
those of MMPose 1.3's ``SimCCLabel``.

In fp32, without waiting for the device, as ``heatmap_codec`` is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import (
    arguments_of,
    check_crop_size,
    gaussian_taps,
    log_scaled,
    weighted_sum_of_shifts,
)

BINS_PER_PIXEL = 2

_ARGUMENTS: dict[str, type] = {
    "height": int,
    "width": int,
    "method": str,
    "sigma_bins": float,
    "normalized": bool,
    "dark": bool,
    "aligned_flip": bool,
}
_BINS_PER_CELL = 4  # of the heatmaps to look at: a Gaussian's peak lies at most two bins from one
_LOWEST_EXPONENT = -80.0  # lower ones are subnormal numbers, with which a processor computes 25 times slower
_FLOOR, _CEILING = 1e-3, 50.0  # of a smoothed vector before its logarithm
_LONGEST_STEP = 3.0  # in bins


def of_axes(output: Tensor, crop_width: int) -> tuple[Tensor, Tensor]:
    """(B, K, bins_x) and (B, K, bins_y) of an output (B, K, bins_x + bins_y)."""
    bins_x = BINS_PER_PIXEL * crop_width
    return output[..., :bins_x], output[..., bins_x:]


class SimCCCodec:
    """Vectors from keypoints, and keypoints from vectors, for crops of one size.

    ``height``, ``width``: of the crop in pixels, multiples of 32. Bin ``i`` is crop pixel ``i / 2``; an output (B, K,
    bins_x + bins_y) is the bins of x, then those of y.

    - ``sigma_bins``: of the Gaussian, in bins, for both axes. None: sqrt(side / 8) of each axis' side in pixels, in
      hundredths, as RTMPose has it; 4.9 and 5.66 at 256x192. SimCC's own is 6, normalised.
    - ``normalized``: the Gaussian's bins sum to 1; otherwise its peak is 1.
    - ``dark``: decode by a Newton step on the logarithm of the smoothed vector, instead of as the highest bin.
    - ``aligned_flip``: see ``mirrored``; false for MMPose's.
    - ``sigma`` is for heatmaps, in cells of theirs: a number is refused here, so that none is taken for bins.

    ``decode(encode(p))`` lies at most a quarter pixel from ``p`` in each coordinate inside the crop: the target's peak
    is on a bin, so only a network can say more. Nearer to an end than three sigma, where smoothing sees zeros beyond
    it, ``dark`` can be wrong by 1.75 pixels.
    """

    def __init__(
        self,
        height: int,
        width: int,
        method: Literal["simcc"] = "simcc",
        sigma_bins: float | None = None,
        normalized: bool = False,
        dark: bool = False,
        aligned_flip: bool = True,
        sigma: float | None = None,
    ) -> None:
        check_crop_size(height, width)
        if sigma is not None:
            raise InputError(f"data.codec.sigma={sigma}: is in heatmap cells; of simcc give null, or sigma_bins=<bins>")
        if method != "simcc":
            raise InputError(f"method {method!r}: these vectors are decoded with simcc alone")
        if sigma_bins is not None and not 0 < sigma_bins <= BINS_PER_PIXEL * max(height, width):
            raise InputError(f"data.codec.sigma_bins={sigma_bins}: must be above 0 and within the crop, such as 6")
        self.height = height
        self.width = width
        self.method = method
        self.sigma_bins = sigma_bins
        self.normalized = normalized
        self.dark = dark
        self.aligned_flip = aligned_flip
        self.sigma_x, self.sigma_y = (sigma_bins or round(math.sqrt(side / 8), 2) for side in (width, height))
        self._blur_taps = (_blur_taps(self.sigma_x), _blur_taps(self.sigma_y))

    @property
    def kind(self) -> Literal["simcc"]:
        """What a network gives for each keypoint."""
        return "simcc"

    @property
    def unbiased(self) -> bool:
        """Lengths count in pixels."""
        return False

    @property
    def output_shape(self) -> tuple[int]:
        """The number of bins of both axes together."""
        return (BINS_PER_PIXEL * (self.width + self.height),)

    def encode(self, keypoints_in_crop: Tensor, visibility: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, bins) targets and (B, K) weights, from (B, K, 2) keypoints and (B, K) visibility.

        A Gaussian for each axis, with its peak on the nearest bin (of two, the even one). A visibility above zero means
        labelled. The weight is 1 for a labelled keypoint of which, on both axes, three sigma reach the bins, be its
        peak outside; and 0, with empty targets, for every other, whose coordinates may be NaN.
        """
        x, y = (keypoints_in_crop.float() * BINS_PER_PIXEL).round().unbind(-1)
        along_x, reaches_x = self._gaussian(x, BINS_PER_PIXEL * self.width, self.sigma_x)
        along_y, reaches_y = self._gaussian(y, BINS_PER_PIXEL * self.height, self.sigma_y)
        labelled = (visibility > 0) & reaches_x & reaches_y
        targets = torch.cat([along_x, along_y], dim=-1)
        # Filled, not multiplied by the weight: zero times NaN is NaN.
        return targets.masked_fill(~labelled[..., None], 0.0), labelled.float()

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, 2) keypoints in crop pixels and (B, K) scores, from an output (B, K, bins) of any float type.

        The score is the lower one of both axes' maxima. Where that is not positive, the keypoint is half a pixel left
        of and above the crop. Where a bin is NaN or infinite, score and keypoint are NaN, for evaluation to reject.
        """
        if output.ndim != 3 or tuple(output.shape[2:]) != self.output_shape:
            raise InputError(
                f"an output of shape {tuple(output.shape)}: a {self.height}x{self.width} crop has (batch, keypoints, "
                f"{self.output_shape[0]}); check the crop size"
            )
        output = output.detach().float()
        keypoints, scores = self.peaks(output)
        if self.dark:
            places = (keypoints * BINS_PER_PIXEL).nan_to_num(-1.0).long().unbind(-1)
            axes = zip(of_axes(output, self.width), places, self._blur_taps, strict=True)
            keypoints = keypoints + torch.stack([_dark_step(*axis) for axis in axes], dim=-1) / BINS_PER_PIXEL
        return keypoints, scores

    def peaks(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, 2) places of the highest bins in crop pixels, and (B, K) scores; as ``decode``, to the bin."""
        (value_x, x), (value_y, y) = (bins.float().max(dim=-1) for bins in of_axes(output, self.width))
        scores = torch.minimum(value_x, value_y)
        bins = torch.stack([x, y], dim=-1).masked_fill((scores <= 0)[..., None], -1)
        broken = ~output.isfinite().all(dim=-1)
        keypoints = (bins.float() / BINS_PER_PIXEL).masked_fill(broken[..., None], math.nan)
        return keypoints, scores.masked_fill(broken, math.nan)

    def mirrored(self, output_of_mirrored: Tensor, mirror_permutation: Tensor) -> Tensor:
        """The output (B, K, bins) for a crop, from that for its mirror image.

        The bins of x are reversed, and every keypoint takes the place of its mirror partner. A crop's columns reversed
        take pixel ``x`` to ``width - 1 - x``, which is bin ``2 width - 2 - i``; the bins reversed take that to ``i +
        1``, half a pixel too far right. So all bins move one to the left, and the last keeps its value. MMPose leaves
        them there, which moves the mean of both by a quarter pixel: ``aligned_flip=False`` does so too.
        """
        x, y = of_axes(output_of_mirrored.index_select(1, mirror_permutation), self.width)
        x = x.flip(-1)
        if self.aligned_flip:
            x = torch.cat([x[..., 1:], x[..., -1:]], dim=-1)
        return torch.cat([x, y], dim=-1)

    @property
    def cell_size(self) -> tuple[float, float]:
        """(width, height) in crop pixels of a cell of ``heatmaps``."""
        return _BINS_PER_CELL / BINS_PER_PIXEL, _BINS_PER_CELL / BINS_PER_PIXEL

    def heatmaps(self, output: Tensor) -> Tensor:
        """(B, K, height / 2, width / 2) products of both axes, to look at: what is negative counts as 0."""
        x, y = (bins[..., ::_BINS_PER_CELL].clamp(min=0) for bins in of_axes(output, self.width))
        highest = self._peak(self.sigma_x) * self._peak(self.sigma_y)
        return y[..., :, None] * x[..., None, :] / highest

    def to_dict(self) -> dict[str, Any]:
        """The codec's arguments as plain numbers and strings, for a checkpoint."""
        return {name: getattr(self, name) for name in _ARGUMENTS}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SimCCCodec:
        """The codec whose arguments ``to_dict`` wrote."""
        return cls(**arguments_of(fields, _ARGUMENTS, "simcc codec"))

    def _gaussian(self, centers: Tensor, length: int, sigma: float) -> tuple[Tensor, Tensor]:
        """(B, K, length) Gaussian along one axis and (B, K) whether three sigma of it reach that axis, in bins."""
        bins = torch.arange(length, device=centers.device, dtype=torch.float32)
        exponents = ((bins - centers[..., None]) ** 2 * (-0.5 / sigma**2)).clamp(min=_LOWEST_EXPONENT)
        gaussian = self._peak(sigma) * exponents.exp()
        return gaussian, (centers - 3 * sigma < length) & (centers + 3 * sigma + 1 >= 0)

    def _peak(self, sigma: float) -> float:
        """The target's value on the keypoint's bin."""
        return 1 / (sigma * math.sqrt(2 * math.pi)) if self.normalized else 1.0


def _blur_taps(sigma: float) -> list[float]:
    """The Gaussian that smooths before the Newton step, as wide as OpenCV takes it to be for about this sigma."""
    half = (max(1, int((20 * sigma - 7) // 3)) - 1) // 2
    return gaussian_taps(2 * half + 1)


def _dark_step(bins: Tensor, places: Tensor, taps: list[float]) -> Tensor:
    """(B, K) Newton step in bins, from (B, K) places, to the maximum of the logarithm of smoothed (B, K, n) bins.

    Past the ends the outermost bins are repeated. The limit is ours: a longer step comes of a flat vector, where
    MMPose's can leave the crop by hundreds of pixels, or of a Gaussian cut off at an end, where it is as wrong.
    """
    half = len(taps) // 2
    blurred = weighted_sum_of_shifts(F.pad(bins, (half, half)), taps, dim=2)
    logs = log_scaled(blurred, bins.amax(dim=-1, keepdim=True), _FLOOR, _CEILING)

    def value(shift: int) -> Tensor:
        there = (places + shift).clamp(0, bins.shape[-1] - 1)
        return logs.gather(-1, there[..., None]).squeeze(-1)

    gradient = 0.5 * (value(1) - value(-1))
    curvature = 0.25 * (value(2) - 2 * value(0) + value(-2))
    flat = curvature == 0
    return (-gradient / curvature.masked_fill(flat, 1.0)).masked_fill(flat, 0.0).clamp(-_LONGEST_STEP, _LONGEST_STEP)
