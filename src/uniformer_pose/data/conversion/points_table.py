"""A CSV of points to a ``Source``; the header says which of two forms it has.

*One row a person*: the column ``image``, and ``<name>_x`` and ``<name>_y`` for every keypoint, optionally
``<name>_visibility`` (or ``_v``, ``_likelihood``, ``_score``); a point may stand in the place of ``_``. There may be
``split`` (train or val) and the box as ``box_x``, ``box_y``, ``box_width``, ``box_height``; without these the box is
drawn around the labelled keypoints.

*DeepLabCut's*: rows ``scorer``, ``individuals`` (or not), ``bodyparts`` and ``coords`` in the place of a header, then
one row an image, whose name may take several columns.

Coordinates are pixels (x to the right, y down, whole numbers at pixel centres). An empty x and y, or visibility 0,
means not labelled; without a visibility a keypoint is visible. Names of images are relative to the image folder.
Columns are separated by commas, semicolons (then decimal commas are read too) or tabs.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from uniformer_pose.data.coco import existing_folder
from uniformer_pose.data.conversion.source import (
    Log,
    Settings,
    Source,
    SourceImage,
    SourcePerson,
    SplitName,
    find_inside,
    plain_number,
    text_of,
)
from uniformer_pose.errors import InputError

_BOX = ("box_x", "box_y", "box_width", "box_height")
_IMAGE = ("image", "file_name", "filename", "image_name", "image_path")
_POINT_COLUMN = re.compile(r"(.+)[_. ](?:(x)|(y)|visibility|v|likelihood|score|confidence)", re.IGNORECASE)
_NOTHING = frozenset({"", "nan", "na", "none", "null"})

Row = tuple[int, list[str]]
Columns = Mapping[str, tuple[str, str, str]]
"""Names of the columns of x, y and visibility (or "") by keypoint."""


def read_points_table(source: Path, settings: Settings, log: Log) -> Source:
    """The data set of a CSV file. Raises InputError where the header is of no known form."""
    folder = existing_folder(settings.images or source.parent)
    rows = _rows(source)
    if rows[0][1][0].lower() == "scorer":
        rows = _without_deeplabcuts_header(rows, source)
    plain = [next((own for own in ("split", *_BOX) if own == name.lower()), name) for name in rows[0][1]]
    image_column = next((column for column in plain if column.lower() in _IMAGE), None)
    header = ["image" if column == image_column else column for column in plain]
    columns = _columns(header, source, log)
    people: dict[tuple[str, str], list[SourcePerson]] = defaultdict(list)
    for number, fields in rows[1:]:
        place = f"{source}:{number}"
        with log.leaving_out(place):
            cells = dict(zip(header, fields, strict=False))
            if len(fields) != len(header) or not cells["image"]:
                raise InputError(f"has {len(fields)} fields, the header {len(header)}, of which one is the image")
            box = np.array([plain_number(cells.get(side)) for side in _BOX])
            points = np.array([_point(cells[x], cells[y], cells.get(seen, "")) for x, y, seen in columns.values()])
            somebody = points[:, 2].any() or np.isfinite(box).all()  # else who is not in this picture
            found = people[cells["image"], cells.get("split", "train").lower()]
            found += [SourcePerson(box, points, place)] if somebody else []
    if not people:
        because = f"; {log.problems[0]}" if log.problems else ""
        raise InputError(f"{source}: has no usable rows below its header{because}")
    splits: dict[SplitName, list[SourceImage]] = {"train": [], "val": []}
    for (name, split), found in people.items():
        place = found[0].place if found else str(source)
        with log.leaving_out(place):
            image = _image(name, folder, found, log)
            if split not in splits or (name, "train" if split == "val" else "val") in people:
                raise InputError(f"puts {name} into split {split!r}; an image is of train or of val")
            splits["train" if split == "train" else "val"].append(image)
    if "split" not in header:
        del splits["val"]
    return Source(list(columns), str((settings.categories or ["person"])[0]), splits)


def _rows(source: Path) -> list[Row]:
    """Number and fields of every line with something in it."""
    text = text_of(source)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(f"{source}: cannot be read as CSV ({error}); give a text file with a header line") from error
    rows = [(n, [cell.strip() for cell in line]) for n, line in enumerate(lines, start=1) if any(map(str.strip, line))]
    if delimiter == ";":
        rows = [(n, [re.sub(r"^(-?\d+),(\d+)$", r"\1.\2", cell) for cell in line]) for n, line in rows]
    return rows or [(1, [""])]


def _without_deeplabcuts_header(rows: Sequence[Row], source: Path) -> list[Row]:
    """The same table with one row a person: of an individual in an image."""
    names = ("scorer", "individuals", "bodyparts", "coords")
    head = {fields[0].lower(): fields for _, fields in rows[: len(names)] if fields[0].lower() in names}
    parts, coords = head.get("bodyparts", []), [coord.lower() for coord in head.get("coords", [])]
    if "x" not in coords or len(parts) != len(coords):
        raise InputError(f"{source}: begins with 'scorer', but has no rows 'bodyparts' and 'coords' of one length")
    first = coords.index("x")
    owners = head.get("individuals", [""] * len(coords))[first:]
    columns = [f"{part}_{coord}" for part, coord in zip(parts[first:], coords[first:], strict=True)]
    header = ["image", *dict.fromkeys(columns)]
    table: list[Row] = [(rows[0][0], header)]
    for number, fields in rows[len(head) :]:
        image = "/".join(filter(None, fields[:first]))
        for owner in dict.fromkeys(owners):
            cells = {c: cell for c, cell, own in zip(columns, fields[first:], owners, strict=False) if own == owner}
            table.append((number, [image, *(cells.get(column, "") for column in header[1:])]))
    return table


def _columns(header: Sequence[str], source: Path, log: Log) -> Columns:
    """Which columns hold the keypoints; InputError for a header that is of no known form."""
    repeated = sorted({column for column in header if column and header.count(column) > 1})
    if repeated:
        raise InputError(f"{source}: the column {repeated[0]!r} stands twice in the header")
    parts: dict[str, dict[str, str]] = defaultdict(dict)
    for column in header:
        found = _POINT_COLUMN.fullmatch(column)
        if found is not None and column not in _BOX:
            parts[found[1]]["x" if found[2] else "y" if found[3] else "seen"] = column
    columns = {name: (p["x"], p["y"], p.get("seen", "")) for name, p in parts.items() if "x" in p and "y" in p}
    if "image" not in header or not columns:
        raise InputError(
            f"{source}: the header {', '.join(header)[:200]!r} is of no known form; a row a person has image, "
            "<name>_x, <name>_y, ...; DeepLabCut's begins with scorer"
        )
    used = {"image", "split", *_BOX, *(column for three in columns.values() for column in three)}
    ignored = [column for column in header if column and column not in used]
    log.notes += [f"columns not used: {', '.join(ignored)[:200]}"] if ignored else []
    return columns


def _point(x: str, y: str, seen: str) -> tuple[float, float, float]:
    """x, y, visibility of a keypoint: 2 where the table says nothing about it, 0 where it gives no coordinates."""
    x, y, seen = ("" if text.lower() in _NOTHING else text for text in (x, y, seen))
    return (plain_number(x), plain_number(y), plain_number(seen or 2)) if x or y else (0.0, 0.0, 0.0)


def _image(name: str, folder: Path, people: list[SourcePerson], log: Log) -> SourceImage:
    path = find_inside(folder, name, log)
    points = np.concatenate([np.zeros((0, 3)), *(person.keypoints for person in people)])
    labelled = points[points[:, 2] > 0, :2]
    if len(labelled) > 1 and (np.abs(labelled) <= 1.5).all():
        raise InputError("all coordinates are within 1 pixel; if they are fractions, multiply them by the size")
    return SourceImage(path, path.relative_to(folder).as_posix(), people)
