"""The keypoints of the people in a video -> the same without most of their jitter, by the One-Euro filter.

Casiez, Roussel and Vogel, "1€ Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive Systems",
CHI 2012, algorithm 1: an exponential mean whose cut-off frequency rises with the speed, since jitter shows at rest and
lag shows in motion. Three choices of ours: speeds are in person sizes (the root of the area) per second, so that near
and far people are smoothed alike; the speed of a keypoint is that of the point, not of each coordinate, so that the
direction does not matter; and time is measured, not counted, so that frame rates may vary.

A keypoint that moves steadily lags by less than 1 / (2 pi ``speed_coefficient``) of the person's size: 2 % with the
default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.errors import InputError

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Past:
    """What the filter remembers of T people."""

    ids: npt.NDArray[np.int64]  # (T,) rising
    seconds: Array  # (T, K) when each keypoint was last filtered, NaN for never
    points: Array  # (T, K, 2) filtered, image pixels
    velocities: Array  # (T, K, 2) filtered, person sizes per second

    def taken(self, rows: npt.NDArray[Any]) -> _Past:
        return _Past(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


class KeypointSmoother:
    """Smooths each keypoint of each person over time; one smoother per video.

    ``min_cutoff`` (Hz) is the cut-off frequency at rest: lower takes away more jitter. ``speed_coefficient`` says
    how much that rises with each person size per second (beta in the paper): higher lags less. ``speed_cutoff`` (Hz)
    smooths the speed itself. A keypoint not seen for ``memory_seconds`` starts anew.
    """

    def __init__(
        self,
        num_keypoints: int,
        *,
        min_cutoff: float = 1.0,
        speed_coefficient: float = 8.0,
        speed_cutoff: float = 1.0,
        memory_seconds: float = 0.5,
    ) -> None:
        for name, value, above_zero in (
            ("min_cutoff", min_cutoff, True),
            ("speed_coefficient", speed_coefficient, False),
            ("speed_cutoff", speed_cutoff, True),
            ("memory_seconds", memory_seconds, True),
        ):
            if not (np.isfinite(value) and (value > 0 or (value == 0 and not above_zero))):
                raise InputError(f"{name} is {value}; it must be {'above 0' if above_zero else '0 or more'}")
        self.min_cutoff = min_cutoff
        self.speed_coefficient = speed_coefficient
        self.speed_cutoff = speed_cutoff
        self.memory_seconds = memory_seconds
        self._past = _nobody(num_keypoints)

    def smooth(
        self,
        ids: npt.NDArray[np.integer],
        keypoints_in_image: npt.NDArray[np.floating],
        areas: npt.NDArray[np.floating],
        *,
        seconds: float,
    ) -> Array:
        """(P, K, 2) smoothed keypoints of the people of the next frame, in image pixels.

        ``ids`` (P,) tell whose they are, all different (``Tracker``); areas (P,) how large a person is, in pixels
        squared; ``seconds`` the frame's time, above that of any frame before. The first keypoints of a person come out
        as they are, and so does a keypoint that is not finite; it is as if it had not been seen.
        """
        now = np.array(keypoints_in_image, dtype=np.float64)
        numbers = np.asarray(ids, dtype=np.int64)
        num_keypoints = self._past.points.shape[1]
        if now.shape != (len(ids), num_keypoints, 2) or np.shape(areas) != (len(ids),):
            raise ValueError(
                f"keypoints {now.shape} and areas {np.shape(areas)} do not fit {len(ids)} people with "
                f"{num_keypoints} keypoints"
            )
        if len(np.unique(ids)) != len(ids):
            raise ValueError(f"ids must be different, not {ids.tolist()}")
        past = self._past_of(numbers)
        steps = seconds - past.seconds
        if np.any(steps <= 0):
            raise ValueError(f"a frame at {seconds} s cannot follow one at {np.nanmax(past.seconds)} s")
        seen = np.asarray(np.isfinite(now).all(axis=-1))
        known = np.asarray(seen & (steps <= self.memory_seconds))  # false for never

        size = np.sqrt(np.maximum(np.asarray(areas, dtype=np.float64), 1.0))[:, None, None]
        steps = np.where(known, steps, 1.0)[..., None]
        moved = np.where(known[..., None], now - past.points, 0.0)
        velocities = np.where(known[..., None], past.velocities, 0.0)
        velocities += _smoothing_factor(steps, self.speed_cutoff) * (moved / size / steps - velocities)
        speeds = np.linalg.norm(velocities, axis=-1, keepdims=True)
        cutoffs = self.min_cutoff + self.speed_coefficient * speeds
        smooth = np.where(known[..., None], past.points + _smoothing_factor(steps, cutoffs) * moved, now)

        order = np.argsort(numbers)
        kept = _Past(
            ids=numbers,
            seconds=np.where(seen, seconds, past.seconds),
            points=np.where(seen[..., None], smooth, past.points),
            velocities=np.where(seen[..., None], velocities, past.velocities),
        ).taken(order)
        self._past = self._with_the_absent(kept, seconds)
        return smooth

    def state(self) -> dict[str, Any]:
        """All that is remembered, as plain numbers and lists that JSON holds exactly; None stands for never."""
        remembered = {field.name: getattr(self._past, field.name).tolist() for field in fields(_Past)}
        remembered["seconds"] = [[None if s != s else s for s in row] for row in remembered["seconds"]]
        return remembered

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state`` returned, of a smoother with the same arguments."""
        empty = _nobody(self._past.points.shape[1])
        arrays = {}
        for field in fields(_Past):
            like = getattr(empty, field.name)
            arrays[field.name] = np.array(state[field.name], dtype=like.dtype).reshape(-1, *like.shape[1:])
        self._past = _Past(**arrays)

    def _past_of(self, ids: npt.NDArray[np.int64]) -> _Past:
        """What is remembered of each person, an empty past where nothing is."""
        past = self._past
        empty = _nobody(past.points.shape[1], ids)
        if not len(past.ids):
            return empty
        rows = np.minimum(np.searchsorted(past.ids, ids), len(past.ids) - 1)
        known = past.ids[rows] == ids
        for field in fields(_Past):
            getattr(empty, field.name)[known] = getattr(past, field.name)[rows[known]]
        return empty

    def _with_the_absent(self, present: _Past, seconds: float) -> _Past:
        """With those who are not in the frame, unless that is so for too long."""
        past = self._past
        if not len(past.ids):
            return present
        with np.errstate(invalid="ignore"):
            recent = np.any(seconds - past.seconds <= self.memory_seconds, axis=1)
        absent = past.taken(recent & ~np.isin(past.ids, present.ids))
        both = _Past(
            **{f.name: np.concatenate([getattr(present, f.name), getattr(absent, f.name)]) for f in fields(_Past)}
        )
        return both.taken(np.argsort(both.ids))


def _smoothing_factor(steps: Array, cutoffs: Array | float) -> Array:
    """Weight of the newest value in an exponential mean with this cut-off (Hz), after steps in seconds."""
    return np.asarray(1.0 / (1.0 + 1.0 / (2 * np.pi * cutoffs * steps)))


def _nobody(num_keypoints: int, ids: npt.NDArray[np.int64] | None = None) -> _Past:
    count = 0 if ids is None else len(ids)
    return _Past(
        ids=np.zeros(0, dtype=np.int64) if ids is None else ids.copy(),
        seconds=np.full((count, num_keypoints), np.nan),
        points=np.zeros((count, num_keypoints, 2)),
        velocities=np.zeros((count, num_keypoints, 2)),
    )
