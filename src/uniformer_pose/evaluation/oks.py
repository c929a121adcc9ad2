"""Object keypoint similarity (OKS), the score of a pose, and the removal of poses that say the same twice.

OKS is the mean over keypoints of ``exp(-d^2 / (2 * (2 * sigma)^2 * area))``, where d is the distance in
pixels, sigma the keypoint's own constant and the area that of the person (cocodataset.org/#keypoints-eval).
Two poses are as alike as a pose and its ground truth would be: 1 when identical, towards 0 far apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from uniformer_pose.evaluation.protocol import ScoreMode

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# COCO counts the 20 best poses of an image; the soft NMS of the reference protocol stops there too.
MAX_POSES_PER_IMAGE = 20

# Upper bound on the numbers of one array while comparing poses (4 MB): an image may have thousands of people, and what
# fits into a processor's cache is compared sooner.
BLOCK_ELEMENTS = 500_000

# Enough to tell most poses apart.
_FIRST_KEYPOINTS = 4


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
    keypoints: Array, scores: Array, areas: Array, sigmas: Array, threshold: float, image_ids: IntArray
) -> IntArray:
    """Indices of the poses that stay: image by image as the ids rise, best first within an image.

    A pose goes when its OKS with a better one of its image that stays is above the threshold; all keypoints count, and
    the area is the mean of the two. Keypoints (N, K, 2), scores, areas and ``image_ids`` (N,). Of equally scored poses
    the earlier goes first.
    """
    order = np.lexsort((-scores, image_ids))
    removed = np.zeros(len(order), dtype=bool)
    for better, worse in _pairs_above(keypoints[order], areas[order], image_ids[order], sigmas, threshold):
        starts = np.flatnonzero(np.diff(better, prepend=-1)).tolist()
        for start, stop in pairwise([*starts, len(better)]):
            if not removed[better[start]]:
                removed[worse[start:stop]] = True
    return np.asarray(order[~removed])


def _pairs_above(
    keypoints: Array, areas: Array, images: IntArray, sigmas: Array, threshold: float
) -> Iterator[tuple[IntArray, IntArray]]:
    """Both poses of every pair of one image whose OKS is above the threshold, some at a time, in the first's order.

    ``images`` (N,) does not fall. The pairs of one first pose come together. A few keypoints tell most pairs apart, so
    the others are compared only where the OKS could still be high enough.
    """
    count, num_keypoints = keypoints.shape[:2]
    followers = np.searchsorted(images, images, side="right") - np.arange(count) - 1
    few = min(_FIRST_KEYPOINTS, num_keypoints)
    for first, place in pairs_in_blocks(followers, numbers_per_pair=2 * few):
        second = first + 1 + place
        mean_areas = (areas[first] + areas[second]) / 2
        some = keypoint_similarities(keypoints[first, :few], keypoints[second, :few], mean_areas, sigmas[:few])
        # With all other keypoints in the same place; the small number is more than the rounding.
        hopeful = (some.sum(axis=-1) + num_keypoints - few) / num_keypoints > threshold - 1e-9
        first, second, mean_areas = first[hopeful], second[hopeful], mean_areas[hopeful]
        alike = keypoint_similarities(keypoints[first], keypoints[second], mean_areas, sigmas).mean(axis=-1) > threshold
        yield first[alike], second[alike]


def pairs_in_blocks(partners: IntArray, *, numbers_per_pair: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Rows that each pair with some ``partners`` (N,): the row of every pair, and which of its partners, from 0.

    So many rows at a time that comparing their pairs takes ``BLOCK_ELEMENTS`` numbers, and at least one.
    """
    ends = np.cumsum(partners)
    firsts = ends - partners
    pairs = max(1, BLOCK_ELEMENTS // max(1, numbers_per_pair))
    start = 0
    while start < len(partners):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + pairs, side="right")))
        row = np.repeat(np.arange(start, stop), partners[start:stop])
        yield row, np.arange(len(row)) + done - firsts[row]
        start = stop


def soft_oks_nms(
    keypoints: Array, scores: Array, areas: Array, sigmas: Array, threshold: float, image_ids: IntArray
) -> IntArray:
    """Indices of at most 20 poses of each image, image by image, in the order they are picked.

    Each pick is the pose with the best score left; then the scores of the others decay by ``exp(-OKS^2 /
    threshold)`` (Bodla et al., Soft-NMS, ICCV 2017, the Gaussian form). The decayed scores only decide the
    order of picking. Shapes, OKS and ties as in ``oks_nms``.
    """
    order = np.argsort(image_ids, kind="stable")
    kept = []
    for rows in np.split(order, np.flatnonzero(np.diff(image_ids[order])) + 1):
        decayed, left = scores[rows].astype(np.float64), np.ones(len(rows), dtype=bool)
        for _ in range(min(MAX_POSES_PER_IMAGE, len(rows))):
            best = int(np.argmax(np.where(left, decayed, -np.inf)))
            left[best] = False
            kept.append(rows[best])
            mean_areas = (areas[rows[best]] + areas[rows]) / 2
            oks = keypoint_similarities(keypoints[rows[best]], keypoints[rows], mean_areas, sigmas).mean(axis=-1)
            decayed *= np.exp(-np.square(oks) / threshold)
    return np.array(kept, dtype=np.int64)
