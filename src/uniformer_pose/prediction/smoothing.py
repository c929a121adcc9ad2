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

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class KeypointSmoother:
    """Smooths each keypoint of each person over time; one smoother per video.

    ``min_cutoff`` (Hz) is the cut-off frequency at rest: lower takes away more jitter. ``speed_coefficient`` says
    how much that rises with each person size per second (beta in the paper): higher lags less. ``speed_cutoff`` (Hz)
    smooths the speed itself. A keypoint not seen for ``memory_seconds`` starts afresh.
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
        self.num_keypoints = num_keypoints
        self.min_cutoff, self.speed_coefficient = min_cutoff, speed_coefficient
        self.speed_cutoff, self.memory_seconds = speed_cutoff, memory_seconds
        self._people: dict[int, _Past] = {}

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
        recent = seconds - self.memory_seconds
        self._people = {number: past for number, past in self._people.items() if past.seconds.max() >= recent}
        smooth = np.array(keypoints_in_image, dtype=np.float64)
        for row, number in enumerate(np.asarray(ids).tolist()):
            past = self._people.setdefault(number, _Past(self.num_keypoints))
            smooth[row] = self._next(past, smooth[row], float(np.sqrt(max(areas[row], 1.0))), seconds)
        return smooth

    def _next(self, past: _Past, points: Array, size: float, seconds: float) -> Array:
        """The smoothed points (K, 2) of one person, whose past becomes this frame."""
        if np.any(past.seconds >= seconds):
            raise ValueError(f"a frame at {seconds} s cannot follow one at {past.seconds.max()} s")
        seen = np.isfinite(points).all(axis=-1)
        known = (seen & (seconds - past.seconds <= self.memory_seconds))[:, None]
        steps = np.where(known, (seconds - past.seconds)[:, None], 1.0)
        moved = np.where(known, points - past.points, 0.0)
        velocities = np.where(known, past.velocities, 0.0)
        velocities += _newest_weight(steps, self.speed_cutoff) * (moved / size / steps - velocities)
        cutoffs = self.min_cutoff + self.speed_coefficient * np.linalg.norm(velocities, axis=-1, keepdims=True)
        smooth = np.where(known, past.points + _newest_weight(steps, cutoffs) * moved, points)
        past.seconds[seen], past.points[seen], past.velocities[seen] = seconds, smooth[seen], velocities[seen]
        return smooth


class _Past:
    """What the filter remembers of one person."""

    def __init__(self, num_keypoints: int) -> None:
        self.seconds = np.full(num_keypoints, -np.inf)  # (K,) when each keypoint was last filtered
        self.points = np.zeros((num_keypoints, 2))  # (K, 2) filtered, image pixels
        self.velocities = np.zeros((num_keypoints, 2))  # (K, 2) filtered, person sizes per second


def _newest_weight(steps: Array, cutoffs: Array | float) -> Array:
    """Weight of the newest value in an exponential mean with this cut-off (Hz), after steps in seconds."""
    return np.asarray(1.0 / (1.0 + 1.0 / (2 * np.pi * cutoffs * steps)))
