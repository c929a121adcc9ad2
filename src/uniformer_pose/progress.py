"""How far a piece of work is, and tables of text: what a person at a terminal or a log file reads."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

Rows = Sequence[Sequence[str]]

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress_bar(things: str, *, unit: Literal["count", "bytes"] = "count") -> Iterator[Callable[..., None]]:
    """Inside the context: a function to call with how many of the ``things`` are done, and of how many if known.

    Of ``bytes`` the numbers are megabytes for people, and ``things`` is the name of a file. Writes to standard error: a
    bar in a terminal, else a line every ten seconds, so that short work says nothing.
    """
    if not sys.stderr.isatty():
        yield _line_writer(things, unit)
        return
    counted: tuple[ProgressColumn, ...] = (
        (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else (MofNCompleteColumn(),)
    )
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), *counted, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(things, total=None)
        yield lambda done, total=None: bar.update(task, completed=done, total=total)


def _line_writer(things: str, unit: str) -> Callable[..., None]:
    last = time.monotonic()

    def line(done: int, total: int | None = None) -> None:
        nonlocal last
        if time.monotonic() - last < _SECONDS_BETWEEN_LINES:
            return
        last = time.monotonic()
        numbers = [done] if total is None else [done, total]
        if unit == "bytes":
            text = f"{things}: {'/'.join(f'{number / 1e6:.1f}' for number in numbers)} MB"
        else:
            text = f"{'/'.join(map(str, numbers))} {things}"
        print(text, file=sys.stderr, flush=True)

    return line


def text_table(rows: Rows) -> str:
    """Rows of text, the first the header, in columns as wide as they need; the first column to the left."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column, name in enumerate(rows[0]):
        table.add_column(Text(name), justify="right" if column else "left", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    console = Console(file=io.StringIO(), width=100_000, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def markdown_table(rows: Rows) -> str:
    """Rows of text, the first the header, as a Markdown table."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|---{'|---:' * (len(rows[0]) - 1)}|", *lines[1:]])
