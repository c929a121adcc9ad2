from __future__ import annotations

import pytest
import torch

from uniformer_pose.benchmarks import measurement
from uniformer_pose.benchmarks.measurement import Measurement, Side, clock_of, measure, no_progress, quartiles
from uniformer_pose.errors import InputError


class Clock:
    """A clock that only work moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(measurement.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(measurement.time, "process_time", lambda: self.now / 2)

    def work(self, seconds: float, units: int = 10) -> int:
        self.now += seconds
        return units


def test_the_sides_take_turns_and_every_other_round_runs_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = Clock(monkeypatch), []

    def side(name: str) -> Side:
        return Side(name, lambda: (order.append(name), clock.work(1))[1])

    measure([side("a"), side("b")], unit="crops", rounds=2, clock="wall", warmup=1)

    assert "".join(order) == "ba" + "ab" + "ba"


def test_a_rate_is_units_by_the_clock_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    seconds = iter([100.0, 1.0, 2.0, 4.0])

    (found,) = measure([Side("a", lambda: clock.work(next(seconds)))], unit="crops", rounds=3, clock="cpu")

    assert found.rates == [20.0, 10.0, 5.0]
    assert found.wall_seconds == [1.0, 2.0, 4.0]
    assert (found.median_rate, found.quartiles) == (10.0, (7.5, 15.0))


def test_the_ratio_compares_each_round_with_its_neighbour() -> None:
    # The machine is ten times as slow in the last round: of both sides.
    first = Measurement("a", "crops", "cpu", units=[10] * 3, seconds=[1.0, 1.0, 10.0])
    second = Measurement("b", "crops", "cpu", units=[10] * 3, seconds=[0.5, 0.5, 5.0])

    assert second.ratio_to(first) == 2.0


def test_the_quartiles_of_one_round_are_that_round() -> None:
    assert quartiles([3.0]) == (3.0, 3.0)


def test_progress_counts_every_round_of_every_side(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seen = Clock(monkeypatch), []
    sides = [Side(name, lambda: clock.work(1)) for name in "ab"]

    measure(sides, unit="crops", rounds=2, clock="wall", on_progress=lambda *told: seen.append(told))
    no_progress(1, None)

    assert seen == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize(("rounds", "units"), [(0, 1), (1, 0)])
def test_nothing_to_measure_is_refused(monkeypatch: pytest.MonkeyPatch, rounds: int, units: int) -> None:
    clock = Clock(monkeypatch)
    with pytest.raises(InputError, match=r"at least 1 round|more to do"):
        measure([Side("a", lambda: clock.work(1, units))], unit="crops", rounds=rounds, clock="wall")


def test_the_clock_is_that_of_the_device() -> None:
    assert clock_of(torch.device("cuda", 0), 1) == "gpu"
    assert [clock_of(torch.device("cpu"), threads) for threads in (1, 2)] == ["cpu", "wall"]
