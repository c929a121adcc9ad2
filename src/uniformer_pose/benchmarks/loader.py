"""Training crops a second: what the path to a batch adds to decoding and warping alone, and what workers give."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader

from uniformer_pose.benchmarks.measurement import Progress, Side, measure, no_progress
from uniformer_pose.benchmarks.report import BenchmarkResult, Comparison
from uniformer_pose.data.crop_dataset import use_one_opencv_thread
from uniformer_pose.data.crop_geometry import CropGeometry
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.errors import InputError

# MMPose 1.3.2's training pipeline at 256x192 on one core of the machine that this project was developed on.
MMPOSE_CROPS_PER_SECOND = 262.0

Visit = tuple[int, int]  # whom, and in which epoch: what a sampler gives


def benchmark_loader(
    plain: PersonCrops,
    prepared: PersonCrops | None,
    *,
    rounds: int,
    samples: int,
    workers: Sequence[int],
    on_progress: Progress = no_progress,
) -> BenchmarkResult:
    """Compare reading ``samples`` training crops a round: bare OpenCV, ``plain`` images, ``prepared`` crops, by worker.

    The bare sides decode the same images (and warp them by the same matrices) with nothing around it. All sides of the
    first comparison run in this process, on one thread. Both data modules must have been set up for training.
    """
    cv2.setNumThreads(0)
    datasets = {"plain images": training_dataset(plain)}
    if prepared is not None:
        datasets["prepared crops"] = training_dataset(prepared)
    visits = _visits(len(datasets["plain images"]), samples, plain.seed)
    jobs = [(str(path), matrix) for path, matrix in _files_and_matrices(plain, visits)]
    size = (plain.codec.width, plain.codec.height)

    def decode() -> int:
        for path, _ in jobs:
            cv2.imread(path, cv2.IMREAD_COLOR_RGB)
        return len(jobs)

    def decode_and_warp() -> int:
        for path, matrix in jobs:
            cv2.warpAffine(cv2.imread(path, cv2.IMREAD_COLOR_RGB), matrix, size, flags=cv2.INTER_LINEAR)
        return len(jobs)

    def read(dataset: Any) -> int:
        for visit in visits:
            dataset[visit]
        return len(visits)

    single = [Side("bare imread + warpAffine", decode_and_warp), Side("bare imread", decode)]
    single += [Side(name, lambda dataset=dataset: read(dataset)) for name, dataset in datasets.items()]  # type: ignore[misc]
    one_core = measure(single, unit="crops", rounds=rounds, clock="cpu", on_progress=on_progress)
    by_name = {side.name: side for side in one_core}
    result = BenchmarkResult("loader", [Comparison("One core, the same people and draws", one_core)])

    parallel = []
    for name, dataset in datasets.items():
        for number in workers:
            loader = _loader(dataset, visits, batch_size=min(plain.batch_size, samples), num_workers=number)
            parallel.append(Side(f"{name}, {number} workers", lambda loader=loader: _pass_over(loader)))  # type: ignore[misc]
    if parallel:
        batches = measure(parallel, unit="crops", rounds=rounds, clock="wall", on_progress=on_progress)
        result.comparisons.append(Comparison("As batches, by data.num_workers", batches))

    own = by_name["plain images"]
    overhead = 1 / own.ratio_to(by_name["bare imread + warpAffine"]) - 1
    decoding = own.ratio_to(by_name["bare imread"])
    result.facts = {
        "overhead_over_bare_loop": overhead,
        "share_of_decoding": min(decoding, 1.0),
        "plain_times_mmpose_per_core": own.median_rate / MMPOSE_CROPS_PER_SECOND,
        "jpeg_bytes_per_crop": float(np.mean([_bytes(path) for path, _ in jobs])),
    }
    result.verdict.append(
        f"One core gives {own.median_rate:.0f} crops/s from plain images, {overhead:.1%} "
        f"{'more' if overhead >= 0 else 'less'} time than the bare loop; a step of R images/s needs "
        f"R / {own.median_rate:.0f} workers."
    )
    if prepared is None:
        result.verdict.append(
            f"Decoding takes {min(decoding, 1.0):.0%} of a plain crop's time: prepared crops (python src/prepare.py, "
            "then data.prepared=<folder>) save most of it."
        )
    else:
        gain = by_name["prepared crops"].ratio_to(own)
        rate = by_name["prepared crops"].median_rate
        result.facts["prepared_times_plain"] = gain
        result.facts["prepared_times_mmpose_per_core"] = rate / MMPOSE_CROPS_PER_SECOND
        result.verdict.append(f"Prepared crops are {gain:.2f}x the plain path: {rate:.0f} crops/s per core.")
    return result


def training_dataset(data: PersonCrops) -> Any:
    """The data set behind the training loader, indexed by (person, epoch)."""
    with warnings.catch_warnings():  # of more workers than cores: none of them is started
        warnings.filterwarnings("ignore", message=".*worker processes in total.*")
        return data.train_dataloader().dataset


def _visits(people: int, samples: int, seed: int) -> list[Visit]:
    """Whom a shuffled epoch begins with; of few people, several epochs."""
    if samples < 1:
        raise InputError(f"samples={samples}: give at least 1 crop a round")
    visits: list[Visit] = []
    epoch = 0
    while len(visits) < samples:
        order = np.random.default_rng([seed, epoch]).permutation(people)
        visits += [(index, epoch) for index in order.tolist()]
        epoch += 1
    return visits[:samples]


def _files_and_matrices(data: PersonCrops, visits: Sequence[Visit]) -> list[tuple[Any, Any]]:
    people = data.train_people
    if people is None:
        raise RuntimeError("the datamodule has not been set up: call setup() first")
    found = []
    for index, epoch in visits:
        size: dict[str, Any] = {
            "height": data.codec.height,
            "width": data.codec.width,
            "padding": data.box_padding,
            "unbiased": data.codec.unbiased,
        }
        if data.geometric is None:
            geometry = CropGeometry.from_box(people.boxes_xywh[index], **size)
        else:
            geometry = data.geometric(
                np.random.default_rng([data.seed, epoch, index]),
                people.boxes_xywh[index],
                people.keypoints_in_image[index],
                people.visibility[index],
                data.skeleton,
                **size,
            )
        found.append((people.image_path(int(people.image_of_instance[index])), geometry.matrix))
    return found


def _loader(dataset: Any, visits: Sequence[Visit], *, batch_size: int, num_workers: int) -> DataLoader[Any]:
    workers: dict[str, Any] = {}
    if num_workers:  # as in training, but that they need no time limit
        workers = {"worker_init_fn": use_one_opencv_thread, "persistent_workers": True}
    return DataLoader(dataset, sampler=visits, batch_size=batch_size, num_workers=num_workers, **workers)


def _pass_over(loader: DataLoader[Any]) -> int:
    return sum(len(batch["crops"]) for batch in loader)


def _bytes(path: str) -> int:
    return Path(path).stat().st_size
