"""A CSV of points to a ``Source``; the header says which of two forms it has.

*One row a person*: the column ``image``, and ``<name>_x`` and ``<name>_y`` for every keypoint, optionally
``<name>_visibility`` (or ``_v``, ``_likelihood``, ``_score``); a point may stand in the place of ``_``. There may be
``split`` (train or val) and the box as ``box_x``, ``box_y``, ``box_width``, ``box_height``; without these the box is
drawn around the labelled keypoints.

*DeepLabCut's*: rows ``scorer``, ``individuals`` (or not), ``bodyparts`` and ``coords`` in the place of a header, then
one row an image, whose name may take several columns.

Coordinates are pixels (x to the right, y down, whole numbers at pixel centres), or fractions of the picture's size with
``normalised``. An empty x and y, or visibility 0, means not labelled; without a visibility a keypoint is visible. Names
of images are relative to the image folder. Columns are separated by commas, semicolons (then decimal commas are read
too) or tabs.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from uniformer_pose.data.conversion.source import (
    Log,
    Settings,
    Source,
    SourceImage,
    SourcePerson,
    SplitName,
    find_inside,
    folder_of,
    plain_number,
    plain_visibility,
    text_of,
)
from uniformer_pose.errors import InputError

_BOX = ("box_x", "box_y", "box_width", "box_height")
_IMAGE = ("image", "file_name", "filename", "image_name", "image_path")
_CONFIDENCE = ("likelihood", "score", "confidence")
_POINT_COLUMN = re.compile(rf"(.+)[_. ](x|y|visibility|v|{'|'.join(_CONFIDENCE)})", re.IGNORECASE)
_NOTHING = frozenset({"", "nan", "na", "none", "null"})

Row = tuple[int, list[str]]
Columns = Mapping[str, tuple[str, str, str]]
"""Names of the columns of x, y and visibility (or "") by keypoint."""


def read_points_table(source: Path, settings: Settings, log: Log) -> Source:
    """The data set of a CSV file. Raises InputError where the header is of no known form."""
    folder = folder_of(settings.images or source.parent)
    rows = _rows(source)
    if rows and rows[0][1][0].lower() == "scorer":
        rows = _without_deeplabcuts_header(rows, source)
    header = [next((own for own in ("image", "split", *_BOX) if own == name.lower()), name) for name in rows[0][1]]
    image_column = next((column for column in header if column.lower() in _IMAGE), None)
    header = ["image" if column == image_column else column for column in header]
    columns = _columns(header, source, log)
    people: dict[str, list[SourcePerson]] = defaultdict(list)
    splits: dict[str, str] = {}
    for number, cells in _checked_rows(header, rows[1:], source, log):
        name, split = cells["image"], cells.get("split", "").lower()
        if splits.setdefault(name, split) != split:
            log.problem(f"{source}:{number}: puts {name} into split {split!r}, an earlier line into {splits[name]!r}")
            continue
        box = np.array([plain_number(cells.get(side)) for side in _BOX])
        points = [_point(cells[x], cells[y], cells.get(seen, ""), seen, log) for x, y, seen in columns.values()]
        keypoints = np.array(points)
        if keypoints[:, 2].any() or np.isfinite(box).all():  # else somebody who is not in this picture
            people[name].append(SourcePerson(box, keypoints, f"{source}:{number}"))
        else:
            people[name] += []
    if not people:
        because = f"; {log.problems[0]}" if log.problems else ""
        raise InputError(f"{source}: has no usable rows below its header{because}")
    category = str((settings.categories or ["person"])[0])
    divided = _divided(people, splits, source, folder, settings, log)
    return Source(list(columns), category, divided, fractions=settings.normalised)


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
        if len(fields) != len(coords):
            table.append((number, fields))  # is told
            continue
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
    some_box = [column for column in _BOX if column in header]
    if some_box and len(some_box) < 4:
        raise InputError(f"{source}: has {', '.join(some_box)} of {', '.join(_BOX)}; give all four or none")
    parts: dict[str, dict[str, str]] = defaultdict(dict)
    for column in header:
        found = _POINT_COLUMN.fullmatch(column)
        if found is not None and column not in _BOX:
            part = found[2].lower()
            parts[found[1]][part if part in "xy" else "seen"] = column
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


def _checked_rows(
    header: Sequence[str], rows: Sequence[Row], source: Path, log: Log
) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Number and cells by column of every row that has an image and as many fields as the header."""
    for number, fields in rows:
        cells = dict(zip(header, fields, strict=False))
        if len(fields) != len(header):
            log.problem(f"{source}:{number}: has {len(fields)} fields, the header {len(header)}")
        elif not cells["image"]:
            log.problem(f"{source}:{number}: has no image")
        else:
            yield number, cells


def _point(x: str, y: str, seen: str, column: str, log: Log) -> tuple[float, float, float]:
    """x, y, visibility of a keypoint: 2 where the table says nothing about it, 0 where it says nothing at all."""
    x, y, seen = ("" if text.lower() in _NOTHING else text for text in (x, y, seen))
    confidence = column.lower().endswith(_CONFIDENCE)
    if not x and not y and (not seen or confidence):
        return 0.0, 0.0, 0.0
    visibility = plain_visibility(seen, log) if seen else 2.0
    return plain_number(x), plain_number(y), 2.0 if confidence and visibility >= 1 else visibility


def _divided(
    people: Mapping[str, list[SourcePerson]],
    splits: Mapping[str, str],
    source: Path,
    folder: Path,
    settings: Settings,
    log: Log,
) -> dict[SplitName, list[SourceImage]]:
    """The images that are there, by split; all for training where the table has none."""
    divided: dict[SplitName, list[SourceImage]] = {"train": [], "val": []}
    for name, found in people.items():
        split = splits[name] if any(splits.values()) else "train"
        if split not in divided:
            raise InputError(f"{source}: image {name} is in split {split!r}; use train or val")
        place = found[0].place if found else str(source)
        with log.leaving_out(place):
            path = find_inside(folder, name, log)
            points = np.concatenate([np.zeros((0, 2)), *(p.keypoints[p.keypoints[:, 2] > 0, :2] for p in found)])
            if not settings.normalised and len(points) > 1 and (np.abs(points) <= 1.5).all():
                raise InputError(
                    "all coordinates are within 1 pixel; if they are fractions of the size, give normalised=true"
                )
            image = SourceImage(path, path.relative_to(folder).as_posix(), found, place)
            divided["train" if split == "train" else "val"].append(image)
    if not any(splits.values()):
        del divided["val"]
    return divided
