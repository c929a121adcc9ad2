"""RTMCC head: as SimCC without deconvolutions, and the keypoints look at each other by a gated attention unit.

Papers: Jiang et al., "RTMPose: Real-Time Multi-Person Pose Estimation based on MMPose" (arXiv 2303.07399), section 3.2;
the unit is that of Hua et al., "Transformer Quality in Linear Time", ICML 2022 (arXiv 2202.10447), section 2, without
position bias. Parameter names, initial values and sizes are those of MMPose 1.3's ``RTMCCHead`` in RTMPose's configs
(mmpose/models/heads/coord_cls_heads and mmpose/models/utils/rtmcc_block.py, Apache-2.0). Our own code.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniformer_pose.model.simcc_head import VectorHead

_KERNEL_SIZE = 7
_CHANNELS, _ATTENTION_CHANNELS, _EXPANSION = 256, 128, 2
_SMALLEST_NORM = 1e-5


class RTMCCHead(VectorHead):
    """One map per keypoint by a 7x7 convolution, its cells as a token of 256 channels, attention, two linear layers."""

    def __init__(self, in_channels: int, num_keypoints: int, crop_height: int, crop_width: int, stride: int) -> None:
        super().__init__(crop_height, crop_width, stride)
        self.final_layer = nn.Conv2d(in_channels, num_keypoints, _KERNEL_SIZE, padding=_KERNEL_SIZE // 2)
        self.mlp = nn.Sequential(ScaleNorm(), nn.Linear(self.cells(stride), _CHANNELS, bias=False))
        self.gau = GatedAttentionUnit(_CHANNELS)
        self.cls_x = nn.Linear(_CHANNELS, self.bins_x, bias=False)
        self.cls_y = nn.Linear(_CHANNELS, self.bins_y, bias=False)
        self.draw_initial_weights()

    def vectors(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, C, h, w) -> (B, K, bins_x) and (B, K, bins_y)."""
        tokens = self.gau(self.mlp(self.final_layer(features).flatten(2)))
        return self.cls_x(tokens), self.cls_y(tokens)


class GatedAttentionUnit(nn.Module):
    """Tokens (B, K, C) -> the same shape, each gated by what the unit's single head of attention gathers of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = _EXPANSION * channels
        self.ln = ScaleNorm()
        self.uv = nn.Linear(channels, 2 * hidden + _ATTENTION_CHANNELS, bias=False)
        # Queries and keys are one vector, scaled and moved in two ways.
        self.gamma = nn.Parameter(torch.rand(2, _ATTENTION_CHANNELS))
        self.beta = nn.Parameter(torch.rand(2, _ATTENTION_CHANNELS))
        self.o = nn.Linear(hidden, channels, bias=False)
        self.res_scale = ChannelScale(channels)

    def branch(self, tokens: Tensor) -> Tensor:
        """What is added to the scaled tokens."""
        hidden = self.o.in_features
        parts = F.silu(self.uv(self.ln(tokens)))
        gates, values, shared = torch.split(parts, [hidden, hidden, _ATTENTION_CHANNELS], dim=-1)
        queries, keys = (shared[:, :, None] * self.gamma + self.beta).unbind(2)
        # Squared ReLU instead of a softmax: the weights of a token need not sum to 1.
        attention = F.relu(queries @ keys.transpose(1, 2) / math.sqrt(_ATTENTION_CHANNELS)).square()
        gated: Tensor = self.o(gates * (attention @ values))
        return gated

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, K, C) -> (B, K, C)."""
        added: Tensor = self.res_scale(tokens) + self.branch(tokens)
        return added


class ScaleNorm(nn.Module):
    """A vector divided by the root of its mean square, times one learnt number."""

    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1))

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        norm: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True) / math.sqrt(vectors.shape[-1])
        return vectors / norm.clamp(min=_SMALLEST_NORM) * self.g


class ChannelScale(nn.Module):
    """A learnt number for each channel, 1 at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return vectors * self.scale
