"""The exceptions whose message is one line for the user: unusable input, and a training that diverged."""

from __future__ import annotations

import importlib
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WRONG_VALUES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What building an object from numbers that make no sense may raise, in our code or in other libraries'."""


class InputError(ValueError):
    """Something the user provided cannot be used.

    The message is a single line: it names the value or file, says what is allowed, and what to do. Entry
    points print it without a traceback and exit with status 2. Names out of files may be part of it, so what would
    steer a terminal is escaped.
    """

    def __init__(self, message: str = "") -> None:
        # Not the line breaks: a data worker's error arrives with its traceback in front.
        super().__init__("\n".join(map(printable, message.split("\n"))))


class RunFailedError(RuntimeError):
    """A run came to an end that is neither the user's mistake nor ours; the message is a single line, with what to try.

    Entry points print it without a traceback and exit with status 1.
    """


class DivergedError(RunFailedError):
    """Numbers of a network stopped being finite."""


@contextmanager
def named_set(name: str) -> Iterator[None]:
    """What is refused inside says of which data set it is, and which keys are that set's; "" is the only one."""
    try:
        yield
    except InputError as error:
        if not name:
            raise
        text = re.sub(r"(?<![\w./])data\.", f"data.sets.{name}.", str(error))
        raise InputError(f"{name}: {text}") from error


def printable(text: str) -> str:
    """A text whose control characters, and others that no terminal should get, are written as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def one_line(error: BaseException) -> str:
    """An error in at most 300 characters of one line."""
    text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    text = printable(" ".join(text.split()))
    return text if len(text) <= 300 else text[:300] + " ..."


def place_in_users_code(error: BaseException) -> str:
    """`` (file, line)`` of an error that came out of the user's own code; "" if it came out of packages alone."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_installed(frame.filename)]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def is_refusal_of_library(error: BaseException) -> bool:
    """Whether another library's code refuses the arguments that it was given."""
    refused = isinstance(error, TypeError | ValueError) or type(error).__name__ == "MisconfigurationException"
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return refused and all(_is_installed(file) and not file.startswith(_OURS) for file in files)


_OURS = str(Path(__file__).parent)


def _is_installed(file: str) -> bool:
    return any(part in file for part in ("<frozen", "site-packages", "dist-packages", _OURS, importlib.__path__[0]))
