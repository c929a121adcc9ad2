"""COCO's matching of poses with people, and precision and recall from it, on flat arrays of a whole dataset.

Every number equals that of pycocotools' ``COCOeval`` for keypoints to the last digit: the same operations in the same
order on the same doubles. (A person whose annotation has id 0 is found here, as in xtcocotools; pycocotools takes 0 for
"unmatched".) Only the loops are gone. pycocotools visits every pose and person of an image for each threshold and range
of areas; most pairs are less alike than the lowest threshold and can never match, so here only the others are followed
up, the best pose of all images at once, then the second best, and so on.

What COCO does (cocodataset.org/#keypoints-eval), and what follows from the original's code:

- the 20 best poses of an image count;
- they choose in the order of their scores; each takes the person with the highest OKS at or above the threshold that
  is still free, of equals the last in the file;
- a person who is not to be scored (a crowd, nobody's keypoints labelled, outside the range of areas) is taken only
  where no other is left, and such a match counts neither as right nor as wrong; a crowd can be taken again and again;
- a pose without a match counts as wrong if its own area lies in the range;
- with a person without labelled keypoints, a pose is compared by how far its keypoints are from the person's doubled
  box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.evaluation.oks import MAX_POSES_PER_IMAGE, pairs_in_blocks
from uniformer_pose.evaluation.predictions import PosePredictions

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

OKS_THRESHOLDS: FloatArray = np.linspace(0.5, 0.95, 10)
RECALL_POINTS: FloatArray = np.linspace(0.0, 1.0, 101)

ALL_AREAS = (0.0, 1e10)
"""Square pixels, both ends included, as all ranges here: COCO's "all"."""


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """One outcome per range of areas (A): what COCO averages.

    ``precision`` (A, thresholds, recall points), ``recall`` (A, thresholds), both -1 where the range has nobody to
    score; ``num_people`` (A,) how many people were scored.
    """

    precision: FloatArray
    recall: FloatArray
    num_people: IntArray

    def average_precision(self, area: int = 0, threshold: float | None = None) -> float:
        """Mean precision of the range ``area``, over all OKS thresholds or at one of them; -1 for nobody."""
        return _mean_of_defined(self.precision[area][_rows(threshold)])

    def average_recall(self, area: int = 0, threshold: float | None = None) -> float:
        """Mean of the largest recalls of the range ``area``, as ``average_precision``."""
        return _mean_of_defined(self.recall[area][_rows(threshold)])


def precision_recall(
    people: CocoGroundTruth,
    poses: PosePredictions,
    scores: FloatArray,
    sigmas: FloatArray,
    area_ranges: Sequence[tuple[float, float]] = (ALL_AREAS,),
) -> PrecisionRecall:
    """COCO's precision and recall of the poses, for people of each range of areas (square pixels, ends included).

    ``scores`` (N,) are those of the poses; of equals the earlier one chooses first. ``sigmas`` (K,) are the keypoints'
    OKS constants. Everything must be finite: NaN compares as a perfect match. The area of a pose is that of its box, as
    in MMPose; loading results without boxes, pycocotools would take the extent of the keypoints.
    """
    # As pycocotools concatenates them: by image, then by score, then as given. The poses beyond an image's 20th are
    # left out for good.
    order = np.lexsort((-scores, poses.image_ids))
    rank = _count_within(poses.image_ids[order])
    order, rank = order[rank < MAX_POSES_PER_IMAGE], rank[rank < MAX_POSES_PER_IMAGE]
    image_ids, scores = poses.image_ids[order], scores[order]
    areas = poses.boxes_xywh[order, 2:].prod(axis=1)
    is_scored = people.is_scored

    pose, person, oks = _similar_pairs(people, image_ids, poses.keypoints_in_image[order], sigmas)
    by_score = np.argsort(-scores, kind="mergesort")
    precision = np.full((len(area_ranges), len(OKS_THRESHOLDS), len(RECALL_POINTS)), -1.0)
    recall = np.full((len(area_ranges), len(OKS_THRESHOLDS)), -1.0)
    num_people = np.zeros(len(area_ranges), dtype=np.int64)
    for index, (least, most) in enumerate(area_ranges):
        counted = is_scored & ~((people.areas < least) | (people.areas > most))
        num_people[index] = np.count_nonzero(counted)
        if num_people[index] == 0:
            continue
        matched = _match(pose, person, oks, rank, counted, people.is_crowd)
        found = matched >= 0
        right = np.zeros_like(found)
        right[found] = counted[matched[found]]
        wrong = ~found & ~((areas < least) | (areas > most))
        precision[index], recall[index] = _curves(right[:, by_score], wrong[:, by_score], int(num_people[index]))
    return PrecisionRecall(precision, recall, num_people)


def _similar_pairs(
    people: CocoGroundTruth, image_ids: IntArray, keypoints: FloatArray, sigmas: FloatArray
) -> tuple[IntArray, IntArray, FloatArray]:
    """Pose, person and OKS (P,) of all pairs of one image that the lowest threshold lets match.

    ``image_ids`` (N,) and ``keypoints`` (N, K, 2) are of the poses, in the order of the images.
    """
    by_image = np.argsort(people.image_ids, kind="stable")
    sorted_ids = people.image_ids[by_image]
    first = np.searchsorted(sorted_ids, image_ids, side="left")
    count = np.searchsorted(sorted_ids, image_ids, side="right") - first
    is_labelled = people.visibility > 0
    found: list[tuple[IntArray, IntArray, FloatArray]] = []
    for pose, place in pairs_in_blocks(count, numbers_per_pair=2 * keypoints.shape[1]):
        person = by_image[first[pose] + place]
        oks = _oks(people, is_labelled, person, keypoints[pose], sigmas)
        alike = oks >= OKS_THRESHOLDS[0]
        found.append((pose[alike], person[alike], oks[alike]))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    pose, person, oks = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return pose, person, oks


def _oks(
    people: CocoGroundTruth, is_labelled: BoolArray, person: IntArray, keypoints: FloatArray, sigmas: FloatArray
) -> FloatArray:
    """OKS (P,) of poses (P, K, 2) with the people at ``person`` (P,).

    The order of the operations is pycocotools'; ``keypoint_similarities`` groups them otherwise, which can differ in
    the last digit.
    """
    labelled = is_labelled[person]
    num_labelled = labelled.sum(axis=1)
    offsets = keypoints - people.keypoints_in_image[person]
    unlabelled = np.flatnonzero(num_labelled == 0)
    if len(unlabelled):
        corner, size = people.boxes_xywh[person[unlabelled], None, :2], people.boxes_xywh[person[unlabelled], None, 2:]
        points = keypoints[unlabelled]
        offsets[unlabelled] = np.maximum(0, corner - size - points) + np.maximum(0, points - (corner + size * 2))
    with np.errstate(over="ignore"):  # a finite but absurd coordinate is simply not similar
        squared = offsets[..., 0] ** 2 + offsets[..., 1] ** 2
        similarities = np.exp(-(squared / (sigmas * 2) ** 2 / (people.areas[person, None] + np.spacing(1)) / 2))
    oks = np.zeros(len(person))
    # The sum runs over the labelled keypoints alone: zeros between them would change how it is rounded.
    for number in np.unique(num_labelled):
        chosen = np.flatnonzero(num_labelled == number)
        values = similarities[chosen] if number == 0 else similarities[chosen][labelled[chosen]].reshape(-1, number)
        oks[chosen] = values.sum(axis=1) / values.shape[1]
    return oks


def _match(
    pose: IntArray, person: IntArray, oks: FloatArray, rank: IntArray, counted: BoolArray, is_crowd: BoolArray
) -> IntArray:
    """The person (thresholds, N) that each pose gets at each OKS threshold, -1 for none.

    ``pose``, ``person``, ``oks`` (P,) are the pairs that may match, ``rank`` (N,) the pose's place in its image by
    score, ``counted`` and ``is_crowd`` (G,) of the people.
    """
    # From the least to the most wanted, pose after pose: whoever is counted before whoever is not, then the higher
    # OKS, then the later in the file.
    order = np.lexsort((person, oks, counted[person], pose, rank[pose]))
    pose, person, oks = pose[order], person[order], oks[order]
    reached = oks >= np.minimum(OKS_THRESHOLDS, 1 - 1e-10)[:, None]
    matched = np.full((len(OKS_THRESHOLDS), len(rank)), -1, dtype=np.int64)
    free = np.ones((len(OKS_THRESHOLDS), len(counted)), dtype=bool)
    turns = np.searchsorted(rank[pose], np.arange(MAX_POSES_PER_IMAGE + 1))
    for start, stop in zip(turns[:-1].tolist(), turns[1:].tolist(), strict=True):
        if start == stop:
            continue
        # In one turn there is one pose of each image, so that no two of them want the same person.
        here, wanted = pose[start:stop], person[start:stop]
        possible = reached[:, start:stop] & free[:, wanted]
        first_pair = np.flatnonzero(np.diff(here, prepend=-1))
        chosen = np.maximum.reduceat(np.where(possible, np.arange(len(here)), -1), first_pair, axis=1)
        threshold, chooser = np.nonzero(chosen >= 0)
        taken = wanted[chosen[threshold, chooser]]
        matched[threshold, here[first_pair[chooser]]] = taken
        free[threshold, taken] = is_crowd[taken]
    return matched


def _curves(right: BoolArray, wrong: BoolArray, num_people: int) -> tuple[FloatArray, FloatArray]:
    """Precision (thresholds, recall points) and largest recall (thresholds,) of poses (thresholds, N), best first."""
    precision, recall = np.zeros((len(right), len(RECALL_POINTS))), np.zeros(len(right))
    for row, (hits, misses) in enumerate(zip(right, wrong, strict=True)):
        # A pose that is neither changes no number; the original drags it along.
        counts = hits | misses
        num_right = np.cumsum(hits[counts]).astype(np.float64)
        if not len(num_right):
            continue
        num_wrong = np.cumsum(misses[counts]).astype(np.float64)
        recalls = num_right / num_people
        precisions = num_right / (num_wrong + num_right + np.spacing(1))
        # The best precision at this recall or any higher one.
        precisions = np.maximum.accumulate(precisions[::-1])[::-1]
        place = np.searchsorted(recalls, RECALL_POINTS, side="left")
        reached = place < len(recalls)
        precision[row, reached] = precisions[place[reached]]
        recall[row] = recalls[-1]
    return precision, recall


def _count_within(sorted_ids: IntArray) -> IntArray:
    """Place (N,) of each entry among those with the same id, from 0."""
    starts = np.flatnonzero(np.diff(sorted_ids, prepend=sorted_ids[:1] - 1))
    lengths = np.diff(starts, append=len(sorted_ids))
    return np.asarray(np.arange(len(sorted_ids)) - np.repeat(starts, lengths))


def _rows(threshold: float | None) -> slice | BoolArray:
    return slice(None) if threshold is None else np.asarray(threshold == OKS_THRESHOLDS)


def _mean_of_defined(values: FloatArray) -> float:
    defined = values[values > -1]
    return float(np.mean(defined)) if len(defined) else -1.0
