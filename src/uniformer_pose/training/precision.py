"""Names of number formats, as people say them, to what Lightning calls them."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]
LightningPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]


def lightning_precision(precision: Precision, accelerator: str) -> LightningPrecision:
    """Lightning's name of a precision.

    ``auto`` is bf16 on a GPU that computes in it, else fp32: bf16 has fp32's range, so nothing overflows and no loss
    needs scaling. On a CPU bf16 is slower than fp32 unless the processor has instructions for it.
    """
    if precision == "auto":
        on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    names: dict[str, LightningPrecision] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
    return names[precision]
