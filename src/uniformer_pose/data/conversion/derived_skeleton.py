"""Keypoint names -> a skeleton: mirror pairs, sigmas and colours, as far as names and the source tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.conversion.source import (
    Log,
    plain_id,
)
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton, load_skeleton, mirror_pairs, places_by_name, plain_name

_SIGMA = 0.05  # of a keypoint that COCO does not have
_LEFT, _RIGHT, _MIDDLE = (0, 220, 0), (255, 128, 0), (51, 153, 255)  # as in the shipped skeleton


def derive_skeleton(
    name: str,
    keypoint_names: Sequence[str],
    log: Log,
    *,
    flip_indices: Sequence[int] | None = None,
    limbs: Sequence[tuple[int, int]] | None = None,
) -> Skeleton:
    """A skeleton in the order of the names; what was assumed is noted.

    ``flip_indices`` are the mirror partners (K), as YOLO's flip_idx; without them the names say it. ``limbs`` are pairs
    of indices from 0. A keypoint that COCO has too gets its sigma. With COCO's 17 names, the rest of COCO's skeleton
    belongs to them too.
    """
    coco = load_skeleton("coco_17")
    names = [str(keypoint).strip() for keypoint in keypoint_names]
    plain = {plain_name(n) or n: n for n in names}
    if len(plain) != len(names) or not all(names):
        raise InputError(f"keypoint names {', '.join(names)[:200]}: every keypoint needs a name of its own")
    spelt = {n: plain[plain_name(n)] for n in coco.keypoint_names if plain_name(n) in plain}
    is_coco = len(spelt) == len(names) == coco.num_keypoints
    pairs = mirror_pairs(names)[0] if is_coco or flip_indices is None else _pairs_by_index(names, flip_indices)
    left, right = {first for first, _ in pairs}, {second for _, second in pairs}
    sigmas = {spelt[n]: sigma for n, sigma in zip(coco.keypoint_names, coco.sigmas, strict=True) if n in spelt}
    colours = {spelt[n]: colour for n, colour in zip(coco.keypoint_names, coco.colours, strict=True) if is_coco}
    skeleton = Skeleton(
        name=name,
        keypoint_names=tuple(names),
        sigmas=tuple(sigmas.get(n, _SIGMA) for n in names),
        colours=tuple(colours.get(n, _LEFT if n in left else _RIGHT if n in right else _MIDDLE) for n in names),
        left_right_pairs=tuple(pairs),
        upper_body=tuple(spelt[n] for n in coco.upper_body if is_coco),
        lower_body=tuple(spelt[n] for n in coco.lower_body if is_coco),
        limbs=tuple((spelt[a], spelt[b]) for a, b in coco.limbs)
        if is_coco
        else tuple((names[first], names[second]) for first, second in limbs or ()),
    )
    assumed = [n for n in names if n not in sigmas]
    if assumed:
        log.notes.append(
            f"sigma {_SIGMA:g} is assumed for {len(assumed)} of {len(names)} keypoints ({_some(assumed)}): OKS and AP "
            "depend on it, so set it in skeleton.yaml"
        )
    if not pairs and skeleton.sides_without_partner() is None:
        log.notes.append("no left-right pairs: if that is wrong, list them in skeleton.yaml")
    return skeleton


def order_by_name(wanted: Sequence[str], keypoint_names: Sequence[str], source: str, log: Log) -> npt.NDArray[np.int64]:
    """Where each of the wanted keypoints stands among the names (K,); noted if that is another order.

    Names are compared without case and separators. Raises InputError where they are not the same.
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
    if places != sorted(places):  # type: ignore[type-var]
        log.notes.append(f"{source}: its keypoints are brought into the skeleton's order, by name")
    return np.array(places, dtype=np.int64)


def limbs_from_coco(limbs: object, num_keypoints: int, source: str, log: Log) -> list[tuple[int, int]]:
    """Pairs of indices from 0, from a category's ``skeleton``: pairs that count from 1.

    Limbs are only drawn: what is no list of pairs of the keypoints is left out as a whole, and noted, since it is
    probably another figure's.
    """
    listed = limbs if isinstance(limbs, list) else [limbs] if limbs else []
    pairs = [[plain_id(end, Log()) for end in limb] if isinstance(limb, list) else [] for limb in listed]
    ends = range(1, num_keypoints + 1)
    if not all(len(pair) == 2 and set(pair) <= set(ends) for pair in pairs):
        log.notes.append(f"{source}: 'skeleton' joins no pairs of the {num_keypoints} keypoints; no limbs are drawn")
        return []
    return [(ends.index(first), ends.index(second)) for first, second in pairs]  # type: ignore[arg-type]


def _pairs_by_index(names: Sequence[str], flip_indices: Sequence[int]) -> list[tuple[str, str]]:
    """Pairs, the left one first where the names say which it is."""
    if sorted(flip_indices) != list(range(len(names))) or any(
        flip_indices[partner] != index for index, partner in enumerate(flip_indices)
    ):
        raise InputError(
            f"flip_idx {list(flip_indices)} does not give each of {len(names)} keypoints a mirror partner or itself, "
            "both ways; correct it"
        )
    pairs = [(names[i], names[partner]) for i, partner in enumerate(flip_indices) if i < partner]
    by_name = mirror_pairs(names)[0]
    return [(b, a) if (b, a) in by_name else (a, b) for a, b in pairs]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
