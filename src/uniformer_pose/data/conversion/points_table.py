"""A CSV of points to people; the header says which of three forms it has.

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
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from uniformer_pose.data.conversion.derived_skeleton import skeleton_and_order
from uniformer_pose.data.conversion.plain_values import Repairs, plain_number, plain_visibility
from uniformer_pose.data.conversion.source import (
    ConversionSettings,
    PersonFinisher,
    Problems,
    SourceDataset,
    SourceImage,
    SourcePerson,
    SplitName,
    existing_folder_of,
    find_inside,
    split_by_share,
    text_of,
)
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import plain_name

_BOX = ("box_x", "box_y", "box_width", "box_height")
_IMAGE = ("image", "file_name", "filename", "image_name", "image_path")
_SEEN = ("visibility", "v", "likelihood", "score", "confidence")
_ONCE = frozenset({*_IMAGE, *_SEEN, *_BOX, "person", "keypoint", "x", "y", "split"})
_POINT_FORM = ("image", "keypoint", "x", "y")
_POINT_COLUMN = re.compile(rf"(.+)[_. ](x|y|{'|'.join(_SEEN)})", re.IGNORECASE)
_NOTHING = frozenset({"", "nan", "na", "none", "null"})
_DEEPLABCUT = ("scorer", "individuals", "bodyparts", "coords")

Point = tuple[float, float, float]
Cells = Mapping[str, str]


@dataclass(eq=False)
class _Person:
    """One person as the table has it: x, y, visibility by keypoint name; ``line`` is the first of the person."""

    line: int
    box: tuple[float, ...]
    points: dict[str, Point] = field(default_factory=dict)


@dataclass(eq=False)
class _Table:
    """``people`` by image and by person, in the file's order; ``splits`` by image; ``problems`` of single lines."""

    source: Path
    repairs: Repairs
    names: dict[str, str]
    people: dict[str, dict[str, _Person]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_points_table(source: Path, settings: ConversionSettings) -> SourceDataset:
    """The dataset of a CSV file. Raises InputError where the header is of no known form."""
    folder = existing_folder_of(settings.images or source.parent)
    table = _read_table(source, settings)
    if not table.people:
        first = f"; {table.problems[0]}" if table.problems else ""
        raise InputError(f"{source}: has no usable rows below its header{first}")
    names = list(table.names.values())
    skeleton, order, assumptions = skeleton_and_order(settings, names, str(source))
    paths = _splits(table, settings)
    finisher = PersonFinisher(skeleton, settings, table.repairs, None, fractions=settings.normalised)

    def read(_split: SplitName, image_name: str, problems: Problems) -> SourceImage | None:
        people = table.people[image_name].values()
        try:
            path = find_inside(folder, image_name, table.repairs)
            raw = [_raw(person, list(table.names), source) for person in people]
            if not settings.normalised and _all_within_a_pixel(raw):
                raise InputError(
                    "all coordinates are within 1 pixel; if they are fractions of the size, give normalised=true"
                )
            return finisher.image(path, path.relative_to(folder).as_posix(), raw, order, problems)
        except InputError as error:
            place = next((f"{source}:{person.line}" for person in people), source)
            problems.add(f"{place}: {error}")
            return None

    category = str((settings.categories or ["person"])[0])
    return SourceDataset(skeleton, category, paths, read, table.notes + assumptions, table.problems, table.repairs)


def _raw(person: _Person, names: Sequence[str], source: Path) -> SourcePerson:
    keypoints = np.array([person.points.get(name, (0.0, 0.0, 0.0)) for name in names])
    return SourcePerson(np.array(person.box), keypoints, place=f"{source}:{person.line}")


def _all_within_a_pixel(people: Sequence[SourcePerson]) -> bool:
    points = np.array([point[:2] for person in people for point in person.keypoints if point[2] > 0])
    return len(points) > 1 and bool((np.abs(points) <= 1.5).all())


def _read_table(source: Path, settings: ConversionSettings) -> _Table:
    text = text_of(source)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(f"{source}: cannot be read as CSV ({error}); give a text file with a header line") from error
    given = [] if settings.skeleton is None else settings.skeleton.keypoint_names
    table = _Table(source, Repairs(), {})
    numbered = [
        (n, [cell.strip() for cell in line]) for n, line in enumerate(lines, start=1) if any(map(str.strip, line))
    ]
    if delimiter == ";":
        numbered = [(n, [re.sub(r"^(-?\d+),(\d+)$", r"\1.\2", cell) for cell in line]) for n, line in numbered]
    if numbered and numbered[0][1][0].lower() == "scorer":
        _read_deeplabcut(table, numbered)
        return table
    header = [column.lower() if column.lower() in _ONCE else column for column in (numbered[0][1] if numbered else [])]
    image_column = next((column for column in _IMAGE if column in header), None)
    header = ["image" if column == image_column else column for column in header]
    _read_rows(table, header, numbered[1:], dict(zip(map(plain_name, given), given, strict=True)))
    return table


def _read_rows(table: _Table, header: list[str], lines: Sequence[tuple[int, list[str]]], given: dict[str, str]) -> None:
    """Both forms with a header; ``given``: the skeleton's names, which the rows of points are about."""
    repeated = sorted({column for column in header if column and header.count(column) > 1})
    if repeated:
        raise InputError(f"{table.source}: the column {repeated[0]!r} stands twice in the header")
    some_box = [column for column in _BOX if column in header]
    if some_box and len(some_box) < 4:
        raise InputError(f"{table.source}: has {', '.join(some_box)} of {', '.join(_BOX)}; give all four or none")
    by_point = set(_POINT_FORM) <= set(header)
    columns = {} if by_point else _point_columns(header)
    if "image" not in header or not (by_point or columns):
        raise InputError(
            f"{table.source}: the header {', '.join(header)[:200]!r} is of no known form; a row a point has image, "
            "keypoint, x, y; a row a person has image, <name>_x, <name>_y, ...; DeepLabCut's begins with scorer"
        )
    used = {"image", "person", "split", *_BOX, *(column for three in columns.values() for column in three)}
    seen = next((column for column in _SEEN if column in header), "")
    used |= {*_POINT_FORM, seen} if by_point else set()
    ignored = [column for column in header if column and column not in used]
    table.notes += [f"columns not used: {', '.join(ignored)[:200]}"] if ignored else []
    fixed = bool(given)
    table.names = given if by_point else {name: name for name in columns}
    for number, fields in lines:
        if len(fields) != len(header):
            table.problems.append(f"{table.source}:{number}: has {len(fields)} fields, the header {len(header)}")
            continue
        cells = dict(zip(header, fields, strict=True))
        if not cells["image"]:
            table.problems.append(f"{table.source}:{number}: has no image")
        elif by_point:
            _add_point(table, number, cells, seen, fixed=fixed)
        else:
            _add_person(table, number, cells, columns)


def _point_columns(header: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """The columns of x, y and visibility (or "") by keypoint."""
    parts: dict[str, dict[str, str]] = {}
    for column in header:
        found = _POINT_COLUMN.fullmatch(column)
        if found is not None and column not in _BOX:
            part = found[2].lower()
            parts.setdefault(found[1], {})[part if part in "xy" else "seen"] = column
    return {name: (p["x"], p["y"], p.get("seen", "")) for name, p in parts.items() if "x" in p and "y" in p}


def _add_person(table: _Table, number: int, cells: Cells, columns: Mapping[str, tuple[str, str, str]]) -> None:
    key = cells.get("person") or str(len(table.people.get(cells["image"], {})) + 1)
    if key in table.people.get(cells["image"], {}):
        table.problems.append(f"{table.source}:{number}: person {key!r} of {cells['image']} has a row already")
        return
    person = _person_of(table, number, cells, key)
    if person is not None:
        for name, (x, y, seen) in columns.items():
            person.points[name] = _point(table, cells[x], cells[y], cells.get(seen, ""), _is_confidence(seen))


def _add_point(table: _Table, number: int, cells: Cells, seen: str, *, fixed: bool) -> None:
    """Names of keypoints in the order in which they first appear, unless they are ``fixed``."""
    name = cells["keypoint"]
    key = plain_name(name) or name
    if not name or (fixed and key not in table.names):
        unknown = "; the skeleton has none of this name" if fixed else ""
        table.problems.append(f"{table.source}:{number}: keypoint {name!r}{unknown}")
        return
    person = _person_of(table, number, cells, cells.get("person", ""))
    if person is None:
        return
    if key in person.points:
        table.problems.append(f"{table.source}:{number}: gives {name} of person {cells.get('person', '')!r} again")
        return
    table.names.setdefault(key, name)
    person.points[key] = _point(table, cells["x"], cells["y"], cells.get(seen, ""), _is_confidence(seen))


def _person_of(table: _Table, number: int, cells: Cells, key: str) -> _Person | None:
    """The person of a line, new or known; None, and a problem, where the line contradicts an earlier one."""
    image, split = cells["image"], cells.get("split", "")
    if split and table.splits.setdefault(image, split) != split:
        earlier = table.splits[image]
        table.problems.append(
            f"{table.source}:{number}: puts {image} into split {split!r}, an earlier line into {earlier!r}"
        )
        return None
    box = tuple(plain_number(cells.get(side)) for side in _BOX)
    person = table.people.setdefault(image, {}).setdefault(key, _Person(number, box))
    if not np.array_equal(person.box, box, equal_nan=True):
        table.problems.append(f"{table.source}:{number}: has another box than line {person.line}")
        return None
    return person


def _point(table: _Table, x: str, y: str, seen: str, confidence: bool) -> Point:
    """x, y and visibility of one keypoint: 2 where the table says nothing about it, 0 where it says nothing at all."""
    x, y, seen = ("" if text.lower() in _NOTHING else text for text in (x, y, seen))
    if not x and not y and (not seen or confidence):
        return 0.0, 0.0, 0.0
    visibility = plain_visibility(seen, table.repairs) if seen else 2.0
    return plain_number(x), plain_number(y), 2.0 if confidence and visibility >= 1 else visibility


def _is_confidence(column: str) -> bool:
    return column.lower().endswith(("likelihood", "score", "confidence"))


def _read_deeplabcut(table: _Table, numbered: Sequence[tuple[int, list[str]]]) -> None:
    """One person an individual; who has no point in a picture is not there."""
    head = {fields[0].lower(): fields for _, fields in numbered[: len(_DEEPLABCUT)] if fields[0].lower() in _DEEPLABCUT}
    parts, coords = head.get("bodyparts", []), [coord.lower() for coord in head.get("coords", [])]
    if "x" not in coords or len(parts) != len(coords):
        raise InputError(
            f"{table.source}: begins with 'scorer', but has no rows 'bodyparts' and 'coords' of one length"
        )
    individuals = head.get("individuals", [""] * len(coords))
    places: dict[tuple[str, str], dict[str, int]] = {}
    for column in range(coords.index("x"), len(coords)):
        places.setdefault((individuals[column], parts[column]), {})[coords[column]] = column
    table.names = {part: part for _, part in places}
    for number, fields in numbered[len(head) :]:
        if len(fields) != len(coords):
            table.problems.append(f"{table.source}:{number}: has {len(fields)} fields, the header {len(coords)}")
            continue
        people = table.people.setdefault("/".join(filter(None, fields[: coords.index("x")])), {})
        for (individual, part), at in places.items():
            seen = fields[at["likelihood"]] if "likelihood" in at else ""
            point = _point(table, fields[at["x"]], fields[at["y"]], seen, confidence=True)
            if point != (0.0, 0.0, 0.0):
                people.setdefault(individual, _Person(number, (math.nan,) * 4)).points[part] = point


def _splits(table: _Table, settings: ConversionSettings) -> dict[SplitName, list[str]]:
    if not table.splits:
        paths = split_by_share(list(table.people), settings.val_share, settings.seed)
        table.notes.append(
            f"no column 'split': {len(paths['val'])} of the images, drawn by their names, are for validation"
        )
        return paths
    divided: dict[SplitName, list[str]] = {"train": [], "val": []}
    for image in table.people:
        split = table.splits.get(image, "").lower()
        if split not in divided:
            raise InputError(f"{table.source}: image {image} is in split {split!r}; use train or val")
        divided["train" if split == "train" else "val"].append(image)
    return divided
