"""Pieces of work timed in turn: a machine that is slow for a minute is slow for all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from uniformer_pose.errors import InputError

Clock = Literal["cpu", "wall", "gpu"]
"""``cpu``: seconds of this process on all its cores, which others on the machine hardly change. ``wall``: of the clock
on the wall. ``gpu``: between two events of the GPU."""


Progress = Callable[[int, int | None], None]
"""Called with how many pieces of work are done, and of how many if known."""


def no_progress(_done: int, _total: int | None) -> None:
    """For those who do not want to know."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison. ``work`` does a round and returns how many units (crops, images) that were."""

    name: str
    work: Callable[[], int]


@dataclass
class Measurement:
    """The rounds of one side: how many units in how many seconds, by the clock that counts and by the wall's.

    ``peak_bytes``: the most that was allocated on the GPU in any round; None on a processor.
    """

    name: str
    unit: str
    clock: Clock
    units: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    wall_seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None

    @property
    def rates(self) -> list[float]:
        """Units per second of each round."""
        return [count / seconds for count, seconds in zip(self.units, self.seconds, strict=True)]

    @property
    def median_rate(self) -> float:
        """Units per second of the middle round."""
        return statistics.median(self.rates)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Units per second that a quarter and three quarters of the rounds stay below; of one round, its rate twice."""
        return quartiles(self.rates)

    def ratio_to(self, other: Measurement) -> float:
        """How many times as fast as ``other``: the median over rounds, each beside its neighbour in time."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.rates, other.rates, strict=True))


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third quartile; of a single value, that value."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def clock_of(device: torch.device, num_threads: int) -> Clock:
    """What to time work on ``device`` with: on one thread of a processor its own time, which others hardly change."""
    if device.type == "cuda":
        return "gpu"
    return "cpu" if num_threads == 1 else "wall"


def measure(
    sides: Sequence[Side],
    *,
    unit: str,
    rounds: int,
    clock: Clock,
    warmup: int = 1,
    on_progress: Progress = no_progress,
) -> list[Measurement]:
    """Time every side ``rounds`` times, in turn, every other round backwards; ``warmup`` rounds before do not count.

    Raises InputError for less than one round, and where a round did nothing, which has no rate.
    """
    if rounds < 1 or warmup < 0:
        raise InputError(f"rounds={rounds}, warmup={warmup}: at least 1 round, and no negative warm-up")
    results = [Measurement(side.name, unit, clock) for side in sides]
    total = (rounds + warmup) * len(sides)
    done = 0
    for number in range(-warmup, rounds):
        order = list(zip(sides, results, strict=True))
        for side, result in order if number % 2 == 0 else reversed(order):
            units, seconds, wall_seconds, peak = _timed(side.work, clock)
            if units < 1 or seconds <= 0:
                raise InputError(f"{side.name}: a round did {units} {unit} in {seconds} s; give it more to do")
            done += 1
            on_progress(done, total)
            if number < 0:
                continue
            result.units.append(units)
            result.seconds.append(seconds)
            result.wall_seconds.append(wall_seconds)
            if peak is not None:
                result.peak_bytes = max(peak, result.peak_bytes or 0)
    return results


def _timed(work: Callable[[], int], clock: Clock) -> tuple[int, float, float, int | None]:
    """Units, seconds by the clock, seconds on the wall, bytes at the peak."""
    if clock != "gpu":
        wall, processor = time.perf_counter(), time.process_time()
        units = work()
        processor, wall = time.process_time() - processor, time.perf_counter() - wall
        return units, processor if clock == "cpu" else wall, wall, None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    first: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    last: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    wall = time.perf_counter()
    torch.cuda.current_stream().record_event(first)
    units = work()
    torch.cuda.current_stream().record_event(last)
    last.synchronize()
    wall = time.perf_counter() - wall
    return units, first.elapsed_time(last) / 1000, wall, torch.cuda.max_memory_allocated()
