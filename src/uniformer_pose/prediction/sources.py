"""What a person names -> the pictures and videos that it means, in order.

A source is a file, a folder (with all below it), a pattern such as ``photos/*.jpg``, or a text file of paths.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from uniformer_pose.errors import InputError
from uniformer_pose.nearest_name import nearest

PICTURE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
VIDEO_SUFFIXES = frozenset(
    {".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"}
)


@dataclass(frozen=True)
class SourceItem:
    """One picture or video; ``name`` is its path below the source, with which its results are written."""

    kind: Literal["picture", "video"]
    path: Path
    name: str


@dataclass(frozen=True)
class Source:
    """Everything that a source means. ``ignored`` counts other files by ending; ``refused`` says why some were left."""

    items: tuple[SourceItem, ...]
    ignored: dict[str, int]
    refused: dict[str, str]

    def remarks(self) -> list[str]:
        """How many files were ignored, if any."""
        endings = ", ".join(f"{count} {ending}" for ending, count in sorted(self.ignored.items()))
        return [f"skipped (not an image or video): {endings}"] if endings else []


def find_source(source: str) -> Source:
    """The items of a source; InputError for one that is not there, an address, or one without pictures and videos.

    Of a folder and a pattern, files that are neither pictures nor videos are ignored, and links out of the folder
    refused. A file named by itself or in a list counts as a picture unless its ending is a video's.
    """
    text = source.strip()
    path = Path(text).expanduser()
    if not text:
        raise InputError("source= is empty; give a picture, a folder, a pattern, a video or a list")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) and not path.exists():
        raise InputError(f"source={text}: addresses are not opened; download it and give its path")
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return _of_files(files, root=path, what=text)
    if path.is_file():
        if path.suffix.lower() == ".txt":
            return _of_list(path)
        return Source((_item(path, path.name),), {}, {})
    if glob.has_magic(text):
        root = _fixed_part(path)
        files = sorted(file for file in root.glob(str(path.relative_to(root))) if file.is_file())
        if not files:
            raise InputError(f"source={text}: no file fits this pattern")
        return _of_files(files, root=root, what=text)
    alike = nearest(path.name, (p.name for p in path.parent.iterdir())) if path.parent.is_dir() else None
    hint = f"did you mean {path.parent / alike}?" if alike else "check the path"
    raise InputError(f"source={text}: no such file or folder; {hint}")


def number_in_name(name: str) -> int | None:
    """The number that a picture's name is, as in COCO (``val/000000000139.jpg`` is 139); None where it is none."""
    stem = PurePosixPath(name).stem
    return int(stem) if stem.isascii() and stem.isdigit() and len(stem) < 19 else None


def _of_files(files: Iterable[Path], *, root: Path, what: str) -> Source:
    items, ignored, refused = [], Counter[str](), {}
    inside = root.resolve()
    for file in files:
        suffix = file.suffix.lower()
        if suffix not in PICTURE_SUFFIXES | VIDEO_SUFFIXES:
            ignored[suffix or "no ending"] += 1
        elif not file.resolve().is_relative_to(inside):
            refused[str(file)] = "links to a file outside the folder"
        else:
            items.append(_item(file, file.relative_to(root).as_posix()))
    if not items and not refused:
        seen = f", only {sum(ignored.values())} other files" if ignored else ""
        raise InputError(f"source={what}: no pictures or videos there{seen}")
    return Source(tuple(items), dict(ignored), refused)


def _of_list(path: Path) -> Source:
    """The files of a list; paths are relative to it, empty lines and those that begin with # are skipped."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a list of paths ({error}); give one path a line, in UTF-8") from error
    named = [path.parent / Path(line).expanduser() for line in lines if line and not line.startswith("#")]
    if not named:
        raise InputError(f"{path}: the list is empty; give one path a line")
    absolute = [file.resolve() for file in named]
    root = Path(os.path.commonpath([file.parent for file in absolute]))
    unique = dict.fromkeys(absolute)
    return Source(tuple(_item(file, file.relative_to(root).as_posix()) for file in unique), {}, {})


def _item(path: Path, name: str) -> SourceItem:
    return SourceItem("video" if path.suffix.lower() in VIDEO_SUFFIXES else "picture", path, name)


def _fixed_part(pattern: Path) -> Path:
    """The folder that all files of a pattern lie below: what stands before its first wildcard."""
    parts = pattern.parts
    fixed = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:fixed]) if fixed else Path()
