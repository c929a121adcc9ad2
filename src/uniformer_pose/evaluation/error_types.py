"""Where a pose network errs: how far each keypoint is off, and what kind of mistake it is.

AP is one number for 17 keypoints; a left-right swap in the training data or a crop that cuts off feet shows here.

The kinds of mistakes (near miss, left for right, someone else's, or lost) are those of Ronchi and Perona,
"Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation", ICCV 2017 (section 3.1). As there, a keypoint is
near a place where its similarity with it, ``exp(-d^2 / (2 (2 sigma)^2 area))``, is at least 0.5, and right from 0.85
on. What differs: a keypoint at another part of its own body is an inversion at its mirror partner alone, and lost at
any other.

P people who are scored, K keypoints, N predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.errors import InputError
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
        per_keypoint = np.stack([(self.types == kind).sum(axis=0) for kind in range(len(ERROR_TYPES))], axis=1)
        rows = {
            **dict(zip(self.ground_truth.skeleton.keypoint_names, per_keypoint.tolist(), strict=True)),
            "all": per_keypoint.sum(axis=0).tolist(),
        }
        return {name: dict(zip(ERROR_TYPES, row, strict=True)) for name, row in rows.items()}

    def without(self, error_type: str) -> PosePredictions:
        """The predictions with every keypoint of one error type moved to its true place.

        How much AP they gain says what the error type costs. ``not found`` cannot be mended this way: InputError, as
        for a name that there is not.
        """
        mendable = ERROR_TYPES[_JITTER:_NOT_FOUND]
        if error_type not in mendable:
            raise InputError(f"error type {error_type!r}: choose one of {', '.join(mendable)}")
        mended = self.predictions.keypoints_in_image.copy()
        person, keypoint = np.nonzero(self.types == ERROR_TYPES.index(error_type))
        truth = self.ground_truth.keypoints_in_image[self.people[person], keypoint]
        mended[self.poses[person], keypoint] = truth
        return replace(self.predictions, keypoints_in_image=mended)


def error_types(
    ground_truth: CocoGroundTruth,
    predictions: PosePredictions | Sequence[Mapping[str, Any]],
    *,
    lowest_oks: float = 0.1,
) -> ErrorTypes:
    """The kind of mistake of every labelled keypoint of everybody who is scored (no crowd, an area, a keypoint).

    On each image, people and predicted poses pair up by their OKS, the highest first, down to ``lowest_oks``; whoever
    is left without a pose was not found. Give the poses that are reported (``select_poses``), not those before NMS.
    Errors in the input as in ``coco_keypoint_metrics``.
    """
    poses = checked_predictions(ground_truth, predictions)
    has_keypoints = (ground_truth.visibility > 0).any(axis=1)  # num_keypoints in the file may say otherwise
    people = np.flatnonzero(ground_truth.is_scored & has_keypoints & (ground_truth.areas > 0))
    matched = np.full(len(people), -1, dtype=np.int64)
    oks = np.zeros(len(people))
    types = np.full((len(people), ground_truth.skeleton.num_keypoints), _NOT_LABELLED, dtype=np.int64)
    types[ground_truth.visibility[people] > 0] = _NOT_FOUND
    for image_id in np.unique(ground_truth.image_ids[people]):
        here = np.flatnonzero(ground_truth.image_ids[people] == image_id)
        candidates = np.flatnonzero(poses.image_ids == image_id)
        if not len(candidates):
            continue
        # (people here, candidates, K) similarities with the true places, then the pairs.
        at_own_place = _similarities(ground_truth, people[here], poses.keypoints_in_image[candidates], None)
        pairs = _pair_up(_mean_over_labelled(at_own_place, ground_truth.visibility[people[here]] > 0), lowest_oks)
        mirror = ground_truth.skeleton.mirror_permutation
        at_partners_place = _similarities(ground_truth, people[here], poses.keypoints_in_image[candidates], mirror)
        for row, column, value in pairs:
            matched[here[row]], oks[here[row]] = candidates[column], value
            kinds = _kinds(at_own_place[:, column], at_partners_place[:, column], row)
            labelled = types[here[row]] != _NOT_LABELLED
            types[here[row], labelled] = kinds[labelled]
    return ErrorTypes(ground_truth, poses, people, matched, oks, types)


def _similarities(ground_truth: CocoGroundTruth, people: IntArray, keypoints: Array, places: IntArray | None) -> Array:
    """(G, C, K) similarity of keypoint k of pose c with place k of person g, or with place ``places[k]``.

    0 where that place is not labelled. The tolerance is that of the place: its sigma, its person's area.
    """
    chosen = np.arange(ground_truth.skeleton.num_keypoints) if places is None else places
    similarities = keypoint_similarities(
        keypoints[None],
        ground_truth.keypoints_in_image[people][:, None, chosen],
        ground_truth.areas[people][:, None],
        ground_truth.skeleton.oks_sigmas[chosen],
    )
    return np.asarray(similarities * (ground_truth.visibility[people][:, None, chosen] > 0))


def _mean_over_labelled(similarities: Array, labelled: npt.NDArray[np.bool_]) -> Array:
    """(G, C) OKS from (G, C, K) similarities, which are 0 where not labelled, and (G, K)."""
    return np.asarray(similarities.sum(axis=2) / labelled.sum(axis=1)[:, None])


def _pair_up(oks: Array, lowest: float) -> list[tuple[int, int, float]]:
    """Rows and columns of (G, C) OKS in pairs, the most alike first, each row and column once; with their OKS."""
    left = oks.copy()
    pairs = []
    for _ in range(min(oks.shape)):
        row, column = (int(index) for index in np.unravel_index(int(left.argmax()), left.shape))
        if left[row, column] < lowest:
            break
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


def keypoint_errors(
    ground_truth: CocoGroundTruth,
    predictions: PosePredictions | Sequence[Mapping[str, Any]],
    *,
    threshold: float = 0.1,
) -> dict[str, dict[str, float]]:
    """Keypoint name -> its numbers over all people, plus ``all`` for the keypoints together.

    Scores and NMS play no part: every person with labelled keypoints, an area and no crowd mark is compared with the
    prediction of its image that has the highest OKS with it; one prediction may serve two people. The numbers:

    - ``labelled``: how many labelled keypoints there are; ``unmatched``: how many of them belong to a person
      on whose image nothing was predicted. The rest follow from the others, and are NaN where there are none:
    - ``similarity``: mean of exp(-d^2 / (2 (2 sigma)^2 area)), the keypoint's share of the OKS, 0 to 1;
    - ``median_error``: median distance, divided by the square root of the person's area;
    - ``share_within``: share of distances up to ``threshold`` of that square root (PCK by person size).

    Input and its errors as in ``coco_keypoint_metrics``.
    """
    poses = checked_predictions(ground_truth, predictions).sorted_by_image()
    people = np.flatnonzero(ground_truth.is_scored & (ground_truth.areas > 0))
    labelled = ground_truth.visibility[people] > 0
    matched_keypoints = np.full((len(people), *ground_truth.keypoints_in_image.shape[1:]), np.nan)
    starts = np.searchsorted(poses.image_ids, ground_truth.image_ids[people], side="left")
    stops = np.searchsorted(poses.image_ids, ground_truth.image_ids[people], side="right")
    is_matched = stops > starts
    for row in np.flatnonzero(is_matched):
        candidates = poses.keypoints_in_image[starts[row] : stops[row]]
        similarities = _at_own_place(ground_truth, people[row], candidates)
        matched_keypoints[row] = candidates[np.argmax(similarities[:, labelled[row]].sum(axis=1))]
    similarities = _at_own_place(ground_truth, people, matched_keypoints)
    distances = np.linalg.norm(matched_keypoints - ground_truth.keypoints_in_image[people], axis=-1)
    errors = distances / np.sqrt(ground_truth.areas[people, None])

    table: dict[str, dict[str, float]] = {}
    for index, name in enumerate([*ground_truth.skeleton.keypoint_names, "all"]):
        columns = slice(None) if name == "all" else slice(index, index + 1)
        counted = labelled[:, columns]
        found = counted & is_matched[:, None]
        near = errors[:, columns][found] <= threshold
        table[name] = {
            "labelled": int(counted.sum()),
            "unmatched": int(counted.sum() - found.sum()),
            "similarity": _mean(similarities[:, columns][found]),
            "median_error": float(np.median(errors[:, columns][found])) if found.any() else float("nan"),
            "share_within": _mean(near.astype(np.float64)),
        }
    return table


def _at_own_place(ground_truth: CocoGroundTruth, people: Any, keypoints: Array) -> Array:
    return keypoint_similarities(
        keypoints,
        ground_truth.keypoints_in_image[people],
        ground_truth.areas[people],
        ground_truth.skeleton.oks_sigmas,
    )


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else float("nan")
