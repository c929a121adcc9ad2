"""Which categories count: the one rule by which annotations and detections are of people (or of what is posed)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import msgspec
import numpy as np

from uniformer_pose.data.coco_json import UNFIT, CategoryRecord, refuse_repeated_ids
from uniformer_pose.errors import InputError, printable
from uniformer_pose.skeleton import Skeleton, plain_name

DEFAULT_PERSON_CATEGORY = 1  # COCO's, where no category lists keypoints


def counted_categories(
    categories: Sequence[CategoryRecord] | None,
    used: Iterable[int],
    file: Path,
    skeleton: Skeleton | None,
    chosen: Sequence[str | int] | None = None,
    *,
    option: str = "data.categories",
) -> dict[int, str]:
    """Ids and names of the categories whose records count, annotations and detections alike.

    ``chosen`` gives them by name or id. Else they are those that list keypoint names; where none does, the one that is
    called person; where none is, all that are listed; where none are, all that are ``used`` by annotations. Several are
    one class: they are trained on and scored together.

    Keypoint names that they list must begin with those of ``skeleton`` in its order (Human-Art lists 21 and has 17 in
    ``keypoints``; annotations of more are refused by their length), or be its ``names_in_files``; where it is None, be
    the same in all of them. InputError where they are not, or where the file has none that is ``chosen``; it names
    ``option``.
    """
    categories = categories or []
    refuse_repeated_ids(np.array([entry.id for entry in categories], dtype=np.int64), "category", file)
    listed = {entry.id: entry for entry in categories}
    if chosen is not None:
        ids = _chosen_ids(chosen, listed, file, option)
    else:
        ids = [number for number, entry in listed.items() if entry.keypoints]
        ids = ids or [number for number, entry in listed.items() if plain_name(entry.name) == "person"]
        ids = ids or list(listed) or sorted(set(used)) or [DEFAULT_PERSON_CATEGORY]
    _require_same_keypoints([listed[number] for number in ids if number in listed], file, skeleton, option)
    return {number: _name(listed.get(number) or CategoryRecord(number)) for number in ids}


def listed_categories(content: Mapping[str, object], file: Path) -> list[CategoryRecord]:
    """The categories of an annotation file that was read as dicts and lists (``read_json``)."""
    try:
        return msgspec.convert(content.get("categories") or [], list[CategoryRecord])
    except UNFIT as error:
        raise InputError(f"{file}: categories: {error}") from None


def _name(entry: CategoryRecord) -> str:
    return str(entry.id if entry.name is None else entry.name)


def _chosen_ids(
    chosen: Sequence[str | int], listed: Mapping[int, CategoryRecord], file: Path, option: str
) -> list[int]:
    ids: list[int] = []
    for wanted in chosen:
        if type(wanted) is int:
            found = [wanted] if wanted in listed or not listed else []
        else:
            found = [number for number, entry in listed.items() if plain_name(entry.name) == plain_name(wanted)]
        if not found:
            known = ", ".join(f"{entry.name} ({number})" for number, entry in listed.items())
            raise InputError(f"{option}: {file} has no category {wanted!r}; it lists {known[:200] or 'none'}")
        ids += found
    if not ids:
        raise InputError(f"{option}=[]: give names or ids of categories, or null")
    return sorted(set(ids))


def _require_same_keypoints(
    counted: Sequence[CategoryRecord], file: Path, skeleton: Skeleton | None, option: str
) -> None:
    with_keypoints = [entry for entry in counted if entry.keypoints]
    for entry in with_keypoints:
        listed = entry.keypoints or []
        if skeleton is None:
            names, owner = with_keypoints[0].keypoints or [], f"category {with_keypoints[0].id}"
        else:
            names, owner = list(skeleton.keypoint_names), f"skeleton {skeleton.name}"
            if [*map(plain_name, listed)] == [*map(plain_name, skeleton.names_in_files)]:
                continue
            listed = listed[: len(names)]
        for number, (their, our) in enumerate(zip_longest(listed, names), start=1):
            if plain_name(their) != plain_name(our):
                several = f", or categories of one kind: {option}=[{_name(with_keypoints[0])}]"
                raise InputError(
                    f"{file}: keypoint {number} is {their!r} in category {entry.id} and {our!r} in {owner}; choose the "
                    f"skeleton of this data set{several if len(with_keypoints) > 1 else ''}"
                )


def category_names(counted: Mapping[int, str]) -> str:
    """The categories in words, for a message: ``category person``, or ``categories cat, dog together``."""
    names = [printable(name) for name in counted.values()]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"category {shown}" if len(names) == 1 else f"categories {shown} together"


def require_counted(category_ids: Iterable[int], counted: Mapping[int, str], file: Path, records: str) -> None:
    """InputError where there are records and not one is of a category that counts."""
    theirs = set(category_ids)
    if theirs and theirs.isdisjoint(counted):
        ours = ", ".join(f"{number} ({name})" for number, name in list(counted.items())[:10])
        raise InputError(
            f"{file}: none of its {records} is of a category that counts: they are of "
            f"{', '.join(map(str, sorted(theirs)[:10]))}, and {ours} counts; correct category_id, or choose with "
            "data.categories=[<name or id>, ...]"
        )
