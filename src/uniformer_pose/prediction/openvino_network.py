"""The network in OpenVINO, for processors: its weights kept in the kernels' own order, neighbours computed together.

The graph is written layer by layer from the folded network: a second, where tracing and converting the PyTorch module
takes ten, and nothing of PyTorch's tracer has to fit. fp32 throughout: only rounding differs.

OpenVINO (Apache-2.0) is an extra: ``pip install uniformer-pose[openvino]``.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from uniformer_pose.errors import InputError
from uniformer_pose.model.folding import FoldedAttentionBlock, FoldedConvolutionBlock, folded
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.model.uniformer import PatchEmbedding, SelfAttention


class OpenVinoNetwork:
    """Images (B, 3, H, W) of one height and width, on the CPU -> heatmaps (B, K, H/4, W/4), fp32; any B.

    As many threads as PyTorch has when it is built. Threads may share it: each has its own buffers.
    Raises ImportError where OpenVINO is not installed, InputError for images of another size.
    """

    def __init__(self, network: PoseNetwork, *, height: int, width: int) -> None:
        import openvino

        core = openvino.Core()
        graph = _Graph()
        pixels = graph.ops.parameter([-1, height, width, 3], np.float32, name="pixels")
        model = openvino.Model([graph.network(folded(network), pixels)], [pixels], "pose")
        settings = {
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, on all threads
            "INFERENCE_PRECISION_HINT": "f32",  # it would take bf16 by itself where the processor has it
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._compiled = core.compile_model(model, "CPU", settings)
        self._of_thread = threading.local()
        self.height, self.width = height, width

    def __call__(self, images: Tensor) -> Tensor:
        """Heatmaps of images."""
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, self.height, self.width):
            raise InputError(
                f"images of shape {tuple(images.shape)}: this network was compiled for (batch, 3, {self.height}, "
                f"{self.width}); choose engine=eager for other sizes"
            )
        request = getattr(self._of_thread, "request", None)
        if request is None:
            request = self._of_thread.request = self._compiled.create_infer_request()
        # The graph reads rows of pixels, which is how normalised crops lie in memory already.
        pixels = images.detach().float().permute(0, 2, 3, 1).contiguous().numpy()
        heatmaps = request.infer({0: pixels})[0]
        return torch.from_numpy(np.array(heatmaps))  # copied: the next call writes into the same memory


class _Graph:
    """Modules of a folded network -> OpenVINO nodes. Maps are (B, C, H, W), cells (B, H, W, C)."""

    def __init__(self) -> None:
        import openvino.opset13

        self.ops: Any = openvino.opset13

    def network(self, network: PoseNetwork, pixels: Any) -> Any:
        backbone = network.backbone
        x = self._transposed(pixels, 0, 3, 1, 2)
        for embedding, blocks in (
            (backbone.patch_embed1, backbone.blocks1),
            (backbone.patch_embed2, backbone.blocks2),
            (backbone.patch_embed3, backbone.blocks3),
            (backbone.patch_embed4, backbone.blocks4),
        ):
            x = self._sequence(embedding.proj, x)
            if isinstance(embedding, PatchEmbedding):
                x = self._normalised_map(embedding.norm, x)
            for block in blocks:
                x = (
                    self._attention_block(block, x)
                    if isinstance(block, FoldedAttentionBlock)
                    else self._block(block, x)
                )
        x = self._normalised_map(backbone.norm4, x)
        return self._sequence(network.head.final_layer, self._sequence(network.head.deconv_layers, x))

    def _block(self, block: nn.Module, x: Any) -> Any:
        if not isinstance(block, FoldedConvolutionBlock):
            raise TypeError(f"no OpenVINO form of {type(block).__name__}")
        x = self._sequence(block.pos_embed, x)
        mixed = x
        for layer in (block.conv1, block.attn, block.conv2):
            mixed = self._sequence(layer, mixed)
        x = self.ops.add(x, mixed)
        mixed = self._sequence(block.fc2, self._gelu(self._sequence(block.fc1, x)))
        return self.ops.add(x, mixed)

    def _attention_block(self, block: FoldedAttentionBlock, x: Any) -> Any:
        cells = self._transposed(self._sequence(block.pos_embed, x), 0, 2, 3, 1)
        height, width = (cells.get_output_partial_shape(0)[axis].get_length() for axis in (1, 2))
        attended = self._normalised(block.norm1, cells)
        if block.window_size is None:
            attended = self._attention(block.attn, attended, height, width)
        else:
            attended = self._in_windows(block.attn, attended, height, width, block.window_size)
        cells = self.ops.add(cells, attended)
        mixed = self._gelu(self._linear(block.mlp.fc1, self._normalised(block.norm2, cells)))
        cells = self.ops.add(cells, self._linear(block.mlp.fc2, mixed))
        return self._transposed(cells, 0, 3, 1, 2)

    def _attention(self, attention: SelfAttention, cells: Any, height: int, width: int) -> Any:
        """Cells (B, height, width, C) -> same shape, each attending to all of its sample."""
        qkv = self._linear(attention.qkv, cells)
        heads = attention.proj.in_features // attention.head_dim
        split = self._reshaped(qkv, -1, height * width, 3, heads, attention.head_dim)
        apart = self._transposed(split, 2, 0, 3, 1, 4)  # (3, B, heads, N, head_dim)
        query, key, value = (self.ops.gather(apart, np.int64(part), np.int64(0)) for part in range(3))
        attended = self.ops.scaled_dot_product_attention(query, key, value)
        together = self._reshaped(self._transposed(attended, 0, 2, 1, 3), -1, height, width, attention.proj.in_features)
        return self._linear(attention.proj, together)

    def _in_windows(self, attention: SelfAttention, cells: Any, height: int, width: int, size: int) -> Any:
        """As ``to_windows`` and ``from_windows``: zeros fill the last windows and are attended to."""
        rows, columns, channels = -(-height // size), -(-width // size), attention.proj.in_features
        missing = np.array([0, rows * size - height, columns * size - width, 0])
        filled = self.ops.pad(cells, np.zeros(4, dtype=np.int64), missing, "constant", np.float32(0))
        grid = self._transposed(self._reshaped(filled, -1, rows, size, columns, size, channels), 0, 1, 3, 2, 4, 5)
        attended = self._attention(attention, self._reshaped(grid, -1, size, size, channels), size, size)
        grid = self._transposed(self._reshaped(attended, -1, rows, columns, size, size, channels), 0, 1, 3, 2, 4, 5)
        whole = self._reshaped(grid, -1, rows * size, columns * size, channels)
        start, stop, step = np.array([0, 0]), np.array([height, width]), np.array([1, 1])
        return self.ops.slice(whole, start, stop, step, np.array([1, 2]))

    def _sequence(self, layer: nn.Module, x: Any) -> Any:
        if isinstance(layer, nn.Sequential):
            for part in layer:
                x = self._sequence(part, x)
            return x
        if isinstance(layer, nn.ReLU):
            return self.ops.relu(x)
        if isinstance(layer, nn.GELU):
            return self._gelu(x)
        if isinstance(layer, nn.ConvTranspose2d):
            form = _form(layer)
            return self._biased(self.ops.convolution_backprop_data(x, _values(layer.weight), **form), layer.bias)
        if isinstance(layer, nn.Conv2d):
            weight, form = _values(layer.weight), _form(layer)
            if layer.groups == 1:
                return self._biased(self.ops.convolution(x, weight, **form), layer.bias)
            by_group = weight.reshape(layer.groups, -1, *weight.shape[1:])
            return self._biased(self.ops.group_convolution(x, by_group, **form), layer.bias)
        raise TypeError(f"no OpenVINO form of {type(layer).__name__}")

    def _biased(self, x: Any, bias: Tensor | None) -> Any:
        return x if bias is None else self.ops.add(x, _values(bias).reshape(1, -1, 1, 1))

    def _linear(self, layer: nn.Linear, cells: Any) -> Any:
        return self.ops.add(self.ops.matmul(cells, _values(layer.weight), False, True), _values(layer.bias))

    def _gelu(self, x: Any) -> Any:
        return self.ops.gelu(x, "erf")

    def _normalised(self, norm: nn.LayerNorm, cells: Any) -> Any:
        centered = self.ops.mvn(cells, np.array([-1]), True, norm.eps, "inside_sqrt")
        return self.ops.add(self.ops.multiply(centered, _values(norm.weight)), _values(norm.bias))

    def _normalised_map(self, norm: nn.LayerNorm, x: Any) -> Any:
        return self._transposed(self._normalised(norm, self._transposed(x, 0, 2, 3, 1)), 0, 3, 1, 2)

    def _transposed(self, x: Any, *order: int) -> Any:
        return self.ops.transpose(x, np.array(order))

    def _reshaped(self, x: Any, *shape: int) -> Any:
        return self.ops.reshape(x, np.array(shape), False)


def _form(layer: nn.Conv2d | nn.ConvTranspose2d) -> dict[str, list[int]]:
    padding = [int(cells) for cells in layer.padding]
    return {
        "strides": list(layer.stride),
        "pads_begin": padding,
        "pads_end": padding,
        "dilations": list(layer.dilation),
    }


def _values(tensor: Tensor) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.float32] = tensor.detach().cpu().float().contiguous().numpy()
    return values
