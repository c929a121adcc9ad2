"""Object keypoint similarity (OKS), the score of a pose, and the removal of poses that say the same twice.

OKS is the mean over keypoints of ``exp(-d^2 / (2 * (2 * sigma)^2 * area))``, where d is the distance in
pixels, sigma the keypoint's own constant and the area that of the person (cocodataset.org/#keypoints-eval).
Two poses are as alike as a pose and its ground truth would be: 1 when identical, towards 0 far apart.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from uniformer_pose.errors import InputError

ScoreMode = Literal["bbox_keypoint", "bbox", "keypoint", "bbox_rle"]
NmsMode = Literal["oks_nms", "none", "soft_oks_nms"]

Array = npt.NDArray[np.float64]

# COCO counts the 20 best poses of an image; the soft NMS of the reference protocol stops there too.
MAX_POSES_PER_IMAGE = 20

# Upper bound on the numbers held at once while comparing poses (16 MB): an image may have thousands of boxes.
_BLOCK_ELEMENTS = 2_000_000


def keypoint_similarities(keypoints: Array, other_keypoints: Array, areas: Array, sigmas: Array) -> Array:
    """Similarity (..., K) in [0, 1] of each keypoint with its counterpart.

    Keypoints are (..., K, 2) in the same pixels, areas (...) in those pixels squared; leading axes broadcast.
    The mean over the (labelled) keypoints is the OKS.
    """
    # The smallest step above 1 keeps an area of 0 from dividing by zero, as in COCO's own evaluation.
    spread = 2.0 * np.square(2.0 * sigmas) * (areas[..., None] + np.spacing(1.0))
    with np.errstate(over="ignore"):  # a finite but absurd coordinate is simply not similar
        squared_distances = np.square(keypoints - other_keypoints).sum(axis=-1)
        return np.asarray(np.exp(-squared_distances / spread))


def pairwise_oks(keypoints: Array, areas: Array, sigmas: Array) -> Array:
    """OKS (N, N) of every pose with every other; keypoints (N, K, 2), areas (N,).

    All keypoints count. The area of a pair is the mean of its two areas, since neither pose is the truth.
    """
    count, num_keypoints = keypoints.shape[:2]
    oks = np.empty((count, count))
    step = max(1, _BLOCK_ELEMENTS // max(1, count * num_keypoints))
    for start in range(0, count, step):
        rows = slice(start, start + step)
        mean_areas = (areas[rows, None] + areas[None]) / 2
        similarities = keypoint_similarities(keypoints[rows, None], keypoints[None], mean_areas, sigmas)
        oks[rows] = similarities.mean(axis=-1)
    return oks


def pose_scores(
    box_scores: Array,
    keypoint_scores: Array,
    score_mode: ScoreMode = "bbox_keypoint",
    keypoint_score_threshold: float = 0.2,
) -> Array:
    """One score (N,) per pose, from its box's score (N,) and its keypoints' scores (N, K).

    ``bbox_keypoint``: box score times the mean of the keypoint scores above the threshold, 0 where none is
    (the usual protocol: Xiao et al., Simple Baselines, ECCV 2018). ``bbox``: the box score. ``keypoint``:
    mean of all keypoint scores. ``bbox_rle``: box score + mean + maximum of the keypoint scores (Li et al.,
    RLE, ICCV 2021). The threshold matters only to ``bbox_keypoint``.
    """
    require_choice("score_mode", score_mode, ScoreMode)
    if score_mode == "bbox":
        return box_scores.copy()
    if score_mode == "keypoint":
        return np.asarray(keypoint_scores.mean(axis=1))
    if score_mode == "bbox_rle":
        return np.asarray(box_scores + keypoint_scores.mean(axis=1) + keypoint_scores.max(axis=1))
    counted = keypoint_scores > keypoint_score_threshold
    sums = np.where(counted, keypoint_scores, 0.0).sum(axis=1)
    return np.asarray(box_scores * sums / np.maximum(counted.sum(axis=1), 1))


def oks_nms(
    keypoints: Array, scores: Array, areas: Array, sigmas: Array, threshold: float = 0.9
) -> npt.NDArray[np.int64]:
    """Indices of the poses of one image that stay, best first.

    A pose goes when its OKS with a better one that stays is above the threshold. Keypoints (N, K, 2), scores
    and areas (N,). Of equally scored poses the earlier goes first.
    """
    order = np.argsort(-scores, kind="stable")
    if len(order) < 2:
        return order
    too_similar = pairwise_oks(keypoints[order], areas[order], sigmas) > threshold
    np.fill_diagonal(too_similar, False)
    removed = np.zeros(len(order), dtype=bool)
    for row in np.flatnonzero(too_similar.any(axis=1)):
        if not removed[row]:
            removed[row:] |= too_similar[row, row:]
    return np.asarray(order[~removed])


def soft_oks_nms(
    keypoints: Array,
    scores: Array,
    areas: Array,
    sigmas: Array,
    threshold: float = 0.9,
    max_poses: int = MAX_POSES_PER_IMAGE,
) -> npt.NDArray[np.int64]:
    """Indices of at most ``max_poses`` poses of one image, in the order they are picked.

    Each pick is the pose with the best score left; then the scores of the others decay by ``exp(-OKS^2 /
    threshold)`` (Bodla et al., Soft-NMS, ICCV 2017, the Gaussian form). The decayed scores only decide the
    order of picking. Shapes and ties as in ``oks_nms``.
    """
    similarity = pairwise_oks(keypoints, areas, sigmas)
    decayed = scores.astype(np.float64, copy=True)
    left = np.ones(len(scores), dtype=bool)
    picked = np.zeros(min(max_poses, len(scores)), dtype=np.int64)
    for turn in range(len(picked)):
        best = int(np.argmax(np.where(left, decayed, -np.inf)))
        picked[turn], left[best] = best, False
        decayed *= np.exp(-np.square(similarity[best]) / threshold)
    return picked


def require_choice(name: str, value: object, choices: Any) -> None:
    """Raise ``InputError`` unless the value is one that the ``Literal`` type lists."""
    if value not in get_args(choices):
        raise InputError(f"{name} is {value!r}; choose one of {', '.join(get_args(choices))}")
