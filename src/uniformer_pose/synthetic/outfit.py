"""What a figure wears, and its skin and hair: random colours and cuts, of which what must be told apart contrasts."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from uniformer_pose.synthetic.pose import Side

Colour = tuple[float, float, float]  # RGB, 0 to 255
StripedSide = Literal["left", "right", "random"]
_Choice = TypeVar("_Choice")

_SKIN = np.array([(250, 219, 195), (232, 184, 148), (198, 140, 100), (141, 92, 62), (92, 58, 40)], dtype=np.float64)
_HAIR: tuple[Colour, ...] = (  # black to blond, red, grey
    *((28, 22, 20), (62, 40, 26), (105, 66, 36), (180, 130, 70), (222, 190, 120)),
    *((150, 60, 30), (150, 150, 150), (215, 215, 210)),
)


@dataclass(frozen=True)
class Outfit:
    """Colours and cuts of what a figure wears, and its skin and hair."""

    skin: Colour
    hair: Colour
    hair_style: Literal["bald", "short", "long", "bun", "cap"]
    shirt: Colour
    shirt_pattern: Literal["plain", "hoops", "block", "dots"]
    pattern: Colour
    front: Colour
    front_style: Literal["zip", "bib", "logo"]
    trousers: Colour
    shoes: Colour
    band: Colour
    cap: Colour
    sleeves: float  # how much of the arm they cover: 0 none, 1 to the elbow, 2 to the wrist
    legs: float  # the same for trouser legs
    skirt: bool
    tucked_in: bool
    striped_side: Side

    @classmethod
    def sample(cls, rng: np.random.Generator, striped_side: StripedSide) -> Outfit:
        """Random clothes; what must be told apart (front of the shirt, bands) contrasts with what it lies on."""
        u = rng.uniform
        shirt, trousers = _cloth(rng, (0.25, 1.0)), _cloth(rng, (0.15, 0.85))
        for _ in range(4):
            if float(np.abs(np.subtract(shirt, trousers)).sum()) > 110:
                break
            trousers = _cloth(rng, (0.15, 0.9))
        skin = _along(_SKIN, u(0, 1)) + u(-8, 8, 3)
        hair = _HAIR[int(rng.integers(len(_HAIR)))]
        front = _contrast(shirt, rng)
        random_side: Side = "left" if rng.random() < 0.5 else "right"
        return cls(
            skin=(float(skin[0]), float(skin[1]), float(skin[2])),
            hair=scaled(hair, u(0.8, 1.2)),
            hair_style=_pick(rng, ("bald", "short", "long", "bun", "cap"), (0.06, 0.42, 0.28, 0.10, 0.14)),
            shirt=shirt,
            shirt_pattern=_pick(rng, ("plain", "hoops", "block", "dots"), (0.5, 0.25, 0.15, 0.1)),
            pattern=_cloth(rng, (0.3, 1.0)),
            front=front,
            front_style=_pick(rng, ("zip", "bib", "logo"), (0.4, 0.35, 0.25)),
            trousers=trousers,
            shoes=_cloth(rng, (0.1, 1.0)),
            band=(245.0, 245.0, 240.0) if rng.random() < 0.6 else _hsv(u(0, 1), 0.35, 1.0),
            cap=_cloth(rng, (0.3, 1.0)),
            sleeves=float(rng.choice((0.0, u(0.5, 0.95), 2.0), p=(0.12, 0.43, 0.45))),
            legs=float(rng.choice((u(0.45, 0.95), 2.0), p=(0.25, 0.75))),
            skirt=rng.random() < 0.12,
            tucked_in=rng.random() < 0.3,
            striped_side=random_side if striped_side == "random" else striped_side,
        )


def scaled(colour: Colour, factor: float) -> Colour:
    """A colour made darker or lighter."""
    return min(255.0, colour[0] * factor), min(255.0, colour[1] * factor), min(255.0, colour[2] * factor)


def _along(colours: npt.NDArray[np.float64], place: float) -> npt.NDArray[np.float64]:
    """The colour at ``place`` (0 to 1) along a list of colours."""
    position = place * (len(colours) - 1)
    lower = min(int(position), len(colours) - 2)
    mixed: npt.NDArray[np.float64] = colours[lower] + (position - lower) * (colours[lower + 1] - colours[lower])
    return mixed


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return 255.0 * red, 255.0 * green, 255.0 * blue


def _cloth(rng: np.random.Generator, value: tuple[float, float]) -> Colour:
    return _hsv(rng.uniform(0, 1), rng.uniform(0, 1) ** 0.8 * 0.95, rng.uniform(*value))


def _contrast(colour: Colour, rng: np.random.Generator) -> Colour:
    """A colour much lighter than a dark one, or much darker than a light one."""
    light = sum(colour) > 380
    return _hsv(rng.uniform(0, 1), rng.uniform(0.0, 0.6), rng.uniform(0.08, 0.3) if light else rng.uniform(0.85, 1.0))


def _pick(rng: np.random.Generator, options: Sequence[_Choice], weights: Sequence[float]) -> _Choice:
    return options[int(rng.choice(len(options), p=weights))]
