"""Keypoint names -> a skeleton: mirror pairs, sigmas and colours, as far as names and the source tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.conversion.source import Log, Source
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton, load_skeleton, mirror_pairs, places_by_name, plain_name

_SIGMA = 0.05  # of a keypoint that COCO does not have
_LEFT, _RIGHT, _MIDDLE = (0, 220, 0), (255, 128, 0), (51, 153, 255)  # as in the shipped skeleton


def skeleton_and_order(
    source: Source, name: str, chosen: Skeleton | None, log: Log
) -> tuple[Skeleton, npt.NDArray[np.int64]]:
    """The skeleton of a source, and where each of its keypoints stands there (K,); what was assumed is noted.

    It is the ``chosen`` one; COCO's, where the names are its 17; else it is made from the names.
    """
    names = [str(keypoint).strip() for keypoint in source.keypoint_names]
    if len({plain_name(n) or n for n in names}) != len(names) or not all(names):
        raise InputError(f"keypoint names {', '.join(names)[:200]}: every keypoint needs a name of its own")
    coco = load_skeleton("coco_17")
    if chosen is None and len(names) == coco.num_keypoints and None not in coco.places_in(names):
        chosen = replace(coco, name=name)
    skeleton = chosen or _derived(names, source, name, coco, log)
    lone_sides = skeleton.sides_without_partner()
    if lone_sides is not None:
        log.notes.append(lone_sides)
    elif not skeleton.left_right_pairs:
        log.notes.append("no left-right pairs: if that is wrong, list them in skeleton.yaml")
    return skeleton, order_by_name(skeleton.keypoint_names, names, "the source", log)


def order_by_name(wanted: Sequence[str], keypoint_names: Sequence[str], source: str, log: Log) -> npt.NDArray[np.int64]:
    """Where each of the wanted keypoints stands among the names (K,), by ``places_by_name``; another order is noted.

    Raises InputError where they are not the same.
    """
    places = places_by_name(wanted, keypoint_names)
    absent = [name for name, place in zip(wanted, places, strict=True) if place is None]
    unknown = [name for place, name in enumerate(keypoint_names) if place not in places]
    if absent or unknown:
        raise InputError(
            f"{source}: its {len(keypoint_names)} keypoints are not the {len(wanted)} of the skeleton: without "
            f"{_some(absent) or 'none'} and with {_some(unknown) or 'none'} of its own; correct the names, or leave "
            "skeleton= out"
        )
    order = np.array(places, dtype=np.int64)
    if (np.diff(order) < 0).any():
        log.notes.append(f"{source}: its keypoints are brought into the skeleton's order, by name")
    return order


def _derived(names: Sequence[str], source: Source, name: str, coco: Skeleton, log: Log) -> Skeleton:
    """A skeleton in the order of the names; a keypoint that COCO has too gets its sigma."""
    by_name = mirror_pairs(names)[0]
    pairs = by_name if source.flip_indices is None else _pairs_by_index(names, source.flip_indices, by_name)
    left, right = {first for first, _ in pairs}, {second for _, second in pairs}
    places = places_by_name(names, coco.keypoint_names)
    assumed = [n for n, place in zip(names, places, strict=True) if place is None]
    if assumed:
        log.notes.append(
            f"sigma {_SIGMA:g} is assumed for {len(assumed)} of {len(names)} keypoints ({_some(assumed)}): OKS and AP "
            "depend on it, so set it in skeleton.yaml"
        )
    return Skeleton(
        name=name,
        keypoint_names=tuple(names),
        sigmas=tuple(_SIGMA if place is None else coco.sigmas[place] for place in places),
        colours=tuple(_LEFT if n in left else _RIGHT if n in right else _MIDDLE for n in names),
        left_right_pairs=tuple(pairs),
        upper_body=(),
        lower_body=(),
        limbs=tuple((names[first], names[second]) for first, second in source.limbs or ()),
    )


def _pairs_by_index(
    names: Sequence[str], flip_indices: Sequence[int], by_name: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Pairs from mirror partners, as YOLO's flip_idx; the left one first where the names say which it is."""
    partners = np.array(flip_indices)
    everyone = np.arange(len(names))
    if sorted(flip_indices) != everyone.tolist() or (partners[partners] != everyone).any():
        raise InputError(
            f"flip_idx {list(flip_indices)} does not give each of {len(names)} keypoints a mirror partner or itself, "
            "both ways; correct it"
        )
    pairs = [(names[i], names[partner]) for i, partner in enumerate(flip_indices) if i < partner]
    return [(b, a) if (b, a) in by_name else (a, b) for a, b in pairs]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
