"""Device and number format: what people call them, what there is, and what Lightning calls them."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from uniformer_pose.config_parts import Precision
from uniformer_pose.errors import InputError

LightningPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]
_LIGHTNINGS: dict[Precision, LightningPrecision] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def find_device(device: str | torch.device | None) -> torch.device:
    """A device that is there, the GPU for None if there is one; InputError for one that is not."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"device={device}: not there ({str(error).splitlines()[0]}); give cpu, or cuda") from error
    return chosen


def resolved(precision: Precision, device_type: str) -> Precision:
    """The number format that is used on a device (``cpu``, ``cuda``).

    ``auto`` is bf16 on a GPU that computes in it, else fp32: bf16 has fp32's range, so nothing overflows and no loss
    needs scaling. On a CPU bf16 is slower than fp32 unless the processor has instructions for it.
    """
    if precision not in get_args(Precision):
        raise InputError(f"precision={precision!r}: choose {', '.join(get_args(Precision))}")
    if precision != "auto":
        return precision
    return "bf16" if device_type == "cuda" and computes_in_bf16("cuda") else "fp32"


def computes_in_bf16(device_type: str) -> bool:
    """Whether this machine's ``cpu`` or ``cuda`` device has instructions for bf16, without which it is slow there."""
    if device_type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    has = torch.cpu.get_capabilities()
    return bool(has.get("amx_bf16") or has.get("avx512_bf16") or has.get("bf16"))  # the last one is ARM's


def lightning_precision(precision: Precision, accelerator: str) -> LightningPrecision:
    """Lightning's name of a precision on one of its accelerators."""
    return _LIGHTNINGS[resolved(precision, "cuda" if accelerator in ("auto", "gpu", "cuda") else accelerator)]
