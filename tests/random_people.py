"""Random ground truth and predictions with everything that makes COCO's matching hard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from uniformer_pose.evaluation.coco_metrics import CocoGroundTruth
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
