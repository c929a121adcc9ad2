"""The one exception for mistakes in what a user gave us: a file, a value, a combination."""


class InputError(ValueError):
    """Something the user provided cannot be used.

    The message is a single line: it names the value or file, says what is allowed, and what to do. Entry
    points print it without a traceback and exit with status 2.
    """
