"""Which keypoints of several skeletons are the same points: where those of one data set stand among a model's.

Keypoints are the same by their names (``places_by_name``), or as the user says. MMPose writes out such mappings in its
configs (``KeypointConverter``, mmpose/datasets/transforms/converting.py, Apache-2.0); the names give all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from uniformer_pose.errors import InputError
from uniformer_pose.nearest_name import did_you_mean
from uniformer_pose.skeleton import Skeleton, mirror_pairs, places_by_name, plain_name

_OF_KEYPOINTS = ("keypoint_names", "sigmas", "colours", "left_right_pairs", "upper_body", "lower_body")

Given = Mapping[str, str | None]
"""A user's own word on some keypoints of a set: which of the other skeleton each is, or none of them (None)."""


def places_in_target(source: Skeleton, target: Skeleton, given: Given | None = None) -> tuple[int | None, ...]:
    """Where each keypoint of ``source`` (K,) stands in ``target``; None for one that is not there.

    Those that ``given`` does not name are found by name, if both are of the same figure. Raises InputError for an
    unknown or repeated keypoint, for none in common, and where the two disagree on left and right.
    """
    names = _called(source, given or {}, by_name=source.figure == target.figure)
    sought = [name for name in names if name is not None]
    found = dict(zip(sought, places_by_name(sought, target.keypoint_names), strict=True))
    for name in (given or {}).values():
        if name is not None and found[name] is None:
            options = did_you_mean(str(name), target.keypoint_names)
            raise InputError(
                f"mapping of {_quoted(source)}: {name} is no free keypoint of {_quoted(target)}; {options}"
            )
    if set(found.values()) <= {None}:
        figures = "" if source.figure == target.figure else f" ({source.figure} and {target.figure})"
        raise InputError(
            f"skeletons {_quoted(source)} and {_quoted(target)}{figures} have no keypoint in common; say which of "
            "their names mean the same, or leave the set out"
        )
    places = tuple(None if name is None else found[name] for name in names)
    _require_same_sides(source, target, places)
    return places


def union_of(skeletons: Sequence[Skeleton], given: Sequence[Given | None] | None = None) -> Skeleton:
    """A skeleton with the keypoints of all of them, each point once, in the order in which they first appear.

    Name, sigma, colour and half of the body are those of the first that has the point. ``given``: of each skeleton
    the keypoints that are called otherwise, or left out. Raises InputError as ``places_in_target`` does.
    """
    tables = [table or {} for table in given or [None] * len(skeletons)]
    known = {plain_name(name) for skeleton in skeletons for name in skeleton.keypoint_names}
    parts = []
    for skeleton, table in zip(skeletons, tables, strict=True):
        names = _called(skeleton, table)
        unknown = [name for name in names if name is not None and plain_name(name) not in known]
        if unknown:
            raise InputError(f"mapping of {_quoted(skeleton)}: no skeleton has a keypoint {unknown[0]}")
        part = skeleton.of_keypoints([index for index, name in enumerate(names) if name is not None])
        part = _renamed(part, {own: name for own, name in table.items() if name is not None})
        parts.append(replace(part, name=skeleton.name))
    union = reduce(_joined, parts)
    for skeleton, table in zip(skeletons, tables, strict=True):
        places_in_target(skeleton, union, table)
    return union


def _called(skeleton: Skeleton, given: Given, *, by_name: bool = True) -> list[str | None]:
    """What each keypoint is called; None for one that is left out, and without ``by_name`` for all not given."""
    for own in given:
        if own not in skeleton.keypoint_names:
            options = did_you_mean(own, skeleton.keypoint_names)
            raise InputError(f"mapping of {_quoted(skeleton)}: it has no keypoint {own}; {options}")
    names = [given.get(own, own if by_name else None) for own in skeleton.keypoint_names]
    for name, count in Counter(names).items():
        if name is not None and count > 1:
            both = [own for own, called in zip(skeleton.keypoint_names, names, strict=True) if called == name]
            raise InputError(f"mapping of {_quoted(skeleton)}: {' and '.join(both)} are both {name}; give null for one")
    return names


def _renamed(skeleton: Skeleton, names: Mapping[str, str]) -> Skeleton:
    def called(old: Iterable[str]) -> Any:
        return tuple(names.get(name, name) for name in old)

    return replace(
        skeleton,
        keypoint_names=called(skeleton.keypoint_names),
        left_right_pairs=tuple(map(called, skeleton.left_right_pairs)),
        upper_body=called(skeleton.upper_body),
        lower_body=called(skeleton.lower_body),
        limbs=tuple(map(called, skeleton.limbs)),
    )


def _joined(union: Skeleton, other: Skeleton) -> Skeleton:
    """The union and what only the other has; of a set without a keypoint of its own, nothing."""
    places = places_in_target(other, union)
    if None not in places:
        return union
    added = other.of_keypoints([index for index, place in enumerate(places) if place is None])
    shared = {other.keypoint_names[own]: union.keypoint_names[at] for own, at in enumerate(places) if at is not None}
    limbs = [limb for limb in _renamed(other, shared).limbs if {limb, limb[::-1]}.isdisjoint(union.limbs)]
    points: dict[str, Any] = {name: getattr(union, name) + getattr(added, name) for name in _OF_KEYPOINTS}
    return Skeleton(f"{union.name}+{other.name}", **points, limbs=(*union.limbs, *limbs), figure=union.figure)


def _require_same_sides(source: Skeleton, target: Skeleton, places: Sequence[int | None]) -> None:
    """InputError unless mirroring and mapping commute, and all sides stay as they are or all are exchanged."""
    disagree = f"skeletons {_quoted(source)} and {_quoted(target)} disagree on left and right"
    ours, theirs = source.mirror_permutation, target.mirror_permutation
    our_sides, their_sides = (_sides(skeleton) for skeleton in (source, target))
    exchanged = {}
    for own, place in enumerate(places):
        if place is None:
            continue
        name, mirrored = (source.keypoint_names[index] for index in (own, ours[own]))
        there, wanted = (target.keypoint_names[index] for index in (place, theirs[place]))
        if places[ours[own]] != theirs[place]:
            raise InputError(
                f"{disagree}: {name} is {there}, but its mirror image {mirrored} is not {wanted}; correct the names "
                f"or left_right_pairs, or leave {name} out"
            )
        if name in our_sides and there in their_sides:
            exchanged[our_sides[name] != their_sides[there]] = f"{name} is {there}"
    if len(exchanged) == 2:
        raise InputError(f"{disagree}: {exchanged[False]}, but {exchanged[True]}; exchange the sides of all or none")


def _sides(skeleton: Skeleton) -> dict[str, int]:
    return {name: side for pair in mirror_pairs(skeleton.keypoint_names)[0] for side, name in enumerate(pair)}


def _quoted(skeleton: Skeleton) -> str:
    return f"{skeleton.name!r:.80}"
