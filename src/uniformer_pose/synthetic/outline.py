"""Filled polygons in paint order: the parts of the body that they show, and the shapes that limbs are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from uniformer_pose.synthetic.outfit import Colour
from uniformer_pose.synthetic.pose import SIDES

Points = npt.NDArray[np.float64]

_SIDED = ("upper_arm", "forearm", "hand", "thigh", "shin", "foot", "eye", "ear")
_WHOLE = ("background", "torso", "pelvis", "neck", "head", "hair", "nose")
PARTS = (*_WHOLE, *(f"{side}_{part}" for side in SIDES for part in _SIDED))


class Outline(NamedTuple):
    """One filled polygon of a part of the body: ``points`` (n, 2) in figure pixels; a decoration is no surface."""

    part: str
    points: Points
    colour: Colour
    is_surface: bool = True


def mark(part: str, points: Points, colour: Colour) -> Outline:
    """A decoration of a part of the body."""
    return Outline(part, points, colour, is_surface=False)


_ARC = np.exp(1j * np.linspace(-np.pi / 2, np.pi / 2, 8))
_ARCS = np.stack([_ARC, -_ARC])  # half a circle at the far end of a capsule, half a circle at its start


def capsule(start: complex, end: complex, first: float, last: float) -> Points:
    """Outline (n, 2) of the region between a disc about ``start`` and one about ``end``; a disc if they coincide."""
    outline: Points = capsules(((end, start),), ((last, first),))[0]
    return outline


def capsules(ends: Sequence[tuple[complex, complex]], radii: Sequence[tuple[float, float]]) -> Points:
    """Outlines (m, n, 2) of capsules that all point the way the first one does; ends and radii are (last, first)."""
    along = ends[0][0] - ends[0][1]
    if abs(along) < 1e-6:
        along = 1.0 + 0.0j
        radii = [(max(pair), max(pair)) for pair in radii]
    arcs = _ARCS * (along / abs(along))
    centres = np.asarray(ends, dtype=np.complex128)[:, :, None]
    points = centres + np.asarray(radii, dtype=np.float64)[:, :, None] * arcs
    outlines: Points = points.reshape(len(ends), -1, 1).view(np.float64)
    return outlines


def plane(points: Sequence[complex] | npt.NDArray[np.complex128]) -> Points:
    """Complex numbers as points (n, 2)."""
    return np.asarray(points, dtype=np.complex128).reshape(-1, 1).view(np.float64)
