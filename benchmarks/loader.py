"""Training crops a second: bare decoding and warping, plain images, prepared crops; on one core, and by workers.

python benchmarks/loader.py data=coco_256x192 data.prepared=data/coco/prepared
"""

from __future__ import annotations

import sys
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader

from paired import Work, data_module, take_turns, training_config
from uniformer_pose.data.crop_dataset import as_it_is
from uniformer_pose.data.workers import prepare_worker

SAMPLES, ROUNDS, WORKERS = 128, 7, (1, 2)


def main(overrides: list[str]) -> None:
    """Measure the data that the overrides of ``src/train.py`` name."""
    cv2.setNumThreads(0)
    config = training_config(overrides)
    modules = {"plain images": data_module(config, prepared=None)}
    if config.data.prepared is not None:
        modules["prepared crops"] = data_module(config)
    for module in modules.values():
        module.setup("fit")
    datasets = {name: module.train_dataloader().dataset for name, module in modules.items()}
    plain = modules["plain images"]
    people = np.random.default_rng(config.seed).permutation(len(plain.train_people))
    visits = [(int(people[i % len(people)]), i // len(people)) for i in range(SAMPLES)]

    one_core: dict[str, Work] = {"bare imread + warpAffine": bare_loop(plain, visits)}
    one_core |= {name: reading(dataset, visits) for name, dataset in datasets.items()}
    take_turns(one_core, "crops, one core", rounds=ROUNDS)
    batches = {
        f"{name}, {workers} workers": passing(dataset, visits, config.data.batch_size, workers)
        for name, dataset in datasets.items()
        for workers in WORKERS
    }
    take_turns(batches, "crops, batches", rounds=ROUNDS, wall=True)


def bare_loop(plain: Any, visits: list[tuple[int, int]]) -> Work:
    """Decode each person's image, and warp it once to a crop's size: less than any pipeline can do."""
    people, size = plain.train_people, (plain.codec.width, plain.codec.height)
    paths = [str(people.image_path(int(people.image_of_instance[person]))) for person, _ in visits]
    matrix = np.array([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]])

    def work() -> int:
        for path in paths:
            cv2.warpAffine(cv2.imread(path, cv2.IMREAD_COLOR_RGB), matrix, size, flags=cv2.INTER_LINEAR)
        return len(paths)

    return work


def reading(dataset: Any, visits: list[tuple[int, int]], batch_size: int = 32) -> Work:
    """Read them as a worker does, batch by batch, in this process."""
    batches = [visits[start : start + batch_size] for start in range(0, len(visits), batch_size)]
    return lambda: sum(len(dataset.__getitems__(batch)["crops"]) for batch in batches)


def passing(dataset: Any, visits: list[tuple[int, int]], batch_size: int, workers: int) -> Work:
    """Read them as batches, in worker processes that stay."""
    loader: DataLoader[Any] = DataLoader(
        dataset,
        sampler=visits,
        batch_size=min(batch_size, len(visits)),
        num_workers=workers,
        collate_fn=as_it_is,
        worker_init_fn=prepare_worker,
        persistent_workers=True,
    )
    return lambda: sum(len(batch["crops"]) for batch in loader)


if __name__ == "__main__":
    main(sys.argv[1:])
