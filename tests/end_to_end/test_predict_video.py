"""Three people in a video keep their numbers, and memory stays flat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from pose_walkers import FIGURE, HEIGHT, WALKERS, WIDTH, box_of

from uniformer_pose.skeleton import load_skeleton
from uniformer_pose.synthetic import SyntheticSettings
from uniformer_pose.synthetic.scene import render_scene

HERE = Path(__file__).parent


def write_walkers(path: Path, frames: int) -> None:
    """A video of three rendered people who slide over a backdrop."""
    figures = [figure(seed) for seed in range(3)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in range(frames):
            image = np.full((HEIGHT, WIDTH, 3), (90, 110, 90), dtype=np.uint8)
            for bit in range(12):
                image[:8, 8 * bit : 8 * bit + 8] = 255 * (frame >> bit & 1)
            for walker, picture in enumerate(figures):
                left, top, width, height = (int(value) for value in box_of(walker, frame))
                image[top : top + height, left : left + width] = picture
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def figure(seed: int) -> np.ndarray:
    """A rendered person, cut out by the annotated box."""
    settings = SyntheticSettings(
        *(1, 0, 240, 240, (1, 1), (0.7, 0.8), 0.0, 0.0),
        poses="frontal",
        keypoint_names=load_skeleton("coco_17").keypoint_names,
    )
    scene = render_scene(np.random.default_rng(seed), settings)
    left, top, width, height = (int(value) for value in scene.people[0].box_xywh)
    return cv2.resize(scene.image[top : top + height, left : left + width], FIGURE[::-1])


def command(video: Path, checkpoint: Path, output: Path) -> Sequence[str]:
    return [sys.executable, str(HERE / "pose_walkers.py"), str(video), str(checkpoint), str(output)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1] / "src")}


@pytest.mark.slow
def test_three_people_keep_their_numbers(trained_run: Path, tmp_path: Path) -> None:
    checkpoint, video = trained_run / "checkpoints" / "best.ckpt", tmp_path / "walkers.mp4"
    write_walkers(video, 300)
    straight = subprocess.run(
        command(video, checkpoint, tmp_path / "straight"), env=environment(), capture_output=True, text=True, check=True
    )
    seconds, peak, failed = (float(value) for value in straight.stdout.split())
    sys.stdout.write(f"\n300 frames, three people, flip test: {300 / seconds:.1f} frames/s, peak {peak:.0f} MB\n")
    assert failed == 0
    poses = json.loads((tmp_path / "straight" / "poses.json").read_text())
    assert len(poses) == 900
    ids_of_walkers = [set() for _ in WALKERS]
    for pose in poses:
        distances = [abs(pose["bbox"][0] - box_of(walker, pose["frame"])[0]) for walker in range(3)]
        ids_of_walkers[int(np.argmin(distances))].add(pose["track_id"])
    assert sorted(map(len, ids_of_walkers)) == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.long
def test_memory_does_not_grow_with_the_length_of_a_video(trained_run: Path, tmp_path: Path) -> None:
    peaks = []
    for frames in (60, 240):
        video = tmp_path / f"{frames}.mp4"
        write_walkers(video, frames)
        finished = subprocess.run(
            command(video, trained_run / "checkpoints" / "best.ckpt", tmp_path / str(frames)),
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(float(finished.stdout.split()[1]))
    sys.stdout.write(f"\npeak memory of 60 and 240 frames: {peaks[0]:.0f} and {peaks[1]:.0f} MB\n")
    assert peaks[1] < peaks[0] + 30
