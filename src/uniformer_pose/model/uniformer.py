"""UniFormer backbone: normalised image -> stride-32 features.

Paper: Li et al., "UniFormer: Unifying Convolution and Self-attention for Visual Recognition", TPAMI 2023
(arXiv 2201.09450), with its global, window and hybrid attention for dense prediction. Original code:
github.com/Sense-X/UniFormer, pose_estimation/, Apache-2.0; convolution stem and layer scale from its
image_classification/. Written from the paper and from the behaviour of that code; parameter names are
those of its released weights.

What differs from the original:

- the norms behind stages 1 to 3 (``norm1`` to ``norm3``) are not built: pose estimation never reads them;
- attention is ``scaled_dot_product_attention``: the same numbers without the N x N matrix in memory;
- tensors stay in channels-last memory order, which convolutions, LayerNorm and linear layers all read;
- an activation-checkpointed block updates its BatchNorm statistics once per step, not twice.

Axes: B batch, C channels, H W height and width of the map at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from uniformer_pose.errors import InputError
from uniformer_pose.model.arguments import NetworkArguments

STRIDE = 32
"""Input pixels per feature cell: the patch embeddings divide by 4, 2, 2 and 2."""

# In hybrid mode every fourth block of stage 3 sees the whole map, the others their window (original code).
_HYBRID_GLOBAL_EVERY = 4
# Only the norms inside attention blocks have a selectable epsilon; sources agree on these two.
_PATCH_NORM_EPS = 1e-5
_LAST_NORM_EPS = 1e-6


class UniFormer(nn.Module):
    """Normalised RGB images -> features at a 32nd of their height and width.

    Stages 1 and 2 are convolution blocks with BatchNorm, stages 3 and 4 attention blocks with LayerNorm.
    """

    def __init__(self, arguments: NetworkArguments) -> None:
        super().__init__()
        self.checkpointed_blocks = tuple(arguments.checkpointed_blocks)
        self.frozen_batchnorm = arguments.frozen_batchnorm
        depths, dims = arguments.depths, arguments.embed_dims
        rates = iter(torch.linspace(0, arguments.drop_path_rate, sum(depths), device="cpu").tolist())

        def convolution_stage(stage: int) -> nn.ModuleList:
            return nn.ModuleList(ConvolutionBlock(dims[stage], next(rates), arguments) for _ in range(depths[stage]))

        def attention_stage(stage: int, windows: Sequence[int | None]) -> nn.ModuleList:
            return nn.ModuleList(AttentionBlock(dims[stage], next(rates), size, arguments) for size in windows)

        self.patch_embed1 = _embedding(0, arguments)
        self.blocks1 = convolution_stage(0)
        self.patch_embed2 = _embedding(1, arguments)
        self.blocks2 = convolution_stage(1)
        self.patch_embed3 = _embedding(2, arguments)
        self.blocks3 = attention_stage(2, _windows_of_stage3(arguments))
        self.patch_embed4 = _embedding(3, arguments)
        self.blocks4 = attention_stage(3, [None] * depths[3])
        self.norm4 = nn.LayerNorm(dims[3], eps=_LAST_NORM_EPS)

        for (_, blocks), checkpointed in zip(self._stages, self.checkpointed_blocks, strict=True):
            for block in blocks[:checkpointed]:  # they recompute everything already
                if isinstance(block, _Block):
                    block.mlp.recompute_gelu = False
        for module in self.modules():
            # Convolutions keep PyTorch's default, as in the original. Not timm's trunc_normal_, whose draws differ.
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if self.frozen_batchnorm:
            for norm in _batchnorms(self):
                norm.requires_grad_(False)
            self.train()

    @property
    def _stages(self) -> tuple[tuple[nn.Module, nn.ModuleList], ...]:
        return (
            (self.patch_embed1, self.blocks1),
            (self.patch_embed2, self.blocks2),
            (self.patch_embed3, self.blocks3),
            (self.patch_embed4, self.blocks4),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> features (B, embed_dims[3], H/32, W/32); InputError if that is uneven."""
        height, width = images.shape[-2:]
        if height % STRIDE or width % STRIDE:
            raise InputError(
                f"images of height {height} and width {width}: both must be multiples of {STRIDE}; "
                "resize or crop to such a size"
            )
        x = images
        for (patch_embed, blocks), checkpointed in zip(self._stages, self.checkpointed_blocks, strict=True):
            x = patch_embed(x)
            for index, block in enumerate(blocks):
                keep_activations = index >= checkpointed or not torch.is_grad_enabled()
                x = block(x) if keep_activations else _checkpointed(block, x)
        return _layer_norm_of_channels(self.norm4, x)

    def train(self, mode: bool = True) -> Self:
        """Train or eval mode for everything but frozen BatchNorms, which stay in eval mode."""
        super().train(mode)
        if self.frozen_batchnorm:
            for norm in _batchnorms(self):
                norm.eval()
        return self


class PatchEmbedding(nn.Module):
    """Each patch of ``patch_size`` x ``patch_size`` cells becomes one cell, normalised over its channels."""

    def __init__(self, in_channels: int, out_channels: int, *, patch_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(out_channels, eps=_PATCH_NORM_EPS)
        self.proj = nn.Conv2d(in_channels, out_channels, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) -> (B, out, H/p, W/p), p the patch size."""
        return _layer_norm_of_channels(self.norm, self.proj(x))


class ConvolutionEmbedding(nn.Module):
    """Each convolution of 3x3 cells halves the map and is followed by BatchNorm, with an exact GELU in between.

    ``channels``: those that come in, then those of each convolution.
    """

    def __init__(self, *channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels_in, channels_out in pairwise(channels):
            if layers:
                layers.append(nn.GELU())
            layers += [
                # The BatchNorm makes its bias idle, but the released weights have one.
                nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=2, padding=1),
                nn.BatchNorm2d(channels_out),
            ]
        self.proj = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) -> (B, out, H/2^n, W/2^n), n the number of convolutions; H and W multiples of 2^n."""
        # A convolution keeps the memory order that it gets: channels-last from here on.
        embedded: Tensor = self.proj(x.contiguous(memory_format=torch.channels_last))
        return embedded


class _Block(nn.Module):
    """What both kinds of block have: a residual branch has a learnt scale, and stochastic depth (ECCV 2016)."""

    gamma_1: nn.Parameter | None
    gamma_2: nn.Parameter | None
    mlp: MLP

    def __init__(self, drop_path_rate: float) -> None:
        super().__init__()
        self.drop_path_rate = drop_path_rate

    def _branch(self, branch: Tensor, scale: Tensor | None) -> Tensor:
        scaled = branch if scale is None else scale * branch
        if not (self.training and self.drop_path_rate):
            return scaled
        from timm.layers import drop_path  # here because whoever only predicts need not wait for it: 3 s, 200 MB

        dropped: Tensor = drop_path(scaled, self.drop_path_rate, training=True)
        return dropped


class ConvolutionBlock(_Block):
    """Position encoding, local aggregation and MLP, each added on; convolutions throughout.

    The paper's block with local token affinity: the affinity is a learnt 5x5 depthwise convolution, hence the
    released name ``attn``.
    """

    def __init__(self, dim: int, drop_path_rate: float, arguments: NetworkArguments) -> None:
        super().__init__(drop_path_rate)
        self.pos_embed = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)
        self.norm1 = nn.BatchNorm2d(dim)
        self.conv1 = nn.Conv2d(dim, dim, kernel_size=1)
        self.attn = nn.Conv2d(dim, dim, kernel_size=5, padding=2, groups=dim)
        self.conv2 = nn.Conv2d(dim, dim, kernel_size=1)
        self.norm2 = nn.BatchNorm2d(dim)
        hidden = int(dim * arguments.mlp_ratio)
        self.mlp = MLP(nn.Conv2d(dim, hidden, kernel_size=1), nn.Conv2d(hidden, dim, kernel_size=1))
        scale = arguments.layer_scale if arguments.layer_scale_blocks == "all" else None
        self.gamma_1, self.gamma_2 = _layer_scale((1, dim, 1, 1), scale), _layer_scale((1, dim, 1, 1), scale)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) -> same shape."""
        x = x + self.pos_embed(x)
        x = x + self._branch(self.conv2(self.attn(self.conv1(self.norm1(x)))), self.gamma_1)
        return x + self._branch(self.mlp(self.norm2(x)), self.gamma_2)


class AttentionBlock(_Block):
    """Position encoding by a 3x3 depthwise convolution, self-attention and MLP, each added on.

    ``window_size`` None attends over the whole map, a number within square windows of that many cells.
    """

    def __init__(self, dim: int, drop_path_rate: float, window_size: int | None, arguments: NetworkArguments) -> None:
        super().__init__(drop_path_rate)
        self.window_size = window_size
        self.pos_embed = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim, eps=arguments.layer_norm_eps)
        self.attn = SelfAttention(dim, arguments.head_dim)
        self.norm2 = nn.LayerNorm(dim, eps=arguments.layer_norm_eps)
        hidden = int(dim * arguments.mlp_ratio)
        self.mlp = MLP(nn.Linear(dim, hidden), nn.Linear(hidden, dim))
        scale = arguments.layer_scale
        self.gamma_1, self.gamma_2 = _layer_scale((dim,), scale), _layer_scale((dim,), scale)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) -> same shape."""
        x = x + self.pos_embed(x)
        cells = x.permute(0, 2, 3, 1)  # (B, H, W, C): a view, and contiguous, when x is channels-last
        cells = cells + self._branch(self._attend(self.norm1(cells)), self.gamma_1)
        cells = cells + self._branch(self.mlp(self.norm2(cells)), self.gamma_2)
        return cells.permute(0, 3, 1, 2)

    def _attend(self, cells: Tensor) -> Tensor:
        if self.window_size is None:
            return self._attend_all(cells)
        height, width = cells.shape[1:3]
        windows, rows, columns = to_windows(cells, self.window_size)
        return from_windows(self._attend_all(windows), rows, columns)[:, :height, :width]

    def _attend_all(self, cells: Tensor) -> Tensor:
        attended: Tensor = self.attn(cells.flatten(1, 2))
        return attended.view(cells.shape)


class SelfAttention(nn.Module):
    """Multi-head self-attention of each sequence over its own tokens."""

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, C) -> same shape."""
        batch, length, _ = tokens.shape
        qkv: Tensor = self.qkv(tokens).view(batch, length, 3, -1, self.head_dim)
        # Each (B, heads, N, head_dim), and split where their gradients are put together without another copy.
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))
        attended = F.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return mixed


class MLP(nn.Module):
    """Two layers with an exact GELU between: 1x1 convolutions for maps, linear layers for cells.

    The GELU's result is the largest tensor of a block beside its input, and cheap. On a GPU, where memory is short, it
    is computed again in the backward pass and not kept: the same operation on the same numbers, so gradients stay what
    they were. A processor would spend 8 % of a step on it, and the compiler decides by itself what to keep.
    """

    def __init__(self, fc1: nn.Module, fc2: nn.Module) -> None:
        super().__init__()
        self.fc1, self.fc2 = fc1, fc2
        self.recompute_gelu: bool | None = None  # on a GPU

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) or cells (..., C) -> same shape."""
        hidden = self.fc1(x)
        recompute = hidden.device.type != "cpu" if self.recompute_gelu is None else self.recompute_gelu
        if recompute and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # The generators' states are not kept: nothing is drawn here, and on a GPU that would cost a copy.
            mixed: Tensor = checkpoint(self._after_gelu, hidden, use_reentrant=False, preserve_rng_state=False)
            return mixed
        return self._after_gelu(hidden)

    def _after_gelu(self, hidden: Tensor) -> Tensor:
        mixed: Tensor = self.fc2(F.gelu(hidden))
        return mixed


def to_windows(cells: Tensor, window_size: int) -> tuple[Tensor, int, int]:
    """Cells (B, H, W, C) -> windows (B * rows * columns, size, size, C), with rows and columns of windows.

    The first window starts at the top left; zeros at the bottom and the right fill the last ones. As in the
    original code nothing masks these zeros: they are attended to, as the projection's biases.
    """
    batch, height, width, channels = cells.shape
    rows, columns = -(-height // window_size), -(-width // window_size)
    cells = F.pad(cells, (0, 0, 0, columns * window_size - width, 0, rows * window_size - height))
    grid = cells.view(batch, rows, window_size, columns, window_size, channels)
    return grid.transpose(2, 3).flatten(0, 2), rows, columns


def from_windows(windows: Tensor, rows: int, columns: int) -> Tensor:
    """Windows of ``to_windows`` -> cells (B, rows * size, columns * size, C), the filled border still on."""
    grid = windows.view(-1, rows, columns, *windows.shape[1:])
    return grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _embedding(stage: int, arguments: NetworkArguments) -> PatchEmbedding | ConvolutionEmbedding:
    """How a stage, counted from 0, begins; the first one at the image."""
    dims = (3, *arguments.embed_dims)
    before, dim = dims[stage : stage + 2]
    if arguments.stem == "patch":
        return PatchEmbedding(before, dim, patch_size=2 if stage else 4)
    return ConvolutionEmbedding(before, dim) if stage else ConvolutionEmbedding(before, dim // 2, dim)


def _windows_of_stage3(arguments: NetworkArguments) -> list[int | None]:
    """Per block the side of its windows, None for a block that sees the whole map."""
    every = {"global": 1, "window": arguments.depths[2] + 1, "hybrid": _HYBRID_GLOBAL_EVERY}[arguments.stage3_attention]
    return [None if block % every == 0 else arguments.window_size for block in range(1, arguments.depths[2] + 1)]


def _layer_scale(shape: tuple[int, ...], initial: float | None) -> nn.Parameter | None:
    return None if initial is None else nn.Parameter(torch.full(shape, float(initial)))


def _layer_norm_of_channels(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    # Comes out channels-last whatever went in, which sets the memory order of all that follows.
    normalised: Tensor = norm(x.permute(0, 2, 3, 1))
    return normalised.permute(0, 3, 1, 2)


def _checkpointed(block: nn.Module, x: Tensor) -> Tensor:
    # A compiled step updates each statistic once by itself, and its compiler takes no such function.
    if torch.compiler.is_compiling() or not _batchnorms(block):
        plain: Tensor = checkpoint(block, x, use_reentrant=False)
        return plain

    def first_and_second_pass() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _running_statistics_untouched(block)

    with_batchnorm: Tensor = checkpoint(block, x, use_reentrant=False, context_fn=first_and_second_pass)
    return with_batchnorm


@contextmanager
def _running_statistics_untouched(block: nn.Module) -> Iterator[None]:
    """Within, BatchNorm normalises as before, but a batch leaves no trace in what it has counted so far.

    A momentum of 0 does that, where switching the statistics off would change which tensors are kept for the
    backward pass, and checkpointing compares those of both passes.
    """
    norms = _batchnorms(block)
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, num_batches_tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, num_batches_tracked


def _batchnorms(module: nn.Module) -> list[_BatchNorm]:
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]
