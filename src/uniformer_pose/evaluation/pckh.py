"""MPII's PCKh (Andriluka et al., CVPR 2014): the share of joints that are found to within half the head's size.

As MMPose 1.3.2 computes it: the head's size is 0.6 of the diagonal of its box, a joint must be nearer than the
threshold times that size, left and right sides are averaged, and the mean weighs a joint by how often it is annotated.
It leaves out pelvis and thorax. The 0.1 of ``PCKh@0.1`` is 0.1 (HRNet's own code takes 0.11).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.mpii_json import MpiiPeople
from uniformer_pose.errors import InputError, one_line
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.skeleton import load_skeleton

FloatArray = npt.NDArray[np.float64]

HEAD_OF_DIAGONAL = 0.6
PCKH_NAMES = ("PCKh", "PCKh@0.1", "head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
NEEDS_HEADS = "PCKh needs the sizes of heads: give data.headbox_file, MPII's mpii_gt_val.mat, or data.metric=coco"

_SKELETON = "mpii_16"
_SIDED = PCKH_NAMES[3:]
_NOT_IN_THE_MEAN = ("pelvis", "thorax")


def read_head_sizes(file: str | Path, people: MpiiPeople) -> FloatArray:
    """(P,) sizes in pixels of the people's heads, from ``headboxes_src`` of ``mpii_gt_val.mat``."""
    return _sizes(file, len(people), f"{people.file} with {len(people)} people")


def head_sizes_of(file: str | Path, ground_truth: CocoGroundTruth) -> FloatArray:
    """(G,) sizes of the heads of converted people, whose annotation ids are the places that ``file`` counts by.

    A warning where ``file`` has others too; InputError where it lacks one.
    """
    ids, sizes = ground_truth.ids, _sizes(file, None, str(ground_truth.file))
    if not ((ids >= 0) & (ids < len(sizes))).all():
        raise InputError(
            f"{file}: has the heads of {len(sizes)} people, {ground_truth.file} has ids from {ids.min()} to "
            f"{ids.max()}; give files of the same split, converted by convert_data.py from=mpii, or data.metric=coco"
        )
    if len(ids) < len(sizes):
        warnings.warn(
            f"{ground_truth.file}: has {len(ids)} of the {len(sizes)} people of {file}, so PCKh is not MPII's own",
            stacklevel=2,
        )
    return sizes[ids]


def _sizes(file: str | Path, count: int | None, wanted_by: str) -> FloatArray:
    from scipy.io import loadmat  # type: ignore[import-untyped]  # takes its time

    try:
        boxes = np.asarray(loadmat(file, variable_names=["headboxes_src"])["headboxes_src"], dtype=np.float64)
    except Exception as error:  # there is no end to what its parser raises on other bytes
        raise InputError(f"{file}: no head boxes ({one_line(error)}); give MPII's mpii_gt_val.mat") from None
    expected = (2, 2, boxes.shape[-1] if count is None else count)
    if boxes.shape != expected or not np.isfinite(boxes).all():
        raise InputError(
            f"{file}: headboxes_src has shape {boxes.shape}, where {wanted_by} needs finite numbers of shape "
            f"{expected}; give files of the same split"
        )
    return np.asarray(HEAD_OF_DIAGONAL * np.linalg.norm(boxes[1] - boxes[0], axis=0))


def pckh_metrics(
    people: MpiiPeople,
    head_sizes: FloatArray,
    predictions: PosePredictions,
    *,
    threshold: float = 0.5,
    names: Sequence[str] | None = None,
) -> dict[str, float]:
    """PCKh of ``head`` (its top), ``shoulder`` to ``ankle``, and its mean ``PCKh``, in percent; the mean ``PCKh@0.1``.

    A pose's id is the place of its person in the file; its keypoints are pixels from 0, a pixel less than MPII's.
    People without a pose count as missed, with a warning. Who has a head of no size (P,) is left out, with another; -1
    stands for a joint that nobody has. ``names`` of the joints, where people and poses have some of the 16 only.
    """
    errors, annotated = _errors(people, head_sizes, predictions)
    names = names or load_skeleton(_SKELETON).keypoint_names
    shares = _shares(errors < threshold, annotated)
    return {
        **{name: _mean(shares[joints]) for name, joints in _joints(names).items()},
        "PCKh": _weighted_mean(shares, annotated, names),
        "PCKh@0.1": _weighted_mean(_shares(errors < 0.1, annotated), annotated, names),
    }


def pckh_of(ground_truth: CocoGroundTruth, predictions: PosePredictions) -> dict[str, float]:
    """``pckh_metrics`` of converted people who have ``head_sizes``; a pose's id is that of its person."""
    return pckh_metrics(*_as_listed(ground_truth, predictions), names=ground_truth.skeleton.keypoint_names)


def pckh_by_keypoint(ground_truth: CocoGroundTruth, predictions: PosePredictions) -> dict[str, dict[str, float]]:
    """Keypoint name -> how many ``people`` have it annotated, and of how many percent it is found; -1 of nobody."""
    with warnings.catch_warnings(action="ignore"):  # ``pckh_of`` has told them
        errors, annotated = _errors(*_as_listed(ground_truth, predictions))
    shares = [np.nan_to_num(_shares(errors < threshold, annotated), nan=-1.0) for threshold in (0.5, 0.1)]
    rows = np.stack([annotated.sum(axis=0), *shares], axis=1).tolist()
    named = zip(ground_truth.skeleton.keypoint_names, rows, strict=True)
    return {name: {"people": int(people), "PCKh": half, "PCKh@0.1": tenth} for name, (people, half, tenth) in named}


def _as_listed(truth: CocoGroundTruth, poses: PosePredictions) -> tuple[MpiiPeople, FloatArray, PosePredictions]:
    """What ``pckh_metrics`` takes, of the people with a joint: their places are those in the ground truth's rows."""
    people = truth.people_at(truth.is_scored)
    if people.head_sizes is None:
        raise InputError(f"{truth.file}: {NEEDS_HEADS}")
    poses = poses.take(np.isin(poses.ids, people.ids))
    order = np.argsort(people.ids)
    places = order[np.searchsorted(people.ids, poses.ids, sorter=order)]
    names, joints = [f"image {number}" for number in people.image_ids.tolist()], people.keypoints_in_image + 1
    listed = MpiiPeople(people.file, names, people.image_ids, joints, people.visibility > 0)
    return listed, people.head_sizes, replace(poses, ids=places)


def _errors(
    people: MpiiPeople, head_sizes: FloatArray, predictions: PosePredictions
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Distances over the size of the head, and which joints are annotated; both (P, K) of those who have a head."""
    poses = _pose_of_each(people, predictions)
    has_head = head_sizes > 0
    if not has_head.all():
        warnings.warn(f"{int((~has_head).sum())} people have a head box of no size and are left out", stacklevel=3)
    errors = np.linalg.norm(poses + 1 - people.joints_from_one, axis=-1)[has_head] / head_sizes[has_head, None]
    return errors, people.annotated[has_head]


def _joints(names: Sequence[str]) -> dict[str, list[int]]:
    """Where the joints of each number stand, both sides of a sided one; none where they are not there."""
    wanted = {"head": ["head_top"]} | {name: [f"right_{name}", f"left_{name}"] for name in _SIDED}
    return {name: [names.index(joint) for joint in joints if joint in names] for name, joints in wanted.items()}


def _pose_of_each(people: MpiiPeople, predictions: PosePredictions) -> FloatArray:
    """(P, 16, 2) keypoints of the pose whose id is the person's place, infinitely far where there is none."""
    joints = people.joints_from_one.shape[1]
    if len(predictions) and predictions.num_keypoints != joints:
        raise InputError(f"the predictions have {predictions.num_keypoints} keypoints, MPII's people have {joints}")
    predictions.reject_unusable()
    places, repeats = np.unique(predictions.ids, return_counts=True)
    if len(places) and not (places[0] >= 0 and places[-1] < len(people) and repeats.max() == 1):
        raise InputError(
            f"ids of the predictions are not places, each once, in the {len(people)} people of {people.file}, from 0"
        )
    wrong = np.flatnonzero(people.image_ids[predictions.ids] != predictions.image_ids)
    if len(wrong):
        raise InputError(
            f"prediction {predictions.ids[wrong[0]]} is on image {predictions.image_ids[wrong[0]]}, and that person of "
            f"{people.file} on {people.file_names[predictions.ids[wrong[0]]]}"
        )
    if len(places) < len(people):
        missing = len(people) - len(places)
        warnings.warn(f"{missing} of {len(people)} people have no prediction and count as missed", stacklevel=4)
    poses = np.full(people.joints_from_one.shape, np.inf)
    poses[predictions.ids] = predictions.keypoints_in_image
    return poses


def _shares(right: npt.NDArray[np.bool_], annotated: npt.NDArray[np.bool_]) -> FloatArray:
    """(16,) percent of the annotated joints that are right, NaN where there are none."""
    counts = annotated.sum(axis=0)
    return np.where(counts > 0, 100.0 * (right & annotated).sum(axis=0) / np.maximum(counts, 1), np.nan)


def _mean(shares: FloatArray) -> float:
    known = shares[~np.isnan(shares)]
    return float(known.mean()) if len(known) else -1.0


def _weighted_mean(shares: FloatArray, annotated: npt.NDArray[np.bool_], names: Sequence[str]) -> float:
    joints = [place for place, name in enumerate(names) if name not in _NOT_IN_THE_MEAN]
    counts = annotated.sum(axis=0)[joints]
    return float(np.nansum(shares[joints] * counts) / counts.sum()) if counts.any() else -1.0
