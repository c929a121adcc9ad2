"""Where the time of an evaluation goes: loading, network, decoding, matching."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up the seconds of named parts of one pass, started by its construction.

    Work on a GPU is timed between two of the GPU's own events, on the stream where it is queued: the clock of the
    processor would see only how long it takes to queue it, and waiting for it at each step would slow it down.
    Elsewhere the processor's clock counts. Parts that run at the same time (loading on the processor, the network on
    the GPU) each count in full.
    """

    def __init__(self) -> None:
        self._began = self._idle_since = time.perf_counter()
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def part(self, name: str, device: torch.device | None = None) -> Iterator[None]:
        """Count what runs inside towards ``name``; ``device`` is where it runs, None for the processor."""
        if device is not None and device.type == "cuda":
            stream = torch.cuda.current_stream(device)
            first = stream.record_event(_timing_event())
            yield
            self._events.append((name, first, stream.record_event(_timing_event())))
        else:
            start = time.perf_counter()
            yield
            self._add(name, time.perf_counter() - start)

    def loop_waits(self) -> None:
        """From here on the loop waits for its next batch."""
        self._idle_since = time.perf_counter()

    def batch_arrived(self) -> None:
        """The wait is over: it was for loading."""
        self._add("loading", time.perf_counter() - self._idle_since)

    def seconds(self) -> dict[str, float]:
        """Seconds of each part, and ``total`` since the start; waits for the GPU where it has not finished."""
        if self._events:
            self._events[-1][2].synchronize()
        for name, first, last in self._events:
            self._add(name, first.elapsed_time(last) / 1000)
        self._events.clear()
        return {**self._seconds, "total": time.perf_counter() - self._began}

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds


def _timing_event() -> torch.cuda.Event:
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    return event


def format_seconds(seconds: Mapping[str, float], num_crops: int) -> str:
    """``Stopwatch.seconds`` as a line of text: the total, crops per second, the parts."""
    total = seconds["total"]
    parts = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items() if name != "total")
    return f"{total:.1f} s for {num_crops} crops ({num_crops / total:.0f}/s): {parts}"
