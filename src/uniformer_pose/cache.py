"""Where downloads and compiled kernels are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uniformer_pose.errors import InputError

CACHE_VARIABLE = "UNIFORMER_POSE_CACHE"
ROOM_ADVICE = f"set {CACHE_VARIABLE} to a folder with room"


def cache_folder() -> Path:
    """``UNIFORMER_POSE_CACHE``, or ``uniformer_pose`` in the user's cache folder."""
    users = os.environ.get("XDG_CACHE_HOME", "")
    own = os.environ.get(CACHE_VARIABLE) or f"{users if users.startswith('/') else '~/.cache'}/uniformer_pose"
    try:
        return Path(own).expanduser()
    except RuntimeError as error:
        raise InputError(f"no home folder to keep downloads in; set {CACHE_VARIABLE} to a folder") from error


@contextmanager
def writing_to_cache(path: Path) -> Iterator[None]:
    """Inside the context an OSError is an InputError of one line about ``path``."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be kept ({error.strerror or error}); {ROOM_ADVICE}") from error
