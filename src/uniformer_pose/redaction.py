"""Secrets taken out of what is written down: settings, commands, messages, and what Hydra itself records.

A value is secret where its name says so (``api_key``, ``hf_token``, ``password``); of an address, its login and all
behind the question mark are, since signed addresses carry their signature there.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

REDACTED = "<redacted>"
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SECRET_WORD = re.compile(
    r"(?:api|access|auth|private|secret)*"
    r"(?:token|key|password|passwd|passphrase|pwd|secret|credential|authorization|bearer|cookie)s?"
)
_VALUE = r"(?P<value>'[^']*'|\"[^\"]*\"|[^\s,{}\[\]]+)"
_ASSIGNMENT = re.compile(r"(?P<name>[\w.-]+)(?P<sign>['\"]?\s*[:=]\s*)" + _VALUE)
# In prose a colon says nothing ("missing key: norm1"), but after a quoted name it does ("'api_key': 'abc'").
_ASSIGNMENT_IN_PROSE = re.compile(r"(?P<name>[\w.-]+)(?P<sign>=|['\"]:\s*)(?!\.\.\.)" + _VALUE)
_ADDRESS = re.compile(
    r"(?P<scheme>\b[A-Za-z][\w+.-]*://)(?P<login>[^/@\s?#]+@)?(?P<path>[^\s?#'\"]*)(?P<query>\?[^\s#'\"]*)?"
)
_PERHAPS_SECRET = re.compile(r"://\S*[@?]|token|key(?!point)|pass|pwd|secret|credential|authoriz|bearer|cookie", re.I)


def without_secrets(value: Any, name: str = "") -> Any:
    """A plain configuration without the values whose name says that they are secret, and with harmless addresses.

    ``name`` is the key that the value stands under. What is null, true or false gives nothing away and stays.
    """
    if _is_secret(name) and value is not None and not isinstance(value, bool):
        return REDACTED
    if isinstance(value, Mapping):
        return {key: without_secrets(child, str(key)) for key, child in value.items()}
    if isinstance(value, list):
        return [without_secrets(child) for child in value]
    return _harmless_addresses(value) if isinstance(value, str) else value


def argument_without_secrets(argument: str) -> str:
    """One argument of a command, such as ``logger.wandb.api_key=...`` or ``logger={api_key: ...}``."""
    name, equals, _ = argument.partition("=")
    if equals and "{" not in name and _is_secret(name):
        return f"{name}={REDACTED}"
    return _ASSIGNMENT.sub(_harmless_assignment, _harmless_addresses(argument))


def command_without_secrets(command: Iterable[str]) -> list[str]:
    """A program and its arguments; each of them as ``argument_without_secrets`` makes it."""
    return [argument_without_secrets(argument) for argument in command]


def text_without_secrets(text: str) -> str:
    """A message for people without the secrets that it quotes."""
    return _ASSIGNMENT_IN_PROSE.sub(_harmless_assignment, _harmless_addresses(text))


def redact_log_messages() -> None:
    """From now on everything that this process logs goes through ``text_without_secrets``; Hydra lists overrides."""
    make_record = logging.getLogRecordFactory()
    if getattr(make_record, "redacts", False):
        return

    def make_harmless_record(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make_record(*arguments, **named)
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):  # wrong arguments of the message: logging itself will say so
            return record
        harmless = text_without_secrets(text)
        if harmless != text:
            record.msg, record.args = harmless, None
        return record

    make_harmless_record.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_harmless_record)


def redact_hydra_records() -> None:
    """Take the secrets out of what Hydra wrote before it called us: ``.hydra/*.yaml``, of a sweep ``multirun.yaml``.

    A file that cannot be written anew is deleted, or else the OSError goes on.
    """
    if not HydraConfig.initialized():
        return
    settings = HydraConfig.get()
    files = []
    if settings.output_subdir is not None:
        files += sorted((Path(settings.runtime.output_dir) / settings.output_subdir).glob("*.yaml"))
    if settings.mode == RunMode.MULTIRUN:
        files.append(Path(settings.sweep.dir) / "multirun.yaml")
    for file in files:
        if file.is_file():
            _redact_file(file)


def _redact_file(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    if not _PERHAPS_SECRET.search(text):
        return
    content = yaml.safe_load(text)
    harmless = _harmless_strings(without_secrets(content))
    if harmless == content:
        return
    partial = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        partial.write_text(yaml.safe_dump(harmless, sort_keys=False, allow_unicode=True), encoding="utf-8")
        partial.replace(file)
    except OSError:
        partial.unlink(missing_ok=True)
        file.unlink()


def _harmless_strings(value: Any) -> Any:
    """The overrides are texts of assignments, in lists and in one long text."""
    if isinstance(value, dict):
        return {key: _harmless_strings(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_harmless_strings(child) for child in value]
    return argument_without_secrets(value) if isinstance(value, str) else value


def _harmless_addresses(text: str) -> str:
    if "://" not in text:
        return text

    def harmless(found: re.Match[str]) -> str:
        login = f"{REDACTED}@" if found["login"] else ""
        query = f"?{REDACTED}" if found["query"] else ""
        return f"{found['scheme']}{login}{found['path']}{query}"

    return _ADDRESS.sub(harmless, text)


def _harmless_assignment(found: re.Match[str]) -> str:
    return f"{found['name']}{found['sign']}{REDACTED}" if _is_secret(found["name"]) else found[0]


def _is_secret(name: str) -> bool:
    """Whether a whole word of a name is one for secrets: ``api_key`` and ``authToken``, but not ``keypoints``."""
    return any(_SECRET_WORD.fullmatch(word.lower()) for word in _WORD.findall(name))
