"""Which web addresses anything is fetched from, and how messages show them."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from uniformer_pose.errors import InputError


def checked_address(url: str, otherwise: str) -> SplitResult:
    """The parts of a URL; InputError unless nobody can change on its way what is fetched (https, or this machine).

    Redirections must be held to it as well. ``otherwise``: what else a user can give, the end of the message.
    """
    try:
        parts = urlsplit(url.strip())
        _ = parts.port  # ValueError for one that is no number
    except ValueError as error:
        raise InputError(f"no web address ({error}); give one like https://host/file, {otherwise}") from None
    # Programs disagree on which host an address with backslashes or spaces means.
    if not parts.hostname or re.search(r"[\s\\]", parts.netloc):
        raise InputError(f"{shown_address(parts)}: no web address; give one like https://host/file, {otherwise}")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_this_machine(parts)):
        raise InputError(f"{shown_address(parts)}: only https:// is fetched from; give such an address, {otherwise}")
    return parts


def is_this_machine(parts: SplitResult) -> bool:
    """Whether the host is this very machine."""
    try:
        return parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def without_login(parts: SplitResult) -> SplitResult:
    """The same without user and password."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2])


def shown_address(parts: SplitResult) -> str:
    """The URL for messages: without login and query, which may be secret."""
    return without_login(parts)._replace(query="", fragment="").geturl() + ("?..." if parts.query else "")
