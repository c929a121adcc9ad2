"""The people of one frame -> the numbers they had in the frames before.

Each person of a frame is compared with where everybody known should be by now, by their keypoints (OKS) and their boxes
(IoU); the pairs that are most similar in all belong together, and who is like nobody gets a new number. Somebody who is
not found for a moment, behind another person or missed by the detector, is remembered for a second. There is no look
at clothes or faces: two people who are hidden together for long may come out exchanged.

Trackers of boxes (SORT, ByteTrack, OC-SORT, and the libraries made of them) compare no keypoints, and those are what
tells two people apart whose boxes overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from uniformer_pose.evaluation.oks import keypoint_similarities

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# How much two people count as the same: this much of their OKS, the rest of their IoU.
_WEIGHT_OF_OKS = 0.7

# OKS measures against the spread of annotators about a resting point; a moving one strays the farther the longer it was
# not seen. So the area, which squared distances are divided by, counts twice at least, plus 60 times for each second up
# to 0.2: four times from frame to frame at 30 frames per second, fourteen times at 5.
_LEAST_AREA_FACTOR = 2.0
_AREA_FACTOR_PER_SECOND = 60.0
_LONGEST_STRAYING = 0.2

# Weight of the newest speed in the mean speed of a person.
_NEWEST_SPEED = 0.5

_LEAST_SIMILARITY = 0.1
_LEAST_KEYPOINT_SCORE = 0.2
_MEMORY_SECONDS = 1.0


@dataclass
class _Track:
    """Somebody known, as last seen."""

    number: int
    keypoints: Array  # (K, 2) image pixels
    scores: Array  # (K,)
    box: Array  # (4,) xywh
    area: float
    velocity: Array  # (2,) of the whole person, image pixels per second
    seconds: float  # when


class Tracker:
    """Numbers people from 1, the same person the same in every frame; one tracker per video.

    ``sigmas`` (K,) are the skeleton's OKS sigmas. A pair is possible where the similarity (0 to 1) is at least 0.1;
    keypoints count whose score is above 0.2 both times, and only the boxes where there are none. Who has not been found
    for a second is forgotten, and comes back as somebody new.
    """

    def __init__(self, sigmas: Array) -> None:
        self.sigmas = np.asarray(sigmas, dtype=np.float64)
        self._next_number = 1
        self._tracks: list[_Track] = []

    def update(
        self, keypoints_in_image: Array, scores: Array, boxes_xywh: Array, areas: Array, *, seconds: float
    ) -> IntArray:
        """The numbers (P,) of the people of the next frame; all different.

        Keypoints (P, K, 2) and boxes (P, 4) are in image pixels, areas (P,) in those squared, scores (P, K). A frame
        without people must be told too. ``seconds`` is the frame's time, above the last one's.
        """
        known = [track for track in self._tracks if seconds - track.seconds <= _MEMORY_SECONDS]
        nobody = np.zeros(2)
        found = [
            _Track(0, keypoints.copy(), scores_of.copy(), box.copy(), float(area), nobody, seconds)
            for keypoints, scores_of, box, area in zip(keypoints_in_image, scores, boxes_xywh, areas, strict=True)
        ]
        before_of: dict[int, _Track] = {}
        if known and found:
            rows, columns = _best_pairs(self._similarities(known, found, seconds))
            before_of = {column: known[row] for row, column in zip(rows.tolist(), columns.tolist(), strict=True)}
        for index, track in enumerate(found):
            if (before := before_of.get(index)) is not None:
                track.number, track.velocity = before.number, self._velocity(before, track)
            else:
                track.number, self._next_number = self._next_number, self._next_number + 1
        numbers = {track.number for track in found}
        self._tracks = found + [track for track in known if track.number not in numbers]
        return np.array([track.number for track in found], dtype=np.int64)

    def _similarities(self, known: list[_Track], found: list[_Track], seconds: float) -> Array:
        """(T, P) in [0, 1], with everybody known moved on to where they should be by now."""
        ages = np.array([seconds - track.seconds for track in known])
        shifts = np.stack([track.velocity for track in known]) * ages[:, None]
        expected = np.stack([track.keypoints for track in known]) + shifts[:, None]
        scores, found_scores = (np.stack([track.scores for track in tracks]) for tracks in (known, found))
        counted = np.minimum(scores[:, None], found_scores[None]) > _LEAST_KEYPOINT_SCORE
        factors = _LEAST_AREA_FACTOR + _AREA_FACTOR_PER_SECOND * np.minimum(ages, _LONGEST_STRAYING)
        known_areas, found_areas = (np.array([track.area for track in tracks]) for tracks in (known, found))
        areas = factors[:, None] * (known_areas[:, None] + found_areas[None]) / 2
        points = np.stack([track.keypoints for track in found])
        near = keypoint_similarities(expected[:, None], points[None], areas, self.sigmas)
        oks = np.where(counted, near, 0.0).sum(axis=-1) / np.maximum(counted.sum(axis=-1), 1)
        boxes = np.stack([track.box for track in known]) + np.concatenate([shifts, np.zeros_like(shifts)], axis=1)
        iou = _pairwise_iou(boxes, np.stack([track.box for track in found]))
        return np.where(counted.any(axis=-1), _WEIGHT_OF_OKS * oks + (1 - _WEIGHT_OF_OKS) * iou, iou)

    @staticmethod
    def _velocity(before: _Track, now: _Track) -> Array:
        """(2,) mean speed of the keypoints seen both times, of the box's centre where none is."""
        seen = np.minimum(before.scores, now.scores) > _LEAST_KEYPOINT_SCORE
        if seen.any():
            step = (now.keypoints[seen] - before.keypoints[seen]).sum(axis=0) / seen.sum()
        else:
            step = (now.box - before.box)[:2] + (now.box - before.box)[2:] / 2
        newest = step / (now.seconds - before.seconds)
        return np.asarray(_NEWEST_SPEED * newest + (1 - _NEWEST_SPEED) * before.velocity)


def _best_pairs(similarities: Array) -> tuple[IntArray, IntArray]:
    """Rows and columns of pairs that have the greatest sum; each used once, none of too little similarity."""
    possible = similarities >= _LEAST_SIMILARITY
    rows, columns = linear_sum_assignment(np.where(possible, similarities, 0.0), maximize=True)
    kept = possible[rows, columns]
    return rows[kept], columns[kept]


def _pairwise_iou(boxes_xywh: Array, other_boxes_xywh: Array) -> Array:
    """(N, M) intersection over union; 0 where both boxes are empty."""
    low, other_low = boxes_xywh[:, None, :2], other_boxes_xywh[None, :, :2]
    high, other_high = low + boxes_xywh[:, None, 2:], other_low + other_boxes_xywh[None, :, 2:]
    common = np.clip(np.minimum(high, other_high) - np.maximum(low, other_low), 0, None).prod(axis=-1)
    union = boxes_xywh[:, None, 2:].prod(axis=-1) + other_boxes_xywh[None, :, 2:].prod(axis=-1) - common
    return np.asarray(common / np.maximum(union, np.finfo(np.float64).tiny))
