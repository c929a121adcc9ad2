"""A network for inference only: the same heatmaps, with everything that is linear in a row made one operation.

Only rounding differs (about 1e-6 of the heatmaps' range in fp32), so reference numbers hold. What is merged:

- BatchNorm behind a convolution or a transposed convolution, into it;
- BatchNorm before a 1x1 convolution, into that: without padding, an affine map of the input is one of the output;
- the ``x +`` of each position encoding, into the middle of its depthwise kernel;
- layer scale, into the last layer of its branch.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.model.uniformer import AttentionBlock, ConvolutionBlock, ConvolutionEmbedding

_Layer = TypeVar("_Layer", bound=nn.Conv2d | nn.ConvTranspose2d | nn.Linear)


class FoldedConvolutionBlock(nn.Module):
    """What a ``ConvolutionBlock`` computes in eval mode, without its BatchNorms, scales and first addition."""

    def __init__(self, block: ConvolutionBlock) -> None:
        super().__init__()
        self.pos_embed = _with_identity(block.pos_embed)
        self.conv1 = _after_batchnorm(block.norm1, block.conv1)
        self.attn = block.attn
        self.conv2 = _scaled(block.conv2, block.gamma_1)
        self.fc1 = _after_batchnorm(block.norm2, block.mlp.fc1)
        self.fc2 = _scaled(block.mlp.fc2, block.gamma_2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) -> same shape."""
        x = self.pos_embed(x)
        aggregated: Tensor = x + self.conv2(self.attn(self.conv1(x)))
        mixed: Tensor = self.fc2(nn.functional.gelu(self.fc1(aggregated)))
        return aggregated + mixed


class FoldedAttentionBlock(AttentionBlock):
    """What an ``AttentionBlock`` computes in eval mode, without its scales and first addition."""

    def __init__(self, block: AttentionBlock) -> None:
        nn.Module.__init__(self)
        self.drop_path_rate, self.window_size = 0.0, block.window_size
        self.pos_embed = _with_identity(block.pos_embed)
        self.norm1, self.norm2, self.attn, self.mlp = block.norm1, block.norm2, block.attn, block.mlp
        self.attn.proj = _scaled(block.attn.proj, block.gamma_1)
        self.mlp.fc2 = _scaled(block.mlp.fc2, block.gamma_2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) -> same shape."""
        cells: Tensor = self.pos_embed(x).permute(0, 2, 3, 1)
        cells = cells + self._attend(self.norm1(cells))
        cells = cells + self.mlp(self.norm2(cells))
        return cells.permute(0, 3, 1, 2)


def folded(network: PoseNetwork) -> PoseNetwork:
    """A copy of the network, in eval mode, that gives its heatmaps faster and cannot be trained.

    Computed in double precision, kept in the network's. The network itself stays as it is. The copy's parameters have
    other names and shapes than a checkpoint's.
    """
    # Computed on the CPU: not every device has double precision.
    device = next(network.parameters()).device
    copy = deepcopy(network).cpu().eval().requires_grad_(False)
    backbone = copy.backbone
    for embedding in (backbone.patch_embed1, backbone.patch_embed2, backbone.patch_embed3, backbone.patch_embed4):
        if isinstance(embedding, ConvolutionEmbedding):
            embedding.proj = _without_batchnorms(embedding.proj)
    for blocks in (backbone.blocks1, backbone.blocks2):
        for index, block in enumerate(blocks):
            if isinstance(block, ConvolutionBlock):
                blocks[index] = FoldedConvolutionBlock(block)
    for blocks in (backbone.blocks3, backbone.blocks4):
        for index, block in enumerate(blocks):
            if isinstance(block, AttentionBlock):
                blocks[index] = FoldedAttentionBlock(block)
    copy.head.deconv_layers = _without_batchnorms(copy.head.deconv_layers)
    # In the order that the kernels read, once and not at every call.
    return copy.to(memory_format=torch.channels_last).to(device).requires_grad_(False)


@torch.no_grad()
def _without_batchnorms(layers: nn.Sequential) -> nn.Sequential:
    """A sequence in which each BatchNorm has gone into the convolution before it."""
    kept: list[nn.Module] = []
    for layer in layers:
        before = kept[-1] if kept else None
        if isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.Conv2d | nn.ConvTranspose2d):
            scale, shift = _affine(layer)
            # The output channels of a transposed convolution's weight are its second axis.
            shape = (1, -1, 1, 1) if isinstance(before, nn.ConvTranspose2d) else (-1, 1, 1, 1)
            bias = 0.0 if before.bias is None else before.bias.double() * scale
            _replace(before, before.weight.double() * scale.view(shape), bias + shift)
        else:
            kept.append(layer)
    return nn.Sequential(*kept)


@torch.no_grad()
def _after_batchnorm(norm: nn.BatchNorm2d, convolution: nn.Conv2d) -> nn.Conv2d:
    """The 1x1 convolution that does what the BatchNorm and the given one do."""
    scale, shift = _affine(norm)
    weight = convolution.weight.double()
    bias = weight[:, :, 0, 0] @ shift
    if convolution.bias is not None:
        bias = bias + convolution.bias.double()
    return _replace(convolution, weight * scale.view(1, -1, 1, 1), bias)


@torch.no_grad()
def _with_identity(convolution: nn.Conv2d) -> nn.Conv2d:
    """The depthwise convolution that gives its input plus what the given one gives."""
    weight = convolution.weight.double().clone()
    weight[:, 0, weight.shape[2] // 2, weight.shape[3] // 2] += 1.0
    return _replace(convolution, weight, convolution.bias)


@torch.no_grad()
def _scaled(layer: _Layer, scale: Tensor | None) -> _Layer:
    """The layer with its output channels multiplied."""
    if scale is None:
        return layer
    factors = scale.double().flatten()
    weight = layer.weight.double() * factors.view(-1, *(1,) * (layer.weight.ndim - 1))
    return _replace(layer, weight, None if layer.bias is None else layer.bias.double() * factors)


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """(C,) scale and shift of a BatchNorm in eval mode, in double precision."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a BatchNorm without running statistics depends on its batch and cannot be folded")
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _replace(layer: _Layer, weight: Tensor, bias: Tensor | None) -> _Layer:
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    return layer
