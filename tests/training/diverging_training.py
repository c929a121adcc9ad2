"""Trains with a bad gradient on the second process alone: torchrun diverging_training.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import lightning.pytorch as pl
import torch

from conftest import TinySetup
from uniformer_pose.errors import DivergedError
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.skeleton import load_skeleton


class BadInputOnSecond(pl.Callback):
    """NaN in what the second process's network sees in step 1."""

    hook = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 1 and trainer.global_rank == 1:
            # Not in a buffer: DDP would replace it by the first process's.
            self.hook = pl_module.normalize.register_forward_hook(lambda _module, _inputs, images: images * torch.nan)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.hook is not None:
            self.hook.remove()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tiny = TinySetup(folder, load_skeleton("coco_17"), HeatmapCodec(64, 64, sigma=1.5, method="dark"))
    for policy in ("skip", "stop"):
        module = tiny.module(warmup_steps=0, on_non_finite=policy)
        callbacks = [BadInputOnSecond()]
        trainer = tiny.trainer(
            default_root_dir=folder / policy, devices=2, strategy="ddp", limit_val_batches=0, callbacks=callbacks
        )
        outcome = "finished"
        try:
            trainer.fit(module, datamodule=tiny.data(batch_size=1))
        except DivergedError as error:
            outcome = str(error)
        weights = torch.cat([weight.detach().flatten() for weight in module.network.parameters()])
        result = {"outcome": outcome, "weights": weights, "skipped": module.guard.skipped}
        torch.save(result, folder / f"{policy}_{trainer.global_rank}.pt")
