"""Hostile input tried under supervision: how an attempt ended, and what it did that no reader should do."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniformer_pose.errors import InputError

MOST_SECONDS = 3.0
"""Of CPU time, for files of a few kilobytes."""

LONGEST_LINE = 1500

# Whoever reads a file has no business with these.
_FORBIDDEN = (
    *("os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "os.putenv", "os.symlink", "pty.spawn"),
    *("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "urllib.Request", "webbrowser.open"),
)
_CHANGING = ("os.chmod", "os.chown", "os.link", "os.remove", "os.rename", "os.rmdir", "os.truncate", "shutil.rmtree")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Attempt:
    """``run`` reads something hostile and asserts that whatever it accepts is sound.

    ``what`` says how it was made. A refusal has to contain one of ``named``: the file, or the setting.
    """

    what: str
    named: tuple[str, ...]
    run: Callable[[], object]


class _Watch:
    folder: Path | None = None
    seen: list[str] = []  # noqa: RUF012  # one for the process, as the hook is


def complaint(attempt: Attempt, folder: Path) -> tuple[str | None, bool]:
    """What is wrong with how the attempt ended, if anything, and whether the input was refused.

    Right is a sound result, or one printable line that names the culprit; in either case soon, and without touching
    anything outside ``folder``.
    """
    started = time.process_time()
    problem, refused = None, False
    with _watched(folder) as seen:
        try:
            attempt.run()
        except InputError as error:
            refused, problem = True, _wrong_line(str(error), attempt.named)
        except AssertionError as error:
            problem = f"accepted, but unsound: {' '.join(str(error).split())[:300]}"
        except Exception as error:
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    seconds = time.process_time() - started
    if seconds > MOST_SECONDS:
        problem = problem or f"took {seconds:.1f} s"
    if seen:
        problem = problem or f"did what no reader should: {seen[:3]}"
    return (None if problem is None else f"{attempt.what} -> {problem}"), refused


def _wrong_line(line: str, named: tuple[str, ...]) -> str | None:
    if not line.strip() or not line.isprintable():
        return f"not one printable line: {line!r:.300}"
    if len(line) > LONGEST_LINE:
        return f"a line of {len(line)} characters: {line[:200]!r}"
    if not any(name in line for name in named):
        return f"names none of {named}: {line:.300}"
    return None


@contextmanager
def _watched(folder: Path) -> Iterator[list[str]]:
    _Watch.folder, _Watch.seen = folder.resolve(), []
    try:
        yield _Watch.seen
    finally:
        _Watch.folder = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    folder = _Watch.folder
    if folder is None:
        return
    if event == "open":
        path, _mode, flags = arguments
        if isinstance(flags, int) and flags & _WRITING and _is_outside(path, folder):
            _Watch.seen.append(f"wrote {path}")
    elif event.startswith(_CHANGING):
        if _is_outside(arguments[0], folder):
            _Watch.seen.append(f"{event} {arguments[0]}")
    elif event.startswith(_FORBIDDEN):
        _Watch.seen.append(f"{event} {arguments!r:.100}")


def _is_outside(path: Any, folder: Path) -> bool:
    if isinstance(path, int) or path == os.devnull:
        return False
    inside = os.path.realpath(os.fsdecode(path))
    return not inside.startswith((f"{folder}/", "/dev/null", "/proc/self", "/dev/shm"))


sys.addaudithook(_hook)  # for good: Python cannot take one away
