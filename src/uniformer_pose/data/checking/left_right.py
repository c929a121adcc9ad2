"""Where left and right are probably exchanged: suspicions, from the geometry of mirror pairs.

Two things are tested, and neither needs the person to stand upright.

*The face.* Where nose and both eyes are visible, the face is turned to the camera, and going round from "up" (nose
to the middle of the eyes) clockwise by a quarter one comes to the person's left eye. A left eye on the other side
cannot be. Only skeletons that name nose, left_eye and right_eye are tested.

*The pairs of one person.* The vectors from right to left of all pairs (shoulders, hips, eyes, ...) mostly point the
same way. How steadily a pair agrees with the sum of the others is measured on the data set itself: crossed wrists are
ordinary, crossed hips are not. A pair that disagrees in most people has its names exchanged; a steady pair that
disagrees in one person is probably swapped there, as long as that is so in fewer than one person of 20. A person
whose pairs are all swapped looks like somebody seen from behind, which keypoints without a face cannot tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from uniformer_pose.skeleton import Skeleton, plain_name

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_FACE = ("nose", "lefteye", "righteye")
_SMALLEST_FACE = 4.0  # pixels between the eyes, and from nose to eyes: below, a pixel of the annotator's decides
_FACE_SINE = -0.5  # how far the left eye is on the wrong side: 30 degrees beyond seen edge-on
_SHORTEST = 0.1  # of the square root of the box's area: shorter pairs are seen edge-on and point anywhere
_CLEARLY_OPPOSITE = -0.8  # cosine
_FEWEST_PEOPLE = 20  # for a statement about how a pair behaves in a data set
_STEADY = 0.8  # cosine that a steady pair reaches in 19 of 20 people: hips and shoulders do, wrists and ankles do not
_EXCHANGED = 0.2  # share of people in whom a pair with exchanged names agrees


@dataclass(frozen=True, eq=False)
class LeftRightSuspicions:
    """``face`` (N,); ``pairs`` (N, P): pair p of person n; ``throughout`` (P,); ``agreement`` (P,), NaN if too few."""

    face: BoolArray
    pairs: BoolArray
    throughout: BoolArray
    agreement: FloatArray


def left_right_suspicions(
    keypoints_in_image: FloatArray, visibility: npt.NDArray[np.floating], boxes_xywh: FloatArray, skeleton: Skeleton
) -> LeftRightSuspicions:
    """The suspicions about N people: keypoints (N, K, 2), visibility (N, K), boxes (N, 4) of positive size."""
    face = _swapped_faces(keypoints_in_image, visibility, skeleton)
    pairs = np.array([skeleton.indices(pair) for pair in skeleton.left_right_pairs], dtype=np.int64).reshape(-1, 2)
    lengths = np.sqrt(np.prod(boxes_xywh[:, 2:], axis=1))[:, None]
    vectors = (keypoints_in_image[:, pairs[:, 0]] - keypoints_in_image[:, pairs[:, 1]]) / lengths[..., None]
    labelled = (visibility[:, pairs] > 0).all(axis=2)
    usable = np.asarray(labelled & (np.linalg.norm(vectors, axis=2) >= _SHORTEST))

    # First all pairs judge each other, then only those that agree with the others, exchanged ones turned round.
    agreement = _agreement(_cosines(vectors, usable, np.ones(len(pairs))))
    weights = np.where(agreement >= 0.8, 1.0, np.where(agreement <= _EXCHANGED, -1.0, 0.0))
    cosines = _cosines(vectors, usable, weights)
    agreement = _agreement(cosines)
    return LeftRightSuspicions(
        face=face,
        pairs=(cosines < _CLEARLY_OPPOSITE) & _steady(cosines),
        throughout=agreement <= _EXCHANGED,
        agreement=agreement,
    )


def _cosines(vectors: FloatArray, usable: BoolArray, weights: FloatArray) -> FloatArray:
    """(N, P) cosine between each pair and the weighted sum of the person's others; NaN where either says little."""
    weighted = np.where(usable[..., None], vectors, 0.0) * weights[:, None]
    others = weighted.sum(axis=1, keepdims=True) - weighted
    length_of_others = np.linalg.norm(others, axis=2)
    tellable = usable & (length_of_others >= 2 * _SHORTEST)
    product = np.linalg.norm(vectors, axis=2) * length_of_others
    cosines = np.full(usable.shape, np.nan)
    np.divide((vectors * others).sum(axis=2), product, out=cosines, where=tellable)
    return cosines


def _agreement(cosines: FloatArray) -> FloatArray:
    """(P,) share of people in whom a pair points the way of the others; NaN for pairs with too few people."""
    told = np.isfinite(cosines)
    people = told.sum(axis=0)
    shares = np.full(cosines.shape[1], np.nan)
    np.divide((cosines > 0).sum(axis=0), people, out=shares, where=people >= _FEWEST_PEOPLE)
    return shares


def _steady(cosines: FloatArray) -> BoolArray:
    """(P,) whether a pair points the way of the others in almost everybody."""
    enough = np.isfinite(cosines).sum(axis=0) >= _FEWEST_PEOPLE
    steady = np.zeros(len(enough), dtype=np.bool_)
    steady[enough] = np.nanquantile(cosines[:, enough], 0.05, axis=0) >= _STEADY
    return steady


def _swapped_faces(keypoints: FloatArray, visibility: npt.NDArray[np.floating], skeleton: Skeleton) -> BoolArray:
    names = [plain_name(name) for name in skeleton.keypoint_names]
    if not set(_FACE) <= set(names):
        return np.zeros(len(keypoints), dtype=np.bool_)
    face = [names.index(name) for name in _FACE]
    nose, left_eye, right_eye = (keypoints[:, index] for index in face)
    up, leftwards = (left_eye + right_eye) / 2 - nose, left_eye - right_eye
    height, width = np.linalg.norm(up, axis=1), np.linalg.norm(leftwards, axis=1)
    large = (visibility[:, face] == 2).all(axis=1) & (height >= _SMALLEST_FACE) & (width >= _SMALLEST_FACE)
    cross = up[:, 0] * leftwards[:, 1] - up[:, 1] * leftwards[:, 0]  # positive: leftwards is clockwise of up (y down)
    return np.asarray(large & (cross < _FACE_SINE * height * width))
