"""What a device could do at best, and how much of it a piece of work asks for and gets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

_PEAKS = Path(__file__).with_name("device_peaks.yaml")
_MATRIX_SIDE = 1024
_COPIED_FLOATS = 32 * 2**20  # 128 MB: beyond any cache
_TRIALS = 5


@dataclass(frozen=True)
class Peak:
    """What a device does at most: floating-point operations and bytes of memory a second, and who says so."""

    flops_per_second: float
    bytes_per_second: float
    source: str


@dataclass(frozen=True)
class Work:
    """What a piece of work asks of a device.

    ``flops`` of matrix products and convolutions, an addition and a multiplication counting two. ``bytes_moved``: what
    its operators read and write if each runs on its own; an execution that fuses them moves less.
    """

    flops: float
    bytes_moved: float


def count_work(run: Callable[[], object]) -> Work:
    """Run once, and count what it asks for. Works on any device; takes longer than the work itself."""
    traffic = _Traffic()
    with FlopCounterMode(display=False) as flops, traffic:
        run()
    return Work(float(flops.get_total_flops()), float(traffic.bytes_moved))


def device_peak(device: torch.device, number_format: str) -> Peak | None:
    """The peak of a device for ``fp32``, ``tf32``, ``bf16``, ``fp16``: a GPU's from the table, a processor's measured.

    None for a GPU that is not in device_peaks.yaml, and for a processor in other formats than fp32.
    """
    if device.type == "cuda":
        return gpu_peak(torch.cuda.get_device_name(device), number_format)
    if device.type == "cpu" and number_format == "fp32":
        return measured_processor_peak(torch.get_num_threads())
    return None


def gpu_peak(name: str, number_format: str) -> Peak | None:
    """The first entry of device_peaks.yaml whose name is a part of ``name``; None without one or without the format."""
    entries: list[Mapping[str, Any]] = yaml.safe_load(_PEAKS.read_text(encoding="utf-8"))
    for entry in entries:
        if entry["name"] in name:
            tflops = entry["tflops"].get(number_format)
            if tflops is None:
                return None
            return Peak(tflops * 1e12, entry["gigabytes_per_second"] * 1e9, f"data sheet of {entry['name']}")
    return None


@cache
def measured_processor_peak(num_threads: int) -> Peak:
    """The best of a few fp32 matrix products and copies on ``num_threads``, which must be torch's current number."""
    first, second = torch.rand(_MATRIX_SIDE, _MATRIX_SIDE), torch.rand(_MATRIX_SIDE, _MATRIX_SIDE)
    source, target = torch.rand(_COPIED_FLOATS), torch.empty(_COPIED_FLOATS)
    clock = time.process_time if num_threads == 1 else time.perf_counter  # others' work does not count
    product = min(_seconds(lambda: torch.mm(first, second), clock) for _ in range(_TRIALS))
    copy = min(_seconds(lambda: target.copy_(source), clock) for _ in range(_TRIALS))
    return Peak(
        2 * _MATRIX_SIDE**3 / product,
        2 * source.nbytes / copy,
        f"measured: fp32 matrix product and copy, {num_threads} threads",
    )


def _seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of what every operator reads and writes; views move nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes_moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        written = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        is_view = bool(written) and all(
            any(out.untyped_storage()._cdata == given.untyped_storage()._cdata for given in read) for out in written
        )
        if not (is_view and not func._schema.is_mutable):
            self.bytes_moved += sum(tensor.nbytes for tensor in read) + sum(tensor.nbytes for tensor in written)
        return result
