"""Poses the video of three walkers as src/predict.py does, with a detector that knows where they are.

    python pose_walkers.py <video> <checkpoint> <output folder>

Prints frames a second and the peak memory of the process in MB.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from uniformer_pose import PoseEstimator
from uniformer_pose.prediction.boxes import DetectedBoxes, PersonBoxes
from uniformer_pose.prediction.output import PoseOutput
from uniformer_pose.prediction.pose_files import PoseFinder, pose_videos
from uniformer_pose.prediction.sources import find_source

Image = npt.NDArray[np.uint8]

HEIGHT, WIDTH = 240, 480
FIGURE = (120, 60)  # height and width of a walker's box
# Left edge at frame 0, and pixels a frame: they stay apart.
WALKERS = ((20, 0.35), (190, -0.1), (400, -0.25))


def box_of(walker: int, frame: int) -> tuple[float, float, float, float]:
    start, speed = WALKERS[walker]
    return (round(start + speed * frame), 90 + 4 * walker, FIGURE[1], FIGURE[0])


def frame_number(image: Image) -> int:
    """The number that is painted into the first rows, one bit a square, so that coding does not lose it."""
    bits = image[2:6, : 8 * 12].mean(axis=(0, 2)).reshape(12, 8).mean(axis=1) > 128
    return int(sum(1 << index for index, bit in enumerate(bits) if bit))


def find_walkers(images: Sequence[Image]) -> list[PersonBoxes]:
    """Everybody's box, shaken by a pixel, in an order of its own in each frame."""
    found = []
    for image in images:
        frame = frame_number(image)
        random = np.random.default_rng(frame)
        boxes = np.array([box_of(walker, frame) for walker in random.permutation(3)], dtype=np.float64)
        found.append(PersonBoxes(boxes + random.normal(0, 1, boxes.shape), random.uniform(0.8, 1.0, 3)))
    return found


def main() -> None:
    source, checkpoint, output = sys.argv[1:]
    estimator = PoseEstimator(checkpoint, device="cpu", announce=len)
    started = time.monotonic()
    out = PoseOutput(Path(output), find_source(source).items, {})
    finder = PoseFinder(estimator, DetectedBoxes(find_walkers, nms_iou=1.0), flip_test=True)
    failed, _ = pose_videos(out.unfinished("video"), finder, out, smooth=True)
    out.write_results(estimator.skeleton)
    seconds, peak = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"{seconds:.1f} {peak:.0f} {len(failed)}\n")


if __name__ == "__main__":
    main()
