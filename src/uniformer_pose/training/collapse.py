"""Whether a network has given up: heatmaps near zero everywhere, the shortcut that a squared error leaves open."""

from __future__ import annotations

import torch
from torch import Tensor

from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec

# Heatmaps of zeros have a loss of exactly the targets' energy. A network that finds anything has less.
_NOTHING_EXPLAINED = 0.02
_FEWEST_LOSSES = 20


class CollapseWatch:
    """Compares losses with the energy of their targets, on the device, until ``verdict`` asks.

    The share of the energy that the heatmaps explain is 1 - loss / energy: 0 for heatmaps of zeros, 1 for perfect
    ones, negative for noise.
    """

    def __init__(self) -> None:
        self._loss: Tensor | None = None
        self._energy: Tensor | None = None
        self._count = 0

    @torch.no_grad()
    def add(self, loss: Tensor, codec: HeatmapCodec, keypoints_in_crop: Tensor, visibility: Tensor) -> None:
        """Count one batch; encodes its targets once more, so it is not meant for every step."""
        targets, weights = codec.encode(keypoints_in_crop, visibility)
        energy = (targets.square() * weights[:, :, None, None]).mean()
        self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()
        self._energy = energy if self._energy is None else self._energy + energy
        self._count += 1

    def verdict(self, *, past_warmup: bool) -> str | None:
        """What is wrong with the losses since the last verdict, in one line, or None; waits for the device.

        None also while the learning rate warms up, for fewer than 20 losses, and where nothing was labelled. Numbers
        that are not finite are somebody else's.
        """
        loss, energy, count = self._loss, self._energy, self._count
        self._loss, self._energy, self._count = None, None, 0
        if loss is None or energy is None or count < _FEWEST_LOSSES or not past_warmup:
            return None
        total = float(energy)
        explained = 1.0 - float(loss) / total if total > 0 else float("nan")
        if not explained < _NOTHING_EXPLAINED:
            return None
        return (
            f"the network has collapsed: the loss is {float(loss) / total:.0%} of what heatmaps of zeros have, so "
            "it finds no keypoints; look at pictures/training_crops.png, try a lower training.learning_rate_per_256 or "
            "more training.warmup_steps, and pretrained weights (model.pretrained=...)"
        )
