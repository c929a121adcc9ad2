"""Arrays read from annotation files, kept between runs: files' contents and settings -> the same arrays, in a second.

One file an entry, an uncompressed ``.npz`` in the user's own cache folder (``UNIFORMER_POSE_CACHE``), not beside the
annotations: data folders are often read-only or shared, and nobody else should be able to put an index there. Its name
is a digest of everything that the arrays depend on, the annotation files' whole contents included, so an entry cannot
be out of date: what changes gets another name. Sizes and times of files are not asked, because a copy keeps them.

Nothing in an entry is executed (no pickle), and every array carries a checksum; whatever cannot be read is made anew.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from uniformer_pose.errors import InputError

Arrays = Mapping[str, npt.NDArray[Any]]

WORTH_KEEPING = 4_000_000
"""Bytes of annotations below which they are read anew: that takes a quarter of a second."""

_MOST_ENTRIES = 20  # of 40 MB each for all of COCO
_SECONDS_TO_WAIT = 120.0  # for another process that reads the same files
_SECONDS_OF_ABANDONED = 24 * 3600.0  # after which a half-written entry is of a process that was killed

_log = logging.getLogger(__name__)


def digest_of(contents: Sequence[bytes], settings: Sequence[object]) -> str:
    """A name for what is read from files of these contents with these settings (told apart by their ``repr``)."""
    digest = hashlib.sha256(repr(tuple(settings)).encode())
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def remembered_arrays(name: str, read: Callable[[], Arrays], fits: Callable[[Arrays], bool]) -> Arrays:
    """The arrays kept as ``name`` (a ``digest_of``), else those that ``read`` gives, which are kept from then on.

    ``fits`` says whether kept arrays have the expected names, types and shapes. Of several processes that ask at once,
    one reads and the others wait for it. A damaged entry, and a cache folder that cannot be used, cost a line and the
    time to read; neither stops the run.
    """
    from uniformer_pose.weights.download import cache_folder  # it brings the whole of HTTP along

    folder = Path()
    try:
        folder = cache_folder() / "annotations"
        folder.mkdir(parents=True, exist_ok=True)
    except (InputError, OSError) as error:
        _warn_not_kept(folder, error)
        return read()
    entry = folder / f"{name}.npz"
    found = _load(entry, fits)
    if found is not None:
        return found
    with ExitStack() as held:
        # A lock that cannot be had costs the same work twice, at worst.
        with suppress(Timeout, OSError):
            held.enter_context(FileLock(folder / f"{name}.lock", timeout=_SECONDS_TO_WAIT))
            found = _load(entry, fits, damage_is_known=True)
        if found is not None:
            return found
        arrays = read()
        try:
            _save(entry, arrays)
        except OSError as error:
            _warn_not_kept(folder, error)
        return arrays


def _load(entry: Path, fits: Callable[[Arrays], bool], *, damage_is_known: bool = False) -> Arrays | None:
    """The arrays of an entry; None where there is none, or a damaged one, of which a line tells."""
    try:
        with np.load(entry, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, KeyError, MemoryError, NotImplementedError, zipfile.BadZipFile) as error:
        problem = " ".join(str(error).split()) or type(error).__name__
    else:
        if fits(arrays):
            with suppress(OSError):
                os.utime(entry)  # the entries used last are those that stay
            return arrays
        problem = "its arrays are not those of an index"
    if not damage_is_known:
        _log.warning("%s: damaged (%s); reading the annotations anew", entry, problem)
    return None


def _save(entry: Path, arrays: Arrays) -> None:
    """Write an entry in one step, and remove those that were not used for longest."""
    handle, path = tempfile.mkstemp(dir=entry.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, allow_pickle=False, **dict(arrays))
        Path(path).replace(entry)
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise
    with suppress(OSError):  # another process may remove the same ones
        _remove_old(entry.parent)


def _remove_old(folder: Path) -> None:
    for old in sorted(folder.glob("*.npz"), key=lambda file: file.stat().st_mtime)[:-_MOST_ENTRIES]:
        old.unlink()  # but not its empty lock: of two files of that name two processes could each hold one
    for part in folder.glob(".*.part"):
        if part.stat().st_mtime < time.time() - _SECONDS_OF_ABANDONED:
            part.unlink()


def _warn_not_kept(folder: Path, error: Exception) -> None:
    reason = f"{folder}: {error.strerror}" if isinstance(error, OSError) else str(error)
    _log.warning(
        "large annotation files are read anew at every start, since nothing can be kept (%s); set UNIFORMER_POSE_CACHE "
        "to a folder of your own",
        reason,
    )
