"""Keypoints in a video lose their jitter, and lag little."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformer_pose.prediction.smoothing import KeypointSmoother

ONE = np.array([1])
RATE = 30.0
seeds = st.integers(0, 2**32 - 1)


def smoothed(
    points: np.ndarray, *, size: float = 150.0, rate: float = RATE, times: np.ndarray | None = None
) -> np.ndarray:
    """(N, K, 2) of one person through N frames, filtered."""
    smoother = KeypointSmoother()
    times = np.arange(len(points)) / rate if times is None else times
    areas = np.array([size**2])
    return np.concatenate(
        [smoother.smooth(ONE, frame[None], areas, seconds=t) for frame, t in zip(points, times.tolist(), strict=True)]
    )


def moving(speed: float, *, frames: int = 300, rate: float = RATE, size: float = 150.0) -> np.ndarray:
    """(N, 1, 2) of a point that moves to the right by this many person sizes per second."""
    return np.stack([100 + speed * size * np.arange(frames) / rate, np.full(frames, 40.0)], axis=-1)[:, None]


def paper_filter(values: list[float], rate: float, min_cutoff: float, beta: float, speed_cutoff: float) -> list[float]:
    """Algorithm 1 of Casiez et al., one number at a time, as the paper prints it."""

    def alpha(cutoff: float) -> float:
        return 1 / (1 + 1 / (2 * math.pi * cutoff) * rate)

    results: list[float] = []
    speed = 0.0
    for value in values:
        change = (value - results[-1]) * rate if results else 0.0
        speed = alpha(speed_cutoff) * change + (1 - alpha(speed_cutoff)) * speed if results else 0.0
        weight = alpha(min_cutoff + beta * abs(speed))
        results.append(weight * value + (1 - weight) * results[-1] if results else value)
    return results


def test_along_a_line_and_with_size_1_it_is_the_filter_of_the_paper() -> None:
    values = np.cumsum(np.random.default_rng(0).normal(0, 1, 100))
    points = np.stack([values, np.zeros(100)], axis=-1)[:, None]
    expected = paper_filter(values.tolist(), RATE, 1.0, 8.0, 1.0)
    np.testing.assert_allclose(smoothed(points, size=1.0)[:, 0, 0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rate", [10.0, 30.0, 60.0])
def test_the_lag_behind_a_steady_motion_is_below_its_bound(rate: float) -> None:
    points = np.concatenate(
        [moving(speed, rate=rate, frames=int(3 * rate)) for speed in (0.01, 0.1, 0.4, 1, 5)], axis=1
    )
    lag = points[..., 0] - smoothed(points, rate=rate)[..., 0]
    assert lag.min() >= -1e-9  # never ahead
    assert lag[int(2 * rate) :].max() <= 150 / (2 * math.pi * 8)


def test_jitter_of_a_person_at_rest_becomes_less_than_a_third() -> None:
    noisy = moving(0.0) + np.random.default_rng(0).normal(0, 1.5, (300, 1, 2))  # 1 % of the person
    found = smoothed(noisy)
    assert np.diff(found[30:], axis=0).std() < np.diff(noisy[30:], axis=0).std() / 3
    assert (found - moving(0.0))[30:].std() < 1.5 / 2


@given(seed=seeds, zoom=st.floats(0.05, 20), angle=st.floats(0, 6.28))
@settings(max_examples=12, deadline=None)
def test_near_and_far_people_and_all_directions_are_smoothed_alike(seed: int, zoom: float, angle: float) -> None:
    points = np.cumsum(np.random.default_rng(seed).normal(0, 5, (30, 3, 2)), axis=0)
    turn = zoom * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    found = smoothed(points @ turn.T + 17.0, size=150.0 * zoom)
    np.testing.assert_allclose(found, smoothed(points) @ turn.T + 17.0, rtol=1e-9, atol=1e-6)


def test_who_was_away_longer_than_half_a_second_starts_anew_and_is_forgotten() -> None:
    points = np.array([[[0.0, 0.0]], [[1.0, 0.0]], [[90.0, 0.0]], [[91.0, 0.0]]])
    found = smoothed(points, times=np.array([0, 0.1, 0.7, 0.8]))
    assert found[2, 0, 0] == 90.0
    assert 90.0 < found[3, 0, 0] < 91.0
    smoother = KeypointSmoother()
    for frame in range(300):  # somebody else in each frame
        smoother.smooth(np.array([frame]), np.zeros((1, 1, 2)), np.ones(1), seconds=frame / RATE)
    assert len(smoother._people) <= 16
    nobody = smoother.smooth(np.zeros(0, np.int64), np.zeros((0, 3, 2)), np.zeros(0), seconds=20.0)
    assert nobody.shape == (0, 3, 2)
