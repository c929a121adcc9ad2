"""Mirror pairs whose names are probably exchanged in a whole data set: suspicions, from the geometry of its people.

Neither test needs people to stand upright. *Pairs*: the vectors from right to left of all pairs (shoulders, hips, ...)
of a person mostly point the same way. A pair that points against the others in most people has its names exchanged.
*Faces*: where all pairs are exchanged, they agree. But where nose and both eyes are visible, the face is turned to the
camera, and a quarter clockwise from "up" (nose to the middle of the eyes) is the person's left eye.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from uniformer_pose.skeleton import Skeleton, plain_name

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_FACE = ("nose", "lefteye", "righteye")
_SMALLEST_FACE = 4.0  # pixels between the eyes, and from nose to eyes: below, a pixel of the annotator's decides
_SHORTEST = 0.1  # of the square root of the box's area: shorter pairs are seen edge-on and point anywhere
_FEWEST_PEOPLE = 20  # for a statement about a data set
_EXCHANGED = 0.2  # share of people in whom a pair with exchanged names agrees


def left_right_suspicions(
    keypoints: FloatArray, visibility: npt.NDArray[np.floating], boxes_xywh: FloatArray, skeleton: Skeleton
) -> list[str]:
    """A sentence on each suspected pair of N people: keypoints (N, K, 2), visibility (N, K), boxes (N, 4) with area."""
    pairs = np.array([skeleton.indices(pair) for pair in skeleton.left_right_pairs], dtype=np.int64).reshape(-1, 2)
    lengths = np.sqrt(np.prod(boxes_xywh[:, 2:], axis=1))[:, None]
    vectors = (keypoints[:, pairs[:, 0]] - keypoints[:, pairs[:, 1]]) / lengths[..., None]
    labelled = (visibility[:, pairs] > 0).all(axis=2)
    usable = np.asarray(labelled & (np.linalg.norm(vectors, axis=2) >= _SHORTEST))
    # First all pairs judge each other, then only those that agree with the others, exchanged ones turned round.
    agreement = _agreement(vectors, usable, np.ones(len(pairs)))
    weights = np.where(agreement >= 1 - _EXCHANGED, 1.0, np.where(agreement <= _EXCHANGED, -1.0, 0.0))
    agreement = _agreement(vectors, usable, weights)
    sentences = [
        f"{left} and {right} agree with the other pairs in {share:.0%} of people"
        for (left, right), share in zip(skeleton.left_right_pairs, agreement.tolist(), strict=True)
        if share <= _EXCHANGED
    ]
    faces = _eyes_in_place(keypoints, visibility, skeleton)
    if not sentences and len(faces) >= _FEWEST_PEOPLE and faces.mean() <= _EXCHANGED:
        sentences.append(f"the left eye is on the left of {faces.mean():.0%} of {len(faces)} faces: exchange all pairs")
    return sentences


def _agreement(vectors: FloatArray, usable: BoolArray, weights: FloatArray) -> FloatArray:
    """(P,) share of people in whom a pair points the way of the weighted sum of the others; NaN with too few people."""
    weighted = np.where(usable[..., None], vectors, 0.0) * weights[:, None]
    others = weighted.sum(axis=1, keepdims=True) - weighted
    told = usable & (np.linalg.norm(others, axis=2) >= 2 * _SHORTEST)
    agreeing = told & ((vectors * others).sum(axis=2) > 0)
    people = told.sum(axis=0)
    shares = np.full(len(weights), np.nan)
    np.divide(agreeing.sum(axis=0), people, out=shares, where=people >= _FEWEST_PEOPLE)
    return shares


def _eyes_in_place(keypoints: FloatArray, visibility: npt.NDArray[np.floating], skeleton: Skeleton) -> BoolArray:
    """Whether the left eye is on the person's left, for every face that is large and turned to the camera."""
    names = [plain_name(name) for name in skeleton.keypoint_names]
    if not set(_FACE) <= set(names):
        return np.zeros(0, dtype=np.bool_)
    face = [names.index(name) for name in _FACE]
    nose, left_eye, right_eye = (keypoints[:, index] for index in face)
    up, leftwards = (left_eye + right_eye) / 2 - nose, left_eye - right_eye
    large = (np.linalg.norm(up, axis=1) >= _SMALLEST_FACE) & (np.linalg.norm(leftwards, axis=1) >= _SMALLEST_FACE)
    clockwise = up[:, 0] * leftwards[:, 1] > up[:, 1] * leftwards[:, 0]  # y points down
    return np.asarray(clockwise[large & (visibility[:, face] == 2).all(axis=1)])
