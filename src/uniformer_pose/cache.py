"""Where downloads and compiled kernels are kept."""

from __future__ import annotations

import os
from pathlib import Path

from uniformer_pose.errors import InputError

CACHE_VARIABLE = "UNIFORMER_POSE_CACHE"


def cache_folder() -> Path:
    """``UNIFORMER_POSE_CACHE``, or ``uniformer_pose`` in the user's cache folder."""
    users = os.environ.get("XDG_CACHE_HOME", "")
    own = os.environ.get(CACHE_VARIABLE) or f"{users if users.startswith('/') else '~/.cache'}/uniformer_pose"
    try:
        return Path(own).expanduser()
    except RuntimeError as error:
        raise InputError(f"no home folder to keep downloads in; set {CACHE_VARIABLE} to a folder") from error
