"""How large a network is, and what a picture costs it."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def network_size(network: nn.Module, height: int, width: int) -> str:
    """Parameters, and GFLOPs of one crop, counted as papers do: a multiplication with its addition is one.

    Nothing is computed: only shapes go through the network. One that cannot do without numbers has its parameters only.
    """
    line = f"{sum(weight.numel() for weight in network.parameters()) / 1e6:.1f} M parameters"
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            copy.deepcopy(network).to("meta").eval()(torch.empty(1, 3, height, width, device="meta"))
    except Exception:  # whatever another network may raise
        return line
    return f"{line}, {counter.get_total_flops() / 2e9:.3g} GFLOPs at {height}x{width}"
