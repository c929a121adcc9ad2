"""What computes the heatmaps when nothing is trained: the fastest exact way for the device, or the one asked for.

All engines give the network's fp32 heatmaps up to rounding. Nothing approximate (int8, pruning) is among them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from uniformer_pose.errors import InputError, one_line
from uniformer_pose.model.folding import folded
from uniformer_pose.model.network import PoseNetwork

Engine = Literal["auto", "eager", "folded", "openvino"]


@dataclass(frozen=True)
class InferenceNetwork:
    """Images (B, 3, H, W) on the device -> heatmaps; ``engine`` is its name, ``remark`` why it is not a faster one.

    No ``nn.Module``: set as an attribute of one, its weights stay out of that one's checkpoint. Threads may share it.
    """

    engine: Engine
    compute: Callable[[Tensor], Tensor]
    remark: str | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Heatmaps (B, K, H/4, W/4) of images (B, 3, H, W)."""
        return self.compute(images)


def inference_network(
    network: nn.Module, *, engine: Engine, device: torch.device, reduced_precision: bool, height: int, width: int
) -> InferenceNetwork:
    """The network in eval mode on ``device``, as ``engine`` computes it; later changes of its weights may not count.

    - ``eager``: the modules as they were trained.
    - ``folded``: PyTorch, without BatchNorm and what else can be merged beforehand.
    - ``openvino``: OpenVINO, in fp32 on a processor, for crops of ``height`` x ``width``.
    - ``auto``: ``openvino`` where it applies and is installed, else ``folded``; a ``remark`` says why not the former.
      ``eager`` for a network that is no ``PoseNetwork``.

    ``reduced_precision``: whether autocast to bf16 or fp16 is asked for. Raises InputError for an unknown engine, and
    for ``openvino`` where it cannot be had.
    """
    if engine not in get_args(Engine):
        raise InputError(f"engine={engine!r}: choose {', '.join(get_args(Engine))}")
    if engine in ("folded", "openvino") and type(network) is not PoseNetwork:
        raise InputError(f"engine={engine}: is for UniFormer alone, not {type(network).__name__}; choose eager")
    if engine == "eager" or type(network) is not PoseNetwork:
        return InferenceNetwork("eager", network.eval().to(device))
    remark = None
    fits = device.type == "cpu" and not reduced_precision
    if engine == "openvino" and not fits:
        raise InputError(
            "engine=openvino computes in fp32 on the processor; give device=cpu and precision=fp32, or auto"
        )
    if engine == "openvino" or (engine == "auto" and fits):
        try:
            from uniformer_pose.prediction.openvino_network import OpenVinoNetwork

            return InferenceNetwork("openvino", OpenVinoNetwork(network, height=height, width=width))
        except ImportError as error:
            missing = "OpenVINO is not installed: pip install openvino"
            if engine == "openvino":
                raise InputError(f"engine=openvino: {missing}, or engine=auto") from error
            remark = f"engine: folded; {missing} is faster on a processor"
        except (RuntimeError, TypeError, AttributeError) as error:
            if engine == "openvino":
                raise InputError(f"engine=openvino: {one_line(error)}; try engine=folded") from error
            remark = f"engine: folded; OpenVINO failed ({one_line(error)})"
    return InferenceNetwork("folded", folded(network).to(device), remark)
