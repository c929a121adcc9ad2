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
    """The option spelt most like ``name`` as a question; where none is near, the options there are."""
    options = sorted(set(options))
    guess = nearest(name, options)
    if guess is not None:
        return f"did you mean {guess}?"
    if not options:
        return "nothing is allowed here"
    more = f", ... ({len(options) - _LISTED_OPTIONS} more)" if len(options) > _LISTED_OPTIONS else ""
    return f"allowed: {', '.join(options[:_LISTED_OPTIONS])}{more}"
