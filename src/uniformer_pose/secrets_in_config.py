"""Secrets where they do not belong: in arguments and configurations, which are written beside every run as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from uniformer_pose.errors import InputError

_SECRET_NAME = re.compile(
    r"(.*_)?(api_?key|api_?token|password|passwd|passphrase|secret|secret_?key|private_?key|access_?key|credentials?)"
    r"|((hf|hub|wandb|api|auth|access|bearer|session|refresh|user|github|gitlab|use_auth)_?)?token"
    r"|authorization|bearer|cookie"
)
_URL_WITH_SECRET = re.compile(
    r"\b[a-z][\w+.-]*://[^/\s?#@]+@|://[^\s#]*[?&](([\w.-]*(signature|token|credential|api_?key|password|secret))|sig|key)=",
    re.I,
)
_ASSIGNED = re.compile(r"\b[A-Z_]*(API_KEY|TOKEN|PASSWORD|SECRET)=[^\s=]")  # a line for a shell


def refuse_secrets(values: Mapping[str, Any]) -> None:
    """Raise InputError, which does not repeat it, for the first secret in plain values under their dotted names.

    A text is secret where its name says so (``api_key``, ``hf_token``, ``password``), or where it is a URL with a
    login or a signature. Numbers are no secrets: ``num_tokens: 7`` and ``token: true`` are settings.
    """
    for name, text in _texts("", values):
        leaf = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.rpartition(".")[2]).lower().replace("-", "_")
        if _SECRET_NAME.fullmatch(leaf) or _ASSIGNED.search(text) or _URL_WITH_SECRET.search(text):
            raise InputError(
                f"{name}: a secret does not belong into the configuration, which is written beside the run; set the "
                "environment variable that the service documents, such as WANDB_API_KEY or HF_TOKEN, or fetch a file "
                "yourself and give its path"
            )


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from _texts(f"{name}.{key}" if name else str(key), child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _texts(name, child)
    elif isinstance(value, str) and value and value != "???":
        yield name, value
