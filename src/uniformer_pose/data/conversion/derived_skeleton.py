"""Keypoint names -> a skeleton: mirror pairs, sigmas and colours, as far as names and the source tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton, load_skeleton, mirror_pairs, plain_name

_LEFT, _RIGHT, _MIDDLE = (0, 220, 0), (255, 128, 0), (51, 153, 255)  # as in the shipped skeleton


def derive_skeleton(
    name: str,
    keypoint_names: Sequence[str],
    *,
    default_sigma: float,
    flip_indices: Sequence[int] | None = None,
    limbs: Sequence[tuple[int, int]] = (),
) -> tuple[Skeleton, list[str]]:
    """A skeleton and notes on what was assumed.

    ``flip_indices`` are the mirror partners (K), as YOLO's flip_idx; without them the names say it. ``limbs`` are pairs
    of indices from 0. A keypoint that COCO has too gets its sigma, the others ``default_sigma``. The 17 of COCO in
    COCO's order are its skeleton itself.
    """
    coco = load_skeleton("coco_17")
    names = [str(keypoint).strip() for keypoint in keypoint_names]
    if len(set(names)) != len(names) or not all(names):
        raise InputError(f"keypoint names {', '.join(names)[:200]}: every keypoint needs a name of its own")
    if [plain_name(n) for n in names] == [plain_name(n) for n in coco.keypoint_names]:
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


def same_keypoints(skeleton: Skeleton, keypoint_names: Sequence[str], source: str) -> Skeleton:
    """The skeleton, if its keypoints are these, in this order; case and separators may differ. Else InputError."""
    ours, theirs = [plain_name(n) for n in skeleton.keypoint_names], [plain_name(n) for n in keypoint_names]
    if ours != theirs:
        raise InputError(
            f"{source}: its {len(theirs)} keypoints ({_some(list(keypoint_names))}) are not the {len(ours)} of "
            f"skeleton {skeleton.name} ({_some(list(skeleton.keypoint_names))}), in this order; correct the skeleton "
            "file, or leave skeleton= out"
        )
    return skeleton


def limbs_from_coco(limbs: object, num_keypoints: int, source: str) -> tuple[list[tuple[int, int]], list[str]]:
    """Pairs of indices from 0, and notes, from a category's ``skeleton``: pairs that count from 1.

    Some programs count from 0; a list that holds a 0 is read so, and the notes say it.
    """
    if not limbs:
        return [], []
    if not isinstance(limbs, list) or not all(
        isinstance(limb, list) and len(limb) == 2 and all(type(end) is int for end in limb) for limb in limbs
    ):
        raise InputError(
            f"{source}: 'skeleton' must be a list of pairs of keypoint numbers; correct it or leave it out"
        )
    lowest = 0 if any(0 in limb for limb in limbs) else 1
    pairs = [(first - lowest, second - lowest) for first, second in limbs]
    for pair in pairs:
        if not all(0 <= end < num_keypoints for end in pair):
            raise InputError(
                f"{source}: 'skeleton' joins keypoints {pair[0] + lowest} and {pair[1] + lowest}, there are "
                f"{num_keypoints}; correct it or leave it out"
            )
    return pairs, [f"{source}: 'skeleton' counts keypoints from 0, unlike COCO; read so"] if lowest == 0 else []


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
    """The same skeleton under another name, its keypoints in the spelling of the source."""
    spelt = dict(zip(skeleton.keypoint_names, names, strict=True))
    return replace(
        skeleton,
        name=name,
        keypoint_names=tuple(names),
        left_right_pairs=tuple((spelt[left], spelt[right]) for left, right in skeleton.left_right_pairs),
        limbs=tuple((spelt[first], spelt[second]) for first, second in skeleton.limbs),
        upper_body=tuple(spelt[keypoint] for keypoint in skeleton.upper_body),
        lower_body=tuple(spelt[keypoint] for keypoint in skeleton.lower_body),
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
