"""An address as a user writes it -> a URL that may be fetched, its sha256 if anything says it, and a file name."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from uniformer_pose.errors import InputError

# The start of the sha256 in a file's name: <name>-<8 digits>_<date>.pth as MMPose writes it, or <name>-<8 or more>.pth
# as PyTorch does; the latter with a letter in it: model-20230724.pth and step-00012000.pt tell something else. So may
# both forms, such as the commit of a training: only where these two publish are they known to be digests.
_HOSTS_WITH_DIGESTS = ("download.openmmlab.com", "download.pytorch.org")
_DIGEST_IN_NAME = re.compile(r"-(?:(?P<mmpose>[0-9a-f]{8})_\d{8}\.pth|(?P<pytorch>(?=\d*[a-f])[0-9a-f]{8,64})\.\w+)$")
_LONGEST_NAME = 120  # of the 255 bytes that file systems allow; suffixes come behind it


@dataclass(frozen=True)
class Digest:
    """The leading hexadecimal digits of a sha256, and who says so."""

    digits: str
    origin: str

    def fits(self, sha256: str) -> bool:
        """Whether a complete sha256 begins with these digits."""
        return sha256.startswith(self.digits)


@dataclass(frozen=True)
class WebAddress:
    """A checked URL without fragment; ``shown`` is for messages, without its login and query, which may be secret."""

    url: str
    shown: str
    file_name: str
    digest: Digest | None


def web_address(text: str, *, sha256: str | None = None) -> WebAddress:
    """The address in ``text``, with ``sha256`` (8 to 64 digits), else ``#sha256=`` at its end, else its name's digest.

    The name's counts where it is known to be one: of OpenMMLab's and PyTorch's servers.

    ``file_name`` is the last part of the path made harmless. Raises InputError for what is no address, an insecure one
    (see ``refuse_insecure``), digits that are none, and two digests that contradict each other.
    """
    try:
        parts = urlsplit(text.strip())
        _ = parts.port  # ValueError for one that is no number
    except ValueError as error:
        raise InputError(f"{printable(text)}: no web address ({error}); give one like https://host/file.pth") from None
    shown = shown_url(parts)
    refuse_insecure(parts, shown)
    name = _last_part(unquote(parts.path))
    digits = digits_in_name(name) if parts.hostname in _HOSTS_WITH_DIGESTS else None
    digest = None if digits is None else Digest(digits, "from its name")
    if parts.fragment:
        in_fragment = re.fullmatch(r"sha256=(.*)", parts.fragment)
        if in_fragment is None:
            raise InputError(f"{shown}#{printable(parts.fragment)}: only #sha256=<digits> may stand behind an address")
        digest = _checked(in_fragment[1], "from the end of the address")
    if sha256 is not None:
        given = _checked(sha256, "as was asked for")
        if parts.fragment and digest is not None and not _agree(given, digest):
            raise InputError(f"{shown}#{parts.fragment}: sha256 {given.digits} was asked for too; give one of them")
        digest = given
    return WebAddress(parts._replace(fragment="").geturl(), shown, safe_name(name), digest)


def refuse_insecure(parts: SplitResult, shown: str) -> None:
    """InputError unless nobody can change on its way what is fetched: https, or http from this very machine.

    Backslashes and spaces are refused because programs disagree on which host an address with them means.
    """
    if not parts.hostname or re.search(r"[\s\\]", parts.netloc):
        raise InputError(f"{shown}: no web address; give one like https://host/file.pth")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_this_machine(parts)):
        raise InputError(
            f"{shown}: only https:// is fetched from; give such an address, or download the file by hand and give its "
            "path"
        )


def is_this_machine(parts: SplitResult) -> bool:
    """Whether the host is a loopback address."""
    try:
        return parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def without_login(parts: SplitResult) -> SplitResult:
    """The URL without ``user:password@``."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2])


def shown_url(parts: SplitResult) -> str:
    """The URL for messages: on one line, without login and query."""
    return printable(without_login(parts)._replace(query="", fragment="").geturl()) + ("?..." if parts.query else "")


def printable(text: str) -> str:
    """The text with a question mark for each control character, so that it stays on its line."""
    return "".join(character if character.isprintable() else "?" for character in text)


def safe_name(name: str) -> str:
    """A file name that stays in its folder on every file system; of a long one the end, where digest and suffix are."""
    harmless = re.sub(r"[^A-Za-z0-9._+-]", "_", _last_part(name))
    return harmless[-_LONGEST_NAME:].lstrip(".-") or "file"


def _last_part(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def digits_in_name(name: str) -> str | None:
    """What stands in a file's name where publishers put the start of its sha256; anything else may stand there too."""
    found = _DIGEST_IN_NAME.search(name)
    return None if found is None else found["mmpose"] or found["pytorch"]


def _checked(sha256: str, origin: str) -> Digest:
    digits = sha256.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{8,64}", digits):
        raise InputError(
            f"sha256 {printable(sha256)!r}: give the first 8 to 64 hexadecimal digits (0-9, a-f) of the file's sha256"
        )
    return Digest(digits, origin)


def _agree(first: Digest, second: Digest) -> bool:
    return first.digits.startswith(second.digits) or second.digits.startswith(first.digits)
