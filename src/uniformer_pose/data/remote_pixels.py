"""The pixels of a prepared folder in an object store, read by ranges, with a part of them kept on the local disk.

Every image is visited once an epoch, in another order each time, so what was read last is never what is wanted next:
a cache that replaces would be all misses. The first ``cache_bytes`` of the file are kept instead, wherever they are
first read, and the rest is fetched each time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import fsspec

from uniformer_pose.cache import cache_folder, writing_to_cache
from uniformer_pose.errors import InputError, one_line
from uniformer_pose.web_address import checked_address, shown_address

_BLOCK = 2**18  # bytes that are kept or not; a crop reads about half a million
_ATTEMPTS = 5  # with a pause of 0.25, 0.5, ... seconds before each but the first
_SECONDS_TO_CONNECT, _SECONDS_OF_SILENCE = 20, 30
_BUCKETS = ("s3", "gs")
_OTHERWISE = "s3://bucket/..., gs://bucket/..., or a folder"

_T = TypeVar("_T")
Range = tuple[int, int]
"""The first byte, and the one behind the last."""


def is_remote(folder: str | Path) -> bool:
    """Whether this is an address and no path."""
    return "://" in str(folder)


class RemoteFile:
    """One file of a store: https, s3 (package s3fs) or gs (gcsfs), whose own settings say who asks.

    On the web, the address and every redirection are held to ``checked_address``. A range that fails, or comes short,
    is asked for again; an InputError names the address after that.
    """

    def __init__(self, address: str) -> None:
        self._is_in_bucket = address.partition("://")[0] in _BUCKETS
        self._shown = shown_address(urlsplit(address) if self._is_in_bucket else checked_address(address, _OTHERWISE))
        self._address = address
        self._files: Any = None
        self._process = 0

    def read(self) -> bytes:
        """All of it."""
        return self._tried(lambda files, path: bytes(files.cat_file(path)))

    def size(self) -> int:
        """How many bytes it has; -1 if the store does not say."""
        return self._tried(lambda files, path: int(files.info(path).get("size") or -1))

    def ranges(self, wanted: Sequence[Range]) -> list[bytes]:
        """The bytes of several ranges, asked for at the same time; again, only those that failed or came short."""
        found: dict[Range, bytes] = {}

        def read_absent(files: Any, path: str) -> list[bytes]:
            absent = [each for each in wanted if each not in found]
            starts, ends = [start for start, _ in absent], [end for _, end in absent]
            contents = files.cat_ranges([path] * len(absent), starts, ends, on_error="return")
            problem = None
            for (start, end), content in zip(absent, contents, strict=True):
                if isinstance(content, Exception):
                    problem = content
                elif len(content) != end - start:
                    problem = Exception(f"{len(content)} bytes came instead of {end - start}")
                else:
                    found[start, end] = content
            if problem is not None:
                raise problem
            return [found[each] for each in wanted]

        return self._tried(read_absent)

    def _tried(self, read: Callable[[Any, str], _T]) -> _T:
        """What ``read`` returns, in one of several attempts."""
        problem = Exception()
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(0.25 * 2 ** (attempt - 1))
            try:
                return read(*self._opened())
            except ImportError as error:  # s3fs or gcsfs
                raise InputError(f"{self._shown}: {one_line(error)}") from None
            except Exception as error:  # every store has exceptions of its own
                for refusal in (error, error.__cause__):  # fsspec makes a FileNotFoundError of some
                    if isinstance(refusal, InputError):
                        raise InputError(f"{self._shown}: {refusal}") from None
                problem = error
        reason = f"{one_line(problem).replace(self._address, self._shown)}; tried {_ATTEMPTS} times"
        raise InputError(f"{self._shown}: cannot be read ({reason}); copy the folder, or give another address")

    def _opened(self) -> tuple[Any, str]:
        """The store, opened by each process for itself: connections do not survive a fork."""
        if self._process != os.getpid():
            options: dict[str, Any] = {}
            if not self._is_in_bucket:
                import aiohttp  # only here: it is fsspec's own choice for the web

                timeout = aiohttp.ClientTimeout(connect=_SECONDS_TO_CONNECT, sock_read=_SECONDS_OF_SILENCE)
                watched = aiohttp.TraceConfig()
                watched.on_request_redirect.append(_refuse_insecure_redirection)
                options = {"client_kwargs": {"timeout": timeout, "trace_configs": [watched]}}
            self._files, path = fsspec.url_to_fs(self._address, **options)
            self._path, self._process = path, os.getpid()
        return self._files, self._path

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_files": None, "_process": 0}


async def _refuse_insecure_redirection(_session: Any, _context: Any, answer: Any) -> None:
    """Called by aiohttp before it follows an answer elsewhere."""
    headers = answer.response.headers
    checked_address(urljoin(str(answer.url), headers.get("Location") or headers.get("URI") or ""), _OTHERWISE)


class RemotePixels:
    """Bytes of the file at ``address``, of which the first ``cache_bytes`` are kept below the cache folder.

    ``version`` tells one content of the file from another. Several processes may share what is kept.
    """

    def __init__(self, address: str, *, total_bytes: int, cache_bytes: int, version: bytes) -> None:
        self._file = RemoteFile(address)
        folder = cache_folder() / "prepared" / hashlib.blake2b(address.encode() + version, digest_size=16).hexdigest()
        self._bytes, self._marks = folder / "pixels", folder / "present"
        self._total = total_bytes
        with writing_to_cache(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._kept = self._make_room(cache_bytes)
        self._fetched: dict[Range, bytes] = {}

    def _make_room(self, cache_bytes: int) -> int:
        """How many bytes from the beginning are kept, in files that have at least that length."""
        at_hand = self._bytes.stat().st_blocks * 512 if self._bytes.exists() else 0
        room = min(cache_bytes, shutil.disk_usage(self._bytes.parent).free + at_hand - 10**9)
        kept = self._total if self._total <= room else max(room, 0) // _BLOCK * _BLOCK
        for path, size in ((self._bytes, kept), (self._marks, _blocks(kept))):
            with path.open("ab") as file:
                if file.tell() < size:
                    file.truncate(size)
        return kept

    def size(self) -> int:
        """How many bytes the file has; -1 if the store does not say."""
        return self._file.size()

    def fetch(self, wanted: Sequence[Range]) -> None:
        """Have these ranges at hand, whatever was fetched before."""
        self._fetched = {}
        absent = []
        for start, end in wanted:
            whole = self._whole(start, end)
            if whole[1] > self._kept:
                absent.append((start, end))
            elif not self._is_there(whole):
                absent.append(whole)
        absent = list(dict.fromkeys(absent))
        for (start, end), content in zip(absent, self._file.ranges(absent) if absent else [], strict=True):
            self._fetched[start, end] = content
            if (start, end) == self._whole(start, end) and end <= self._kept:
                self._keep(start, content)

    def read_into(self, memory: memoryview, first: int) -> None:
        """Fill ``memory`` with what begins at byte ``first``."""
        end = first + memory.nbytes
        whole = self._whole(first, end)
        if (first, end) not in self._fetched and whole not in self._fetched and not self._is_there(whole):
            self.fetch([(first, end)])
        for start, stop in ((first, end), whole):
            if (start, stop) in self._fetched:
                memory.cast("B")[:] = self._fetched[start, stop][first - start : end - start]
                return
        with self._bytes.open("rb") as file:
            if os.preadv(file.fileno(), [memory], first) != memory.nbytes:
                raise InputError(f"{self._bytes}: cut off; delete the folder {self._bytes.parent}")

    def _whole(self, start: int, end: int) -> Range:
        """The blocks that a range touches."""
        return start // _BLOCK * _BLOCK, min(_blocks(end) * _BLOCK, self._total)

    def _is_there(self, whole: Range) -> bool:
        count = _blocks(whole[1]) - whole[0] // _BLOCK
        with self._marks.open("rb") as file:
            return whole[1] <= self._kept and os.pread(file.fileno(), count, whole[0] // _BLOCK) == b"\1" * count

    def _keep(self, start: int, content: bytes) -> None:
        """Write blocks, and only then the marks that they are there."""
        with writing_to_cache(self._bytes), self._bytes.open("r+b") as file, self._marks.open("r+b") as marks:
            os.pwrite(file.fileno(), content, start)
            os.fdatasync(file.fileno())
            os.pwrite(marks.fileno(), b"\1" * _blocks(len(content)), start // _BLOCK)


def _blocks(count: int) -> int:
    return -(-count // _BLOCK)
