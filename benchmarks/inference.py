"""Poses a second: the network alone, and ``PoseEstimator`` from pixels to keypoints by engine.

python benchmarks/inference.py zoo:uniformer_s_coco_256x192 [threads]    (any ckpt_path of src/eval.py)
"""

from __future__ import annotations

import sys
from typing import get_args

import cv2
import numpy as np
import torch

from paired import Work, take_turns
from uniformer_pose import PoseEstimator
from uniformer_pose.prediction.estimator import Engine
from uniformer_pose.saved_model import SavedModel
from uniformer_pose.weights.loading import load_model

ROUNDS, BATCH_SIZES = 7, (1, 8)


def main(weights: str, threads: str = "1") -> None:
    """Measure one model with every engine that is installed."""
    cv2.setNumThreads(0)
    torch.set_num_threads(int(threads))
    model, report = load_model(weights)
    print(report)
    for batch_size in BATCH_SIZES:
        sides: dict[str, Work] = {"network, eager": network(model, batch_size)}
        for engine in get_args(Engine):
            try:
                sides[f"PoseEstimator, engine={engine}"] = estimator(model, engine, batch_size)
            except Exception as error:  # an engine that is not installed
                print(f"{engine}: {error}")
        take_turns(sides, f"poses, batch {batch_size}", rounds=ROUNDS, wall=torch.cuda.is_available() or threads != "1")


def network(model: SavedModel, batch_size: int) -> Work:
    """The forward pass of the plain network on normalised crops, which is most of any engine's work."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.randn(batch_size, 3, model.codec.height, model.codec.width, device=device)
    net = model.network.eval().to(device)

    def work() -> int:
        with torch.inference_mode():
            net(images).sum().item()
        return batch_size

    return work


def estimator(model: SavedModel, engine: Engine, batch_size: int) -> Work:
    """A box in the middle of each of ``batch_size`` pictures of noise."""
    pose = PoseEstimator(model, engine=engine, batch_size=batch_size, announce=lambda _line: None)
    pictures = list(np.random.default_rng(0).integers(0, 256, (batch_size, 480, 640, 3), dtype=np.uint8))
    boxes = [[[200.0, 50.0, 250.0, 380.0]]] * batch_size
    return lambda: len(pose.predict_batch(pictures, boxes))


if __name__ == "__main__":
    main(*sys.argv[1:])
