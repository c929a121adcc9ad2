"""Two short epochs with validations, plain and compiled: what each graph counter says, and both courses of the loss.

As a program, on two processes: python compiled_training.py <folder of TinySetup.write_people>; a JSON line for each.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from tiny_setup import TinySetup, tiny_setup
from torch._dynamo.utils import counters

from uniformer_pose.training.ema import AveragedWeights

NETWORK: dict[str, Any] = {"drop_path_rate": 0.3, "checkpointed_blocks": [1, 1, 1, 1]}


class Losses(pl.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, _trainer: Any, _module: Any, outputs: Any, *_: Any) -> None:
        self.values.append(float(outputs["loss"]))


def trained(tiny: TinySetup, *, compiled: bool, network: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Losses of all steps, and how often was compiled; with averaged weights, and two batches a step."""
    torch._dynamo.reset()
    counters.clear()
    losses = Losses()
    module = tiny.module(model=tiny.model(window_size=3, **network), compile_step=compiled)
    trainer = tiny.trainer(
        max_epochs=2, callbacks=[losses, AveragedWeights(0.9)], accumulate_grad_batches=2, **settings
    )
    torch.manual_seed(0)
    trainer.fit(module, datamodule=tiny.data())
    return {
        "losses": losses.values,
        "graphs": counters["stats"]["unique_graphs"],
        "breaks": sum(counters["graph_break"].values()),
        "buffers": [float(buffer.double().sum()) for buffer in module.network.buffers()],
    }


if __name__ == "__main__":
    torch.compile = functools.partial(torch.compile, backend="aot_eager")
    for compiled in (False, True):
        found = trained(tiny_setup(Path(sys.argv[1])), compiled=compiled, network=NETWORK, strategy="ddp", devices=2)
        sys.stdout.write("\n" + json.dumps(found) + "\n")
