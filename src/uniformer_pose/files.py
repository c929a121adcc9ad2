"""Files that appear whole: written beside, flushed to the disk, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from uniformer_pose.errors import InputError


@contextmanager
def write_whole(path: Path, *, part: Path | None = None, advice: str | None = None) -> Iterator[Path]:
    """Inside the context: a path to write to, which becomes ``path`` when the context ends without an error.

    Whenever the machine stops, ``path`` is the old file or the new one. Its folder is made. ``part``: the path to write
    to, in the same folder; by default one that no other process has. ``advice`` turns an OSError into an InputError of
    one line that ends with it.
    """
    part = part or path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            _flush(part)
            part.replace(path)  # atomic only within a file system
        finally:
            part.unlink(missing_ok=True)
        _flush(path.parent)  # the new name, too, must survive a power cut
    except OSError as error:
        if advice is None:
            raise
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); {advice}") from error


def write_text(path: Path, text: str, *, advice: str | None = None) -> None:
    """Write a text file (UTF-8) whole."""
    with write_whole(path, advice=advice) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any, *, indent: int | None = 1, advice: str | None = None) -> None:
    """Write a JSON file whole; NaN becomes null. ``indent=None``: on one line, without spaces."""
    dumps = partial(json.dumps, indent=indent, separators=(",", ":") if indent is None else None, allow_nan=False)
    try:
        text = dumps(content)
    except (TypeError, ValueError):  # rarely needed, and seconds for hundreds of thousands of poses
        text = dumps(_without_nan(content))
    write_text(path, text + "\n", advice=advice)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and value != value else value
