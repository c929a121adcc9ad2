"""Poses a second: ``PoseEstimator`` against the plain network, and how far its keypoints are from the plain ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from uniformer_pose.benchmarks.measurement import Clock, Measurement, Progress, Side, measure, no_progress
from uniformer_pose.benchmarks.report import BenchmarkResult, Comparison
from uniformer_pose.benchmarks.roofline import count_work, device_peak
from uniformer_pose.data.coco_annotations import PersonInstances
from uniformer_pose.data.crop_geometry import CropGeometry
from uniformer_pose.data.images import read_image_of
from uniformer_pose.data.tensors import CropNormalization
from uniformer_pose.evaluation.coco_metrics import CocoGroundTruth, protocol_metrics
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.prediction.estimator import PoseEstimator
from uniformer_pose.saved_model import SavedModel

FloatArray = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]
Poses = tuple[FloatArray, FloatArray]
"""(N, K, 2) keypoints in image pixels and (N, K) scores."""


@dataclass(frozen=True)
class BoxedPictures:
    """Pictures with one box (xywh, image pixels) each, and the instances that they are, where known."""

    pictures: list[Image]
    boxes: FloatArray
    people: PersonInstances | None = None


def random_pictures(number: int, *, height: int = 480, width: int = 640, seed: int = 0) -> BoxedPictures:
    """Noise with a box in its middle: for speed alone."""
    rng = np.random.default_rng(seed)
    pictures = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(number)]
    boxes = np.tile([width * 0.3, height * 0.1, width * 0.4, height * 0.8], (number, 1))
    return BoxedPictures(pictures, boxes)


def pictures_of(people: PersonInstances, most: int) -> BoxedPictures:
    """The first ``most`` evaluation instances, a picture for each; all of an image or none."""
    kept = int(np.searchsorted(np.cumsum(people.boxes_per_image), most, side="right"))
    people = people.first_images(max(kept, 1))
    by_image = [read_image_of(people, index).pixels for index in range(people.num_images)]
    return BoxedPictures([by_image[index] for index in people.image_of_instance], people.boxes_xywh, people)


class PlainEstimator:
    """What a script would do: crop, normalise, the eager fp32 network as it was trained, decode."""

    def __init__(self, model: SavedModel, device: torch.device) -> None:
        self.model = model
        self.network = copy.deepcopy(model.network).float().eval().to(device).to(memory_format=torch.contiguous_format)
        self.normalize = CropNormalization(model.mean, model.std).to(device)
        self.device = device

    def __call__(self, pictures: Sequence[Image], boxes: FloatArray) -> Poses:
        """One pass of the network over all pictures."""
        codec = self.model.codec
        geometries = [
            CropGeometry.from_box(
                box, height=codec.height, width=codec.width, padding=self.model.box_padding, unbiased=codec.unbiased
            )
            for box in boxes
        ]
        crops = np.stack([geometry.crop(picture) for geometry, picture in zip(geometries, pictures, strict=True)])
        with torch.no_grad():
            heatmaps = self.network(self.normalize(torch.from_numpy(crops).to(self.device)).contiguous())
            keypoints, scores = codec.decode(heatmaps)
        in_crop = keypoints.double().cpu().numpy()
        in_image = np.stack([geometry.to_image(points) for geometry, points in zip(geometries, in_crop, strict=True)])
        return in_image, scores.double().cpu().numpy()


def benchmark_inference(
    model: SavedModel,
    given: BoxedPictures,
    make_estimators: dict[str, Callable[[int], PoseEstimator]],
    *,
    device: torch.device,
    rounds: int,
    batch_sizes: Sequence[int],
    clock: Clock,
    protocol: EvaluationProtocol,
    ground_truth: CocoGroundTruth | None = None,
    on_progress: Progress = no_progress,
) -> BenchmarkResult:
    """Compare estimators with the plain network, from pixels to keypoints in the picture, by batch size.

    ``make_estimators`` gives an estimator for a batch size, by name. With ``ground_truth`` the APs of the plain and
    of each estimator's poses are set beside each other. The deviation of keypoints means little for untrained weights,
    whose heatmaps have no peaks.
    """
    cv2.setNumThreads(0)
    plain = PlainEstimator(model, device)
    result = BenchmarkResult("inference")
    estimators: dict[str, PoseEstimator] = {}
    for batch_size in batch_sizes:
        estimators = {name: make(batch_size) for name, make in make_estimators.items()}
        number = min(max(batch_size, len(given.pictures) // batch_size * batch_size), len(given.pictures))
        groups = [slice(start, start + batch_size) for start in range(0, number, batch_size)]

        def run_plain(groups: Sequence[slice] = groups) -> int:
            return sum(len(plain(given.pictures[rows], given.boxes[rows])[0]) for rows in groups)

        def run(estimator: PoseEstimator, groups: Sequence[slice] = groups) -> int:
            return sum(len(_estimated(estimator, given, rows)[0]) for rows in groups)

        sides = [Side("plain eager fp32", run_plain)]
        sides += [Side(name, lambda e=estimator: run(e)) for name, estimator in estimators.items()]  # type: ignore[misc]
        measured = measure(sides, unit="poses", rounds=rounds, clock=clock, warmup=1, on_progress=on_progress)
        result.comparisons.append(Comparison(f"Inference, batch {batch_size}", measured))
        for side in measured[1:]:
            speedup = side.ratio_to(measured[0])
            result.facts[f"speedup_at_batch_{batch_size}, {side.name}"] = speedup
            result.verdict.append(
                f"Batch {batch_size}: {side.name} {side.median_rate:.4g} poses/s, {speedup:.2f}x the plain network, "
                f"{1000 * batch_size / side.median_rate:.4g} ms a batch."
            )
    result.facts.update(_roofline_facts(plain, given, result.comparisons[-1].sides, batch_sizes[-1]))
    reference = _in_groups(plain, given, batch_sizes[-1])
    for name, estimator in estimators.items():
        found = _estimated(estimator, given, slice(None))
        distances = np.linalg.norm(found[0] - reference[0], axis=2)
        result.facts[f"mean_keypoint_deviation_pixels, {name}"] = float(distances.mean())
        result.facts[f"largest_keypoint_deviation_pixels, {name}"] = float(distances.max())
        sentence = f"{name}: keypoints {distances.mean():.2g} image pixels from the plain ones on average"
        if ground_truth is not None and given.people is not None:
            before, after = (_average_precision(poses, given, ground_truth, protocol) for poses in (reference, found))
            result.facts["AP, plain"] = before
            result.facts[f"AP_change, {name}"] = after - before
            sentence += f", AP {before:.4f} becomes {after:.4f}"
        result.verdict.append(f"{sentence}.")
    return result


def _estimated(estimator: PoseEstimator, given: BoxedPictures, rows: slice) -> Poses:
    people = estimator.predict_batch(given.pictures[rows], [box[None] for box in given.boxes[rows]])
    return np.concatenate([each.keypoints for each in people]), np.concatenate([each.scores for each in people])


def _in_groups(plain: PlainEstimator, given: BoxedPictures, size: int) -> Poses:
    parts = [
        plain(given.pictures[start : start + size], given.boxes[start : start + size])
        for start in range(0, len(given.pictures), size)
    ]
    return np.concatenate([keypoints for keypoints, _ in parts]), np.concatenate([scores for _, scores in parts])


def _roofline_facts(
    plain: PlainEstimator, given: BoxedPictures, measured: Sequence[Measurement], batch_size: int
) -> dict[str, float]:
    rows = slice(0, batch_size)
    work = count_work(lambda: plain(given.pictures[rows], given.boxes[rows]))
    number = len(given.pictures[rows])
    facts = {"gigaflops_per_pose": work.flops / number / 1e9}
    peak = device_peak(plain.device, "fp32")
    if peak is not None:
        facts["peak_gigaflops_per_second"] = peak.flops_per_second / 1e9
        for side in measured:
            rate = work.flops / number * side.median_rate
            facts[f"compute_fraction_of_fp32_peak, {side.name}"] = rate / peak.flops_per_second
    return facts


def _average_precision(
    poses: Poses, given: BoxedPictures, ground_truth: CocoGroundTruth, protocol: EvaluationProtocol
) -> float:
    people = given.people
    if people is None:
        raise ValueError("pictures without annotations have no AP")
    predictions = PosePredictions(
        ids=people.instance_ids,
        image_ids=people.image_ids[people.image_of_instance],
        boxes_xywh=people.boxes_xywh,
        box_scores=people.box_scores.astype(np.float64),
        areas=people.boxes_xywh[:, 2:].prod(axis=1),
        keypoints_in_image=poses[0],
        keypoint_scores=poses[1],
    )
    return protocol_metrics(ground_truth.restricted_to(people.image_ids), predictions, protocol)["AP"]
