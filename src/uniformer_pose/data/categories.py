"""Which categories count: the one rule by which annotations and detections are of people (or of what is posed)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from uniformer_pose.data.coco_json import CategoryRecord, IntArray, each_record, refuse_repeated_ids
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

    Keypoint names that they list must be those of ``skeleton``, in its order; where it is None, the same in all of
    them. InputError where they are not, or where the file has none that is ``chosen``; it names ``option``.
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
    listed = content.get("categories") or []
    if not isinstance(listed, list):
        raise InputError(f"{file}: has {listed!r:.40} in 'categories'; it must be a list")
    typed, problems = each_record(listed, CategoryRecord)
    for index, problem in problems.items():
        raise InputError(f"{file}: category number {index + 1} {problem}")
    return [entry for entry in typed if entry is not None]


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
    if not with_keypoints:
        return
    first = with_keypoints[0]
    if skeleton is None:
        names, owner, advice = tuple(first.keypoints or ()), f"category {first.id}", "they cannot be one class"
    else:
        names, owner = skeleton.keypoint_names, f"skeleton {skeleton.name}"
        advice = "choose the skeleton of this data set"
    if len(with_keypoints) > 1:
        advice += f", or some of the categories with {option}=[{_name(first)}]"
    for entry in with_keypoints:
        theirs = entry.keypoints or []
        if len(theirs) != len(names):
            raise InputError(
                f"{file}: category {entry.id} lists {len(theirs)} keypoints, {owner} has {len(names)}; {advice}"
            )
        for position, (their, our) in enumerate(zip(theirs, names, strict=True), start=1):
            if plain_name(their) != plain_name(our):
                raise InputError(
                    f"{file}: keypoint {position} is {their!r} in category {entry.id} and {our!r} in {owner}; {advice}"
                )


def category_names(counted: Mapping[int, str]) -> str:
    """The categories in words, for a message: ``category person``, or ``categories cat, dog as one class``."""
    names = [printable(name) for name in counted.values()]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"category {shown}" if len(names) == 1 else f"categories {shown} as one class"


def require_counted(
    category_ids: IntArray, counted: Mapping[int, str], file: Path, counted_in: Path, records: str
) -> None:
    """InputError where there are records and not one is of a category that counts."""
    if not len(category_ids) or np.isin(category_ids, list(counted)).any():
        return
    theirs = ", ".join(map(str, np.unique(category_ids)[:10].tolist()))
    ours = ", ".join(f"{number} ({name})" for number, name in list(counted.items())[:10])
    raise InputError(
        f"{file}: none of its {len(category_ids)} {records} is of a category that counts: they are of {theirs}, and in "
        f"{counted_in.name} {ours} counts; correct category_id, or choose with data.categories=[<name or id>, ...]"
    )
