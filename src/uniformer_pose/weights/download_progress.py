"""How far a download is: a bar in a terminal, a line now and then elsewhere. Standard error in both cases."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

Report = Callable[[int], None]

_SECONDS_BETWEEN_LINES = 1.0
_SECONDS_BETWEEN_LINES_WITHOUT_SIZE = 15.0


def transfer_progress(name: str, *, arrived: int, total: int | None) -> AbstractContextManager[Report]:
    """Inside the context: a function that is told how many bytes of the file are there by now.

    ``arrived`` bytes were there before; ``total`` is the size of the whole file, None if the server does not say.
    """
    return _bar(name, arrived, total) if sys.stderr.isatty() else _lines(name, arrived, total)


def say(line: str) -> None:
    """One line on standard error."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def megabytes(size: int) -> str:
    """Number of bytes for people, in units of 10^6 as drives and browsers count."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size} bytes"


@contextmanager
def _bar(name: str, arrived: int, total: int | None) -> Iterator[Report]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=total, completed=arrived)
        yield lambda now: progress.update(task, completed=now)


@contextmanager
def _lines(name: str, arrived: int, total: int | None) -> Iterator[Report]:
    size = "size unknown" if total is None else megabytes(total)
    say(f"{name}: downloading, {size}" if not arrived else f"{name}: continuing at {megabytes(arrived)}, {size}")
    begun = last = time.monotonic()
    tenth = arrived * 10 // total if total else 0
    latest = arrived

    def report(now: int) -> None:
        nonlocal last, tenth, latest
        latest = now
        seconds = time.monotonic()
        if total is None:
            if seconds - last >= _SECONDS_BETWEEN_LINES_WITHOUT_SIZE:
                last = seconds
                say(f"{name}: {megabytes(now)}")
        elif now < total and now * 10 // total > tenth and seconds - last >= _SECONDS_BETWEEN_LINES:
            last, tenth = seconds, now * 10 // total
            left = (seconds - begun) / (now - arrived) * (total - now)
            say(f"{name}: {100 * now // total} %, {megabytes(now)}, {left:.0f} s left")

    yield report
    say(f"{name}: {megabytes(latest)}, done in {time.monotonic() - begun:.0f} s")
