"""Data workers: what ends them, what they say, and that they do not grow."""

import gc
import multiprocessing
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.coco import PersonInstances
from uniformer_pose.data.crop_dataset import TrainingCrops, as_it_is
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.data.images import ImageSource
from uniformer_pose.data.sampling import EpochSampler
from uniformer_pose.data.workers import outlive_stop_signals, prepare_worker, workers_for
from uniformer_pose.skeleton import load_skeleton

# The long form, by hand: 100_000 people, 20 epochs.
PEOPLE = 2_000
EPOCHS = 5
# From the second epoch to the last; the crops of one epoch are 4.6 MB.
GROWTH_ALLOWED = 3e6


def test_a_worker_outlives_everybodys_signals_but_not_its_parents():
    ready, told = os.pipe()
    worker = os.fork()
    if worker == 0:
        outlive_stop_signals()
        os.write(told, b"x")
        time.sleep(60)
        os._exit(1)
    os.read(ready, 1)
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
        subprocess.run(["kill", f"-{int(number)}", str(worker)], check=True)
    time.sleep(0.2)
    assert os.waitpid(worker, os.WNOHANG) == (0, 0)

    os.kill(worker, signal.SIGTERM)

    assert os.waitpid(worker, 0) == (worker, 0)


def test_a_worker_uses_one_opencv_thread():
    before = cv2.getNumThreads()
    try:
        prepare_worker(0)
        assert cv2.getNumThreads() == 1
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize(
    ("cores", "processes", "on_gpu", "expected"),
    [(2, 1, False, 1), (64, 1, False, 16), (1, 1, True, 1), (16, 1, True, 15), (128, 8, True, 15), (256, 4, True, 16)],
)
def test_the_number_of_workers_goes_by_cores_and_processes(monkeypatch, cores, processes, on_gpu, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(cores)))
    assert workers_for(processes, on_gpu=on_gpu) == expected


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unforeseen_error_names_the_file_and_the_annotation(tiny_coco, monkeypatch, num_workers):
    def no_room(*_arguments, **_options):
        raise MemoryError("no room for the pixels")

    monkeypatch.setattr("uniformer_pose.data.images.decode_image", no_room)
    dataset = TrainingCrops(ImageSource(tiny_coco.read()), tiny_coco.skeleton, CropSpec(64, 48))
    with pytest.raises(MemoryError, match="no room for the pixels") as raised:
        list(DataLoader(dataset, sampler=[(2, 0)], num_workers=num_workers, collate_fn=as_it_is))
    told = str(raised.value) if num_workers else "\n".join(raised.value.__notes__)  # a worker's error is text
    assert re.search(r"while reading .*000000000002\.jpg \(annotation 21 of people\.json\)", told)


def memory_together(*processes: int) -> int:
    """Bytes that the processes hold together, a page that they share counted once, without files and libraries.

    Not of the worker alone: what the main process frees would seem to grow there, and what the worker copies would not.
    """
    rollups = (Path(f"/proc/{process}/smaps_rollup").read_text() for process in processes)
    return sum(1024 * int(re.findall(r"^Pss_Anon: +(\d+) kB", rollup, re.MULTILINE)[0]) for rollup in rollups)


@pytest.fixture
def many_people(tmp_path) -> ImageSource:
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "crowd.png"), rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    people = PersonInstances(
        image_folder=tmp_path.resolve(),
        image_ids=np.array([1]),
        file_names=np.array(["crowd.png"]),
        image_heights=np.array([60], np.int32),
        image_widths=np.array([80], np.int32),
        image_of_instance=np.zeros(PEOPLE, np.int32),
        instance_ids=np.arange(PEOPLE),
        boxes_xywh=np.tile([8.0, 8.0, 40.0, 45.0], (PEOPLE, 1)),
        box_scores=np.ones(PEOPLE, np.float32),
        keypoints_in_image=rng.uniform(10, 50, (PEOPLE, 17, 2)).astype(np.float32),
        visibility=np.full((PEOPLE, 17), 2, np.uint8),
    )
    gc.collect()
    assert not multiprocessing.active_children()
    return ImageSource(people)


def memory_after_each_epoch(dataset: TrainingCrops) -> Iterator[int]:
    sampler = EpochSampler(len(dataset), seed=0)
    loader = DataLoader(
        dataset,
        sampler=sampler,
        batch_size=100,
        num_workers=1,
        persistent_workers=True,
        worker_init_fn=prepare_worker,
        collate_fn=as_it_is,
    )
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        assert sum(len(batch["instance_index"]) for batch in loader) == PEOPLE
        (worker,) = multiprocessing.active_children()
        yield memory_together(os.getpid(), int(worker.pid or 0))


@pytest.mark.slow
def test_a_workers_memory_stays_flat_over_epochs(many_people):
    dataset = TrainingCrops(many_people, load_skeleton("coco_17"), CropSpec(32, 24), geometric=GeometricAugmentation())
    memory = list(memory_after_each_epoch(dataset))
    assert max(memory[1:]) - memory[1] < GROWTH_ALLOWED, [round(size / 1e6, 1) for size in memory]
