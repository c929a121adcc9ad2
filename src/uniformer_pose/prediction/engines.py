"""What computes the heatmaps when nothing is trained: PyTorch's modules, or OpenVINO on a processor.

In fp32 both give the network's heatmaps up to rounding. Nothing that needs calibration (int8, pruning) is among them.
"""

from __future__ import annotations

import copy
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

from uniformer_pose.config_parts import Engine, Precision
from uniformer_pose.errors import InputError, one_line
from uniformer_pose.keypoints.codec import NetworkOutput
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.training.precision import computes_in_bf16

_REDUCED = {"bf16": torch.bfloat16, "fp16": torch.float16}
_OPENVINO_NAMES = {"fp32": "f32", "bf16": "bf16"}


@dataclass(frozen=True)
class InferenceNetwork:
    """Images (B, 3, H, W) on the device -> heatmaps; ``engine`` is its name, ``remark`` what would be faster.

    No ``nn.Module``: set as an attribute of one, its weights stay out of that one's checkpoint. Threads may share it.
    """

    engine: Engine
    compute: Callable[[Tensor], NetworkOutput]
    remark: str | None = None

    def __call__(self, images: Tensor) -> NetworkOutput:
        """What the network gives for images (B, 3, H, W), such as heatmaps (B, K, H/4, W/4)."""
        return self.compute(images)


def inference_network(
    network: nn.Module, *, engine: Engine, device: torch.device, precision: Precision, height: int, width: int
) -> InferenceNetwork:
    """The network in eval mode on ``device``, as ``engine`` computes it; later changes of its weights may not count.

    - ``eager``: PyTorch's modules; in bf16 and fp16 a copy of the network whose weights are of that format.
    - ``openvino``: OpenVINO, on a processor in fp32 or bf16, for crops of ``height`` x ``width``.
    - ``auto``: ``openvino`` where it applies and is installed, else ``eager``; a ``remark`` says why not the former.

    ``precision`` is a resolved one. Raises InputError for an unknown engine, for ``openvino`` where it cannot be had,
    and on a processor for fp16, and for bf16 unless it has instructions for it: both would be slower than fp32.
    """
    if engine not in get_args(Engine):
        raise InputError(f"engine={engine!r}: choose {', '.join(get_args(Engine))}")
    on_cpu, remark = device.type == "cpu", None
    if on_cpu and not (precision == "fp32" or (precision == "bf16" and computes_in_bf16("cpu"))):
        raise InputError(f"precision={precision}: this processor has no fast instructions for it; give precision=fp32")
    if engine == "openvino" and not on_cpu:
        raise InputError("engine=openvino computes on the processor; give device=cpu")
    if engine != "eager" and on_cpu:
        try:
            compiled = OpenVinoNetwork(network, height=height, width=width, precision=precision)
            return InferenceNetwork("openvino", compiled)
        except ImportError:
            remark = "OpenVINO is not installed: pip install uniformer-pose[openvino] is faster on a processor"
        except Exception as error:  # whatever its tracer raises for a network of somebody else's
            remark = f"OpenVINO cannot convert {type(network).__name__} ({one_line(error)})"
        if engine == "openvino":
            raise InputError(f"engine=openvino: {remark}; engine=eager needs nothing")
    return InferenceNetwork("eager", _eager(network, device, precision), remark and f"engine: eager; {remark}")


def _eager(network: nn.Module, device: torch.device, precision: Precision) -> Callable[[Tensor], NetworkOutput]:
    if precision == "fp32":
        return network.eval().to(device)
    dtype = _REDUCED[precision]
    reduced = copy.deepcopy(network).eval().to(device, dtype)
    # Weights of the format itself: autocast would convert them, and every norm's images, again in each batch. Only for
    # a network of somebody else's it is on, which may make fp32 tensors of its own.
    casts = not isinstance(network, PoseNetwork)

    def compute(images: Tensor) -> NetworkOutput:
        with torch.autocast(device.type, dtype, enabled=casts):
            output: NetworkOutput = reduced(images.to(dtype))
        return output

    return compute


class OpenVinoNetwork:
    """Images (B, 3, H, W) of one height and width, on the CPU -> what the network gives, in fp32; any B.

    As many threads as PyTorch has when it is built. ``precision`` is fp32 or bf16. Threads may share it: each has its
    own buffers. Raises ImportError where OpenVINO is not installed, InputError for images of another size.
    """

    def __init__(self, network: nn.Module, *, height: int, width: int, precision: Precision = "fp32") -> None:
        # Its converter would report each use to an analytics service; without that module it does not.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino

        example = torch.zeros(1, 3, height, width)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer's: on its future, and on sizes, which stay the same here
            model = openvino.convert_model(network.eval().cpu(), input=[-1, 3, height, width], example_input=example)
        settings = {
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, on all threads
            "INFERENCE_PRECISION_HINT": _OPENVINO_NAMES[precision],  # it would take bf16 by itself
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        # In a thread that ends: what compiles leaves its own stack for signals on its thread and takes it away when the
        # model goes. Of two models in one thread, the second to go would put back the first one's, which is gone, and
        # the next signal, such as that of a data worker's end, would crash the process.
        with ThreadPoolExecutor(max_workers=1) as elsewhere:
            self._compiled = elsewhere.submit(openvino.Core().compile_model, model, "CPU", settings).result()
        self._of_thread = threading.local()
        self._image_shape = (3, height, width)

    def __call__(self, images: Tensor) -> NetworkOutput:
        """What the network gives for the images."""
        if tuple(images.shape[1:]) != self._image_shape:
            raise InputError(
                f"images of shape {tuple(images.shape)}: this network was compiled for (batch, "
                f"{', '.join(map(str, self._image_shape))}); choose engine=eager for other sizes"
            )
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._compiled.create_infer_request()
        given = self._of_thread.request.infer({0: images.detach().float().contiguous().numpy()}).values()
        # Copied: the next call writes into the same memory.
        output, *visibility_logits = (torch.from_numpy(np.array(each)) for each in given)
        return (output, visibility_logits[0]) if visibility_logits else output
