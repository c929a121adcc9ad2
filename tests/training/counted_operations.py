"""Counts what torch is asked for in each step of a training, and what of it reads a number back."""

from __future__ import annotations

import itertools
import traceback
from collections import Counter
from itertools import pairwise
from statistics import median
from typing import Any

import lightning.pytorch as pl
import torch
from tiny_setup import TinySetup
from torch.utils._python_dispatch import TorchDispatchMode

from uniformer_pose.training.step import loss_and_output


class Operations(TorchDispatchMode):
    """Operations by name. The numbers that processes exchange of their wishes to stop are the host's own."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        name = operation.overloadpacket.__name__
        of_host = name == "_local_scalar_dense" and any("agreement" in f.filename for f in traceback.extract_stack())
        self.names["of the host" if of_host else name] += 1
        return operation(*arguments, **(named or {}))


class CountedSteps(pl.Callback):
    """The operations from each batch to the next; the last step's are not known."""

    def __init__(self) -> None:
        self.mode = Operations()
        self.until: list[Counter[str]] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.until.append(self.mode.names.copy())

    @property
    def totals(self) -> list[int]:
        return [(later - earlier).total() for earlier, later in pairwise(self.until)]

    @property
    def steps_with_reads(self) -> list[int]:
        """The steps, from 1, in which a number was read back from where it was computed."""
        reads = [counts["_local_scalar_dense"] for counts in self.until]
        return [step for step, (earlier, later) in enumerate(pairwise(reads), start=1) if later > earlier]


def plain_loop(tiny: TinySetup, steps: int = 8) -> float:
    """Operations of a step of forward, backward and fused AdamW alone, with the same network and loader."""
    module, data = tiny.module(), tiny.data()
    data.setup("fit")
    network = module.network.train()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    mode, until = Operations(), []
    with mode:
        for batch in itertools.islice(data.train_dataloader(), steps):
            until.append(mode.names.total())
            parts = (batch["crops"], batch["keypoints_in_crop"], batch["visibility"])
            loss, _ = loss_and_output(network, module.normalize, module.codec, module.loss, *parts)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return median(later - earlier for earlier, later in pairwise(until))
