"""The keypoints of the people in a video -> the same without most of their jitter, by the One-Euro filter.

Casiez, Roussel and Vogel, "1€ Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive Systems",
CHI 2012, algorithm 1: an exponential mean whose cut-off frequency rises with the speed, since jitter shows at rest and
lag shows in motion. Three choices of ours: speeds are in person sizes (the root of the area) per second, so that near
and far people are smoothed alike; the speed of a keypoint is that of the point, not of each coordinate, so that the
direction does not matter; and time is measured, not counted, so that frame rates may vary.

A keypoint that moves steadily lags by less than 1 / (2 pi ``_SPEED_COEFFICIENT``) of the person's size: 2 %.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_LEAST_CUTOFF = 1.0  # Hz, at rest: lower takes away more jitter
_SPEED_COEFFICIENT = 8.0  # how much the cut-off rises with each person size per second (beta in the paper)
_SPEED_CUTOFF = 1.0  # Hz, of the speed itself
_MEMORY_SECONDS = 0.5  # a keypoint that was not seen for so long starts afresh


class KeypointSmoother:
    """Smooths each keypoint of each person over time; one smoother per video."""

    def __init__(self) -> None:
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
        as they are.
        """
        recent = seconds - _MEMORY_SECONDS
        self._people = {number: past for number, past in self._people.items() if past.seconds >= recent}
        smooth = np.array(keypoints_in_image, dtype=np.float64)
        for row, number in enumerate(ids.tolist()):
            if (past := self._people.get(number)) is not None:
                smooth[row] = past.next(smooth[row], float(np.sqrt(max(areas[row], 1.0))), seconds)
            else:
                self._people[number] = _Past(smooth[row].copy(), seconds)
        return smooth


class _Past:
    """What the filter remembers of one person: (K, 2) filtered image pixels, and person sizes per second, and when."""

    def __init__(self, points: Array, seconds: float) -> None:
        self.points, self.velocities, self.seconds = points, np.zeros_like(points), seconds

    def next(self, points: Array, size: float, seconds: float) -> Array:
        """The smoothed points (K, 2) of the person in a later frame."""
        step, moved = seconds - self.seconds, points - self.points
        self.velocities += _newest_weight(step, _SPEED_CUTOFF) * (moved / size / step - self.velocities)
        cutoffs = _LEAST_CUTOFF + _SPEED_COEFFICIENT * np.linalg.norm(self.velocities, axis=-1, keepdims=True)
        self.points, self.seconds = self.points + _newest_weight(step, cutoffs) * moved, seconds
        return self.points.copy()


def _newest_weight(step: float, cutoffs: Array | float) -> Array:
    """Weight of the newest value in an exponential mean with this cut-off (Hz), after a step in seconds."""
    return np.asarray(1.0 / (1.0 + 1.0 / (2 * np.pi * cutoffs * step)))
