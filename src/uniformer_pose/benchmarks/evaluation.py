"""Evaluation crops a second by the number of boxes an image: decoded once, against decoded for every box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from uniformer_pose.benchmarks.measurement import Progress, Side, measure, no_progress
from uniformer_pose.benchmarks.report import BenchmarkResult, Comparison
from uniformer_pose.data.coco_annotations import PersonInstances
from uniformer_pose.data.crop_dataset import EvaluationImages
from uniformer_pose.data.crop_geometry import CropGeometry
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.data.sampling import pack_images
from uniformer_pose.errors import InputError


def benchmark_evaluation(
    data: PersonCrops,
    *,
    rounds: int,
    images: int,
    people_per_image: Sequence[int],
    on_progress: Progress = no_progress,
) -> BenchmarkResult:
    """Compare the crops of ``images`` evaluation images, one thread, with so many boxes in each.

    Beside it a stand-in for pipelines that treat each box as a sample of its own, as MMPose's does: the same crops with
    the image read and decoded for every one of them. ``data`` must have been set up for validation; its boxes are
    moved and scaled copies of those that an image has, as a detector's many guesses are.
    """
    cv2.setNumThreads(0)
    people = data.val_people
    if people is None:
        raise RuntimeError("the datamodule has not been set up: call setup() first")
    result = BenchmarkResult("evaluation")
    for number in people_per_image:
        many = with_boxes_per_image(people.first_images(min(images, people.num_images)), number, seed=data.seed)
        dataset = EvaluationImages(
            many,
            height=data.codec.height,
            width=data.codec.width,
            padding=data.box_padding,
            unbiased=data.codec.unbiased,
        )
        batches = pack_images(many.boxes_per_image, data.eval_batch_size)
        geometries = [
            (str(many.image_path(int(image))), CropGeometry.from_box(box, **_size(data)).matrix)
            for image, box in zip(many.image_of_instance, many.boxes_xywh, strict=True)
        ]

        def per_box(geometries: Sequence[tuple[str, Any]] = geometries) -> int:
            for path, matrix in geometries:
                image = cv2.imread(path, cv2.IMREAD_COLOR_RGB)
                cv2.warpAffine(image, matrix, (data.codec.width, data.codec.height), flags=cv2.INTER_LINEAR)
            return len(geometries)

        def per_image(dataset: Any = dataset, batches: Sequence[Sequence[int]] = batches) -> int:
            return sum(len(dataset.__getitems__(batch)["crops"]) for batch in batches)

        sides = [Side("decoded for every box (stand-in)", per_box), Side("decoded once, as batches", per_image)]
        measured = measure(sides, unit="crops", rounds=rounds, clock="cpu", on_progress=on_progress)
        result.comparisons.append(Comparison(f"{number} boxes an image, one core", measured))
        gain = measured[1].ratio_to(measured[0])
        result.facts[f"gain_at_{number}_boxes"] = gain
        result.facts[f"batches_filled_at_{number}_boxes"] = len(many) / (len(batches) * data.eval_batch_size)
        result.verdict.append(
            f"{number} boxes an image: {gain:.1f}x the path that decodes for every box, "
            f"{measured[1].median_rate:.0f} crops/s."
        )
    return result


def with_boxes_per_image(people: PersonInstances, number: int, *, seed: int) -> PersonInstances:
    """The same images with ``number`` boxes in each: first its own, then copies moved and scaled by up to a fifth."""
    if number < 1:
        raise InputError(f"people_per_image={number}: at least 1 box an image")
    rng = np.random.default_rng([seed, number])
    starts = np.concatenate([[0], np.cumsum(people.boxes_per_image)])
    source = np.concatenate([first + np.arange(number) % (last - first) for first, last in pairwise(starts)])
    is_copy = np.tile(np.arange(number), people.num_images) >= np.repeat(people.boxes_per_image, number)
    boxes = people.boxes_xywh[source].copy()
    change = rng.uniform(-0.2, 0.2, boxes.shape) * is_copy[:, None]
    boxes[:, :2] += change[:, :2] * boxes[:, 2:]
    boxes[:, 2:] *= 1 + change[:, 2:]
    return replace(
        people,
        image_of_instance=np.repeat(np.arange(people.num_images, dtype=np.int32), number),
        instance_ids=np.arange(len(source), dtype=np.int64),
        boxes_xywh=boxes,
        box_scores=people.box_scores[source],
        keypoints_in_image=people.keypoints_in_image[source],
        visibility=people.visibility[source],
    )


def _size(data: PersonCrops) -> dict[str, Any]:
    return {
        "height": data.codec.height,
        "width": data.codec.width,
        "padding": data.box_padding,
        "unbiased": data.codec.unbiased,
    }
