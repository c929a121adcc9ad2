from __future__ import annotations

import numpy as np
import torch
from small_training import small_model

from uniformer_pose.benchmarks.inference import (
    PlainEstimator,
    benchmark_inference,
    pictures_of,
    random_pictures,
)
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.evaluation.coco_metrics import CocoGroundTruth
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.prediction.estimator import PoseEstimator

CPU = torch.device("cpu")


def test_the_plain_estimator_finds_what_the_estimator_finds() -> None:
    model, given = small_model(), random_pictures(3, height=90, width=120)

    keypoints, scores = PlainEstimator(model, CPU)(given.pictures, given.boxes)

    people = PoseEstimator(model, device="cpu", engine="eager").predict_batch(
        given.pictures, [box[None] for box in given.boxes]
    )
    np.testing.assert_allclose(scores, np.concatenate([each.scores for each in people]), atol=1e-5)
    assert keypoints.shape == (3, 17, 2)
    assert np.median(np.abs(keypoints - np.concatenate([each.keypoints for each in people]))) < 0.01


def test_speed_deviation_and_change_of_ap_are_stated(coco: PersonCrops) -> None:
    assert coco.val_people is not None
    model = small_model()

    result = benchmark_inference(
        model,
        pictures_of(coco.val_people, 4),
        {"estimator": lambda size: PoseEstimator(model, device="cpu", batch_size=size, engine="eager")},
        device=CPU,
        rounds=1,
        batch_sizes=[1, 2],
        clock="cpu",
        protocol=EvaluationProtocol(flip_test=False),
        ground_truth=CocoGroundTruth.load(coco.val_annotation_file, model.skeleton),
    )

    assert len(result.comparisons) == 2
    assert result.facts["mean_keypoint_deviation_pixels, estimator"] < 5
    assert abs(result.facts["AP_change, estimator"]) < 0.1
    assert result.facts["speedup_at_batch_2, estimator"] > 0


def test_pictures_are_whole_images_people(coco: PersonCrops) -> None:
    assert coco.val_people is not None
    first = int(coco.val_people.boxes_per_image[0])

    given = pictures_of(coco.val_people, first)

    assert len(given.pictures) == len(given.boxes) == first
    assert given.people is not None
    assert given.people.num_images == 1
