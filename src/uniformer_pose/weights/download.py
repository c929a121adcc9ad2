"""URL -> a verified file in the cache.

A file lies in a folder of its own, ``<cache>/<16 digits of the URL's sha256>/``, and beside it: ``<name>.sha256``, the
digest it had when it arrived; ``<name>.part``, what has arrived so far, with ``<name>.part.json``, of which version of
the file that is; ``<name>.lock``. The name itself appears in one step, after the digest was found right.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from uniformer_pose.errors import InputError
from uniformer_pose.weights.download_progress import say
from uniformer_pose.weights.transfer import CACHE_VARIABLE, sha256_and_size, version_file, whole_file
from uniformer_pose.weights.web_address import Digest, WebAddress, safe_name, web_address, without_login

OFFLINE_VARIABLES = ("UNIFORMER_POSE_OFFLINE", "HF_HUB_OFFLINE")


def download(url: str, *, sha256: str | None = None, cache: Path | None = None, file_name: str | None = None) -> Path:
    """The file behind ``url`` as a local file, fetched unless the cache already holds it intact.

    ``sha256`` is the digest that the file must have, or its first 8 or more hexadecimal digits. Without it, it is taken
    from the end of the URL (``#sha256=...``), else on OpenMMLab's and PyTorch's servers from the file name.
    Where nobody says, the digest of what arrived is recorded, and the file in the cache held to it ever after.
    ``cache`` is a folder in place of ``cache_folder()``; ``file_name`` a name in place of the URL's.

    Only https, and http from this very machine; the same for every redirection. What arrived of an interrupted
    download is kept, and continued if the server still has the same version. Several processes may ask at once: one
    downloads, the others wait.

    Raises InputError for everything that keeps the file from being there: an address that cannot be, a server that
    refuses or is out of reach, a web page in place of the file, a wrong digest, a cache that cannot be written.
    """
    address = web_address(url, sha256=sha256)
    key = hashlib.sha256(without_login(urlsplit(address.url)).geturl().encode()).hexdigest()[:16]
    folder = (cache_folder() if cache is None else cache) / key
    path = folder / (address.file_name if file_name is None else safe_name(file_name))
    try:
        flaw = _flaw(path, address.digest)
        if flaw is None:
            return path
        offline = offline_variable()
        if offline is not None:
            raise InputError(
                f"{address.shown}: the file in the cache, {path}, {flaw}, and {offline} forbids to fetch it; unset "
                "that, or download the file by hand and give its path"
            )
        folder.mkdir(parents=True, exist_ok=True)
        with _one_process(path):
            flaw = _flaw(path, address.digest)  # another process may just have fetched it
            if flaw is not None:
                if path.exists():
                    say(f"{path}: {flaw}; fetching it anew from {address.shown}")
                _fetch(address, path)
    except OSError as error:
        raise _disk_error(error, folder) from error
    return path


def cache_folder() -> Path:
    """Where downloads are kept: ``UNIFORMER_POSE_CACHE``, or ``uniformer_pose`` in the user's cache folder."""
    own = os.environ.get(CACHE_VARIABLE)
    users = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        if own:
            return Path(own).expanduser()
        # The XDG base directory specification has relative paths ignored.
        return (users if users.is_absolute() else Path("~/.cache").expanduser()) / "uniformer_pose"
    except RuntimeError as error:  # of expanduser
        raise InputError(f"no home folder to keep downloads in; set {CACHE_VARIABLE} to a folder") from error


def offline_variable() -> str | None:
    """The environment variable that forbids to use the network, if one does."""
    for name in OFFLINE_VARIABLES:
        if os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on"):
            return name
    return None


def _fetch(address: WebAddress, path: Path) -> None:
    """The file in the cache, complete and verified; whoever calls holds the lock."""
    part = path.with_name(f"{path.name}.part")
    sha256 = whole_file(address, part)
    # The record first: a file without one would have to be fetched again.
    _record_of(path).write_text(f"{sha256}\n", encoding="ascii")
    part.replace(path)
    version_file(part).unlink(missing_ok=True)


def _flaw(path: Path, digest: Digest | None) -> str | None:
    """What keeps a file of the cache from being used, to be read behind its name; None if nothing does."""
    if not path.is_file():
        return "is not there"
    recorded = _recorded_sha256(path)
    if recorded is None and digest is None:
        return "has no record of its sha256"
    actual, _ = sha256_and_size(path)
    sha256 = actual.hexdigest()
    if recorded is not None and sha256 != recorded:
        return f"is damaged (its sha256 is {sha256[:16]}, recorded is {recorded[:16]})"
    if digest is not None and not digest.fits(sha256):
        return f"is another file (its sha256 is {sha256[:16]}, expected {digest.digits[:16]} {digest.origin})"
    return None


def _recorded_sha256(path: Path) -> str | None:
    try:
        recorded = _record_of(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return recorded if re.fullmatch(r"[0-9a-f]{64}", recorded) else None


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


@contextmanager
def _one_process(path: Path) -> Iterator[None]:
    """Held by one process at a time; the operating system frees it when its holder dies."""
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{path.name}: another process is downloading it, waiting")
        lock.acquire(poll_interval=0.2)
    try:
        yield
    finally:
        lock.release()


def _disk_error(error: OSError, folder: Path) -> InputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{folder}: no space left; free some, or set {CACHE_VARIABLE} to a folder on another disk")
    reason = (error.strerror or type(error).__name__).lower()
    return InputError(f"{folder}: cannot keep downloads there ({reason}); set {CACHE_VARIABLE} to a folder of your own")
