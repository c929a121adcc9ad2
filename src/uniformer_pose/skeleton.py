"""What the keypoints of a person mean: names, mirror pairs, body halves, OKS sigmas, limbs and colours.

A skeleton is data: one YAML file. COCO's 17 points ship with the package as ``coco_17``, and those of other published
sets beside it; any other set is a file of the same form, named by its path.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import yaml

from uniformer_pose.errors import InputError, one_line

_SHIPPED = Path(__file__).parent / "skeletons"
_SAME_KEYPOINTS = Path(__file__).parent / "same_keypoints.yaml"

_WORDS = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![^\W\d_A-Z])|\d+")  # of snake_case, camelCase, L-Ear, LFrontPaw
_NO_SIDE = re.compile("bright|copyright|upright|outright|fright|wright|cleft|leftover")  # words that begin so
_OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}


ArrayName = Literal["keypoints", "keypoints_21", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts"]
"""The lists of an annotation in which published data sets keep keypoints."""


class _Keypoint(msgspec.Struct, forbid_unknown_fields=True):
    sigma: float
    colour: tuple[int, int, int]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """What a skeleton's YAML file holds."""

    name: str
    keypoints: dict[str, _Keypoint]
    left_right_pairs: list[tuple[str, str]]
    upper_body: list[str]
    lower_body: list[str]
    limbs: list[tuple[str, str]]
    names_in_files: list[str] = []
    arrays_in_files: dict[ArrayName, int] = {}
    figure: str = "person"


@dataclass(frozen=True)
class Skeleton:
    """The keypoints of one kind of figure, by their names, in file order.

    ``sigmas`` are the per-keypoint constants of COCO's OKS (cocodataset.org/#keypoints-eval): OKS of one keypoint
    is ``exp(-d^2 / (2 * (2 * sigma)^2 * area))``. ``colours`` are RGB, 0 to 255. A limb takes the colour of its
    first keypoint. A keypoint may be in neither half of the body, as those of faces and hands are.
    """

    name: str
    keypoint_names: tuple[str, ...]
    sigmas: tuple[float, ...]
    colours: tuple[tuple[int, int, int], ...]
    left_right_pairs: tuple[tuple[str, str], ...]
    upper_body: tuple[str, ...]
    lower_body: tuple[str, ...]
    limbs: tuple[tuple[str, str], ...]
    names_in_files: tuple[str, ...] = ()
    """What a published set's annotation files call its keypoints, or list as such, where that differs."""
    arrays_in_files: tuple[tuple[ArrayName, int], ...] = ()
    """The lists of an annotation that hold them one after the other, and of how many each, where that differs from
    ``keypoints`` with all of them; of more the first K count."""
    figure: str = "person"
    """What it is the skeleton of; keypoints of different figures are never the same, whatever their names."""

    def __post_init__(self) -> None:
        for problem in self._contradictions():
            raise InputError(f"skeleton {self.name!r:.80}: {problem}")

    def _contradictions(self) -> Iterator[str]:
        if not self.keypoint_names:
            yield "has no keypoints; list at least one"
        in_pairs, halves = list(chain.from_iterable(self.left_right_pairs)), self.upper_body + self.lower_body
        unknown = {*in_pairs, *halves, *chain.from_iterable(self.limbs)} - {*self.keypoint_names}
        if unknown:
            known = ", ".join(self.keypoint_names)
            yield f"names {', '.join(sorted(unknown))[:80]}, which is none of its keypoints ({known})"
        repeated = [name for name, count in Counter(in_pairs).items() if count > 1]
        if repeated:  # mirroring twice must give every keypoint back
            yield f"{', '.join(sorted(repeated))} stands more than once in left_right_pairs; give one partner or none"
        twice = sorted(name for name, count in Counter(halves).items() if count > 1)
        if twice:
            yield f"upper_body and lower_body hold a keypoint once or not at all; check {', '.join(twice)}"
        if not all(np.isfinite(sigma) and sigma > 0 for sigma in self.sigmas):
            yield "every sigma must be a positive number"
        points = [count for _, count in self.arrays_in_files]
        if points and (min(points) < 1 or sum(points) < self.num_keypoints):
            yield f"has {self.num_keypoints} keypoints and {sum(points)} in arrays_in_files; give those of each array"

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
        pairs, lone = mirror_pairs(self.keypoint_names)
        partners, expected = ({**dict(p), **{b: a for a, b in p}} for p in (self.left_right_pairs, pairs))
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

    def of_keypoints(self, chosen: Sequence[int]) -> Skeleton:
        """Those keypoints alone, by their indices, each once, in this order; all in order are the skeleton itself.

        Pairs and limbs stay where both ends are there.
        """
        names = tuple(self.keypoint_names[index] for index in chosen)
        if names == self.keypoint_names:
            return self
        pairs, limbs = (
            tuple(pair for pair in pairs if {*pair} <= {*names}) for pairs in (self.left_right_pairs, self.limbs)
        )
        upper, lower = (tuple(name for name in half if name in names) for half in (self.upper_body, self.lower_body))
        sigmas, colours = tuple(self.sigmas[i] for i in chosen), tuple(self.colours[i] for i in chosen)
        name = f"{len(names)} of {self.name}"
        return Skeleton(name, names, sigmas, colours, pairs, upper, lower, limbs, figure=self.figure)

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
            **({"names_in_files": list(self.names_in_files)} if self.names_in_files else {}),
            **({"arrays_in_files": dict(self.arrays_in_files)} if self.arrays_in_files else {}),
            **({"figure": self.figure} if self.figure != "person" else {}),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], *, source: str = "skeleton") -> Skeleton:
        """The skeleton that ``to_dict`` wrote; ``source`` names the file in error messages."""
        try:
            read = msgspec.convert(fields, _File)
            return cls(
                name=read.name,
                keypoint_names=tuple(read.keypoints),
                sigmas=tuple(keypoint.sigma for keypoint in read.keypoints.values()),
                colours=tuple(keypoint.colour for keypoint in read.keypoints.values()),
                left_right_pairs=tuple(read.left_right_pairs),
                upper_body=tuple(read.upper_body),
                lower_body=tuple(read.lower_body),
                limbs=tuple(read.limbs),
                names_in_files=tuple(read.names_in_files),
                arrays_in_files=tuple(read.arrays_in_files.items()),
                figure=read.figure,
            )
        except (msgspec.MsgspecError, ValueError) as error:
            raise InputError(f"{source}: {one_line(error)}; compare with {_SHIPPED.name}/coco_17.yaml") from error


def plain_name(name: object) -> str:
    """A keypoint name without case and separators: data sets write left_eye, Left Eye and left-eye."""
    return "".join(letter for letter in str(name).lower() if letter.isalnum())


def places_by_name(ours: Sequence[str], theirs: Sequence[str]) -> list[int | None]:
    """Where each of our keypoints stands among theirs, None for one that is not there.

    Names count as they are, else without case and separators (``plain_name``), else as names of the same point
    (``same_keypoints.yaml``), where that leaves them distinct.
    """
    places: list[int | None] = [None] * len(ours)
    for form in (str, plain_name, lambda name: _same_keypoints().get(plain_name(name))):
        free = [form(name) if place is None else None for name, place in zip(ours, places, strict=True)]
        free_theirs = [None if place in places else form(name) for place, name in enumerate(theirs)]
        our_count, their_count = Counter(free), Counter(free_theirs)
        found = {name: at for at, name in enumerate(free_theirs) if our_count[name] == 1 == their_count[name]}
        places = [place if name is None else found.get(name) for name, place in zip(free, places, strict=True)]
    return places


@cache
def _same_keypoints() -> dict[str, str]:
    """Plain names of the points that have several -> the first name of the point."""
    groups = yaml.safe_load(_SAME_KEYPOINTS.read_text(encoding="utf-8"))
    return {plain_name(name): names[0] for names in groups for name in names}


def mirror_pairs(names: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Pairs (left, right) of names that differ in their side only, and the sided names without exactly one partner.

    Sides are ``left`` and ``right`` anywhere in a name, and ``l`` and ``r`` as words of their own. At an end of a word,
    as in ``lear`` and ``paw_fl``, ``l`` and ``r`` are sides only where the partner is among the names.
    """
    by_plain_name = {plain_name(name): name for name in names}
    sides, ends = (
        {plain: _not_in_series(plain, other(name), by_plain_name) for plain, name in by_plain_name.items()}
        for other in (_other_side, _other_end)
    )
    sided = {plain for plain, found in sides.items() if found}
    there = {plain: (sides[plain] or ends[plain]) & by_plain_name.keys() for plain in by_plain_name}
    partner = {
        plain: other for plain, found in there.items() for other in found if {plain} == there[other] and len(found) == 1
    }
    # Where the two begin to differ the left one has an l, which comes before r.
    lefts = [plain for plain, other in partner.items() if plain < other]
    return (
        [(by_plain_name[left], by_plain_name[partner[left]]) for left in lefts],
        [name for plain, name in by_plain_name.items() if plain in sided and plain not in partner],
    )


def _not_in_series(plain: str, others: set[str], names: Collection[str]) -> set[str]:
    """The others without those of a series, such as pt_a to pt_t: the letters between l and r are in use too."""

    def is_in_series(other: str) -> bool:
        place = next(place for place, (one, two) in enumerate(zip(plain, other, strict=False)) if one != two)
        return all(plain[:place] + letter + plain[place + 1 :] in names for letter in "mnopq")

    return {other for other in others if not is_in_series(other)}


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
        if len(word) + len(words) > 2 and word[end] in ("l", "r")  # not l and r among a, b, c
    }


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
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or no date
        raise InputError(f"{path}: cannot be read as YAML ({one_line(error)})") from error
    return Skeleton.from_dict(fields, source=str(path))
