"""What the keypoints of a person mean: names, mirror pairs, body halves, OKS sigmas, limbs and colours.

A skeleton is data: one YAML file. COCO's 17 points ship with the package as ``coco_17``; any other set is a file
of the same form, named by its path.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from uniformer_pose.errors import InputError, one_line, printable

_SHIPPED = Path(__file__).parent / "skeletons"
_FIELDS = ("name", "keypoints", "left_right_pairs", "upper_body", "lower_body", "limbs")

_WORDS = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![^\W\d_A-Z])|\d+")  # of snake_case, camelCase, L-Ear, LFrontPaw
_NO_SIDE = re.compile("bright|copyright|upright|outright|fright|wright|cleft|leftover")  # words that begin so
_OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}
_SERIES = 7  # letters from l to r: so many names that differ in one letter are a series and not sides


@dataclass(frozen=True)
class Skeleton:
    """The keypoints of one kind of figure; all fields but the name hold keypoint names, in file order.

    ``sigmas`` are the per-keypoint constants of COCO's OKS (cocodataset.org/#keypoints-eval): OKS of one keypoint
    is ``exp(-d^2 / (2 * (2 * sigma)^2 * area))``. ``colours`` are RGB, 0 to 255. A limb takes the colour of its
    first keypoint.
    """

    name: str
    keypoint_names: tuple[str, ...]
    sigmas: tuple[float, ...]
    colours: tuple[tuple[int, int, int], ...]
    left_right_pairs: tuple[tuple[str, str], ...]
    upper_body: tuple[str, ...]
    lower_body: tuple[str, ...]
    limbs: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        if not self.keypoint_names:
            raise InputError(f"skeleton {self.name!r} has no keypoints; list at least one")
        in_pairs = list(chain.from_iterable(self.left_right_pairs))
        named = {"left_right_pairs": in_pairs, "limbs": chain.from_iterable(self.limbs)}
        for field, names in {**named, "upper_body": self.upper_body, "lower_body": self.lower_body}.items():
            for name in names:
                if name not in self.keypoint_names:
                    raise InputError(
                        f"skeleton {self.name!r:.80}: {field} names {name!r:.80}, which is none of its keypoints "
                        f"({', '.join(self.keypoint_names)})"
                    )
        repeated = [name for name, count in Counter(in_pairs).items() if count > 1]
        if repeated:
            # Mirroring twice must give every keypoint back, so no keypoint may have two partners or be its own.
            raise InputError(
                f"skeleton {self.name!r}: {', '.join(sorted(repeated))} stands more than once in left_right_pairs; "
                "a keypoint has one mirror partner or none"
            )
        halves = self.upper_body + self.lower_body
        odd = sorted(name for name in self.keypoint_names if halves.count(name) != 1)
        if halves and odd:
            raise InputError(
                f"skeleton {self.name!r}: upper_body and lower_body together must hold every keypoint once; "
                f"check {', '.join(odd)}, or leave both empty"
            )
        if not all(np.isfinite(s) and s > 0 for s in self.sigmas):
            raise InputError(f"skeleton {self.name!r}: every sigma must be a positive number")

    @property
    def num_keypoints(self) -> int:
        """How many keypoints a figure has (K)."""
        return len(self.keypoint_names)

    @property
    def mirror_permutation(self) -> npt.NDArray[np.int64]:
        """(K,) index of each keypoint's mirror partner, its own where it has none; an involution."""
        partner = {name: name for name in self.keypoint_names}
        for left, right in self.left_right_pairs:
            partner[left], partner[right] = right, left
        return self.indices([partner[name] for name in self.keypoint_names])

    def sides_without_partner(self) -> str | None:
        """A sentence on the keypoints whose mirror partner is none, or not that of their name; None where all fit."""
        partners = dict([*self.left_right_pairs, *(pair[::-1] for pair in self.left_right_pairs)])
        pairs, lone = mirror_pairs(self.keypoint_names)
        expected = dict([*pairs, *(pair[::-1] for pair in pairs)])
        named = []
        for name in self.keypoint_names:
            other = partners.get(name)
            if other is None and (name in lone or name in expected):
                named.append(name)
            elif other is not None and expected.get(name, other) != other:
                named.append(f"{name} (paired with {other} instead of {expected[name]})")
        if not named:
            return None
        return (
            f"keypoints with a side in their name but no mirror partner of that name: {', '.join(named)}. Mirrored "
            "crops teach them the wrong side: correct the names, list the pairs in left_right_pairs of the skeleton "
            "file, or switch mirroring off with augmentation.geometric.flip_probability=0 evaluation.flip_test=false"
        )

    @property
    def oks_sigmas(self) -> npt.NDArray[np.float64]:
        """(K,) OKS sigmas as an array."""
        return np.asarray(self.sigmas, dtype=np.float64)

    @property
    def limb_indices(self) -> npt.NDArray[np.int64]:
        """(L, 2) keypoint indices of each limb's two ends."""
        return np.asarray([self.indices(limb) for limb in self.limbs], dtype=np.int64).reshape(-1, 2)

    def indices(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Index of each named keypoint."""
        return np.asarray([self.keypoint_names.index(name) for name in names], dtype=np.int64)

    def places_in(self, names: Sequence[str]) -> list[int | None]:
        """Where each keypoint stands among ``names``, None for one that is not there; see ``places_by_name``."""
        return places_by_name(self.keypoint_names, names)

    def is_in_order_of(self, names: Sequence[str]) -> bool:
        """Whether the keypoints are these and no others, in this order."""
        return self.places_in(names) == list(range(len(names)))

    def measures_as(self, other: Skeleton) -> bool:
        """Whether predictions and scores mean the same for both: the same keypoints in the same order, equal sigmas.

        Names of skeletons, colours and limbs change no number.
        """
        in_order = self.is_in_order_of(other.keypoint_names)
        return in_order and np.allclose(self.oks_sigmas, other.oks_sigmas, rtol=1e-6, atol=0)

    def paired_as(self, trained: Skeleton) -> Skeleton:
        """The same keypoints with the mirror pairs of ``trained``, which is what a network of it has learnt.

        Raises InputError for a keypoint whose partner there is none here: a flip test would mix the two sides.
        """
        here = dict(zip(self.places_in(trained.keypoint_names), self.keypoint_names, strict=True))
        pairs = []
        for pair in trained.left_right_pairs:
            left, right = (here.get(trained.keypoint_names.index(name)) for name in pair)
            if left is not None and right is not None:
                pairs.append((left, right))
            elif left is not None or right is not None:
                raise InputError(
                    f"skeleton {self.name!r:.80} has {left or right} and not its mirror partner, which the model also "
                    f"knows ({' and '.join(pair)}); add that keypoint, unlabelled in the data where need be"
                )
        same = set(map(frozenset, pairs)) == set(map(frozenset, self.left_right_pairs))
        return self if same else replace(self, left_right_pairs=tuple(pairs))

    def to_dict(self) -> dict[str, Any]:
        """The skeleton as plain dicts, lists, strings and numbers: what its YAML file holds."""
        return {
            "name": self.name,
            "keypoints": {
                name: {"sigma": sigma, "colour": list(colour)}
                for name, sigma, colour in zip(self.keypoint_names, self.sigmas, self.colours, strict=True)
            },
            "left_right_pairs": [list(pair) for pair in self.left_right_pairs],
            "upper_body": list(self.upper_body),
            "lower_body": list(self.lower_body),
            "limbs": [list(limb) for limb in self.limbs],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], *, source: str = "skeleton") -> Skeleton:
        """The skeleton that ``to_dict`` wrote; ``source`` names the file in error messages."""
        if not isinstance(fields, Mapping) or set(fields) != set(_FIELDS):
            found = ", ".join(map(str, fields)) if isinstance(fields, Mapping) else type(fields).__name__
            raise InputError(f"{source}: a skeleton holds exactly {', '.join(_FIELDS)}; found {found}")
        try:
            keypoints = {str(name): dict(entry) for name, entry in fields["keypoints"].items()}
            if any(set(entry) != {"sigma", "colour"} or len(entry["colour"]) != 3 for entry in keypoints.values()):
                raise InputError(f"{source}: a keypoint needs a sigma and a colour of three numbers, and nothing else")
            colours = [entry["colour"] for entry in keypoints.values()]
            return cls(
                name=str(fields["name"]),
                keypoint_names=tuple(keypoints),
                sigmas=tuple(float(entry["sigma"]) for entry in keypoints.values()),
                colours=tuple((int(red), int(green), int(blue)) for red, green, blue in colours),
                left_right_pairs=tuple((str(left), str(right)) for left, right in fields["left_right_pairs"]),
                upper_body=tuple(map(str, fields["upper_body"])),
                lower_body=tuple(map(str, fields["lower_body"])),
                limbs=tuple((str(first), str(second)) for first, second in fields["limbs"]),
            )
        except InputError:
            raise
        except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise InputError(
                f"{source}: not a skeleton ({printable(str(error))[:300]}); compare with {_SHIPPED.name}/coco_17.yaml"
            ) from error


def plain_name(name: object) -> str:
    """A keypoint name without case and separators: data sets write left_eye, Left Eye and left-eye."""
    return "".join(letter for letter in str(name).lower() if letter.isalnum())


def places_by_name(ours: Sequence[str], theirs: Sequence[str]) -> list[int | None]:
    """Where each of our keypoints stands among theirs, None for one that is not there.

    Names count as they are, else without case and separators (``plain_name``), where that leaves them distinct.
    """
    our_plain, their_plain = Counter(map(plain_name, ours)), Counter(map(plain_name, theirs))
    unique = {plain for plain, count in their_plain.items() if count == 1 == our_plain[plain]}
    plain_place = {plain_name(name): place for place, name in enumerate(theirs) if plain_name(name) in unique}
    place = {name: place for place, name in enumerate(theirs)}
    return [place.get(name, plain_place.get(plain_name(name))) for name in ours]


def mirror_pairs(names: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Pairs (left, right) of names that differ in their side only, and the sided names without exactly one partner.

    Sides are ``left`` and ``right`` anywhere in a name, and ``l`` and ``r`` as words of their own. At an end of a word,
    as in ``lear`` and ``paw_fl``, ``l`` and ``r`` are sides only where the partner is among the names.
    """
    by_plain_name = {plain_name(name): name for name in names}
    alike = Counter(_without_letter(plain, place) for plain in by_plain_name for place in range(len(plain)))

    def in_series(plain: str, other: str) -> bool:
        return len(plain) == len(other) and alike[_without_letter(plain, _first_difference(plain, other))] >= _SERIES

    others = {plain: [o for o in _other_side(name) if not in_series(plain, o)] for plain, name in by_plain_name.items()}
    sided = {plain: found for plain, found in others.items() if found}
    unsided = {
        plain: [other for other in _other_end(name) if not in_series(plain, other)]
        for plain, name in by_plain_name.items()
        if plain not in sided
    }
    partner: dict[str, str] = {}
    for group in (sided, unsided):
        there = {plain: [other for other in found if other in group] for plain, found in group.items()}
        partner |= {plain: found[0] for plain, found in there.items() if len(found) == 1 == len(there[found[0]])}
    lefts = [plain for plain, other in partner.items() if plain[_first_difference(plain, other)] == "l"]
    return (
        [(by_plain_name[left], by_plain_name[partner[left]]) for left in lefts],
        [by_plain_name[plain] for plain in sided if plain not in partner],
    )


def _other_side(name: str) -> set[str]:
    """Plain names that the partner of a sided name may have: all left and right exchanged, or one letter or all."""
    words = [plain_name(word) for word in _WORDS.findall(name)]
    exchanged = [w if _NO_SIDE.match(w) else re.sub("left|right", lambda m: _OTHER_SIDE[m[0]], w) for w in words]
    letters = [place for place, word in enumerate(words) if word in ("l", "r")]
    if not any(word.isalpha() for word in words if word not in ("l", "r")):
        letters = []  # L1 to L5 are vertebrae
    found = {
        "".join(_OTHER_SIDE[word] if place in places else word for place, word in enumerate(form))
        for form in (words, exchanged)
        for places in ([], letters, *([letter] for letter in letters))
    }
    return found - {plain_name(name)}


def _other_end(name: str) -> set[str]:
    """Plain names with one l or r at an end of a word exchanged."""
    words = [plain_name(word) for word in _WORDS.findall(name)]
    return {
        "".join([*words[:place], word[:end] + _OTHER_SIDE[word[end]] + word[end + 1 :], *words[place + 1 :]])
        for place, word in enumerate(words)
        for end in {0, len(word) - 1}
        if word[end] in ("l", "r")
    }


def _first_difference(one: str, other: str) -> int:
    return next(place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)


def _without_letter(plain: str, place: int) -> tuple[str, str]:
    return plain[:place], plain[place + 1 :]


def load_skeleton(name_or_path: str | Path) -> Skeleton:
    """A shipped skeleton by its name (``coco_17``), or one of your own by the path of its YAML file."""
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        path = _SHIPPED / f"{name_or_path}.yaml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in _SHIPPED.glob("*.yaml")))
        raise InputError(f"no skeleton {str(name_or_path)!r}; give one of {shipped}, or the path of a YAML file")
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a date that is none
        raise InputError(f"{path}: not valid YAML ({one_line(error)}); compare with coco_17.yaml") from error
    try:
        return Skeleton.from_dict(fields, source=str(path))
    except InputError as error:
        line = str(error)
        raise InputError(line if line.startswith(str(path)) else f"{path}: {line}") from error
