"""The exceptions whose message is one line for the user: unusable input, and a training that diverged."""


class InputError(ValueError):
    """Something the user provided cannot be used.

    The message is a single line: it names the value or file, says what is allowed, and what to do. Entry
    points print it without a traceback and exit with status 2.
    """


class DivergedError(RuntimeError):
    """Numbers of a network stopped being finite; the message is a single line, with what to try.

    Entry points print it without a traceback and exit with status 1.
    """


def one_line(error: BaseException) -> str:
    """An error in at most 300 characters of one line."""
    text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:300] + " ..."
