"""How cost grows with people an image, images, input size, workers and processes: one measurement a point."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from uniformer_pose.benchmarks.evaluation import benchmark_evaluation
from uniformer_pose.benchmarks.loader import benchmark_loader, training_dataset
from uniformer_pose.benchmarks.measurement import Measurement, Progress, Side, measure, no_progress
from uniformer_pose.benchmarks.report import BenchmarkResult, Comparison
from uniformer_pose.benchmarks.roofline import count_work
from uniformer_pose.data.coco_annotations import read_ground_truth
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.data.sampling import EpochSampler
from uniformer_pose.skeleton import Skeleton

_PEOPLE_PER_IMAGE_OF_COCO = 2.2  # training people an image that has any, rounded
_CROPS_PER_PROCESS = 64


@dataclass(frozen=True)
class Curve:
    """Cost ``y`` over size ``x``; ``y_name`` says in which unit, per what."""

    x_name: str
    y_name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


def benchmark_scale(
    data: PersonCrops,
    network: nn.Module,
    *,
    rounds: int,
    samples: int,
    people_per_image: Sequence[int],
    images: Sequence[int],
    input_sizes: Sequence[Sequence[int]],
    workers: Sequence[int],
    processes: Sequence[int],
    on_progress: Progress = no_progress,
) -> tuple[BenchmarkResult, list[Curve]]:
    """Measure each axis by itself, everything else as in ``data``; returns the outcome and its curves.

    ``data`` must have been set up for training. ``images``: sizes of made-up annotation files. ``input_sizes``:
    (height, width) of crops, for the eager network on the processor. ``workers`` of the loader; ``processes`` that each
    load a share of the crops by themselves, as the processes of a distributed training do.
    """
    result, curves = BenchmarkResult("scale"), []
    crowds = benchmark_evaluation(
        data, rounds=rounds, images=max(1, samples // 8), people_per_image=people_per_image, on_progress=on_progress
    )
    result.comparisons += crowds.comparisons
    curves.append(
        Curve(
            "people an image",
            "ms per evaluation crop",
            tuple(map(float, people_per_image)),
            tuple(1000 / comparison.sides[1].median_rate for comparison in crowds.comparisons),
        )
    )
    index_seconds, index_bytes = _index_costs(images, data.skeleton, on_progress)
    annotated = tuple(float(number) for number in images)
    curves.append(Curve("images", "s to index annotations", annotated, tuple(index_seconds)))
    curves.append(Curve("images", "bytes held per person", annotated, tuple(index_bytes)))
    curves.append(Curve("images", "ms to order an epoch", annotated, tuple(map(_order_milliseconds, images))))
    sizes, flops = _input_sizes(network, input_sizes, rounds, on_progress)
    result.comparisons.append(Comparison("The network by input size (height x width), batch 1, eager fp32", sizes))
    pixels = tuple(float(height * width) / 1000 for height, width in input_sizes)
    curves.append(
        Curve("thousand input pixels", "ms per crop, network", pixels, tuple(1000 / s.median_rate for s in sizes))
    )
    curves.append(Curve("thousand input pixels", "GFLOPs per crop", pixels, tuple(flops)))
    loading = benchmark_loader(data, None, rounds=rounds, samples=samples, workers=workers, on_progress=on_progress)
    if len(loading.comparisons) > 1:
        result.comparisons.append(loading.comparisons[1])
        rates = tuple(side.median_rate for side in loading.comparisons[1].sides)
        curves.append(Curve("loader workers", "training crops/s", tuple(map(float, workers)), rates))
    together = _processes(data, processes, rounds, on_progress)
    result.comparisons.append(Comparison("Crops of processes that load side by side", together))
    curves.append(
        Curve(
            "processes", "training crops/s", tuple(map(float, processes)), tuple(side.median_rate for side in together)
        )
    )
    for curve in curves:
        values = " ".join(f"{x:g}:{y:.4g}" for x, y in zip(curve.x, curve.y, strict=True))
        result.facts[f"{curve.y_name}, by {curve.x_name}"] = values
        result.verdict.append(_growth(curve))
    return result, curves


def write_annotations(path: Path, num_images: int, skeleton: Skeleton, seed: int = 0) -> int:
    """Write a COCO keypoint file of made-up people without pictures; returns how many people."""
    rng = np.random.default_rng(seed)
    number = max(num_images, round(num_images * _PEOPLE_PER_IMAGE_OF_COCO))
    boxes = np.column_stack([rng.uniform(0, 400, (number, 2)), rng.uniform(20, 200, (number, 2))]).round(2)
    points = (rng.uniform(0, 1, (number, skeleton.num_keypoints, 2)) * boxes[:, None, 2:] + boxes[:, None, :2]).round()
    keypoints = np.concatenate([points, np.full((number, skeleton.num_keypoints, 1), 2.0)], axis=2).astype(int)
    people = [
        {
            "id": index + 1,
            "image_id": index % num_images + 1,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": box,
            "area": box[2] * box[3] * 0.6,
            "num_keypoints": skeleton.num_keypoints,
            "keypoints": points_of_one,
        }
        for index, (box, points_of_one) in enumerate(
            zip(boxes.tolist(), keypoints.reshape(number, -1).tolist(), strict=True)
        )
    ]
    pictures = [
        {"id": index + 1, "file_name": f"{index + 1:012d}.jpg", "height": 480, "width": 640}
        for index in range(num_images)
    ]
    categories = [{"id": 1, "name": "person", "keypoints": list(skeleton.keypoint_names)}]
    path.write_text(json.dumps({"images": pictures, "annotations": people, "categories": categories}), encoding="utf-8")
    return number


def _index_costs(images: Sequence[int], skeleton: Skeleton, on_progress: Progress) -> tuple[list[float], list[float]]:
    """Processor seconds to read an annotation file for the first time, and bytes of the arrays per person."""
    seconds, sizes = [], []
    for done, number in enumerate(images):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "people.json"
            write_annotations(file, number, skeleton)
            start = time.process_time()
            people = read_ground_truth(file, Path(folder), skeleton)
            seconds.append(time.process_time() - start)
        arrays = [value for value in vars(people).values() if isinstance(value, np.ndarray)]
        sizes.append(sum(array.nbytes for array in arrays) / len(people))
        on_progress(done + 1, len(images))
    return seconds, sizes


def _order_milliseconds(images: int) -> float:
    sampler = EpochSampler(round(images * _PEOPLE_PER_IMAGE_OF_COCO), seed=0)
    start = time.process_time()
    iter(sampler)
    return 1000 * (time.process_time() - start)


def _input_sizes(
    network: nn.Module, sizes: Sequence[Sequence[int]], rounds: int, on_progress: Progress
) -> tuple[list[Measurement], list[float]]:
    network = network.eval()
    images = {f"{height}x{width}": torch.rand(1, 3, height, width) for height, width in sizes}

    def run(image: torch.Tensor) -> int:
        with torch.inference_mode():
            network(image)
        return len(image)

    sides = [Side(name, lambda image=image: run(image)) for name, image in images.items()]  # type: ignore[misc]
    measured = measure(sides, unit="crops", rounds=rounds, clock="cpu", on_progress=on_progress)
    flops = [count_work(lambda image=image: run(image)).flops / 1e9 for image in images.values()]  # type: ignore[misc]
    return measured, flops


def _processes(data: PersonCrops, processes: Sequence[int], rounds: int, on_progress: Progress) -> list[Measurement]:
    """Crops a second, on the wall's clock, of so many processes that start together; what they share is the machine."""
    dataset = training_dataset(data)
    context = multiprocessing.get_context("fork")
    most = max(processes)
    queues, done = [context.SimpleQueue() for _ in range(most)], context.Semaphore(0)

    def serve(rank: int) -> None:
        cv2.setNumThreads(0)
        while (share := queues[rank].get()) is not None:
            first = (rank * _CROPS_PER_PROCESS) % len(dataset)
            for step in range(share):
                dataset[(first + step) % len(dataset), 0]
            done.release()

    children = [context.Process(target=serve, args=(rank,), daemon=True) for rank in range(most)]
    for child in children:
        child.start()

    def run(number: int) -> int:
        for queue in queues[:number]:
            queue.put(_CROPS_PER_PROCESS)
        for _ in range(number):
            while not done.acquire(timeout=1.0):
                if not all(child.is_alive() for child in children):
                    raise RuntimeError("a process that loads crops has died")
        return number * _CROPS_PER_PROCESS

    try:
        sides = [Side(f"{number} processes", lambda number=number: run(number)) for number in processes]  # type: ignore[misc]
        return measure(sides, unit="crops", rounds=rounds, clock="wall", on_progress=on_progress)
    finally:
        for queue in queues:
            queue.put(None)
        for child in children:
            child.join(timeout=5)
            if child.is_alive():
                child.terminate()


def _growth(curve: Curve) -> str:
    """How the value at the last size compares with that at the first, in words."""
    if len(curve.x) == 1:
        return f"{curve.y_name}: {curve.y[0]:.4g} at {curve.x[0]:g} {curve.x_name}."
    growth = curve.y[-1] / curve.y[0]
    constant = " (constant)" if abs(growth - 1) < 0.1 else ""
    return f"{curve.y_name}: x{growth:.2f} from {curve.x[0]:g} to {curve.x[-1]:g} {curve.x_name}{constant}."
