"""The people of one frame -> the numbers they had in the frames before.

Each person of a frame is compared with where everybody known should be by now, by their keypoints (OKS) and their boxes
(IoU); the pairs that are most similar in all belong together, and who is like nobody gets a new number. Somebody who is
not found for a moment, behind another person or missed by the detector, is remembered for a second. There is no look
at clothes or faces: two people who are hidden together for long may come out exchanged.

Trackers of boxes (SORT, ByteTrack, OC-SORT, and the libraries made of them) compare no keypoints, and those are what
tells two people apart whose boxes overlap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

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

_FRAME_SECONDS_IF_UNKNOWN = 1 / 30


@dataclass(frozen=True)
class _Tracks:
    """The people known, T of them, as they were last seen."""

    ids: IntArray  # (T,)
    keypoints_in_image: Array  # (T, K, 2)
    scores: Array  # (T, K)
    boxes_xywh: Array  # (T, 4)
    areas: Array  # (T,)
    velocities: Array  # (T, 2) of the whole person, image pixels per second
    seconds: Array  # (T,) when

    def taken(self, rows: npt.NDArray[Any]) -> _Tracks:
        return _Tracks(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def joined(self, other: _Tracks) -> _Tracks:
        return _Tracks(
            **{f.name: np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)}
        )


class Tracker:
    """Numbers people from 1, the same person the same in every frame; one tracker per video.

    ``sigmas`` (K,) are the skeleton's OKS sigmas. A pair is possible where the similarity (0 to 1) is at
    least ``min_similarity``; keypoints count whose score is above ``min_keypoint_score`` both times, and only the boxes
    where there are none. Who has not been found for ``memory_seconds`` is forgotten, and comes back as somebody new.
    """

    def __init__(
        self,
        sigmas: Array,
        *,
        min_similarity: float = 0.1,
        min_keypoint_score: float = 0.2,
        memory_seconds: float = 1.0,
    ) -> None:
        self.sigmas = np.asarray(sigmas, dtype=np.float64)
        self.min_similarity = min_similarity
        self.min_keypoint_score = min_keypoint_score
        self.memory_seconds = memory_seconds
        self._next_id = 1
        self._seconds: float | None = None
        self._tracks = _no_tracks(len(self.sigmas))

    def update(
        self,
        keypoints_in_image: npt.NDArray[np.floating],
        scores: npt.NDArray[np.floating],
        boxes_xywh: npt.NDArray[np.floating],
        areas: npt.NDArray[np.floating],
        *,
        seconds: float | None = None,
    ) -> IntArray:
        """The numbers (P,) of the people of the next frame; all different.

        Keypoints (P, K, 2) and boxes (P, 4) are in image pixels, areas (P,) in those squared, scores (P, K). A frame
        without people must be told too. ``seconds`` is the frame's time, above the last one's; None stands for 1/30 s
        after it.
        """
        if seconds is None:
            seconds = 0.0 if self._seconds is None else self._seconds + _FRAME_SECONDS_IF_UNKNOWN
        if self._seconds is not None and seconds <= self._seconds:
            raise ValueError(f"a frame at {seconds} s cannot follow one at {self._seconds} s")
        self._seconds = seconds
        known = self._tracks.taken(seconds - self._tracks.seconds <= self.memory_seconds)
        count = len(keypoints_in_image)
        found = _Tracks(
            ids=np.zeros(count, dtype=np.int64),
            keypoints_in_image=_checked(keypoints_in_image, (count, len(self.sigmas), 2)),
            scores=_checked(scores, (count, len(self.sigmas))),
            boxes_xywh=_checked(boxes_xywh, (count, 4)),
            areas=_checked(areas, (count,)),
            velocities=np.zeros((count, 2)),
            seconds=np.full(count, seconds),
        )
        before, now = _best_pairs(self._similarities(known, found, seconds), self.min_similarity)
        found.ids[now] = known.ids[before]
        new = np.flatnonzero(found.ids == 0)
        found.ids[new] = self._next_id + np.arange(len(new))
        self._next_id += len(new)
        found.velocities[now] = self._velocities(known.taken(before), found.taken(now))
        missed = np.setdiff1d(np.arange(len(known.ids)), before)
        self._tracks = found.joined(known.taken(missed))
        return found.ids.copy()

    def state(self) -> dict[str, Any]:
        """All that is remembered, as plain numbers and lists that JSON holds exactly."""
        tracks = {field.name: getattr(self._tracks, field.name).tolist() for field in fields(_Tracks)}
        return {"next_id": self._next_id, "seconds": self._seconds, "tracks": tracks}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state`` returned, of a tracker with the same arguments."""
        empty = _no_tracks(len(self.sigmas))
        tracks = {}
        for field in fields(_Tracks):
            like = getattr(empty, field.name)
            tracks[field.name] = np.asarray(state["tracks"][field.name], dtype=like.dtype).reshape(-1, *like.shape[1:])
        self._next_id, self._seconds, self._tracks = state["next_id"], state["seconds"], _Tracks(**tracks)

    def _similarities(self, known: _Tracks, found: _Tracks, seconds: float) -> Array:
        """(T, P) in [0, 1], with everybody known moved on to where they should be by now."""
        ages = seconds - known.seconds
        shifts = known.velocities * ages[:, None]
        expected = known.keypoints_in_image + shifts[:, None]
        counted = self._is_seen(known)[:, None] & self._is_seen(found)[None]
        factors = _LEAST_AREA_FACTOR + _AREA_FACTOR_PER_SECOND * np.minimum(ages, _LONGEST_STRAYING)
        areas = factors[:, None] * (known.areas[:, None] + found.areas[None]) / 2
        near = keypoint_similarities(expected[:, None], found.keypoints_in_image[None], areas, self.sigmas)
        oks = np.where(counted, near, 0.0).sum(axis=-1) / np.maximum(counted.sum(axis=-1), 1)
        boxes = known.boxes_xywh + np.concatenate([shifts, np.zeros_like(shifts)], axis=1)
        iou = _pairwise_iou(boxes, found.boxes_xywh)
        return np.where(counted.any(axis=-1), _WEIGHT_OF_OKS * oks + (1 - _WEIGHT_OF_OKS) * iou, iou)

    def _is_seen(self, tracks: _Tracks) -> npt.NDArray[np.bool_]:
        finite = np.isfinite(tracks.keypoints_in_image).all(axis=-1)
        return np.asarray(finite & (tracks.scores > self.min_keypoint_score))

    def _velocities(self, before: _Tracks, now: _Tracks) -> Array:
        """(N, 2) mean speed of the keypoints seen both times, of the boxes' centres where none is."""
        seen = (self._is_seen(before) & self._is_seen(now))[..., None]
        with np.errstate(invalid="ignore"):  # not finite, not seen
            steps = np.where(seen, now.keypoints_in_image - before.keypoints_in_image, 0.0)
        of_keypoints = steps.sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
        box_steps = now.boxes_xywh - before.boxes_xywh
        of_boxes = box_steps[:, :2] + box_steps[:, 2:] / 2
        step = np.where(seen.any(axis=1), of_keypoints, of_boxes)
        newest = step / (now.seconds - before.seconds)[:, None]
        return np.asarray(_NEWEST_SPEED * newest + (1 - _NEWEST_SPEED) * before.velocities)


def _best_pairs(similarities: Array, least: float) -> tuple[IntArray, IntArray]:
    """Rows and columns of pairs that have the greatest sum; each used once, none less similar than ``least``."""
    possible = similarities >= least
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


def _no_tracks(num_keypoints: int) -> _Tracks:
    return _Tracks(
        ids=np.zeros(0, dtype=np.int64),
        keypoints_in_image=np.zeros((0, num_keypoints, 2)),
        scores=np.zeros((0, num_keypoints)),
        boxes_xywh=np.zeros((0, 4)),
        areas=np.zeros(0),
        velocities=np.zeros((0, 2)),
        seconds=np.zeros(0),
    )


def _checked(array: npt.NDArray[np.floating], shape: tuple[int, ...]) -> Array:
    found = np.array(array, dtype=np.float64)
    if found.shape != shape:
        raise ValueError(f"an array of shape {found.shape} where {shape} is needed")
    return found
