"""MPII's PCKh (Andriluka et al., CVPR 2014): the share of joints that are found to within half the head's size.

As MMPose 1.3.2 computes it: the head's size is 0.6 of the diagonal of its box, a joint must be nearer than the
threshold times that size, left and right sides are averaged, and the mean weighs a joint by how often it is annotated.
It leaves out pelvis and thorax. The 0.1 of ``PCKh@0.1`` is 0.1 (HRNet's own code takes 0.11).
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.mpii_json import MpiiPeople
from uniformer_pose.errors import InputError, one_line
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.skeleton import load_skeleton

FloatArray = npt.NDArray[np.float64]

HEAD_OF_DIAGONAL = 0.6

_SKELETON = "mpii_16"
_SIDED = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_NOT_IN_THE_MEAN = ("pelvis", "thorax")


def read_head_sizes(file: str | Path, people: MpiiPeople) -> FloatArray:
    """(P,) sizes in pixels of the people's heads, from ``headboxes_src`` of ``mpii_gt_val.mat``."""
    from scipy.io import loadmat  # type: ignore[import-untyped]  # takes its time

    try:
        boxes = np.asarray(loadmat(file, variable_names=["headboxes_src"])["headboxes_src"], dtype=np.float64)
    except Exception as error:  # there is no end to what its parser raises on other bytes
        raise InputError(f"{file}: no head boxes ({one_line(error)}); give MPII's mpii_gt_val.mat") from None
    if boxes.shape != (2, 2, len(people)) or not np.isfinite(boxes).all():
        raise InputError(
            f"{file}: headboxes_src has shape {boxes.shape}, where {people.file} with {len(people)} people needs "
            f"finite numbers of shape (2, 2, {len(people)}); give files of the same split"
        )
    return np.asarray(HEAD_OF_DIAGONAL * np.linalg.norm(boxes[1] - boxes[0], axis=0))


def pckh_metrics(
    people: MpiiPeople, head_sizes: FloatArray, predictions: PosePredictions, *, threshold: float = 0.5
) -> dict[str, float]:
    """PCKh of ``head`` (its top), ``shoulder`` to ``ankle``, and its mean ``PCKh``, in percent; the mean ``PCKh@0.1``.

    A pose's id is the place of its person in the file; its keypoints are pixels from 0, a pixel less than MPII's.
    People without a pose count as missed, with a warning. Who has a head of no size (P,) is left out, with another; -1
    stands for a joint that nobody has.
    """
    poses = _pose_of_each(people, predictions)
    has_head = head_sizes > 0
    if not has_head.all():
        warnings.warn(f"{int((~has_head).sum())} people have a head box of no size and are left out", stacklevel=2)
    errors = np.linalg.norm(poses + 1 - people.joints_from_one, axis=-1)[has_head] / head_sizes[has_head, None]
    annotated = people.annotated[has_head]
    shares = _shares(errors < threshold, annotated)
    return {
        **{name: _mean(shares[joints]) for name, joints in _joints().items()},
        "PCKh": _weighted_mean(shares, annotated),
        "PCKh@0.1": _weighted_mean(_shares(errors < 0.1, annotated), annotated),
    }


def _joints() -> dict[str, npt.NDArray[np.int64]]:
    skeleton = load_skeleton(_SKELETON)
    return {"head": skeleton.indices(["head_top"])} | {
        name: skeleton.indices([f"right_{name}", f"left_{name}"]) for name in _SIDED
    }


def _pose_of_each(people: MpiiPeople, predictions: PosePredictions) -> FloatArray:
    """(P, 16, 2) keypoints of the pose whose id is the person's place, infinitely far where there is none."""
    if len(predictions) and predictions.num_keypoints != people.joints_from_one.shape[1]:
        raise InputError(f"the predictions have {predictions.num_keypoints} keypoints, MPII's people have 16")
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
        warnings.warn(f"{missing} of {len(people)} people have no prediction and count as missed", stacklevel=3)
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


def _weighted_mean(shares: FloatArray, annotated: npt.NDArray[np.bool_]) -> float:
    skeleton = load_skeleton(_SKELETON)
    joints = skeleton.indices([name for name in skeleton.keypoint_names if name not in _NOT_IN_THE_MEAN])
    counts = annotated.sum(axis=0)[joints]
    return float(np.nansum(shares[joints] * counts) / counts.sum()) if counts.any() else -1.0
