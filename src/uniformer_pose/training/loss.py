"""Losses: what a training makes small, of a network's output, its targets and the weights of the keypoints."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch.nn.functional as F
from torch import Tensor

from uniformer_pose.keypoints.codec import Codec, OutputKind
from uniformer_pose.keypoints.simcc_codec import of_axes
from uniformer_pose.ranges import Count, Positive


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


@dataclass(frozen=True)
class KeypointOHKM:
    """Online hard keypoint mining: the mean of each person's ``topk`` largest mean squared errors.

    Chen et al., "Cascaded Pyramid Network for Multi-Person Pose Estimation", CVPR 2018, section 3.2.2. As MMPose's
    ``KeypointOHKMMSELoss`` for weights 0 and 1; it multiplies both heatmaps by a weight, and so squares it.
    """

    topk: Count = 8
    kinds: ClassVar[tuple[OutputKind, ...]] = ("heatmap",)

    def __call__(self, codec: Codec, output: Tensor, targets: Tensor, weights: Tensor) -> Tensor:  # noqa: ARG002
        """The loss of heatmaps; fewer keypoints than ``topk`` are all of them."""
        errors = (output.float() - targets).square().mean(dim=(2, 3)) * weights
        return errors.topk(min(self.topk, errors.shape[1]), dim=1).values.mean()


@dataclass(frozen=True)
class AdaptiveWing:
    """Adaptive wing loss, mean over all cells: near the target like a logarithm, far from it linear.

    Wang, Bo and Li, "Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression", ICCV 2019 (arXiv
    1904.07399), section 4.2, with its constants. As MMPose's for weights 0 and 1: others scale the loss here, and
    there the heatmaps inside it.
    """

    kinds: ClassVar[tuple[OutputKind, ...]] = ("heatmap",)
    _ALPHA: ClassVar[float] = 2.1
    _OMEGA: ClassVar[float] = 14.0
    _THETA: ClassVar[float] = 0.5  # from where on it is linear; the paper's epsilon is 1

    def __call__(self, codec: Codec, output: Tensor, targets: Tensor, weights: Tensor) -> Tensor:  # noqa: ARG002
        """The loss of heatmaps."""
        distance = (output.float() - targets).abs()
        power = self._ALPHA - targets
        bend = self._THETA**power
        slope = self._OMEGA * power * bend / (self._THETA * (1 + bend))
        linear = slope * (distance - self._THETA) + self._OMEGA * bend.log1p()
        curved = self._OMEGA * distance.pow(power).log1p()
        return (curved.where(distance < self._THETA, linear) * weights[:, :, None, None]).mean()


@dataclass(frozen=True)
class KeypointKL:
    """Kullback-Leibler divergence of the softmax of ``beta`` times each axis' vector from its target.

    The mean over bins and keypoints, of both axes' sum. With ``target_softmax`` the target is the softmax of ``beta``
    times the codec's vector (RTMPose, arXiv 2303.07399, section 3.2), otherwise that vector itself (SimCC, ECCV 2022).
    ``sum_over_batch`` is MMPose's ``KLDiscretLoss``, which is divided by keypoints alone and grows with the batch; here
    it is by default the mean.
    """

    beta: Positive = 1.0
    target_softmax: bool = False
    sum_over_batch: bool = False
    kinds: ClassVar[tuple[OutputKind, ...]] = ("simcc",)

    def __call__(self, codec: Codec, output: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The loss of vectors (B, K, bins_x + bins_y)."""
        divergences = [
            self._divergence(*of_axis)
            for of_axis in zip(of_axes(output, codec.width), of_axes(targets, codec.width), strict=True)
        ]
        of_people = (sum(divergences) * weights).mean(dim=1)
        return of_people.sum() if self.sum_over_batch else of_people.mean()

    def _divergence(self, vector: Tensor, target: Tensor) -> Tensor:
        """(B, K), mean over bins."""
        logs = F.log_softmax(self.beta * vector.float(), dim=-1)
        wanted = F.softmax(self.beta * target, dim=-1) if self.target_softmax else target
        return F.kl_div(logs, wanted, reduction="none").mean(dim=-1)
