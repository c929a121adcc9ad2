"""A CSV of points to a ``Source``; the header says which of three forms it has.

*One row a point*: the columns ``image``, ``keypoint``, ``x``, ``y``, and optionally ``person`` (a name or number that
tells the people of one image apart; without it every image shows one person) and ``visibility`` or ``likelihood``.

*One row a person*: the column ``image``, and ``<name>_x`` and ``<name>_y`` for every keypoint, optionally
``<name>_visibility`` (or ``_v``, ``_likelihood``, ``_score``); a point may stand in the place of ``_``.

*DeepLabCut's*: rows ``scorer``, ``individuals`` (or not), ``bodyparts`` and ``coords`` in the place of a header, then
one row an image, whose name may take several columns.

The first two may have ``split`` (train or val) and the box as ``box_x``, ``box_y``, ``box_width``, ``box_height``;
without these the box is drawn around the labelled keypoints. Coordinates are pixels (x to the right, y down, whole
numbers at pixel centres), or fractions of the picture's size with ``normalised``. An empty x and y, or visibility 0,
means not labelled; without a visibility a keypoint is visible. Names of images are relative to the image folder.
Columns are separated by commas, semicolons (then decimal commas are read too) or tabs.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from uniformer_pose.data.conversion.plain_values import plain_number, plain_visibility
from uniformer_pose.data.conversion.source import (
    Log,
    Settings,
    Source,
    SourceImage,
    SourcePerson,
    SplitName,
    find_inside,
    folder_of,
    text_of,
)
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import plain_name

_BOX = ("box_x", "box_y", "box_width", "box_height")
_IMAGE = ("image", "file_name", "filename", "image_name", "image_path")
_SEEN = ("visibility", "v", "likelihood", "score", "confidence")
_ONCE = frozenset({*_IMAGE, *_SEEN, *_BOX, "person", "keypoint", "x", "y", "split"})
_POINT_FORM = {"image", "keypoint", "x", "y"}
_POINT_COLUMN = re.compile(rf"(.+)[_. ](x|y|{'|'.join(_SEEN)})", re.IGNORECASE)
_NOTHING = frozenset({"", "nan", "na", "none", "null"})
_DEEPLABCUT = ("scorer", "individuals", "bodyparts", "coords")

Point = tuple[float, float, float]
Cells = Mapping[str, str]


@dataclass(eq=False)
class _Person:
    """One person as the table has it: x, y, visibility by plain keypoint name; ``line`` is the first of the person."""

    line: int
    box: tuple[float, ...]
    points: dict[str, Point] = field(default_factory=dict)


class _Table:
    """``people`` by image and by person, in the file's order; ``splits`` by image; ``names`` by plain name."""

    def __init__(self, source: Path, log: Log, given: Sequence[str]) -> None:
        self.source, self.log = source, log
        self.is_fixed = bool(given)
        self.names = {plain_name(name): name for name in given}
        self.people: dict[str, dict[str, _Person]] = {}
        self.splits: dict[str, str] = {}

    def problem(self, number: int, sentence: str) -> None:
        """What is wrong with a line."""
        self.log.problem(f"{self.source}:{number}: {sentence}")

    def add(self, number: int, cells: Cells, key: str, points: Mapping[str, Point]) -> None:
        """Points of a person, new or known; a problem where the line contradicts an earlier one."""
        image, split = cells["image"], cells.get("split", "")
        if split and self.splits.setdefault(image, split) != split:
            self.problem(number, f"puts {image} into split {split!r}, an earlier line into {self.splits[image]!r}")
            return
        box = tuple(plain_number(cells.get(side)) for side in _BOX)
        person = self.people.setdefault(image, {}).setdefault(key, _Person(number, box))
        if not np.array_equal(person.box, box, equal_nan=True):
            self.problem(number, f"has another box than line {person.line}")
            return
        for name, point in points.items():
            plain = plain_name(name) or name
            if not name or (self.is_fixed and plain not in self.names):
                unknown = "; the skeleton has none of this name" if self.is_fixed else ""
                self.problem(number, f"keypoint {name!r}{unknown}")
            elif plain in person.points:
                self.problem(number, f"gives {name} of person {key!r} again")
            else:
                self.names.setdefault(plain, name)
                person.points[plain] = point

    def point(self, x: str, y: str, seen: str, column: str) -> Point:
        """x, y, visibility of a keypoint: 2 where the table says nothing about it, 0 where it says nothing at all."""
        x, y, seen = ("" if text.lower() in _NOTHING else text for text in (x, y, seen))
        confidence = column.lower().endswith(("likelihood", "score", "confidence"))
        if not x and not y and (not seen or confidence):
            return 0.0, 0.0, 0.0
        visibility = plain_visibility(seen, self.log.repairs) if seen else 2.0
        return plain_number(x), plain_number(y), 2.0 if confidence and visibility >= 1 else visibility


def read_points_table(source: Path, settings: Settings, log: Log) -> Source:
    """The data set of a CSV file. Raises InputError where the header is of no known form."""
    folder = folder_of(settings.images or source.parent)
    rows = _rows(source)
    first = [cell.lower() for cell in rows[0][1]] if rows else [""]
    by_point = set(first) >= {"keypoint", "x", "y"}
    given = settings.skeleton.keypoint_names if by_point and settings.skeleton is not None else ()
    table = _Table(source, log, given)
    if first[0] == "scorer":
        _read_deeplabcut(table, rows)
    else:
        _read_rows(table, rows)
    if not table.people:
        because = f"; {log.problems[0]}" if log.problems else ""
        raise InputError(f"{source}: has no usable rows below its header{because}")
    divided: dict[SplitName, list[SourceImage]] = {"train": [], "val": []}
    for name, people in table.people.items():
        split = table.splits.get(name, "train" if not table.splits else "").lower()
        if split not in divided:
            raise InputError(f"{source}: image {name} is in split {split!r}; use train or val")
        image = _image(table, name, list(people.values()), folder, settings)
        if image is not None:
            divided["train" if split == "train" else "val"].append(image)
    if not table.splits:
        del divided["val"]
    category = str((settings.categories or ["person"])[0])
    return Source(list(table.names.values()), category, divided, fractions=settings.normalised)


def _image(table: _Table, name: str, people: Sequence[_Person], folder: Path, settings: Settings) -> SourceImage | None:
    try:
        path = find_inside(folder, name, table.log)
        raw = [
            SourcePerson(
                np.array(person.box),
                np.array([person.points.get(plain, (0.0, 0.0, 0.0)) for plain in table.names]),
                f"{table.source}:{person.line}",
            )
            for person in people
        ]
        points = np.concatenate([person.keypoints[person.keypoints[:, 2] > 0, :2] for person in raw])
        if not settings.normalised and len(points) > 1 and (np.abs(points) <= 1.5).all():
            raise InputError(
                "all coordinates are within 1 pixel; if they are fractions of the size, give normalised=true"
            )
    except InputError as error:
        table.problem(people[0].line if people else 0, str(error))
        return None
    return SourceImage(path, path.relative_to(folder).as_posix(), raw, place=raw[0].place if raw else str(table.source))


def _rows(source: Path) -> list[tuple[int, list[str]]]:
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
    return rows


def _read_rows(table: _Table, rows: Sequence[tuple[int, list[str]]]) -> None:
    """Both forms with a header."""
    header = [column.lower() if column.lower() in _ONCE else column for column in (rows[0][1] if rows else [])]
    image_column = next((column for column in _IMAGE if column in header), None)
    header = ["image" if column == image_column else column for column in header]
    repeated = sorted({column for column in header if column and header.count(column) > 1})
    if repeated:
        raise InputError(f"{table.source}: the column {repeated[0]!r} stands twice in the header")
    some_box = [column for column in _BOX if column in header]
    if some_box and len(some_box) < 4:
        raise InputError(f"{table.source}: has {', '.join(some_box)} of {', '.join(_BOX)}; give all four or none")
    by_point = set(header) >= _POINT_FORM
    columns = {} if by_point else _point_columns(header)
    if "image" not in header or not (by_point or columns):
        raise InputError(
            f"{table.source}: the header {', '.join(header)[:200]!r} is of no known form; a row a point has image, "
            "keypoint, x, y; a row a person has image, <name>_x, <name>_y, ...; DeepLabCut's begins with scorer"
        )
    seen = next((column for column in _SEEN if column in header), "") if by_point else ""
    used = {"image", "person", "split", *_BOX, *(column for three in columns.values() for column in three)}
    used |= {*_POINT_FORM, seen} if by_point else set()
    ignored = [column for column in header if column and column not in used]
    table.log.notes += [f"columns not used: {', '.join(ignored)[:200]}"] if ignored else []
    for number, fields in rows[1:]:
        cells = dict(zip(header, fields, strict=False))
        if len(fields) != len(header):
            table.problem(number, f"has {len(fields)} fields, the header {len(header)}")
        elif not cells["image"]:
            table.problem(number, "has no image")
        elif by_point:
            point = table.point(cells["x"], cells["y"], cells.get(seen, ""), seen)
            table.add(number, cells, cells.get("person", ""), {cells["keypoint"]: point})
        else:
            key = cells.get("person") or str(len(table.people.get(cells["image"], {})) + 1)
            points = {n: table.point(cells[x], cells[y], cells.get(v, ""), v) for n, (x, y, v) in columns.items()}
            if key in table.people.get(cells["image"], {}):
                table.problem(number, f"person {key!r} of {cells['image']} has a row already")
            else:
                table.add(number, cells, key, points)


def _point_columns(header: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """The columns of x, y and visibility (or "") by keypoint."""
    parts: dict[str, dict[str, str]] = {}
    for column in header:
        found = _POINT_COLUMN.fullmatch(column)
        if found is not None and column not in _BOX:
            part = found[2].lower()
            parts.setdefault(found[1], {})[part if part in "xy" else "seen"] = column
    return {name: (p["x"], p["y"], p.get("seen", "")) for name, p in parts.items() if "x" in p and "y" in p}


def _read_deeplabcut(table: _Table, rows: Sequence[tuple[int, list[str]]]) -> None:
    """One person an individual; who has no point in a picture is not there."""
    head = {fields[0].lower(): fields for _, fields in rows[: len(_DEEPLABCUT)] if fields[0].lower() in _DEEPLABCUT}
    parts, coords = head.get("bodyparts", []), [coord.lower() for coord in head.get("coords", [])]
    if "x" not in coords or len(parts) != len(coords):
        raise InputError(
            f"{table.source}: begins with 'scorer', but has no rows 'bodyparts' and 'coords' of one length"
        )
    individuals = head.get("individuals", [""] * len(coords))
    places: dict[str, dict[str, dict[str, int]]] = {}
    for column in range(coords.index("x"), len(coords)):
        places.setdefault(individuals[column], {}).setdefault(parts[column], {})[coords[column]] = column
    table.names = {plain_name(part) or part: part for of_one in places.values() for part in of_one}
    for number, fields in rows[len(head) :]:
        if len(fields) != len(coords):
            table.problem(number, f"has {len(fields)} fields, the header {len(coords)}")
            continue
        image = "/".join(filter(None, fields[: coords.index("x")]))
        table.people.setdefault(image, {})
        for individual, columns in places.items():
            points = {}
            for part, at in columns.items():
                seen = fields[at["likelihood"]] if "likelihood" in at else ""
                points[part] = table.point(fields[at["x"]], fields[at["y"]], seen, "likelihood")
            if any(point != (0.0, 0.0, 0.0) for point in points.values()):
                table.add(number, {"image": image}, individual, points)
