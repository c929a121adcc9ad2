"""The name a user probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED_OPTIONS = 50


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The option spelt most like ``name``, upper and lower case alike; None where none is near."""
    by_lower_case = {option.lower(): option for option in sorted(options, reverse=True)}  # AdamW, not the module adamw
    longer = [option for option in sorted(by_lower_case) if name and option.startswith(name.lower())]
    found = difflib.get_close_matches(name.lower(), by_lower_case, n=1) or longer
    return by_lower_case[found[0]] if found else None


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """The option spelt most like ``name`` as a question; where none or several are near, the options there are."""
    options = sorted(set(options))
    longer = [option for option in options if name and option.lower().startswith(name.lower())]
    same = any(len(option) == len(name) for option in longer)
    guess = nearest(name, options) if len(longer) < 2 or same else None
    if guess is not None:
        return f"did you mean {guess}?"
    options = longer or options
    if not options:
        return "nothing is allowed here"
    more = f", ... ({len(options) - _LISTED_OPTIONS} more)" if len(options) > _LISTED_OPTIONS else ""
    words = "did you mean one of" if longer else "allowed:"
    return f"{words} {', '.join(options[:_LISTED_OPTIONS])}{more}{'?' if longer else ''}"
