"""What one training step computes before the backward pass, by PyTorch's modules or compiled into few kernels."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from uniformer_pose.data.tensors import CropNormalization
from uniformer_pose.errors import one_line
from uniformer_pose.keypoints.accuracy import pck
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec

CompileStep = bool | Literal["auto"]

# Triton's kernels need Volta or later.
_OLDEST_CAPABILITY = (7, 0)


def keypoint_mse(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean squared error over all (B, K, h, w) cells, those of keypoints with weight 0 counted as zero.

    In fp32 whatever the heatmaps' type: typical values are 1e-3, and fp16 would lose their differences. Both the
    original ``JointsMSELoss`` and MMPose's ``KeypointMSELoss`` reduce to this for weights 0 and 1.
    """
    squared = (heatmaps.float() - targets).square()
    return (squared * weights[:, :, None, None]).mean()


def loss_and_accuracy(
    network: torch.nn.Module,
    normalize: CropNormalization,
    codec: HeatmapCodec,
    crops: Tensor,
    keypoints_in_crop: Tensor,
    visibility: Tensor,
) -> tuple[Tensor, Tensor]:
    """Loss, to differentiate, and PCK of a batch, as scalars on its device; nothing here waits for the device.

    ``crops`` (B, H, W, 3) uint8 RGB, ``keypoints_in_crop`` (B, K, 2), ``visibility`` (B, K).
    """
    targets, weights = codec.encode(keypoints_in_crop, visibility)
    heatmaps = network(normalize(crops))
    loss = keypoint_mse(heatmaps, targets, weights)
    with torch.no_grad():
        accuracy = pck(heatmaps, targets, weights)
    return loss, accuracy


class StepLoss:
    """``loss_and_accuracy`` on one device, compiled or not.

    ``compile_step`` True compiles, False does not, ``auto`` compiles on a GPU: on a processor the minutes that it takes
    rarely come back. It is compiled whole, for the shapes of the first batch; ``backend`` is torch.compile's. Where it
    cannot be, one line says why, and the modules compute as they are.

    The compiled loss differs by rounding, and by drop path: the compiler draws other random numbers from the same seed.
    """

    def __init__(self, compile_step: CompileStep, device: torch.device, backend: str = "inductor") -> None:
        self._compute: Callable[..., tuple[Tensor, Tensor]] = loss_and_accuracy
        self.compiled = False
        self._first = True
        if compile_step is False or (compile_step == "auto" and device.type != "cuda"):
            return
        hindrance = what_hinders_compiling(device) if backend == "inductor" else None
        if hindrance is not None:
            rank_zero_warn(f"the training step is not compiled: {hindrance} (training.compile_step=false says so)")
            return
        self._compute = torch.compile(loss_and_accuracy, fullgraph=True, dynamic=False, backend=backend)
        self.compiled = True

    def __call__(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        """What ``loss_and_accuracy`` gives for these arguments."""
        first, self._first = self._first, False
        if not (self.compiled and first):
            return self._compute(*arguments)
        rank_zero_info("compiling the training step: the first batch takes a minute or two")
        try:
            return self._compute(*arguments)
        except TorchDynamoException as error:
            # Nothing has been computed yet, so nothing is counted twice.
            rank_zero_warn(f"the training step is not compiled: {one_line(error)} (training.compile_step=false)")
            self._compute, self.compiled = loss_and_accuracy, False
            return self._compute(*arguments)


def what_hinders_compiling(device: torch.device) -> str | None:
    """Why torch.compile cannot make kernels for a device, or None if nothing is known to hinder it."""
    if device.type == "cuda":
        if find_spec("triton") is None:
            return "Triton is not installed"
        capability = torch.cuda.get_device_capability(device)
        return None if capability >= _OLDEST_CAPABILITY else f"the GPU's compute capability is {capability}"
    compilers = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "c++"]
    if any(shutil.which(compiler) for compiler in compilers):
        return None
    return f"no C++ compiler ({', '.join(compilers)}) is installed"
