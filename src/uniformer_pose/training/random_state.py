"""Random numbers that go on after an interruption where they stopped."""

from __future__ import annotations

import random
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed
from lightning.pytorch.callbacks import Callback


class RandomState(Callback):
    """Keeps the state of every global generator in the checkpoint, for every process; Lightning keeps none.

    Stochastic depth draws from torch's generators at each step, so without it a resumed training is another one. The
    crops need nothing here: their draws depend on seed, epoch and person alone. Taken up again when training starts,
    since building and loading a model draws numbers too.
    """

    def __init__(self) -> None:
        self._restored: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """The states of all processes, as tensors and plain numbers; every process must call it."""
        mine = random_state()
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return {"processes": [mine]}
        states: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(states, mine)
        return {"processes": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the states until training starts."""
        self._restored = list(state_dict["processes"])

    def on_train_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Set this process's generators; with another number of processes there is nothing to continue."""
        if len(self._restored) == trainer.world_size:
            set_random_state(self._restored[trainer.global_rank])
        self._restored = []


def seed_by_process(rank: int) -> None:
    """Give every process but the first draws of its own, from its seed and rank.

    All are seeded alike, so that they build the same network; with the same masks of stochastic depth on all of them,
    half of what they were to add to each other's gradients would be lost.
    """
    if rank == 0:
        return
    seed = torch.initial_seed() + rank
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # whoever draws from it is to differ too
    random.seed(seed)


def random_state() -> dict[str, Any]:
    """State of the generators of torch (CPU, and this process's GPU), numpy and Python, as loadable plain data."""
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)  # noqa: NPY002  # whoever draws from it is to be continued
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": {
            "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "position": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set the generators to what ``random_state`` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    saved = state["numpy"]
    np.random.set_state(  # noqa: NPY002  # see above
        ("MT19937", saved["key"].numpy().astype(np.uint32), saved["position"], saved["has_gauss"], saved["gauss"])
    )
    saved = state["python"]
    random.setstate((saved["version"], tuple(saved["words"].tolist()), saved["gauss"]))
