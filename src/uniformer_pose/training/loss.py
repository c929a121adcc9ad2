"""Losses: what a training makes small, of a network's output, its targets and the weights of the keypoints."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from uniformer_pose.keypoints.codec import Codec, OutputKind


class Loss(Protocol):
    """A scalar to differentiate; ``kinds`` are the outputs that it understands."""

    @property
    def kinds(self) -> Collection[OutputKind]: ...  # noqa: D102

    def __call__(self, codec: Codec, output: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Of a network's output and its targets (B, K, ...), and weights (B, K)."""
        ...


@dataclass(frozen=True)
class KeypointMSE:
    """Mean squared error over all (B, K, h, w) cells, those of keypoints with weight 0 counted as zero.

    In fp32 whatever the heatmaps' type: typical values are 1e-3, and fp16 would lose their differences. Both the
    original ``JointsMSELoss`` and MMPose's ``KeypointMSELoss`` reduce to this for weights 0 and 1.
    """

    kinds: ClassVar[tuple[OutputKind, ...]] = ("heatmap",)

    def __call__(self, codec: Codec, output: Tensor, targets: Tensor, weights: Tensor) -> Tensor:  # noqa: ARG002
        """The loss of heatmaps."""
        squared = (output.float() - targets).square()
        return (squared * weights[:, :, None, None]).mean()
