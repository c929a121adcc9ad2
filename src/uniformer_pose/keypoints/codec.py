"""What every codec does: keypoints to the targets of a network's output, and its output back to keypoints.

A network's output is one tensor (B, K, ...), and its codec alone knows what it means. ``heatmap_codec`` has the codecs
of two-dimensional heatmaps, ``simcc_codec`` that of a vector for each axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from torch import Tensor

from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.keypoints.simcc_codec import SimCCCodec

OutputKind = Literal["heatmap", "simcc"]
"""What a network gives for each keypoint: a map, or a vector for each of the two axes (SimCC)."""


NetworkOutput = Tensor | tuple[Tensor, Tensor]
"""What a network gives: its output (B, K, ...), and with it visibility logits (B, K, 2) where its head has them.

The logits are of "labelled" and of "visible".
"""


def parts_of(given: NetworkOutput) -> tuple[Tensor, Tensor | None]:
    """The output, and the visibility logits if there are any."""
    return (given, None) if isinstance(given, Tensor) else given


class Codec(Protocol):
    """Targets from keypoints, and keypoints from a network's output, for crops of one size.

    ``height``, ``width``: of the crop in pixels. ``unbiased``: lengths count in "pixels minus one", in crops too.
    ``output_shape``: of one keypoint, such as (64, 48) for the heatmap of a 256x192 crop.
    """

    @property
    def kind(self) -> OutputKind: ...  # noqa: D102

    @property
    def height(self) -> int: ...  # noqa: D102

    @property
    def width(self) -> int: ...  # noqa: D102

    @property
    def method(self) -> str: ...  # noqa: D102

    @property
    def unbiased(self) -> bool: ...  # noqa: D102

    @property
    def output_shape(self) -> tuple[int, ...]: ...  # noqa: D102

    def encode(self, keypoints_in_crop: Tensor, visibility: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, *output_shape) targets and (B, K) weights, from (B, K, 2) keypoints and (B, K) visibility."""
        ...

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, 2) keypoints in crop pixels and (B, K) scores, from (B, K, *output_shape)."""
        ...

    def peaks(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, 2) places of the maxima in crop pixels, to the cell, and (B, K) values: what is cheap to look at."""
        ...

    def mirrored(self, output_of_mirrored: Tensor, mirror_permutation: Tensor) -> Tensor:
        """The output for a crop, from that for its mirror image; ``mirror_permutation`` (K,) on its device."""
        ...

    @property
    def cell_size(self) -> tuple[float, float]:
        """(width, height) in crop pixels of a cell of ``heatmaps``."""
        ...

    def heatmaps(self, output: Tensor) -> Tensor:
        """(B, K, h, w) heatmaps to look at, from (B, K, *output_shape)."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The codec's arguments as plain numbers and strings, for a checkpoint."""
        ...


def codec_of_dict(fields: Mapping[str, Any]) -> Codec:
    """The codec whose arguments ``to_dict`` wrote; InputError for other fields."""
    codec = SimCCCodec if fields.get("method") == "simcc" else HeatmapCodec
    return codec.from_dict(fields)
