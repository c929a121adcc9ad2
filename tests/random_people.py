"""Random ground truth and predictions with everything that makes COCO's matching hard, and pycocotools as judge."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from uniformer_pose.evaluation.coco_metrics import METRIC_NAMES
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.skeleton import load_skeleton


def random_people(
    seed: int, *, num_images: int, most_people: int = 5, poses_per_image: int = 8
) -> tuple[CocoGroundTruth, PosePredictions, np.ndarray]:
    """Ground truth, predictions and a score for each.

    There are crowds, people without labelled keypoints or with a count that contradicts them, areas of 0 and at the
    very ends of COCO's ranges, twins that tie in OKS, equal scores, images with poses and without people and the other
    way round, poses that hit exactly, nearly, and not at all, and some at absurd places.
    """
    rng = np.random.default_rng(seed)
    skeleton = load_skeleton("coco_17")
    image_ids = rng.permutation(np.arange(num_images) * 3 + 1)
    image_of_person = np.repeat(image_ids, rng.integers(0, most_people + 1, num_images))
    image_of_person = rng.permutation(image_of_person)
    count = len(image_of_person)
    sides = rng.uniform(10, 300, count)
    areas = sides**2
    chance = rng.random(count)
    areas[chance < 0.3] = rng.choice([0.0, 32.0**2, 64.0**2, 96.0**2, 128.0**2], (chance < 0.3).sum())
    corners = rng.uniform(0, 400, (count, 2))
    keypoints = corners[:, None] + rng.uniform(0, 1, (count, skeleton.num_keypoints, 2)) * sides[:, None, None]
    visibility = rng.choice([0.0, 1.0, 2.0], (count, skeleton.num_keypoints), p=[0.4, 0.2, 0.4])
    visibility[rng.random(count) < 0.2] = 0
    labelled_counts = (visibility > 0).sum(axis=1)
    labelled_counts[rng.random(count) < 0.05] = 0
    if count > 1:  # a twin, as some files have them
        keypoints[1], visibility[1], areas[1] = keypoints[0], visibility[0], areas[0]
        labelled_counts[1], image_of_person[1] = labelled_counts[0], image_of_person[0]
    ground_truth = CocoGroundTruth(
        file=Path("random.json"),
        skeleton=skeleton,
        category_id=1,
        listed_image_ids=np.sort(image_ids),
        ids=rng.permutation(count) + 1,
        image_ids=image_of_person,
        boxes_xywh=np.column_stack([corners, sides, sides]),
        areas=areas,
        keypoints_in_image=keypoints.round(1),
        visibility=visibility,
        labelled_counts=labelled_counts,
        is_crowd=rng.random(count) < 0.1,
        category_ids=np.ones(count, dtype=np.int64),
        crowd_indices=np.full(num_images, np.nan),
    )
    num_poses = num_images * poses_per_image
    image_of_pose = rng.choice(image_ids, num_poses)
    shown = np.zeros((num_poses, skeleton.num_keypoints, 2))
    for row, image_id in enumerate(image_of_pose):
        people = np.flatnonzero(image_of_person == image_id)
        if len(people) and rng.random() < 0.9:
            person = rng.choice(people)
            error = rng.choice([0.0, 0.02, 0.1, 0.3]) * sides[person]
            shown[row] = ground_truth.keypoints_in_image[person] + rng.normal(0, 1, shown[row].shape) * error
        else:
            shown[row] = rng.uniform(0, 1000, shown[row].shape) if rng.random() < 0.9 else 1e200
    sizes = rng.choice([20.0, 32.0, 64.0, 96.0, 200.0], num_poses)
    predictions = PosePredictions(
        ids=np.arange(num_poses),
        image_ids=image_of_pose,
        boxes_xywh=np.column_stack([rng.uniform(0, 400, (num_poses, 2)), sizes, sizes]),
        box_scores=rng.uniform(0.1, 1, num_poses).round(1),
        areas=sizes**2 * 1.5,
        keypoints_in_image=shown,
        keypoint_scores=rng.uniform(0, 1, shown.shape[:2]).round(1),
    )
    return ground_truth, predictions, rng.uniform(0, 1, num_poses).round(1)


def one_keypoint(ground_truth: CocoGroundTruth, index: int) -> CocoGroundTruth:
    """The ground truth with this keypoint alone, as a file that was annotated so would hold it."""
    skeleton, one = ground_truth.skeleton, slice(index, index + 1)
    return replace(
        ground_truth,
        skeleton=replace(
            skeleton,
            name=skeleton.keypoint_names[index],
            keypoint_names=skeleton.keypoint_names[one],
            sigmas=skeleton.sigmas[one],
            colours=skeleton.colours[one],
            left_right_pairs=(),
            upper_body=(),
            lower_body=(),
            limbs=(),
        ),
        keypoints_in_image=ground_truth.keypoints_in_image[:, one],
        visibility=ground_truth.visibility[:, one],
        labelled_counts=(ground_truth.visibility[:, one] > 0).sum(axis=1),
    )


def pycocotools_metrics(
    ground_truth: CocoGroundTruth,
    poses: PosePredictions,
    scores: np.ndarray,
    area_range: tuple[float, float] | None = None,
) -> dict[str, float]:
    """What ``array_metrics`` must give, by pycocotools itself; with one range of areas, its AP, AP50, AP75 and AR."""
    detections = [
        {"id": n + 1, "image_id": image, "category_id": 1, "keypoints": flat.ravel(), "score": score, "area": area}
        for n, (image, flat, score, area) in enumerate(
            zip(
                poses.image_ids.tolist(),
                np.concatenate([poses.keypoints_in_image, poses.keypoint_scores[..., None]], axis=-1),
                scores.tolist(),
                poses.boxes_xywh[:, 2:].prod(axis=1).tolist(),
                strict=True,
            )
        )
    ]
    # It prints its progress and a table, and squares distances that may be absurd.
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(over="ignore"):
        evaluation = COCOeval(
            _coco(ground_truth, _annotations(ground_truth)), _coco(ground_truth, detections), "keypoints"
        )
        evaluation.params.kpt_oks_sigmas = ground_truth.skeleton.oks_sigmas
        if area_range is not None:
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [list(area_range)], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
        if area_range is None:
            evaluation.summarize()
            return {name: float(value) for name, value in zip(METRIC_NAMES, evaluation.stats, strict=True)}
    precision, recall = evaluation.eval["precision"][..., 0, 0, 0], evaluation.eval["recall"][..., 0, 0, 0]
    values = {"AP": precision, "AP50": precision[0], "AP75": precision[5], "AR": recall}
    return {name: float(value.mean()) for name, value in values.items()}


def _annotations(ground_truth: CocoGroundTruth) -> list[dict[str, Any]]:
    keypoints = np.concatenate([ground_truth.keypoints_in_image, ground_truth.visibility[..., None]], axis=-1)
    columns = {
        "id": ground_truth.ids.tolist(),
        "image_id": ground_truth.image_ids.tolist(),
        "bbox": ground_truth.boxes_xywh.tolist(),
        "area": ground_truth.areas.tolist(),
        "keypoints": [rows.ravel() for rows in keypoints],
        "num_keypoints": ground_truth.labelled_counts.tolist(),
        "iscrowd": ground_truth.is_crowd.astype(int).tolist(),
    }
    rows = zip(*columns.values(), strict=True)
    return [{"category_id": 1, **dict(zip(columns, row, strict=True))} for row in rows]


def _coco(ground_truth: CocoGroundTruth, annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    images = [{"id": image_id} for image_id in ground_truth.listed_image_ids.tolist()]
    coco.dataset = {"images": images, "categories": [{"id": 1, "name": "person"}], "annotations": annotations}
    coco.createIndex()
    return coco


def poses_of_records(records: list[dict[str, Any]]) -> PosePredictions:
    """Predictions as the reference files hold them, before rescoring and NMS."""
    names = ("id", "image_id", "bbox_xywh", "bbox_score", "scale_wh_aspect_fixed", "keypoints", "keypoint_scores")
    ids, images, boxes, box_scores, extents, keypoints, scores = (
        np.array([record[name] for record in records]) for name in names
    )
    return PosePredictions(ids, images, boxes, box_scores, extents.prod(axis=1), keypoints, scores)


def as_predicted(ground_truth: CocoGroundTruth, rows: np.ndarray | None = None) -> PosePredictions:
    """Some people of the ground truth, or all, written as if they had been predicted."""
    rows = np.arange(len(ground_truth.ids)) if rows is None else rows
    return PosePredictions(
        ids=np.arange(len(rows)),
        image_ids=ground_truth.image_ids[rows],
        boxes_xywh=ground_truth.boxes_xywh[rows],
        box_scores=np.linspace(1.0, 0.5, len(rows)),
        areas=np.maximum(ground_truth.boxes_xywh[rows, 2:].prod(axis=1), 1.0),
        keypoints_in_image=ground_truth.keypoints_in_image[rows],
        keypoint_scores=np.full((len(rows), ground_truth.skeleton.num_keypoints), 0.9),
    )
