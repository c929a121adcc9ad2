"""UniFormer backbone: normalised image -> stride-32 features.

Paper: Li et al., "UniFormer: Unifying Convolution and Self-attention for Visual Recognition", TPAMI 2023
(arXiv 2201.09450), with its global, window and hybrid attention for dense prediction. Original code:
github.com/Sense-X/UniFormer, pose_estimation/, Apache-2.0; convolution stem and layer scale from its
image_classification/. Written anew from the paper and from the behaviour of that code; parameter names are
those of its released weights.

What differs from the original:

- the norms behind stages 1 to 3 (``norm1`` to ``norm3``) are not built: pose estimation never reads them;
- attention is ``scaled_dot_product_attention``: the same numbers without the N x N matrix in memory;
- tensors stay in channels-last memory order, which convolutions, LayerNorm and linear layers all read;
- an activation-checkpointed block updates its BatchNorm statistics once per step, not twice.

Axes: B batch, C channels, H W height and width of the map at hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from typing import Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from uniformer_pose.errors import InputError

STRIDE = 32
"""Input pixels per feature cell: the patch embeddings divide by 4, 2, 2 and 2."""

Stage3Attention = Literal["global", "window", "hybrid"]
Stem = Literal["patch", "convolution"]
LayerScaleBlocks = Literal["attention", "all"]

# In hybrid mode every fourth block of stage 3 sees the whole map, the others their window (original code).
_HYBRID_GLOBAL_EVERY = 4
# Only the norms inside attention blocks have a selectable epsilon; sources agree on these two.
_PATCH_NORM_EPS = 1e-5
_LAST_NORM_EPS = 1e-6


class UniFormer(nn.Module):
    """Normalised RGB images -> features at a 32nd of their height and width.

    Stages 1 and 2 are convolution blocks with BatchNorm, stages 3 and 4 attention blocks with LayerNorm.

    - ``drop_path_rate``: stochastic depth of the last block; it grows linearly from 0 at the first.
    - ``head_dim``: channels per attention head. It leaves no trace in the weights' shapes: the released pose
      and ImageNet weights need 64, but S-dagger's and the token-labelled ones of S, S-dagger and B 32, unless
      their name says otherwise.
    - ``stage3_attention``: ``global`` over the whole map, ``window`` within ``window_size`` square windows,
      ``hybrid`` windows with every fourth block global.
    - ``checkpointed_blocks``: per stage, how many of its first blocks recompute their activations in the
      backward pass instead of keeping them: less memory for one more forward pass of those blocks.
    - ``layer_norm_eps``: of the attention blocks' LayerNorms; 1e-6 in the original, 1e-5 in MMPose's port.
    - ``frozen_batchnorm``: running statistics and affine weights of the BatchNorms stay as they are, in train
      mode too.
    - ``stem``: how each stage begins: ``patch`` cuts the map into patches that do not overlap (S and B),
      ``convolution`` halves it with overlapping 3x3 convolutions, twice at the image (S-dagger).
    - ``layer_scale``: what the learnt per-channel scale of each residual branch starts from (Touvron et al.,
      arXiv 2103.17239); 1e-6 in the original. None: no such scale.
    - ``layer_scale_blocks``: which blocks have that scale: ``attention`` those of stages 3 and 4 (B with layer
      scale), ``all`` every block (L).

    Raises InputError for numbers that do not fit together.
    """

    def __init__(
        self,
        depths: Sequence[int],
        embed_dims: Sequence[int] = (64, 128, 320, 512),
        head_dim: int = 64,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        stage3_attention: Stage3Attention = "global",
        window_size: int = 14,
        checkpointed_blocks: Sequence[int] = (0, 0, 0, 0),
        layer_norm_eps: float = 1e-6,
        frozen_batchnorm: bool = False,
        stem: Stem = "patch",
        layer_scale: float | None = None,
        layer_scale_blocks: LayerScaleBlocks = "attention",
    ) -> None:
        super().__init__()
        _check_per_stage("depths", depths, at_least=1)
        _check_per_stage("embed_dims", embed_dims, at_least=1)
        _check_per_stage("checkpointed_blocks", checkpointed_blocks, at_least=0)
        for stage, (count, depth) in enumerate(zip(checkpointed_blocks, depths, strict=True), start=1):
            if count > depth:
                raise InputError(
                    f"checkpointed_blocks={list(checkpointed_blocks)}: stage {stage} has only {depth} "
                    f"blocks; give at most depths={list(depths)}"
                )
        if head_dim < 1 or any(dim % head_dim for dim in embed_dims[2:]):
            raise InputError(
                f"embed_dims={list(embed_dims)}: the attention stages 3 and 4 need multiples of "
                f"head_dim={head_dim}; change one of the two"
            )
        if not mlp_ratio > 0:
            raise InputError(f"mlp_ratio={mlp_ratio}: must be above 0; the released models have 4")
        if not 0 <= drop_path_rate < 1:
            raise InputError(f"drop_path_rate={drop_path_rate}: must be at least 0 and below 1")
        _check_choice("stage3_attention", stage3_attention, get_args(Stage3Attention))
        _check_choice("stem", stem, get_args(Stem))
        _check_choice("layer_scale_blocks", layer_scale_blocks, get_args(LayerScaleBlocks))
        if stem == "convolution" and embed_dims[0] % 2:
            raise InputError(
                f"embed_dims={list(embed_dims)}: stem=convolution needs an even first number, half of which its "
                "first convolution has"
            )
        if layer_scale is not None and not 0 < layer_scale < math.inf:
            raise InputError(
                f"layer_scale={layer_scale}: must be above 0, or null for none; the original code has 1e-6"
            )
        if window_size < 1:
            raise InputError(f"window_size={window_size}: must be at least 1; the original code has 14")
        if not layer_norm_eps > 0:
            raise InputError(f"layer_norm_eps={layer_norm_eps}: must be above 0; the original code has 1e-6")

        self.checkpointed_blocks = tuple(checkpointed_blocks)
        self.frozen_batchnorm = frozen_batchnorm
        drop_rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())

        def first_embedding(dim: int) -> PatchEmbedding | ConvolutionEmbedding:
            return PatchEmbedding(3, dim, patch_size=4) if stem == "patch" else ConvolutionEmbedding(3, dim // 2, dim)

        def next_embedding(dim_before: int, dim: int) -> PatchEmbedding | ConvolutionEmbedding:
            if stem == "patch":
                return PatchEmbedding(dim_before, dim, patch_size=2)
            return ConvolutionEmbedding(dim_before, dim)

        def convolution_stage(dim: int, depth: int) -> nn.ModuleList:
            scale = layer_scale if layer_scale_blocks == "all" else None
            return nn.ModuleList(ConvolutionBlock(dim, mlp_ratio, next(drop_rates), scale) for _ in range(depth))

        def attention_stage(dim: int, window_sizes: Sequence[int | None]) -> nn.ModuleList:
            return nn.ModuleList(
                AttentionBlock(dim, head_dim, mlp_ratio, next(drop_rates), layer_norm_eps, size, layer_scale)
                for size in window_sizes
            )

        stage3_window_sizes = [
            None if _is_global(stage3_attention, index) else window_size for index in range(depths[2])
        ]
        self.patch_embed1 = first_embedding(embed_dims[0])
        self.blocks1 = convolution_stage(embed_dims[0], depths[0])
        self.patch_embed2 = next_embedding(embed_dims[0], embed_dims[1])
        self.blocks2 = convolution_stage(embed_dims[1], depths[1])
        self.patch_embed3 = next_embedding(embed_dims[1], embed_dims[2])
        self.blocks3 = attention_stage(embed_dims[2], stage3_window_sizes)
        self.patch_embed4 = next_embedding(embed_dims[2], embed_dims[3])
        self.blocks4 = attention_stage(embed_dims[3], [None] * depths[3])
        self.norm4 = nn.LayerNorm(embed_dims[3], eps=_LAST_NORM_EPS)

        for blocks, checkpointed in zip(
            (self.blocks1, self.blocks2, self.blocks3, self.blocks4), checkpointed_blocks, strict=True
        ):
            for block in blocks[:checkpointed]:  # they recompute everything already
                if isinstance(block, ConvolutionBlock | AttentionBlock):
                    block.mlp.recompute_gelu = False
        for module in self.modules():
            # Convolutions keep PyTorch's default, as in the original.
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if frozen_batchnorm:
            for norm in _batchnorms(self):
                norm.requires_grad_(False)
            self.train()

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> features (B, embed_dims[3], H/32, W/32); InputError if that is uneven."""
        height, width = images.shape[-2:]
        if height % STRIDE or width % STRIDE:
            raise InputError(
                f"images of height {height} and width {width}: both must be multiples of {STRIDE}; "
                "resize or crop to such a size"
            )
        stages = (
            (self.patch_embed1, self.blocks1),
            (self.patch_embed2, self.blocks2),
            (self.patch_embed3, self.blocks3),
            (self.patch_embed4, self.blocks4),
        )
        x = images
        for (patch_embed, blocks), checkpointed in zip(stages, self.checkpointed_blocks, strict=True):
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


class ConvolutionBlock(nn.Module):
    """Position encoding, local aggregation and MLP, each added on; convolutions throughout.

    The paper's block with local token affinity: the affinity is a learnt 5x5 depthwise convolution, hence the
    released name ``attn``. ``layer_scale``: initial scale of the last two branches, None for no scale.
    """

    gamma_1: nn.Parameter | None
    gamma_2: nn.Parameter | None

    def __init__(self, dim: int, mlp_ratio: float, drop_path_rate: float, layer_scale: float | None = None) -> None:
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.pos_embed = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)
        self.norm1 = nn.BatchNorm2d(dim)
        self.conv1 = nn.Conv2d(dim, dim, kernel_size=1)
        self.attn = nn.Conv2d(dim, dim, kernel_size=5, padding=2, groups=dim)
        self.conv2 = nn.Conv2d(dim, dim, kernel_size=1)
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = ConvolutionMLP(dim, int(dim * mlp_ratio))
        self.gamma_1, self.gamma_2 = _layer_scales((1, dim, 1, 1), layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) -> same shape."""
        x = x + self.pos_embed(x)
        x = x + self._branch(self.conv2(self.attn(self.conv1(self.norm1(x)))), self.gamma_1)
        return x + self._branch(self.mlp(self.norm2(x)), self.gamma_2)

    def _branch(self, branch: Tensor, scale: Tensor | None) -> Tensor:
        scaled = branch if scale is None else scale * branch
        return drop_path(scaled, self.drop_path_rate) if self.training else scaled


class AttentionBlock(nn.Module):
    """Position encoding by a 3x3 depthwise convolution, self-attention and MLP, each added on.

    ``window_size`` None attends over the whole map, a number within square windows of that many cells.
    ``layer_scale``: initial scale of the last two branches, None for no scale.
    """

    gamma_1: nn.Parameter | None
    gamma_2: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        head_dim: int,
        mlp_ratio: float,
        drop_path_rate: float,
        layer_norm_eps: float,
        window_size: int | None,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.window_size = window_size
        self.pos_embed = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.attn = SelfAttention(dim, head_dim)
        self.norm2 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.mlp = LinearMLP(dim, int(dim * mlp_ratio))
        self.gamma_1, self.gamma_2 = _layer_scales((dim,), layer_scale)

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

    def _branch(self, branch: Tensor, scale: Tensor | None) -> Tensor:
        scaled = branch if scale is None else scale * branch
        return drop_path(scaled, self.drop_path_rate) if self.training else scaled


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
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, N, head_dim)
        attended = F.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return mixed


class ConvolutionMLP(nn.Module):
    """Two 1x1 convolutions with an exact GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, kernel_size=1)
        self.fc2 = nn.Conv2d(hidden, dim, kernel_size=1)
        self.recompute_gelu: bool | None = None  # on a GPU

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) -> same shape."""
        mixed: Tensor = _after_gelu(self.fc2, self.fc1(x), recompute=self.recompute_gelu)
        return mixed


class LinearMLP(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.recompute_gelu: bool | None = None  # on a GPU

    def forward(self, cells: Tensor) -> Tensor:
        """Cells (..., C) -> same shape."""
        mixed: Tensor = _after_gelu(self.fc2, self.fc1(cells), recompute=self.recompute_gelu)
        return mixed


def drop_path(branch: Tensor, rate: float) -> Tensor:
    """A residual branch (B, ...), samples zeroed at probability ``rate``, the others scaled by 1/(1-rate).

    Stochastic depth (Huang et al., ECCV 2016); the scale keeps the expected value, so eval mode needs none.
    """
    if rate == 0:
        return branch
    kept = branch.new_empty((branch.shape[0],) + (1,) * (branch.dim() - 1)).bernoulli_(1 - rate)
    return branch * (kept / (1 - rate))


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


def _after_gelu(layer: nn.Module, hidden: Tensor, *, recompute: bool | None) -> Tensor:
    """``layer(gelu(hidden))``; with ``recompute`` the GELU's result is computed again in the backward pass, not kept.

    None: on a GPU, where memory is short; a processor would spend 8 % of a step on it.
    It is the largest tensor of a block beside ``hidden``, and cheap: the same operation on the same numbers, so
    gradients stay what they were. The compiler decides by itself what to keep.
    """
    if recompute is None:
        recompute = hidden.device.type != "cpu"
    if not recompute or torch.compiler.is_compiling() or not torch.is_grad_enabled():
        plain: Tensor = layer(F.gelu(hidden))
        return plain
    activated, source = F.gelu(hidden), hidden.detach()
    address, count = activated.data_ptr(), activated.numel()

    def pack(tensor: Tensor) -> Tensor | torch.Size:
        return tensor.shape if tensor.data_ptr() == address and tensor.numel() == count else tensor

    def unpack(kept: Tensor | torch.Size) -> Tensor:
        return F.gelu(source).view(kept) if isinstance(kept, torch.Size) else kept

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        mixed: Tensor = layer(activated)
    return mixed


def _is_global(stage3_attention: Stage3Attention, block_index: int) -> bool:
    if stage3_attention == "hybrid":
        return (block_index + 1) % _HYBRID_GLOBAL_EVERY == 0
    return stage3_attention == "global"


def _layer_scales(
    shape: tuple[int, ...], initial: float | None
) -> tuple[nn.Parameter, nn.Parameter] | tuple[None, None]:
    if initial is None:
        return None, None
    return nn.Parameter(torch.full(shape, float(initial))), nn.Parameter(torch.full(shape, float(initial)))


def _layer_norm_of_channels(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    # Comes out channels-last whatever went in, which sets the memory order of all that follows.
    normalised: Tensor = norm(x.permute(0, 2, 3, 1))
    return normalised.permute(0, 3, 1, 2)


def _checkpointed(block: nn.Module, x: Tensor) -> Tensor:
    if not _batchnorms(block):
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


def _check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InputError(f"{name}={value!r}: must be one of {', '.join(allowed)}")


def _check_per_stage(name: str, values: Sequence[int], *, at_least: int) -> None:
    if len(values) != 4 or any(value < at_least for value in values):
        raise InputError(f"{name}={list(values)}: give four whole numbers, one per stage, each at least {at_least}")
