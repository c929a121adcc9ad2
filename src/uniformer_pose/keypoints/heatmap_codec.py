"""Keypoints in crop pixels to target heatmaps, and predicted heatmaps back to keypoints and scores.

Three published methods, with the numbers of MMPose 1.3's codecs (``MSRAHeatmap`` and ``UDPHeatmap``):

- ``msra``: Xiao et al., "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018. A Gaussian on
  the nearest cell; decoded as the maximum, a quarter cell towards the higher neighbour.
- ``dark``: Zhang et al., "Distribution-Aware Coordinate Representation", CVPR 2020. A Gaussian on the exact
  place; decoded by one Newton step on the logarithm of the blurred heatmap. MMPose calls it ``unbiased``
  MSRA.
- ``udp``: Huang et al., "The Devil is in the Details", CVPR 2020. As ``dark``, in units of "pixels minus
  one".

Everything is batched and in fp32, without convolutions or matrix products, so neither autocast nor TF32
changes a coordinate, and nothing waits for the device. For the last reason ``masked_fill`` stands where
``where`` with a number would read more easily: ``where`` copies that number to the device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.flip_test import mirror_heatmaps

Method = Literal["msra", "dark", "udp"]

BACKBONE_STRIDE = 32
HEATMAP_STRIDE = 4
"""Crop pixels per heatmap cell of the pose head: three doublings of the backbone's map."""

# Beyond any use; without a limit the few digits of somebody else's file could ask for all memory there is.
_LARGEST_SIDE, _LARGEST_KERNEL = 8192, 1001

_ARGUMENTS: dict[str, type] = {
    "height": int,
    "width": int,
    "sigma": float,
    "method": str,
    "stride": int,
    "blur_kernel": int,
}
# Floors of the blurred heatmap before its logarithm; they differ in the two original decoders.
_DARK_FLOOR = 1e-10
_UDP_FLOOR, _UDP_CEILING = 1e-3, 50.0


class HeatmapCodec:
    """Target heatmaps from keypoints, and keypoints from heatmaps, for crops of one size.

    ``height``, ``width``: of the crop in pixels, multiples of 32. ``sigma``: of the Gaussian, in heatmap
    cells; 2 at 256x192 and 3 at 384x288 and above in the published recipes. ``stride``: crop pixels per cell.
    ``blur_kernel``: odd number of cells of the Gaussian that smooths a heatmap before the Newton step (dark
    and udp; msra has none); by default the one that matches ``sigma``, 11 for 2 and 17 for 3.

    Cell ``i`` is crop pixel ``stride * i`` in msra and dark; in udp the first and last cells are the first
    and last pixels, so a cell is ``(width - 1) / (heatmap_width - 1)`` pixels wide. Decoded keypoints are
    crop pixels of ``CropGeometry(unbiased=codec.unbiased)``, so its ``to_image`` takes them as they are.

    How far ``decode(encode(p))`` lies from ``p``, at most, in each coordinate and in crop pixels, for stride
    4:

    - 3 sigma and more inside the outermost cells: msra 2 (half a cell), dark and udp 0.01;
    - nearer to the border, where smoothing sees zeros beyond it: msra 2, dark 2 (sigma 2) or 4 (sigma 3), udp
      4.5 (sigma 2) or 6 (sigma 3), as in the original decoders;
    - behind the last cell of msra and dark, which lies 4 pixels before the crop's far edge: up to 4.
    """

    def __init__(
        self,
        height: int,
        width: int,
        sigma: float,
        method: Method = "msra",
        stride: int = HEATMAP_STRIDE,
        blur_kernel: int | None = None,
    ) -> None:
        check_crop_size(height, width)
        if stride not in (1, 2, 4, 8, 16):
            raise InputError(f"heatmap stride {stride}: use 1, 2, 4, 8 or 16; the pose head gives 4")
        if not (math.isfinite(sigma) and sigma > 0):
            raise InputError(f"heatmap sigma {sigma}: must be a positive number of cells, such as 2")
        if method not in get_args(Method):
            raise InputError(f"heatmap method {method!r}: use one of {', '.join(get_args(Method))}")
        if blur_kernel is None:
            blur_kernel = _matching_blur_kernel(sigma)
        if not 3 <= blur_kernel <= _LARGEST_KERNEL or blur_kernel % 2 == 0:
            raise InputError(f"blur_kernel {blur_kernel}: must be odd and from 3 to {_LARGEST_KERNEL} cells")
        self.height = height
        self.width = width
        self.sigma = float(sigma)
        self.method = method
        self.stride = stride
        self.blur_kernel = blur_kernel
        self._blur_taps = gaussian_taps(blur_kernel)
        self.heatmap_height = height // stride
        self.heatmap_width = width // stride

    @property
    def unbiased(self) -> bool:
        """Whether lengths count in "pixels minus one" (udp), as they must then in ``CropGeometry`` too."""
        return self.method == "udp"

    @property
    def kind(self) -> Literal["heatmap"]:
        """What a network gives for each keypoint."""
        return "heatmap"

    @property
    def output_shape(self) -> tuple[int, int]:
        """(height, width) of a heatmap in cells."""
        return self.heatmap_height, self.heatmap_width

    def encode(self, keypoints_in_crop: Tensor, visibility: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, h, w) target heatmaps and (B, K) weights, from (B, K, 2) keypoints and (B, K) visibility.

        A visibility above zero means labelled. The Gaussian's peak is 1; msra and udp cut it off 3 sigma from
        the nearest cell. The weight is 1 for a labelled keypoint whose window reaches the heatmap, and 0,
        with an empty heatmap, for every other; one that is not labelled may have any coordinates, even NaN.
        As in the original, a window that ends on the cell just left of or above the heatmap counts as
        reaching it.
        """
        cell_width, cell_height = self.cell_size
        x, y = keypoints_in_crop.float().unbind(-1)
        along_x, reaches_x = self._gaussian(x / cell_width, self.heatmap_width)
        along_y, reaches_y = self._gaussian(y / cell_height, self.heatmap_height)
        labelled = (visibility > 0) & reaches_x & reaches_y
        # Filled, not multiplied by the weight: zero times NaN is NaN.
        along_x = along_x.masked_fill(~labelled[..., None], 0.0)
        along_y = along_y.masked_fill(~labelled[..., None], 0.0)
        return along_y[..., :, None] * along_x[..., None, :], labelled.float()

    def decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, 2) keypoints in crop pixels and (B, K) scores, from (B, K, h, w) heatmaps of any float type.

        The score is the heatmap's maximum. Where that is not positive, the keypoint is one cell left of and
        above the crop. Where the heatmap holds a NaN or an infinity, score and keypoint are NaN, for
        evaluation to reject.
        """
        if heatmaps.ndim != 4 or heatmaps.shape[2:] != (self.heatmap_height, self.heatmap_width):
            raise InputError(
                f"heatmaps of shape {tuple(heatmaps.shape)}: a {self.height}x{self.width} crop has (batch, "
                f"keypoints, {self.heatmap_height}, {self.heatmap_width}); check the crop size"
            )
        heatmaps = heatmaps.detach().float()
        x, y, scores = find_peaks(heatmaps)
        if self.method == "msra":
            step_x, step_y = _quarter_steps(heatmaps, x, y)
        elif self.method == "dark":
            logs = self._log_blurred(heatmaps, scores, _DARK_FLOOR, None)
            step_x, step_y = _dark_steps(logs, x, y, self.blur_kernel // 2)
        else:
            logs = self._log_blurred(heatmaps, scores, _UDP_FLOOR, _UDP_CEILING)
            step_x, step_y = _udp_steps(logs, x, y, self.blur_kernel // 2)
        cell_width, cell_height = self.cell_size
        keypoints = torch.stack([(x + step_x) * cell_width, (y + step_y) * cell_height], dim=-1)
        broken = ~heatmaps.isfinite().flatten(2).all(dim=-1)
        return keypoints.masked_fill(broken[..., None], math.nan), scores.masked_fill(broken, math.nan)

    def peaks(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, 2) places of the maxima in crop pixels, and (B, K) their values; as ``decode``, to the cell."""
        x, y, values = find_peaks(output.detach().float())
        cell_width, cell_height = self.cell_size
        return torch.stack([x * cell_width, y * cell_height], dim=-1), values

    def mirrored(self, output_of_mirrored: Tensor, mirror_permutation: Tensor) -> Tensor:
        """The heatmaps (B, K, h, w) of a crop, from those of its mirror image; see ``mirror_heatmaps``."""
        return mirror_heatmaps(output_of_mirrored, mirror_permutation, shift=not self.unbiased)

    def heatmaps(self, output: Tensor) -> Tensor:
        """What the network gives is to be looked at as it is."""
        return output

    def to_dict(self) -> dict[str, int | float | str]:
        """The codec's arguments as plain numbers and strings, for a checkpoint."""
        return {name: getattr(self, name) for name in _ARGUMENTS}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> HeatmapCodec:
        """The codec whose arguments ``to_dict`` wrote."""
        return cls(**arguments_of(fields, _ARGUMENTS, "heatmap codec"))

    @property
    def cell_size(self) -> tuple[float, float]:
        """(width, height) of one heatmap cell in crop pixels."""
        if not self.unbiased:
            return float(self.stride), float(self.stride)
        return (self.width - 1) / (self.heatmap_width - 1), (self.height - 1) / (self.heatmap_height - 1)

    def _gaussian(self, centers: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """(B, K, length) Gaussian along one axis and (B, K) whether its window reaches that axis.

        ``centers`` (B, K) are in cells. A Gaussian of two dimensions is the product of two of one, and so is
        its window.
        """
        radius = 3 * self.sigma
        # trunc, not floor: left of and above the crop a half rounds towards zero, as in the original.
        nearest = torch.trunc(centers + 0.5)
        window_center = centers if self.method == "dark" else nearest
        peak = nearest if self.method == "msra" else centers
        cells = torch.arange(length, device=centers.device, dtype=torch.float32)
        gaussian = torch.exp((cells - peak[..., None]) ** 2 * (-0.5 / self.sigma**2))
        if self.method != "dark":
            gaussian = gaussian.masked_fill((cells - window_center[..., None]).abs() > radius, 0.0)
        reaches = (window_center - radius < length) & (window_center + radius + 1 >= 0)
        return gaussian, reaches

    def _log_blurred(self, heatmaps: Tensor, maxima: Tensor, floor: float, ceiling: float | None) -> Tensor:
        """Logarithm of the smoothed heatmaps, each scaled to its own of the (B, K) maxima; (B, K, h, w)."""
        half = self.blur_kernel // 2
        blurred = weighted_sum_of_shifts(F.pad(heatmaps, (half, half)), self._blur_taps, dim=3)
        blurred = weighted_sum_of_shifts(F.pad(blurred, (0, 0, half, half)), self._blur_taps, dim=2)
        return log_scaled(blurred, maxima[..., None, None], floor, ceiling)


def check_crop_size(height: int, width: int) -> None:
    """Raise InputError for a crop that the backbone cannot divide evenly."""
    if any(not 0 < side <= _LARGEST_SIDE or side % BACKBONE_STRIDE for side in (height, width)):
        raise InputError(
            f"crop size {height}x{width} (height x width): both must be positive multiples of {BACKBONE_STRIDE} up to "
            f"{_LARGEST_SIDE}, such as 256x192"
        )


def arguments_of(fields: Mapping[str, Any], types: Mapping[str, type], what: str) -> dict[str, Any]:
    """The arguments that a codec's ``to_dict`` wrote, in their types; InputError where they are others."""
    if fields.keys() != types.keys():
        raise InputError(
            f"{what} with the fields {', '.join(map(str, fields))}: it needs exactly "
            f"{', '.join(sorted(types))}; was the checkpoint written by this version?"
        )
    return {name: None if fields[name] is None else kind(fields[name]) for name, kind in types.items()}


def find_peaks(heatmaps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, K) column, row and value of each heatmap's maximum, from (B, K, h, w) heatmaps.

    Of equal maxima the first in reading order counts. Column and row are int64; both are -1 where the maximum
    is not positive. A heatmap with a NaN has the NaN as its maximum.
    """
    width = heatmaps.shape[3]
    values, positions = heatmaps.flatten(2).max(dim=-1)
    missing = values <= 0
    return (positions % width).masked_fill(missing, -1), (positions // width).masked_fill(missing, -1), values


def _matching_blur_kernel(sigma: float) -> int:
    """The odd kernel size to which OpenCV gives the sigma nearest to this one."""
    return 2 * max(1, round((sigma - 0.8) / 0.3 + 1)) + 1


def gaussian_taps(kernel_size: int) -> list[float]:
    """Weights of the Gaussian that smooths before a Newton step.

    The originals smooth with OpenCV, whose kernels of up to 9 cells are fixed tables and no exact Gaussians.
    """
    taps: list[float] = cv2.getGaussianKernel(kernel_size, 0, cv2.CV_64F).ravel().tolist()
    return taps


def log_scaled(blurred: Tensor, maxima: Tensor, floor: float, ceiling: float | None) -> Tensor:
    """Logarithm of smoothed (B, K, ...) maps or vectors, scaled to the (B, K, 1, ...) maxima from before."""
    highest = blurred.amax(dim=tuple(range(2, blurred.ndim)), keepdim=True)
    # Of a lone positive cell, smoothing can leave nothing positive: such a map stays at the floor.
    return (blurred * (maxima / highest.clamp(min=1e-20))).clamp(min=floor, max=ceiling).log()


def weighted_sum_of_shifts(padded: Tensor, taps: list[float], dim: int) -> Tensor:
    """Smoothing along one dimension, at the end of which ``padded`` has room for the taps."""
    length = padded.shape[dim] - len(taps) + 1
    total = padded.narrow(dim, 0, length) * taps[0]
    for start, tap in enumerate(taps[1:], start=1):
        total.add_(padded.narrow(dim, start, length), alpha=tap)
    return total


def _values_at(maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(B, K) values of (B, K, h, w) maps at the cells (x, y); the nearest cell's where that lies outside."""
    height, width = maps.shape[2:]
    position = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    return maps.flatten(2).gather(-1, position[..., None]).squeeze(-1)


def _quarter_steps(heatmaps: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A quarter cell towards the higher neighbour in each axis; none at the border.

    The bounds are the original's, which are not symmetric: cell 1 takes no step and the one before the last
    does.
    """
    height, width = heatmaps.shape[2:]
    rise_x = _values_at(heatmaps, x + 1, y) - _values_at(heatmaps, x - 1, y)
    rise_y = _values_at(heatmaps, x, y + 1) - _values_at(heatmaps, x, y - 1)
    inside_x = (x > 1) & (x < width - 1) & (y > 0)
    inside_y = (y > 1) & (y < height - 1) & (x > 0)
    return 0.25 * rise_x.sign().masked_fill(~inside_x, 0.0), 0.25 * rise_y.sign().masked_fill(~inside_y, 0.0)


def _dark_steps(logs: Tensor, x: Tensor, y: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Newton step to the maximum of the log-heatmap (DARK, section 3.2); none near the border.

    Near are the outermost two cells, for which the second derivatives' neighbours would lie outside.
    """
    height, width = logs.shape[2:]

    def value(dx: int, dy: int) -> Tensor:
        return _values_at(logs, x + dx, y + dy)

    center = value(0, 0)
    gradient_x = 0.5 * (value(1, 0) - value(-1, 0))
    gradient_y = 0.5 * (value(0, 1) - value(0, -1))
    curvature_xx = 0.25 * (value(2, 0) - 2 * center + value(-2, 0))
    curvature_yy = 0.25 * (value(0, 2) - 2 * center + value(0, -2))
    curvature_xy = 0.25 * (value(1, 1) - value(1, -1) - value(-1, 1) + value(-1, -1))
    step_x, step_y = _newton_step(gradient_x, gradient_y, curvature_xx, curvature_yy, curvature_xy, limit)
    inside = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    return step_x.masked_fill(~inside, 0.0), step_y.masked_fill(~inside, 0.0)


def _udp_steps(logs: Tensor, x: Tensor, y: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Newton step to the maximum of the log-heatmap; past the border the outermost values are repeated.

    The mixed derivative uses one diagonal, as UDP's code does.
    """

    def value(dx: int, dy: int) -> Tensor:
        return _values_at(logs, x + dx, y + dy)

    center, right, left, below, above = value(0, 0), value(1, 0), value(-1, 0), value(0, 1), value(0, -1)
    tiny = torch.finfo(torch.float32).eps
    curvature_xy = 0.5 * (value(1, 1) - right - below + 2 * center - left - above + value(-1, -1))
    step_x, step_y = _newton_step(
        0.5 * (right - left),
        0.5 * (below - above),
        right - 2 * center + left + tiny,
        below - 2 * center + above + tiny,
        curvature_xy,
        limit,
    )
    missing = x < 0
    return step_x.masked_fill(missing, 0.0), step_y.masked_fill(missing, 0.0)


def _newton_step(
    gradient_x: Tensor,
    gradient_y: Tensor,
    curvature_xx: Tensor,
    curvature_yy: Tensor,
    curvature_xy: Tensor,
    limit: int,
) -> tuple[Tensor, Tensor]:
    """Minus the inverse Hessian times the gradient, within ``limit`` cells; 0 where it cannot be inverted.

    The limit is ours. Smoothing looks no further than that, and the original's step on a flat heatmap, where
    the Hessian is almost singular, can leave the crop by thousands of cells.
    """
    determinant = curvature_xx * curvature_yy - curvature_xy**2
    singular = determinant == 0
    divisor = determinant.masked_fill(singular, 1.0)
    step_x = (curvature_xy * gradient_y - curvature_yy * gradient_x) / divisor
    step_y = (curvature_xy * gradient_x - curvature_xx * gradient_y) / divisor
    return (
        step_x.masked_fill(singular, 0.0).clamp(-limit, limit),
        step_y.masked_fill(singular, 0.0).clamp(-limit, limit),
    )
