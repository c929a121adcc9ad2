"""What computes the heatmaps when nothing is trained: PyTorch's modules, or OpenVINO on a processor.

Both give the network's fp32 heatmaps up to rounding. Nothing approximate (int8, pruning) is among them.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn

from uniformer_pose.config_parts import Engine
from uniformer_pose.errors import InputError, one_line


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
    - ``openvino``: OpenVINO, in fp32 on a processor, for crops of ``height`` x ``width``.
    - ``auto``: ``openvino`` where it applies and is installed, else ``eager``; a ``remark`` says why not the former.

    ``reduced_precision``: whether autocast to bf16 or fp16 is asked for. Raises InputError for an unknown engine, and
    for ``openvino`` where it cannot be had.
    """
    if engine not in get_args(Engine):
        raise InputError(f"engine={engine!r}: choose {', '.join(get_args(Engine))}")
    applies = device.type == "cpu" and not reduced_precision
    if engine == "openvino" and not applies:
        raise InputError("engine=openvino computes in fp32 on the processor; give device=cpu and precision=fp32")
    remark = None
    if engine != "eager" and applies:
        try:
            return InferenceNetwork("openvino", OpenVinoNetwork(network, height=height, width=width))
        except ImportError:
            remark = "OpenVINO is not installed: pip install uniformer-pose[openvino] is faster on a processor"
        except Exception as error:  # whatever its tracer raises for a network of somebody else's
            remark = f"OpenVINO cannot convert {type(network).__name__} ({one_line(error)})"
        if engine == "openvino":
            raise InputError(f"engine=openvino: {remark}; engine=eager needs nothing")
    return InferenceNetwork("eager", network.eval().to(device), remark and f"engine: eager; {remark}")


class OpenVinoNetwork:
    """Images (B, 3, H, W) of one height and width, on the CPU -> heatmaps (B, K, h, w), fp32; any B.

    As many threads as PyTorch has when it is built. Threads may share it: each has its own buffers.
    Raises ImportError where OpenVINO is not installed, InputError for images of another size.
    """

    def __init__(self, network: nn.Module, *, height: int, width: int) -> None:
        # Its converter would report each use to an analytics service; without that module it does not.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino

        example = torch.zeros(1, 3, height, width)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer's: on its future, and on sizes, which stay the same here
            model = openvino.convert_model(network.eval().cpu(), input=[-1, 3, height, width], example_input=example)
        settings = {
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, on all threads
            "INFERENCE_PRECISION_HINT": "f32",  # it would take bf16 by itself where the processor has it
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        # In a thread that ends: what compiles leaves its own stack for signals on its thread and takes it away when the
        # model goes. Of two models in one thread, the second to go would put back the first one's, which is gone, and
        # the next signal, such as that of a data worker's end, would crash the process.
        with ThreadPoolExecutor(max_workers=1) as elsewhere:
            self._compiled = elsewhere.submit(openvino.Core().compile_model, model, "CPU", settings).result()
        self._of_thread = threading.local()
        self._image_shape = (3, height, width)

    def __call__(self, images: Tensor) -> Tensor:
        """Heatmaps of images."""
        if tuple(images.shape[1:]) != self._image_shape:
            raise InputError(
                f"images of shape {tuple(images.shape)}: this network was compiled for (batch, "
                f"{', '.join(map(str, self._image_shape))}); choose engine=eager for other sizes"
            )
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._compiled.create_infer_request()
        heatmaps = self._of_thread.request.infer({0: images.detach().float().contiguous().numpy()})[0]
        return torch.from_numpy(np.array(heatmaps))  # copied: the next call writes into the same memory
