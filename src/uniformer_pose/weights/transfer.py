"""A file over HTTP, as many tries as it takes: what has arrived is kept, continued, and verified at the end.

Continuing follows RFC 9110: ``Range`` asks for the rest, ``If-Range`` only if the file is still the same version.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from uniformer_pose.errors import InputError
from uniformer_pose.weights.download_progress import megabytes, say, transfer_progress
from uniformer_pose.weights.web_address import WebAddress, is_this_machine, refuse_insecure, shown_url

if TYPE_CHECKING:
    from hashlib import _Hash

CACHE_VARIABLE = "UNIFORMER_POSE_CACHE"

_TIMEOUTS = (10.0, 30.0)  # seconds to connect, and without a byte
_PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds after each try in a row that brought (almost) nothing new
_LONGEST_PAUSE = 60.0  # where the server asks for one
_WORTH_A_TRY = 2**20  # bytes: a try that brought so many more starts the counting anew
_CHUNK = 2**16
_HEADERS = {
    "User-Agent": "uniformer-pose",
    "Accept-Encoding": "identity",  # ranges and lengths are then those of the file itself
}
_BY_HAND = "or download the file by hand and give its path"


class _TransferError(Exception):
    """A try that failed in a way which another one may mend.

    ``reached`` says whether the server was there at all, ``pause`` for how many seconds it asks to be left alone.
    """

    def __init__(self, reason: str, *, reached: bool = True, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.reached = reached
        self.pause = pause


def whole_file(address: WebAddress, part: Path) -> str:
    """``part`` becomes the complete file behind ``address``, continued from what it holds; the file's sha256.

    Beside it ``version_file(part)`` keeps what a later call needs in order to continue. No two callers at once.

    Raises InputError where tries are of no use or were made in vain, and for a file that is empty, a web page, or has
    another digest than ``address`` says: of these nothing is kept. OSError is the disk's.
    """
    with requests.Session() as session:
        session.hooks["response"].append(_refuse_insecure_redirection)
        session.trust_env = not is_this_machine(urlsplit(address.url))  # proxies are for other machines
        try:
            sha256, resumed = _some_tries(session, address, part)
            _refuse_what_is_no_file(address, part)
            if resumed and not _is_expected(address, sha256):
                say(f"{address.shown}: what an earlier download left does not fit the rest; fetching the whole")
                _discard(part)
                sha256, _ = _some_tries(session, address, part)
                _refuse_what_is_no_file(address, part)
        except KeyboardInterrupt:
            say(f"{address.shown}: interrupted; {_what_is_kept(address, part)}")
            raise
    if address.digest is not None and not _is_expected(address, sha256):
        _discard(part)
        raise InputError(
            f"{address.shown}: its sha256 is {sha256}, expected {address.digest.digits} {address.digest.origin}; what "
            f"came is damaged or another file and is not kept: try again, {_BY_HAND}"
        )
    return sha256


def version_file(part: Path) -> Path:
    """Where it is kept which version of a file ``part`` belongs to."""
    return part.with_name(f"{part.name}.json")


def sha256_and_size(path: Path) -> tuple[_Hash, int]:
    """The running digest of a file, to be continued, and the number of its bytes."""
    with path.open("rb") as file:
        hasher: _Hash = hashlib.file_digest(file, "sha256")
        return hasher, file.tell()


def _is_expected(address: WebAddress, sha256: str) -> bool:
    return address.digest is None or address.digest.fits(sha256)


def _some_tries(session: requests.Session, address: WebAddress, part: Path) -> tuple[str, bool]:
    """What ``_try`` gives, after as many tries as it is worth."""
    failures, furthest, reached = 0, _size(part), False
    while True:
        try:
            return _try(session, address, part)
        except _TransferError as error:
            reached |= error.reached
            if not reached:
                raise InputError(
                    f"{address.shown}: cannot be reached, {error}; check network, proxy and address, {_BY_HAND}"
                ) from error
            gained = _size(part) - furthest
            furthest = max(furthest, _size(part))
            failures = 1 if gained >= _WORTH_A_TRY else failures + 1
            if failures > len(_PAUSES):
                raise InputError(
                    f"{address.shown}: {error}, {failures} times; {_what_is_kept(address, part)}"
                ) from error
            pause = max(_PAUSES[failures - 1], error.pause)
            say(f"{address.shown}: {error}; trying again in {pause:g} s")
        time.sleep(pause)


def _try(session: requests.Session, address: WebAddress, part: Path) -> tuple[str, bool]:
    """One try to bring what ``part`` lacks: the sha256 of the whole, and whether it began with an older part.

    Raises _TransferError where it failed in a way that another one may mend, InputError where that would fail alike.
    """
    hasher, held = sha256_and_size(part) if part.exists() else (hashlib.sha256(), 0)
    if held and address.digest is not None and address.digest.fits(hasher.hexdigest()):
        return hasher.hexdigest(), False  # stopped between the last byte and the new name
    version = _read_version(part)
    headers = dict(_HEADERS)
    if held and _can_continue(address, version):
        headers["Range"] = f"bytes={held}-"
        validator = _validator(version)
        if validator is not None:
            headers["If-Range"] = validator
    with _answer(session, address, headers) as response:
        if response.status_code == 200:
            return _receive(response, address, part, held=None), False
        if "Range" not in headers:
            raise InputError(
                f"{address.shown}: the server answers HTTP {response.status_code} to a plain request; download the "
                "file by hand and give its path"
            )
        if _is_continuation(response, held, version):
            return _receive(response, address, part, held=hasher), True
    _discard(part)  # longer than the file, or of another version
    return _try(session, address, part)


def _receive(response: requests.Response, address: WebAddress, part: Path, *, held: _Hash | None) -> str:
    """The body of ``response`` written behind the bytes whose digest is ``held``, or alone; the sha256 of the whole."""
    start = 0 if held is None else _size(part)
    hasher = hashlib.sha256() if held is None else held
    total = _total_length(response, start)
    if total is not None and (free := shutil.disk_usage(part.parent).free) < total - start:
        raise InputError(
            f"{part.parent}: {megabytes(total - start)} are needed for {address.shown}, {megabytes(free)} are free; "
            f"free some, or set {CACHE_VARIABLE} to a folder on another disk"
        )
    if held is None:
        part.unlink(missing_ok=True)  # before the version is written: no moment may pair it with other bytes
        version_file(part).write_text(json.dumps(_version(response, total)), encoding="utf-8")
    arrived = start
    name = part.name.removesuffix(".part")
    with part.open("ab") as file, transfer_progress(name, arrived=start, total=total) as report:
        try:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                hasher.update(chunk)
                arrived += len(chunk)
                report(arrived)
        except requests.RequestException as error:
            raise _TransferError(_reason(error)) from error
        if total is not None and arrived != total:
            raise _TransferError("the connection was closed")
        file.flush()
        os.fsync(file.fileno())
    framed = "Content-Length" in response.headers or "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    if not framed and address.digest is None:
        say(f"{name}: neither its length nor its sha256 is known: whether it came whole shows when it is read")
    return hasher.hexdigest()


def _refuse_what_is_no_file(address: WebAddress, part: Path) -> None:
    with part.open("rb") as file:
        beginning = file.read(512)
    if not beginning:
        _discard(part)
        raise InputError(f"{address.shown}: the server sends an empty file; try again later, {_BY_HAND}")
    if beginning.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype html", b"<html")):
        _discard(part)
        raise _web_page(address)


def _web_page(address: WebAddress) -> InputError:
    return InputError(
        f"{address.shown}: a web page came, not the file; it may be a page about the file or a login: give the "
        f"address of the file itself, {_BY_HAND}"
    )


# -- what the server says ---------------------------------------------------------------------------------------------


def _answer(session: requests.Session, address: WebAddress, headers: Mapping[str, str]) -> requests.Response:
    """The answer with status 200, 206 or 416, its body not read yet; any other becomes an exception."""
    try:
        response = session.get(address.url, headers=headers, stream=True, timeout=_TIMEOUTS)
    except requests.TooManyRedirects as error:
        raise InputError(f"{address.shown}: leads in a circle of redirections; check it, {_BY_HAND}") from error
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise _TransferError(_reason(error), reached=_was_reached(error)) from error
    except requests.RequestException as error:
        raise InputError(f"{address.shown}: cannot be asked for ({type(error).__name__}); check the address") from error
    status = response.status_code
    if status == 200 and _content_type(response) in ("text/html", "application/xhtml+xml"):
        response.close()
        raise _web_page(address)
    if status in (200, 206, 416):
        return response
    response.close()
    if status in (408, 425, 429) or status >= 500:
        raise _TransferError(f"the server answers HTTP {status}", pause=_wanted_pause(response))
    if status in (404, 410):
        raise InputError(f"{address.shown}: no such file on the server (HTTP {status}); check the address, {_BY_HAND}")
    if status in (401, 403, 407, 451):
        raise InputError(f"{address.shown}: access is denied (HTTP {status}); it may need a login, {_BY_HAND}")
    raise InputError(f"{address.shown}: the server answers HTTP {status}; check the address, {_BY_HAND}")


def _refuse_insecure_redirection(response: requests.Response, **_: object) -> None:
    """Called for every answer, before requests follows it elsewhere."""
    if response.is_redirect:
        try:
            target = urlsplit(urljoin(response.url, response.headers["location"]))
            refuse_insecure(target, shown_url(target))
        except ValueError as error:  # an InputError, or one of urlsplit for what is no URL
            raise InputError(f"{shown_url(urlsplit(response.url))}: leads on to {error}") from None


def _content_type(response: requests.Response) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _wanted_pause(response: requests.Response) -> float:
    """Seconds of a Retry-After header; a date in it is not read."""
    seconds = response.headers.get("Retry-After", "")
    return min(float(seconds), _LONGEST_PAUSE) if re.fullmatch(r"\d{1,9}", seconds) else 0.0


def _total_length(response: requests.Response, start: int) -> int | None:
    """Bytes of the whole file; None where the server does not say, or counts compressed ones."""
    if _is_compressed(response):
        return None
    total = _content_range(response)[1] if start else None
    length = response.headers.get("Content-Length", "")
    if total is None and re.fullmatch(r"\d{1,18}", length):
        return start + int(length)
    return total


def _is_compressed(response: requests.Response) -> bool:
    """Whether it comes compressed in spite of what was asked for; requests decompresses it."""
    return response.headers.get("Content-Encoding", "").strip().lower() not in ("", "identity")


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """First byte and length of the whole, of a partial answer; None for what it does not say."""
    found = re.fullmatch(r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)", response.headers.get("Content-Range", "").strip())
    if found is None:
        return None, None
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _is_continuation(response: requests.Response, held: int, version: Mapping[str, str]) -> bool:
    """Whether the answer is what follows the ``held`` bytes of this version of the file.

    A server is asked to send the whole where the version changed, but not every one knows that question.
    """
    if response.status_code != 206 or _is_compressed(response):
        return False
    start, total = _content_range(response)
    now = _version(response, total)
    # What both state must be equal; a partial answer need not repeat all of it.
    return start == held and all(version.get(name, fact) == fact for name, fact in now.items())


# -- which version of the file a part belongs to ----------------------------------------------------------------------


def _version(response: requests.Response, total: int | None) -> dict[str, str]:
    """What identifies the version; nothing where it comes compressed, as ranges then count other bytes."""
    if _is_compressed(response):
        return {}
    facts = {
        "etag": response.headers.get("ETag"),
        "last_modified": response.headers.get("Last-Modified"),
        "length": None if total is None else str(total),
    }
    return {name: fact for name, fact in facts.items() if fact}


def _read_version(part: Path) -> dict[str, str]:
    try:
        facts = json.loads(version_file(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(facts, dict):
        return {}
    # They become headers of a request.
    return {name: fact for name, fact in facts.items() if isinstance(fact, str) and re.fullmatch(r"[ -~]+", fact)}


def _validator(version: Mapping[str, str]) -> str | None:
    """What If-Range takes: a strong ETag, or else the date (RFC 9110, section 13.1.5)."""
    etag = version.get("etag")
    return etag if etag is not None and not etag.startswith("W/") else version.get("last_modified")


def _can_continue(address: WebAddress, version: Mapping[str, str]) -> bool:
    """Whether it can be told that the rest belongs to the part: by the server, or by the digest in the end."""
    return _validator(version) is not None or address.digest is not None


def _what_is_kept(address: WebAddress, part: Path) -> str:
    version = _read_version(part)
    held = _size(part)
    if not held or not _can_continue(address, version):
        return f"try again later, {_BY_HAND}"
    length = version.get("length", "")
    whole = f" of {megabytes(int(length))}" if length.isdecimal() else ""
    return f"{megabytes(held)}{whole} arrived and are kept: the same command continues there, {_BY_HAND}"


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    version_file(part).unlink(missing_ok=True)


# -- why a try failed -------------------------------------------------------------------------------------------------


def _was_reached(error: requests.RequestException) -> bool:
    never = (
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
        urllib3.exceptions.ProxyError,
        ssl.SSLError,
        socket.gaierror,
    )
    return not any(isinstance(cause, never) for cause in _causes(error))


def _reason(error: requests.RequestException) -> str:
    """A few words; the messages of requests themselves hold the URL with its secrets."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its TLS certificate is not trusted ({cause.verify_message})"
        if isinstance(cause, ssl.SSLError):
            return f"no TLS connection ({cause.reason or 'no reason given'})"
        if isinstance(cause, socket.gaierror):
            return "its name cannot be resolved"
        if isinstance(cause, urllib3.exceptions.ReadTimeoutError):
            return f"nothing came for {_TIMEOUTS[1]:g} s"
        if type(cause) is urllib3.exceptions.ConnectTimeoutError:  # its subclass is for a connection refused
            return f"no answer within {_TIMEOUTS[0]:g} s"
    of_system = [cause for cause in causes if isinstance(cause, OSError) and cause.strerror]
    if of_system:
        return str(of_system[-1].strerror).lower()
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return "what came cannot be decompressed"
    return "the connection was closed"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that requests and urllib3 wrapped into it, outermost first."""
    found: list[BaseException] = [error]
    for cause in found:  # grows while it is walked
        yield cause
        inner = (getattr(cause, "reason", None), cause.__cause__, *cause.args)
        found += [one for one in inner if isinstance(one, BaseException) and all(one is not other for other in found)]
