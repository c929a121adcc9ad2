"""Data workers must not grow: Python objects that they share with the main process are copied as they are touched."""

import gc
import multiprocessing
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.coco import PersonInstances
from uniformer_pose.data.crop_dataset import TrainingCrops, use_one_opencv_thread
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.data.sampling import EpochSampler
from uniformer_pose.skeleton import load_skeleton

pytestmark = pytest.mark.slow

# The long form, by hand: 100_000 people, 20 epochs.
PEOPLE = 2_000
EPOCHS = 5
# From the second epoch to the last; the crops of one epoch are 4.6 MB.
GROWTH_ALLOWED = 3e6


def memory_together(*processes: int) -> int:
    """Bytes that the processes hold together, a page that they share counted once, without files and libraries.

    Not of the worker alone: what the main process frees would seem to grow there, and what the worker copies would not.
    """
    rollups = (Path(f"/proc/{process}/smaps_rollup").read_text() for process in processes)
    return sum(1024 * int(re.findall(r"^Pss_Anon: +(\d+) kB", rollup, re.MULTILINE)[0]) for rollup in rollups)


def many_people_in_one_picture(folder: Path) -> PersonInstances:
    rng = np.random.default_rng(0)
    cv2.imwrite(str(folder / "crowd.png"), rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    keypoints = rng.uniform(10, 50, (PEOPLE, 17, 2)).astype(np.float32)
    return PersonInstances(
        image_folder=folder.resolve(),
        image_ids=np.array([1]),
        file_names=np.array(["crowd.png"]),
        image_heights=np.array([60], np.int32),
        image_widths=np.array([80], np.int32),
        image_of_instance=np.zeros(PEOPLE, np.int32),
        instance_ids=np.arange(PEOPLE),
        boxes_xywh=np.tile([8.0, 8.0, 40.0, 45.0], (PEOPLE, 1)),
        box_scores=np.ones(PEOPLE, np.float32),
        keypoints_in_image=keypoints,
        visibility=np.full((PEOPLE, 17), 2, np.uint8),
    )


def memory_after_each_epoch(dataset: TrainingCrops) -> Iterator[int]:
    sampler = EpochSampler(len(dataset), seed=0)
    loader = DataLoader(
        dataset,
        sampler=sampler,
        batch_size=100,
        num_workers=1,
        persistent_workers=True,
        worker_init_fn=use_one_opencv_thread,
    )
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        seen = sum(len(batch["instance_index"]) for batch in loader)
        assert seen == PEOPLE
        (worker,) = multiprocessing.active_children()
        yield memory_together(os.getpid(), int(worker.pid or 0))


class KeptCrops(TrainingCrops):
    """A data set with a leak: every crop it has made stays."""

    kept: ClassVar[list[np.ndarray]] = []

    def __getitem__(self, index_and_epoch):
        sample = super().__getitem__(index_and_epoch)
        self.kept.append(sample["crops"].copy())
        return sample


@pytest.fixture(autouse=True)
def others_garbage_is_out_of_the_way():
    gc.collect()
    assert not multiprocessing.active_children()


def test_a_workers_memory_stays_flat_over_epochs(tmp_path):
    people = many_people_in_one_picture(tmp_path)
    dataset = TrainingCrops(
        people, load_skeleton("coco_17"), CropSpec(32, 24), geometric=GeometricAugmentation(), seed=0
    )
    memory = list(memory_after_each_epoch(dataset))
    assert max(memory[1:]) - memory[1] < GROWTH_ALLOWED, [round(size / 1e6, 1) for size in memory]


class CollectedCrops(TrainingCrops):
    """A data set whose every epoch has a full garbage collection, as a long training has some."""

    def __getitem__(self, index_and_epoch):
        if index_and_epoch[0] == 0:
            gc.collect()
        return super().__getitem__(index_and_epoch)


def test_a_full_garbage_collection_in_a_worker_copies_nothing_that_is_shared(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.EPOCHS", 2)
    people = many_people_in_one_picture(tmp_path)
    collected = list(memory_after_each_epoch(CollectedCrops(people, load_skeleton("coco_17"), CropSpec(32, 24))))
    monkeypatch.setattr(gc, "freeze", lambda: None)
    copied = list(memory_after_each_epoch(CollectedCrops(people, load_skeleton("coco_17"), CropSpec(32, 24))))
    assert copied[-1] - collected[-1] > 5e6, (collected, copied)


def test_the_measurement_sees_a_leak(tmp_path):
    people = many_people_in_one_picture(tmp_path)
    dataset = KeptCrops(people, load_skeleton("coco_17"), CropSpec(32, 24), seed=0)
    memory = list(memory_after_each_epoch(dataset))
    assert max(memory[1:]) - memory[1] > GROWTH_ALLOWED, [round(size / 1e6, 1) for size in memory]
