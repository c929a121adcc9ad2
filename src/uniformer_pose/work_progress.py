"""How far a piece of work is that can be counted: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def work_progress(things: str) -> Iterator[Callable[[int, int | None], None]]:
    """Inside the context: a function to call with how many of the ``things`` are done, and of how many if known.

    Writes to standard error. Without a terminal, work that is done within 10 seconds says nothing.
    """
    if not sys.stderr.isatty():
        last = time.monotonic()

        def line(done: int, total: int | None) -> None:
            nonlocal last
            if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                of_all = "" if total is None else f"/{total}"
                sys.stderr.write(f"{done}{of_all} {things}\n")
                sys.stderr.flush()

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(things, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
