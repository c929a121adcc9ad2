"""Trains with a bad gradient on the second process alone: torchrun diverging_training.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import lightning.pytorch as pl
import torch
from tiny_setup import tiny_setup

from uniformer_pose.errors import DivergedError


class BadInputOnSecond(pl.Callback):
    """NaN in what the second process's network sees in step 1."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 1 and trainer.global_rank == 1:
            # Not in a buffer: DDP would replace it by the first process's.
            pl_module.normalize.register_forward_hook(lambda _module, _inputs, images: images * torch.nan)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tiny = tiny_setup(folder)
    module = tiny.module(warmup_steps=0)
    trainer = tiny.trainer(devices=2, strategy="ddp", limit_val_batches=0, callbacks=[BadInputOnSecond()])
    message = "finished"
    try:
        trainer.fit(module, datamodule=tiny.data(batch_size=1))
    except DivergedError as error:
        message = str(error)
    weights = torch.cat([weight.detach().flatten() for weight in module.network.parameters()])
    torch.save({"message": message, "weights": weights}, folder / f"outcome_{trainer.global_rank}.pt")
