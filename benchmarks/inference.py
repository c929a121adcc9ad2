"""Poses a second by engine and number format, and, on data, how far the fast ones' keypoints lie from those of fp32.

python benchmarks/inference.py zoo:uniformer_s_coco_256x192 [threads [data root]]    (any ckpt_path of src/eval.py)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from paired import Work, take_turns
from uniformer_pose import PoseEstimator
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.datasets import evaluation_datasets
from uniformer_pose.evaluation.pose_metric import PoseMetric
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.prediction.engines import inference_network
from uniformer_pose.prediction.pose_pipeline import PosePipeline
from uniformer_pose.progress import text_table
from uniformer_pose.saved_model import SavedModel
from uniformer_pose.weights.loading import load_model

ROUNDS, BATCH_SIZES = 9, (1, 8)
SIDES: tuple[tuple[Any, Any], ...] = (("openvino", "fp32"), ("openvino", "bf16"), ("eager", "bf16"), ("eager", "fp16"))
MOST_PIXELS_MEAN, MOST_AP = 0.1, 0.001
JUMP = 5.0
Network = Callable[[Tensor], Tensor]


def main(weights: str, threads: str = "1", root: str | None = None) -> None:
    """Measure one model with everything that this machine can do."""
    cv2.setNumThreads(0)
    torch.set_num_threads(int(threads))
    model, report = load_model(weights)
    print(report)
    networks = {"eager fp32": made(model, "eager", "fp32"), "autocast bf16": autocast(model)}
    for engine, precision in SIDES:
        try:
            networks[f"{engine} {precision}"] = made(model, engine, precision)
        except InputError as error:  # an engine that is not installed, a format without instructions
            print(error)
    wall = torch.cuda.is_available() or threads != "1"
    for batch_size in BATCH_SIZES:
        sides = {f"network, {name}": network_alone(model, network, batch_size) for name, network in networks.items()}
        sides["PoseEstimator, from pixels to keypoints"] = estimator(model, batch_size)
        take_turns(sides, f"poses, batch {batch_size},", rounds=ROUNDS, wall=wall)
    for flip_test in (False, True) if root else ():
        print(f"\n{'with' if flip_test else 'without'} flip test, against the first:")
        print(deviations(model, networks, str(root), flip_test))


def device() -> torch.device:
    """The GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def made(model: SavedModel, engine: Any, precision: Any) -> Network:
    """The network as PoseEstimator computes it."""
    size = {"height": model.codec.height, "width": model.codec.width}
    return inference_network(model.network, engine=engine, precision=precision, device=device(), **size)


def autocast(model: SavedModel) -> Network:
    """Weights in fp32, of which each batch makes bf16 again: for comparison only."""

    def compute(images: Tensor) -> Tensor:
        with torch.autocast(device().type, torch.bfloat16):
            heatmaps: Tensor = model.network(images)
        return heatmaps

    return compute


def network_alone(model: SavedModel, network: Network, batch_size: int) -> Work:
    """The forward pass on normalised crops."""
    images = torch.randn(batch_size, 3, model.codec.height, model.codec.width, device=device())

    def work() -> int:
        with torch.inference_mode():
            network(images).sum().item()
        return batch_size

    return work


def estimator(model: SavedModel, batch_size: int) -> Work:
    """A box in the middle of each of ``batch_size`` pictures of noise, with the defaults."""
    pose = PoseEstimator(model, batch_size=batch_size, announce=lambda _line: None)
    pictures = list(np.random.default_rng(0).integers(0, 256, (batch_size, 480, 640, 3), dtype=np.uint8))
    boxes = [[[200.0, 50.0, 250.0, 380.0]]] * batch_size
    return lambda: len(pose.predict_batch(pictures, boxes))


def deviations(model: SavedModel, networks: dict[str, Network], root: str, flip_test: bool) -> str:
    """A table: how far keypoints lie from the first network's in crop pixels, and what AP changes."""
    rows = [["network", "mean px", "largest px", f"jumps > {JUMP:g} px", "AP", "change", "within"]]
    expected, first_ap = None, 0.0
    (data,) = evaluation_datasets(model, {"root": root}, split="val", boxes=None).values()
    batches = list(data.val_dataloader())
    for name, network in networks.items():
        decode = partial(PosePipeline(model, network), with_flip_test=flip_test)
        metric = PoseMetric(data.val_people, model.crop_spec, EvaluationProtocol(), data.ground_truth)
        found = []
        for batch in batches:
            with torch.inference_mode():
                keypoints, scores = (part.cpu() for part in decode(batch["crops"].to(device())))
            metric.update(batch, keypoints, scores)
            found.append(keypoints)
        keypoints, ap = torch.cat(found), metric.compute()["AP"]
        expected, first_ap = (keypoints, ap) if expected is None else (expected, first_ap)
        away, change = (keypoints - expected).norm(dim=-1), ap - first_ap
        within = bool(away.mean() <= MOST_PIXELS_MEAN) and abs(change) <= MOST_AP
        jumps = f"{int((away > JUMP).sum())} of {away.numel()}"
        numbers = [f"{away.mean():.4f}", f"{away.max():.1f}", jumps, f"{ap:.5f}", f"{change:+.5f}"]
        rows.append([name, *numbers, "yes" if within else "NO"])
    return text_table(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
