"""Loads a training of one process into a sharded one, saves it as it is, trains on: torchrun ... FOLDER START AGAIN ON.

A script, since each process of a sharded training is a Python of its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest import TinySetup
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.skeleton import load_skeleton
from uniformer_pose.training.sharding import ShardedStrategy

if __name__ == "__main__":
    folder, start, again, trained_on = sys.argv[1:]
    processes = int(os.environ["WORLD_SIZE"])
    tiny = TinySetup(Path(folder), load_skeleton("coco_17"), HeatmapCodec(64, 64, sigma=1.5, method="dark"))
    for epochs, source, saved in ((1, start, again), (2, again, trained_on)):
        trainer = tiny.trainer(max_epochs=epochs, devices=processes, strategy=ShardedStrategy(), gradient_clip_val=1.0)
        trainer.fit(
            tiny.module(warmup_steps=0),
            datamodule=tiny.data(batch_size=2 // processes),
            ckpt_path=source,
            weights_only=True,
        )
        trainer.save_checkpoint(saved)
