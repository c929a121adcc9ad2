"""What every head is, and what may stand beside each: whether a keypoint is labelled, and whether it is visible.

The latter as MMPose's ``VisPredictHead`` (mmpose/models/heads/hybrid_heads, Apache-2.0): the mean over the map and one
linear layer. That head has one logit; the two here are those of COCO's v > 0 and v = 2. Our own code.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

PER_KEYPOINT = re.compile(r"((deconv_head\.)?final_layer|visibility\.(labelled|visible))\.(weight|bias)")
"""The entries of any head whose first axis is the keypoints."""

_INIT_STD = 0.01


class VisibilityHead(nn.Module):
    """Features -> two logits for each keypoint, before the sigmoid: "labelled", and of labelled ones "visible"."""

    def __init__(self, in_channels: int, num_keypoints: int) -> None:
        super().__init__()
        # Two, so that a row is a keypoint, as in the last layer of every head.
        self.labelled = nn.Linear(in_channels, num_keypoints)
        self.visible = nn.Linear(in_channels, num_keypoints)
        for layer in (self.labelled, self.visible):
            nn.init.normal_(layer.weight, std=_INIT_STD)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w) -> logits (B, K, 2)."""
        pooled = features.mean(dim=(2, 3))
        return torch.stack([self.labelled(pooled), self.visible(pooled)], dim=-1)


class PoseHead(nn.Module):
    """What every head is: ``keypoints`` makes its output of features, beside which ``visibility`` may stand."""

    def __init__(self) -> None:
        super().__init__()
        self.visibility: VisibilityHead | None = None

    def keypoints(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w) -> (B, K, ...)."""
        raise NotImplementedError

    def forward(self, features: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Features (B, C, h, w) -> (B, K, ...), and the visibility logits (B, K, 2) if the head has them."""
        output = self.keypoints(features)
        return output if self.visibility is None else (output, self.visibility(features))
