"""Keypoint names -> a skeleton: mirror pairs, sigmas and colours, as far as names and the source tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.conversion.plain_values import Repairs, plain_id
from uniformer_pose.data.conversion.source import ConversionSettings
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton, load_skeleton, mirror_pairs, plain_name

IntArray = npt.NDArray[np.int64]

_LEFT, _RIGHT, _MIDDLE = (0, 220, 0), (255, 128, 0), (51, 153, 255)  # as in the shipped skeleton


def skeleton_and_order(
    settings: ConversionSettings,
    keypoint_names: Sequence[str],
    source: str,
    *,
    flip_indices: Sequence[int] | None = None,
    limbs: Sequence[tuple[int, int]] = (),
) -> tuple[Skeleton, IntArray, list[str]]:
    """The skeleton that was asked for, else one from the names; where its keypoints stand in the source (K,); notes."""
    if settings.skeleton is None:
        skeleton, notes = derive_skeleton(
            settings.name, keypoint_names, default_sigma=settings.default_sigma, flip_indices=flip_indices, limbs=limbs
        )
        return skeleton, np.arange(skeleton.num_keypoints), notes
    order, notes = order_by_name(settings.skeleton, keypoint_names, source)
    lone_sides = settings.skeleton.sides_without_partner()
    return settings.skeleton, order, notes + ([] if lone_sides is None else [lone_sides])


def derive_skeleton(
    name: str,
    keypoint_names: Sequence[str],
    *,
    default_sigma: float,
    flip_indices: Sequence[int] | None = None,
    limbs: Sequence[tuple[int, int]] = (),
) -> tuple[Skeleton, list[str]]:
    """A skeleton in the order of the names, and notes on what was assumed.

    ``flip_indices`` are the mirror partners (K), as YOLO's flip_idx; without them the names say it. ``limbs`` are pairs
    of indices from 0. A keypoint that COCO has too gets its sigma, the others ``default_sigma``. With COCO's 17 names,
    the rest of COCO's skeleton belongs to them too.
    """
    coco = load_skeleton("coco_17")
    names = [str(keypoint).strip() for keypoint in keypoint_names]
    if len({plain_name(n) or n for n in names}) != len(names) or not all(names):
        raise InputError(f"keypoint names {', '.join(names)[:200]}: every keypoint needs a name of its own")
    if set(map(plain_name, names)) == set(map(plain_name, coco.keypoint_names)):
        return _respelt(coco, name, names), []
    pairs = _pairs_by_index(names, flip_indices) if flip_indices is not None else mirror_pairs(names)[0]
    left, right = {first for first, _ in pairs}, {second for _, second in pairs}
    known = dict(zip(map(plain_name, coco.keypoint_names), coco.sigmas, strict=True))
    assumed = [n for n in names if plain_name(n) not in known]
    notes = []
    if assumed:
        notes.append(
            f"sigma {default_sigma:g} is assumed for {len(assumed)} of {len(names)} keypoints ({_some(assumed)}): OKS "
            "and AP depend on it, so set it in skeleton.yaml"
        )
    skeleton = Skeleton(
        name=name,
        keypoint_names=tuple(names),
        sigmas=tuple(known.get(plain_name(n), default_sigma) for n in names),
        colours=tuple(_LEFT if n in left else _RIGHT if n in right else _MIDDLE for n in names),
        left_right_pairs=tuple(pairs),
        upper_body=(),
        lower_body=(),
        limbs=tuple((names[first], names[second]) for first, second in limbs),
    )
    lone_sides = skeleton.sides_without_partner()
    if lone_sides is not None:
        notes.append(lone_sides)
    elif not pairs:
        notes.append("no left-right pairs: mirroring changes no names; if that is wrong, list them in skeleton.yaml")
    return skeleton, notes


def order_by_name(skeleton: Skeleton, keypoint_names: Sequence[str], source: str) -> tuple[IntArray, list[str]]:
    """Where each keypoint of the skeleton stands among the names (K,), and a note if that is another order.

    Names are compared without case and separators. Raises InputError where they are not the skeleton's.
    """
    ours, theirs = [plain_name(n) for n in skeleton.keypoint_names], [plain_name(n) for n in keypoint_names]
    if sorted(ours) != sorted(theirs):
        absent = [n for n in skeleton.keypoint_names if plain_name(n) not in theirs]
        unknown = [n for n in keypoint_names if plain_name(n) not in ours]
        raise InputError(
            f"{source}: its {len(theirs)} keypoints are not the {len(ours)} of skeleton {skeleton.name}: without "
            f"{_some(absent) or 'none'} and with {_some(unknown) or 'none'} of its own; correct the names, or leave "
            "skeleton= out"
        )
    order = np.array([theirs.index(name) for name in ours], dtype=np.int64)
    moved = f"{source}: its keypoints are brought into the order of skeleton {skeleton.name}, by name"
    return order, [] if ours == theirs else [moved]


def limbs_from_coco(limbs: object, num_keypoints: int, source: str) -> tuple[list[tuple[int, int]], list[str]]:
    """Pairs of indices from 0, and notes, from a category's ``skeleton``: pairs that count from 1.

    Some programs count from 0; a list that holds a 0 is read so, and the notes say it. Limbs are only drawn: what is no
    list of pairs of the keypoints is left out as a whole, since it is probably another figure's, and the notes say it.
    """
    listed = limbs if isinstance(limbs, list) else [limbs] if limbs else []
    joined = [limb for limb in listed if isinstance(limb, list)]
    pairs: list[tuple[Any, ...]] = [tuple(plain_id(end, Repairs()) for end in limb) for limb in joined]
    lowest = 0 if any(0 in pair for pair in pairs) else 1
    ends = range(lowest, num_keypoints + lowest)
    if len(pairs) < len(listed) or not all(len(pair) == 2 and set(pair) <= set(ends) for pair in pairs):
        return [], [f"{source}: 'skeleton' does not join pairs of the {num_keypoints} keypoints; no limbs are drawn"]
    counted = [(ends.index(first), ends.index(second)) for first, second in pairs]
    return counted, [f"{source}: 'skeleton' counts keypoints from 0, unlike COCO; read so"] if lowest == 0 else []


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


def _respelt(skeleton: Skeleton, name: str, names: Sequence[str]) -> Skeleton:
    """The same skeleton under another name, its keypoints in the spelling and order of the source."""
    by_plain_name = {plain_name(keypoint): keypoint for keypoint in names}
    spelt = {keypoint: by_plain_name[plain_name(keypoint)] for keypoint in skeleton.keypoint_names}
    order = skeleton.indices(sorted(spelt, key=lambda keypoint: names.index(spelt[keypoint])))
    return Skeleton(
        name=name,
        keypoint_names=tuple(names),
        sigmas=tuple(skeleton.sigmas[index] for index in order),
        colours=tuple(skeleton.colours[index] for index in order),
        left_right_pairs=tuple((spelt[left], spelt[right]) for left, right in skeleton.left_right_pairs),
        limbs=tuple((spelt[first], spelt[second]) for first, second in skeleton.limbs),
        upper_body=tuple(spelt[keypoint] for keypoint in skeleton.upper_body),
        lower_body=tuple(spelt[keypoint] for keypoint in skeleton.lower_body),
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
