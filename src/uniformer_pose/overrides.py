"""Hydra's ``key=value`` and the shell's words: texts that both read as they are meant."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException


def shell_command(*words: str | Path, **settings: str | Path) -> str:
    """A command to be copied into a shell: words, then ``key=value`` for Hydra, each quoted where that is needed."""
    arguments = [*map(str, words), *(override(key, str(value)) for key, value in settings.items())]
    return " ".join(map(shlex.quote, arguments))


def override(key: str, text: str) -> str:
    """``key=text`` such that Hydra reads exactly this text, quoted where its grammar needs that."""
    parsed = parse_override(f"{key}={text}")
    if parsed and not parsed.is_sweep_override() and parsed.value() == text and "${" not in text:
        return f"{key}={text}"
    text = text.replace("${", "\\${")  # else OmegaConf would put another value there
    quote = Quote.single if '"' in text else Quote.double  # the shell's own quotes are single ones
    return f"{key}={QuotedString(text, quote).with_quotes()}"


def parse_override(argument: str) -> Override | None:
    """What Hydra's grammar makes of an argument; None where it makes nothing of it."""
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None


def given_values(arguments: list[str]) -> dict[str, Any]:
    """The values that a command line gives, by their keys: text, numbers, lists and dicts; of a sweep its text."""
    parsed = (parse_override(argument) for argument in arguments if "=" in argument and not argument.startswith("-"))
    return {
        found.key_or_group: str(found.input_line).partition("=")[2] if found.is_sweep_override() else found.value()
        for found in parsed
        if found is not None
    }
