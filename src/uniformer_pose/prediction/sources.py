"""What a person names -> the pictures and videos that it means, in order.

A source is a file, a folder (with all below it), or a pattern such as ``photos/*.jpg``.
"""

from __future__ import annotations

import glob
from collections import Counter
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

    path: Path
    name: str

    @property
    def kind(self) -> Literal["picture", "video"]:
        """By the ending."""
        return "video" if self.path.suffix.lower() in VIDEO_SUFFIXES else "picture"


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
    refused. A file named by itself counts as a picture unless its ending is a video's.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return Source((SourceItem(path, path.name),), {}, {})
    if path.is_dir() and source:
        return _of_files(path, "**/*", source)
    if "://" in source:
        raise InputError(f"source={source}: addresses are not opened; download it and give its path")
    if glob.has_magic(source):
        root = _fixed_part(path)
        return _of_files(root, str(path.relative_to(root)), source)
    alike = nearest(path.name, (p.name for p in path.parent.iterdir())) if path.parent.is_dir() else None
    hint = f"did you mean {path.parent / alike}?" if alike else "check the path"
    raise InputError(f"source={source}: no such file or folder; {hint}")


def number_in_name(name: str) -> int | None:
    """The number that a picture's name is, as in COCO (``val/000000000139.jpg`` is 139); None where it is none."""
    stem = PurePosixPath(name).stem
    return int(stem) if stem.isascii() and stem.isdigit() and len(stem) < 19 else None


def _of_files(root: Path, pattern: str, source: str) -> Source:
    items, ignored, refused = [], Counter[str](), {}
    inside = root.resolve()
    for file in sorted(file for file in root.glob(pattern) if file.is_file()):
        suffix = file.suffix.lower()
        if suffix not in PICTURE_SUFFIXES | VIDEO_SUFFIXES:
            ignored[suffix or "no ending"] += 1
        elif not file.resolve().is_relative_to(inside):
            refused[str(file)] = "links to a file outside the folder"
        else:
            items.append(SourceItem(file, file.relative_to(root).as_posix()))
    if not items and not refused:
        seen = f", only {sum(ignored.values())} other files" if ignored else ""
        raise InputError(f"source={source}: no pictures or videos there{seen}")
    return Source(tuple(items), dict(ignored), refused)


def _fixed_part(pattern: Path) -> Path:
    """The folder that all files of a pattern lie below: what stands before its first wildcard."""
    parts = pattern.parts
    fixed = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:fixed]) if fixed else Path()
