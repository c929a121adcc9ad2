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
    points: np.ndarray, *, size: float = 150.0, rate: float = RATE, times: np.ndarray | None = None, **arguments: float
) -> np.ndarray:
    """(N, K, 2) of one person through N frames, filtered."""
    smoother = KeypointSmoother(points.shape[1], **arguments)
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
    found = smoothed(points, size=1.0, min_cutoff=1.5, speed_coefficient=0.7, speed_cutoff=2.0)
    expected = paper_filter(values.tolist(), RATE, 1.5, 0.7, 2.0)
    np.testing.assert_allclose(found[:, 0, 0], expected, rtol=0, atol=1e-12)


@given(seed=seeds, count=st.integers(1, 5))
@settings(max_examples=10, deadline=None)
def test_keypoints_at_rest_stay_as_they_are(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    keypoints, areas = rng.uniform(0, 500, (count, 4, 2)), rng.uniform(100, 1e5, count)
    smoother = KeypointSmoother(4)
    for seconds in np.cumsum(rng.uniform(0.01, 0.4, 20)).tolist():
        found = smoother.smooth(np.arange(count), keypoints, areas, seconds=seconds)
        np.testing.assert_allclose(found, keypoints, rtol=0, atol=1e-9)


@given(coefficient=st.floats(1, 20))
@settings(max_examples=6, deadline=None)
@pytest.mark.parametrize("rate", [10.0, 30.0, 60.0])
def test_the_lag_behind_a_steady_motion_is_below_its_bound(rate: float, coefficient: float) -> None:
    points = np.concatenate(
        [moving(speed, rate=rate, frames=int(3 * rate)) for speed in (0.01, 0.1, 0.4, 1, 5)], axis=1
    )
    lag = points[..., 0] - smoothed(points, rate=rate, speed_coefficient=coefficient)[..., 0]
    assert lag.min() >= -1e-9  # never ahead
    assert lag[int(2 * rate) :].max() <= 150 / (2 * math.pi * coefficient)


def test_jitter_of_a_person_at_rest_becomes_less_than_a_third() -> None:
    rng = np.random.default_rng(0)
    noisy = moving(0.0) + rng.normal(0, 1.5, (300, 1, 2))  # 1 % of the person
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


def test_time_counts_and_not_the_number_of_frames() -> None:
    # A jump by one size, seen after a short and after a long time: the long time trusts it more.
    points = np.array([[[0.0, 0.0]], [[150.0, 0.0]]])
    quick = smoothed(points, times=np.array([0, 0.01]), speed_coefficient=0.0)[1, 0, 0]
    slow = smoothed(points, times=np.array([0, 0.2]), speed_coefficient=0.0)[1, 0, 0]
    assert quick == pytest.approx(150 / (1 + 1 / (2 * math.pi * 0.01)))
    assert slow == pytest.approx(150 / (1 + 1 / (2 * math.pi * 0.2)))


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_people_do_not_influence_each_other_nor_does_their_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.cumsum(rng.normal(0, 5, (12, 4, 3, 2)), axis=0)
    areas = rng.uniform(1e3, 1e5, 4)
    together = KeypointSmoother(3)
    alone = {person: KeypointSmoother(3) for person in range(4)}
    for frame in range(12):
        people = rng.permutation(4)[: rng.integers(1, 5)]
        found = together.smooth(people + 10, points[frame, people], areas[people], seconds=frame / RATE)
        for row, person in enumerate(people.tolist()):
            one = [person]
            expected = alone[person].smooth(ONE, points[frame, one], areas[one], seconds=frame / RATE)
            np.testing.assert_array_equal(found[row], expected[0])


def test_who_was_away_longer_than_the_memory_starts_anew() -> None:
    points = np.array([[[0.0, 0.0]], [[1.0, 0.0]], [[90.0, 0.0]], [[91.0, 0.0]]])
    found = smoothed(points, times=np.array([0, 0.1, 0.7, 0.8]), memory_seconds=0.5)
    assert found[2, 0, 0] == 90.0
    assert 90.0 < found[3, 0, 0] < 91.0


def test_people_who_vanished_are_forgotten() -> None:
    smoother = KeypointSmoother(1, memory_seconds=0.5)
    for frame in range(300):  # somebody else in each frame
        smoother.smooth(np.array([frame]), np.zeros((1, 1, 2)), np.ones(1), seconds=frame / RATE)
    assert len(smoother._people) <= 16


def test_a_frame_without_people_is_a_frame() -> None:
    smoother = KeypointSmoother(3)
    nobody = smoother.smooth(np.zeros(0, np.int64), np.zeros((0, 3, 2)), np.zeros(0), seconds=0.0)
    assert nobody.shape == (0, 3, 2)
    smoother.smooth(ONE, np.zeros((1, 3, 2)), np.ones(1), seconds=0.1)
    smoother.smooth(np.zeros(0, np.int64), np.zeros((0, 3, 2)), np.zeros(0), seconds=0.2)
    assert len(smoother._people) == 1


def test_a_keypoint_that_is_not_finite_comes_out_so_and_is_as_if_not_seen() -> None:
    points = np.cumsum(np.random.default_rng(0).normal(0, 5, (10, 2, 2)), axis=0)
    holes = points.copy()
    holes[4, 0] = np.nan
    holes[5, 0, 1] = np.inf
    found = smoothed(holes)
    np.testing.assert_array_equal(found[4:6, 0], holes[4:6, 0])
    np.testing.assert_array_equal(found[:, 1], smoothed(points)[:, 1])  # the other keypoint
    without = np.delete(points, [4, 5], axis=0)
    times = np.delete(np.arange(10) / RATE, [4, 5])
    np.testing.assert_allclose(np.delete(found, [4, 5], axis=0)[:, 0], smoothed(without, times=times)[:, 0], atol=1e-12)


def test_time_that_does_not_rise_is_the_callers_mistake() -> None:
    smoother = KeypointSmoother(1)
    smoother.smooth(ONE, np.zeros((1, 1, 2)), np.ones(1), seconds=1.0)
    with pytest.raises(ValueError, match=r"a frame at 0\.5 s cannot follow one at 1\.0 s"):
        smoother.smooth(ONE, np.zeros((1, 1, 2)), np.ones(1), seconds=0.5)
