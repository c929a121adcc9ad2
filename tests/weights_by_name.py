"""Weights that are the same wherever names and shapes are: what the reference numbers were computed with."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def weight_by_name(name: str, shape: tuple[int, ...]) -> Tensor:
    """The reference value of a parameter or buffer: normal draws, seeded with the CRC32 of its name."""
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    standard_normal = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape)
    if kind == "running_mean":
        values = 0.1 * standard_normal
    elif kind == "running_var":
        values = np.exp(0.2 * standard_normal)
    elif kind == "bias":
        values = 0.02 * standard_normal
    elif kind == "weight" and len(shape) == 1:  # the scale of a normalisation layer
        values = 1 + 0.1 * standard_normal
    else:
        fan_in = int(np.prod(shape[1:]))
        values = standard_normal / np.sqrt(fan_in)
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def weights_by_name(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: weight_by_name(name, tuple(shape)) for name, shape in shapes.items()}
