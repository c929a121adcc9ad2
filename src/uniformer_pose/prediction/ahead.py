"""Work that is read ahead in threads, and done in groups."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

# Of one group: 200 MB as pixels, whatever the size of the pictures.
MOST_PIXELS_TOGETHER = 64_000_000


def read_ahead(reads: Iterable[Callable[[], T | None]], *, threads: int, waiting: int) -> Generator[T]:
    """What the calls return, in order, up to the first None; so many results wait at most.

    Who stops before the end closes it, after which no call is running.
    """
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[T | None]] = deque()
        calls = iter(reads)
        try:
            while True:
                while len(ahead) < waiting and (read := next(calls, None)) is not None:
                    ahead.append(pool.submit(read))
                if not ahead or (result := ahead.popleft().result()) is None:
                    return
                yield result
        finally:
            for future in ahead:
                future.cancel()


def in_groups(things: Iterable[T], *, pixels_of: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """The things in groups of at most ``most``, and fewer where the pixels of so many would be too much memory."""
    group: list[T] = []
    pixels = 0
    for thing in things:
        size = pixels_of(thing)
        if group and (len(group) >= most or pixels + size > MOST_PIXELS_TOGETHER):
            yield group
            group, pixels = [], 0
        group.append(thing)
        pixels += size
    if group:
        yield group
