"""Where a pose network errs: what kind of mistake each keypoint is.

AP is one number for 17 keypoints; a left-right swap in the training data or a crop that cuts off feet shows here.

The kinds of mistakes (near miss, left for right, someone else's, or lost) are those of Ronchi and Perona,
"Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation", ICCV 2017 (section 3.1). As there, a keypoint is
near a place where its similarity with it, ``exp(-d^2 / (2 (2 sigma)^2 area))``, is at least 0.5, and right from 0.85
on. What differs: a keypoint at another part of its own body is an inversion at its mirror partner alone, and lost at
any other.

P people who are scored, K keypoints, N predictions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from uniformer_pose.evaluation.coco_metrics import checked_predictions
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.evaluation.oks import keypoint_similarities
from uniformer_pose.evaluation.predictions import PosePredictions

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

ERROR_TYPES = ("right", "jitter", "inversion", "swap", "miss", "not found")
"""right; jitter: near its place; inversion: at the place of its mirror partner; swap: at that keypoint, or its mirror
partner, of another person; miss: anywhere else; not found: nobody was predicted where the person is."""

_RIGHT, _JITTER, _INVERSION, _SWAP, _MISS, _NOT_FOUND = range(len(ERROR_TYPES))
_NOT_LABELLED = -1
_RIGHT_FROM, _NEAR_FROM = 0.85, 0.5
_LOWEST_OKS = 0.1  # below, a pose is nobody's


@dataclass(frozen=True, eq=False)
class ErrorTypes:
    """The mistakes in one set of predictions.

    ``people`` (P,) are rows of the ground truth: everybody who is scored. ``poses`` (P,) are rows of ``predictions``,
    -1 for a person who was not found. ``oks`` (P,) is that of the two, 0 for who was not found. ``types`` (P, K) index
    ``ERROR_TYPES``, -1 where a keypoint is not labelled.
    """

    ground_truth: CocoGroundTruth
    predictions: PosePredictions
    people: IntArray
    poses: IntArray
    oks: Array
    types: IntArray

    def counts(self) -> dict[str, dict[str, int]]:
        """Keypoint name -> how often each error type happened; the last, ``all``, is their sum."""
        rows = (self.types[..., None] == np.arange(len(ERROR_TYPES))).sum(axis=0)
        names = (*self.ground_truth.skeleton.keypoint_names, "all")
        table = np.concatenate([rows, rows.sum(axis=0, keepdims=True)]).tolist()
        return {name: dict(zip(ERROR_TYPES, row, strict=True)) for name, row in zip(names, table, strict=True)}

    def without(self, error_type: str) -> PosePredictions:
        """The predictions with every keypoint of one error type moved to its true place.

        How much AP they gain says what the error type costs. ``not found`` cannot be mended this way.
        """
        wanted = (self.types == ERROR_TYPES.index(error_type)) & (self.poses >= 0)[:, None]
        mended = self.predictions.keypoints_in_image.copy()
        person, keypoint = np.nonzero(wanted)
        mended[self.poses[person], keypoint] = self.ground_truth.keypoints_in_image[self.people[person], keypoint]
        return replace(self.predictions, keypoints_in_image=mended)


def error_types(ground_truth: CocoGroundTruth, predictions: PosePredictions) -> ErrorTypes:
    """The kind of mistake of every labelled keypoint of everybody who is scored (no crowd, an area, a keypoint).

    On each image, people and predicted poses pair up by their OKS, the highest first, down to 0.1; whoever is left
    without a pose was not found. Give the poses that are reported (``select_poses``), not those before NMS. Errors in
    the input as in ``coco_keypoint_metrics``.
    """
    poses = checked_predictions(ground_truth, predictions)
    has_keypoints = (ground_truth.visibility > 0).any(axis=1)  # num_keypoints in the file may say otherwise
    people = np.flatnonzero(ground_truth.is_scored & has_keypoints & (ground_truth.areas > 0))
    labelled = ground_truth.visibility[people] > 0
    matched, oks = np.full(len(people), -1, dtype=np.int64), np.zeros(len(people))
    types = np.where(labelled, _NOT_FOUND, _NOT_LABELLED)
    mirror = ground_truth.skeleton.mirror_permutation
    for image_id in np.unique(ground_truth.image_ids[people]):
        here = np.flatnonzero(ground_truth.image_ids[people] == image_id)
        candidates = np.flatnonzero(poses.image_ids == image_id)
        # (people here, candidates, K) similarities with the true places, and with those of the mirror partners.
        shown, asked = poses.keypoints_in_image[candidates][None], people[here][:, None]
        own = _similarities(ground_truth, asked, shown)
        partners = _similarities(ground_truth, asked, shown, mirror)
        for row, column, value in _pair_up(own.sum(axis=2) / labelled[here].sum(axis=1)[:, None]):
            person = here[row]
            matched[person], oks[person] = candidates[column], value
            types[person, labelled[person]] = _kinds(own[:, column], partners[:, column], row)[labelled[person]]
    return ErrorTypes(ground_truth, poses, people, matched, oks, types)


def _similarities(truth: CocoGroundTruth, people: IntArray, keypoints: Array, places: IntArray | None = None) -> Array:
    """(..., K) similarity of keypoint k (..., K, 2) with place k of the people (...), or with place ``places[k]``.

    0 where that place is not labelled. The tolerance is that of the place: its sigma, its person's area.
    """
    chosen = np.arange(truth.skeleton.num_keypoints) if places is None else places
    there, sigmas = truth.keypoints_in_image[people][..., chosen, :], truth.skeleton.oks_sigmas[chosen]
    similarities = keypoint_similarities(keypoints, there, truth.areas[people], sigmas)
    return np.asarray(similarities * (truth.visibility[people][..., chosen] > 0))


def _pair_up(oks: Array) -> list[tuple[int, int, float]]:
    """Rows and columns of (G, C) OKS in pairs, the most alike first, each row and column once; with their OKS."""
    left, pairs = oks.copy(), []
    while left.size and left.max() >= _LOWEST_OKS:
        row, column = (int(index) for index in np.unravel_index(int(left.argmax()), left.shape))
        pairs.append((row, column, float(oks[row, column])))
        left[row], left[:, column] = -1.0, -1.0
    return pairs


def _kinds(at_own_place: Array, at_partners_place: Array, row: int) -> IntArray:
    """(K,) error types of one pose paired with person ``row``, from its (G, K) similarities with everybody's places."""
    others = np.arange(len(at_own_place)) != row
    own, partner = at_own_place[row], at_partners_place[row]
    elsewhere = np.maximum(at_own_place[others], at_partners_place[others]).max(axis=0, initial=0.0)
    # A keypoint without a mirror partner is its own: then it is near both, which the first two lines settle.
    wrong = np.where(partner >= elsewhere, _INVERSION, _SWAP)
    wrong = np.where(np.maximum(partner, elsewhere) >= _NEAR_FROM, wrong, _MISS)
    return np.asarray(np.select([own >= _RIGHT_FROM, own >= _NEAR_FROM], [_RIGHT, _JITTER], wrong), dtype=np.int64)
