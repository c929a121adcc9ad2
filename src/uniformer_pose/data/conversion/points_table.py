"""A CSV of points to people in pixels; the header says which of two forms it has.

*One row a point*: the columns ``image``, ``keypoint``, ``x``, ``y``, and optionally ``person`` (a name or number that
tells the people of one image apart; without it every image shows one person) and ``visibility``.

*One row a person*: the column ``image``, and ``<name>_x`` and ``<name>_y`` for every keypoint, optionally
``<name>_visibility`` (or ``<name>_v``).

Both may have ``split`` (train or val) and the box as ``box_x``, ``box_y``, ``box_width``, ``box_height``; without these
the box is drawn around the labelled keypoints. Coordinates are pixels (x to the right, y down, whole numbers at pixel
centres), or fractions of the picture's size with ``normalised``. An empty x and y, or visibility 0, means not labelled;
without a visibility a keypoint is visible. Names of images are relative to the image folder. Columns are separated by
commas, semicolons or tabs.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from uniformer_pose.data.checking.image_check import ImageHeader
from uniformer_pose.data.conversion.derived_skeleton import derive_skeleton, same_keypoints
from uniformer_pose.data.conversion.source import (
    Exif,
    FloatArray,
    Problems,
    SourceDataset,
    SourceImage,
    SourcePerson,
    SplitName,
    box_around,
    displayed_to_stored,
    finite_number,
    header_of,
    path_inside,
    require_exif_choice,
    split_by_share,
    visibility_of,
)
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton, plain_name

_BOX = ("box_x", "box_y", "box_width", "box_height")
_POINT_FORM = ("image", "keypoint", "x", "y")


@dataclass(eq=False)
class _Row:
    """One person as the table has it: ``values`` (3K + 4) are x, y, visibility of the keypoints, then the box.

    NaN where there is nothing. ``place`` leads to the first line of the person.
    """

    place: str
    values: FloatArray
    defects: list[str] = field(default_factory=list)


@dataclass(eq=False)
class _Table:
    """``people`` by image and by person, in the file's order; ``splits`` by image; ``problems`` of single lines."""

    keypoint_names: list[str]
    people: dict[str, dict[str, _Row]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_points_table(
    source: Path,
    *,
    name: str,
    images: Path | None = None,
    skeleton: Skeleton | None = None,
    category: str | None = None,
    normalised: bool = False,
    box_margin: float = 0.1,
    exif: Exif | None = None,
    val_share: float = 0.1,
    seed: int = 0,
    default_sigma: float = 0.05,
) -> SourceDataset:
    """The dataset of a CSV file; ``images`` is the folder of its pictures, None: the file's own.

    ``box_margin`` is added around the keypoints on all sides where there is no box, as a share of the larger side.
    ``exif`` says what the coordinates of EXIF-rotated pictures refer to; without it such a picture is a problem.
    Raises InputError where the header is of neither form.
    """
    folder = (images or source.parent).resolve()
    if not folder.is_dir():
        raise InputError(f"images={folder} is no folder; give the folder of the pictures")
    table, notes = _read_table(source, skeleton)
    if not table.people:
        first = f"; {table.problems[0]}" if table.problems else ""
        raise InputError(f"{source}: has no usable rows below its header{first}")
    if skeleton is None:
        derived, assumptions = derive_skeleton(name, table.keypoint_names, default_sigma=default_sigma)
        notes += assumptions
    else:
        derived = same_keypoints(skeleton, table.keypoint_names, str(source))
    paths = _splits(table, source, val_share, seed, notes)

    def read(_split: SplitName, image_name: str, problems: Problems) -> SourceImage | None:
        rows = table.people[image_name]
        try:
            path = path_inside(folder, image_name)
            header = header_of(path)
            refers_to = require_exif_choice(path, header, exif)
        except InputError as error:
            problems.add(f"{next(iter(rows.values())).place}: {error}")
            return None
        people = []
        for row in rows.values():
            try:
                if row.defects:
                    raise InputError(row.defects[0])
                person = _person(
                    row, header, normalised=normalised, margin=box_margin, displayed=refers_to == "displayed"
                )
            except InputError as error:
                problems.add(f"{row.place}: {error}")
                continue
            people.append(displayed_to_stored(person, header, derived) if refers_to == "displayed" else person)
        return SourceImage(path, header.height, header.width, people)

    return SourceDataset(derived, category or "person", paths, read, notes, table.problems)


def _person(row: _Row, header: ImageHeader, *, normalised: bool, margin: float, displayed: bool) -> SourcePerson:
    keypoints, box = row.values[:-4].reshape(-1, 3).copy(), row.values[-4:].copy()
    height = header.displayed_height if displayed else header.height
    width = header.displayed_width if displayed else header.width
    if normalised:
        keypoints[:, :2] *= (width, height)
        box *= (width, height, width, height)
    keypoints[np.isnan(keypoints).any(axis=1) | (keypoints[:, 2] == 0)] = 0
    labelled = keypoints[keypoints[:, 2] > 0, :2]
    if len(labelled) > 1 and not normalised and np.abs(labelled).max() <= 1.5 and min(height, width) > 8:
        raise InputError(
            "all its coordinates are within 1 pixel; if they are fractions of the size, give normalised=true"
        )
    if np.isnan(box).all():
        box = box_around(keypoints, margin=margin)
    elif np.isnan(box).any() or (box[2:] <= 0).any():
        raise InputError(f"has the box {', '.join(f'{side:g}' for side in box)}; give all four, sizes above 0, or none")
    return SourcePerson(box, keypoints)


def _read_table(source: Path, skeleton: Skeleton | None) -> tuple[_Table, list[str]]:
    try:
        # utf-8-sig: spreadsheets put a mark before the header.
        with source.open(encoding="utf-8-sig", newline="") as stream:
            beginning = stream.readline()
            stream.seek(0)
            delimiter = max(",;\t", key=beginning.count)
            lines = csv.reader(stream, delimiter=delimiter, strict=True)
            header = [column.strip() for column in next(lines, [])]
            return _read_rows(_numbered(lines), header, source, skeleton)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{source}: cannot be read as CSV ({reason}); give a text file with a header line") from error


def _numbered(lines: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Line number in the file, the header being line 1, and fields; empty lines are passed over."""
    return ((number, fields) for number, fields in enumerate(lines, start=2) if any(map(str.strip, fields)))


def _read_rows(
    lines: Iterator[tuple[int, list[str]]], header: Sequence[str], source: Path, skeleton: Skeleton | None
) -> tuple[_Table, list[str]]:
    """The table in memory: one array of numbers a person."""
    repeated = sorted({column for column in header if header.count(column) > 1})
    if repeated:
        raise InputError(f"{source}: the column {repeated[0]!r} stands twice in the header")
    some_box = [column for column in _BOX if column in header]
    if some_box and len(some_box) < 4:
        raise InputError(f"{source}: has {', '.join(some_box)} of {', '.join(_BOX)}; give all four or none")
    by_point = set(_POINT_FORM) <= set(header)
    names = [column[:-2] for column in header if column.endswith("_x") and column[:-2] + "_y" in header]
    names = [name for name in names if name and name != "box"]
    if "image" not in header or not (by_point or names):
        raise InputError(
            f"{source}: the header {', '.join(header)[:200]!r} is of neither form; a row a point has image, keypoint, "
            "x, y; a row a person has image, <name>_x, <name>_y, ..."
        )
    used = {"image", "person", "split", *_BOX}
    if by_point:
        names = [] if skeleton is None else list(skeleton.keypoint_names)
        used |= {"keypoint", "x", "y", "visibility"}
    else:
        used |= {name + end for name in names for end in ("_x", "_y", "_visibility", "_v")}
    ignored = [column for column in header if column not in used]
    notes = [f"columns not used: {', '.join(ignored)[:200]}"] if ignored else []
    if by_point:
        return _read_points(lines, header, source, _Table(names), skeleton), notes
    return _read_people(lines, header, source, _Table(names)), notes


def _read_people(lines: Iterator[tuple[int, list[str]]], header: Sequence[str], source: Path, table: _Table) -> _Table:
    columns = {column: place for place, column in enumerate(header)}
    for number, fields in lines:
        row, cells = _new_row(number, fields, columns, source, table)
        if row is None:
            continue
        for index, name in enumerate(table.keypoint_names):
            seen = cells.get(f"{name}_visibility", cells.get(f"{name}_v", ""))
            _set_point(row, index, name, cells[f"{name}_x"], cells[f"{name}_y"], seen)
        people = table.people.setdefault(cells["image"], {})
        person = cells.get("person") or str(len(people) + 1)
        if person in people:
            table.problems.append(f"{row.place}: person {person!r} of {cells['image']} has a row already")
            continue
        people[person] = row
    return table


def _read_points(
    lines: Iterator[tuple[int, list[str]]],
    header: Sequence[str],
    source: Path,
    table: _Table,
    skeleton: Skeleton | None,
) -> _Table:
    """Names of keypoints in the order in which they first appear, or the skeleton's."""
    columns = {column: place for place, column in enumerate(header)}
    index_of = {plain_name(name): index for index, name in enumerate(table.keypoint_names)}
    for number, fields in lines:
        row, cells = _new_row(number, fields, columns, source, table)
        if row is None:
            continue
        name = cells["keypoint"]
        if skeleton is None and name and plain_name(name) not in index_of:
            index_of[plain_name(name)] = len(table.keypoint_names)
            table.keypoint_names.append(name)
        index = index_of.get(plain_name(name))
        if index is None:
            known = "" if skeleton is None else f"; skeleton {skeleton.name} has none of this name"
            table.problems.append(f"{row.place}: keypoint {name!r}{known}")
            continue
        person = table.people.setdefault(cells["image"], {}).setdefault(cells.get("person", ""), row)
        missing = len(table.keypoint_names) * 3 + 4 - len(person.values)
        if missing > 0:  # a keypoint that this person's first rows did not know of; the box stays last
            person.values = np.concatenate([person.values[:-4], np.full(missing, np.nan), person.values[-4:]])
        if np.isfinite(person.values[3 * index + 2]):
            person.defects.append(f"line {number} gives {name} of person {cells.get('person', '')!r} again")
        given = row.values[-4:]
        if person is not row and not np.array_equal(given, person.values[-4:], equal_nan=True):
            person.defects.append(f"line {number} has another box than line {person.place.rpartition(':')[2]}")
        person.defects += row.defects if person is not row else []
        _set_point(person, index, name, cells["x"], cells["y"], cells.get("visibility", ""))
    for people in table.people.values():
        for person in people.values():
            missing = len(table.keypoint_names) * 3 + 4 - len(person.values)
            person.values = np.concatenate([person.values[:-4], np.full(missing, np.nan), person.values[-4:]])
    return table


def _new_row(
    number: int, fields: Sequence[str], columns: Mapping[str, int], source: Path, table: _Table
) -> tuple[_Row | None, dict[str, str]]:
    """The row of one line with its box, and its cells by column; None where it cannot belong to an image."""
    place = f"{source}:{number}"
    if len(fields) != len(columns):
        table.problems.append(f"{place}: has {len(fields)} fields, the header {len(columns)}")
        return None, {}
    cells = {column: fields[index].strip() for column, index in columns.items()}
    if not cells["image"]:
        table.problems.append(f"{place}: has no image")
        return None, {}
    row = _Row(place, np.full(3 * len(table.keypoint_names) + 4, np.nan))
    if "split" in cells:
        split = table.splits.setdefault(cells["image"], cells["split"])
        if split != cells["split"]:
            row.defects.append(f"puts {cells['image']} into split {cells['split']!r}, an earlier line into {split!r}")
    for side, column in enumerate(_BOX):
        if cells.get(column):
            try:
                row.values[side - 4] = finite_number(cells[column])
            except InputError as error:
                row.defects.append(f"{column}: {error}")
    return row, cells


def _set_point(row: _Row, index: int, name: str, x: str, y: str, visibility: str) -> None:
    """Fill in one keypoint; visibility 0 where nothing is labelled, so that a repetition shows."""
    try:
        seen = visibility_of(visibility) if visibility else 2
        if not x and not y:
            if visibility and seen:
                raise InputError(f"visibility {seen} without x and y")
            row.values[3 * index : 3 * index + 3] = 0
            return
        row.values[3 * index : 3 * index + 3] = finite_number(x), finite_number(y), seen
    except InputError as error:
        row.defects.append(f"{name}: {error}")


def _splits(table: _Table, source: Path, val_share: float, seed: int, notes: list[str]) -> dict[SplitName, list[str]]:
    if not table.splits:
        paths = split_by_share(list(table.people), val_share, seed)
        notes.append(f"no column 'split': {len(paths['val'])} of the images, drawn by their names, are for validation")
        return paths
    divided: dict[SplitName, list[str]] = {"train": [], "val": []}
    for image in table.people:
        split = table.splits[image].lower()
        if split not in divided:
            raise InputError(f"{source}: image {image} is in split {table.splits[image]!r}; use train or val")
        divided["train" if split == "train" else "val"].append(image)
    return divided
