"""The global random generators, as plain data that a checkpoint can hold."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def seed_by_process(rank: int) -> None:
    """Give every process but the first draws of its own, from its seed and rank.

    All are seeded alike, so that they build the same network; with the same masks of stochastic depth on all of them,
    half of what they were to add to each other's gradients would be lost.
    """
    if rank:  # not seed_everything: Lightning takes that seed up at the next fit, and adds the rank again
        seed = (torch.initial_seed() + rank) % 2**32
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # see random_state
        torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """State of the generators of torch (CPU, and this process's GPU), numpy and Python."""
    _name, key, *position = np.random.get_state()  # noqa: NPY002  # whoever draws from it is to be continued
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [torch.from_numpy(np.asarray(key, dtype=np.int64)), *position],
        "python": list(random.getstate()),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set the generators to what ``random_state`` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    key, *position = state["numpy"]
    np.random.set_state(("MT19937", key.numpy().astype(np.uint32), *position))  # noqa: NPY002  # see above
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
