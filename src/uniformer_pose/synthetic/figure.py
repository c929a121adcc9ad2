"""A clothed figure from a posed body: coloured outlines in paint order, and where its landmarks lie.

The figure is drawn back to front (painter's algorithm): every body part has one depth, so an arm before the chest
covers the chest and the eyes of a turned head are covered by it. What tells left from right is what tells it on a
person: face, shirt front, back, kneecaps and toes. One side of the body also carries bands on sleeve and trouser
leg, so that the limbs of one side are recognised as such.

Frames: the figure is built in pixels with the middle of the hips at (0, 0), x right, y down; placing it in an image
adds an offset. Depth is in body heights, larger is nearer to the camera.
"""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from uniformer_pose.errors import InputError
from uniformer_pose.synthetic.pose import SIDES, Body, Pose, Proportions, Side, Vector, place_joints, view_axes

Points = npt.NDArray[np.float64]
Colour = tuple[float, float, float]  # RGB, 0 to 255
StripedSide = Literal["left", "right", "random"]
_Choice = TypeVar("_Choice")

_SIDED = ("upper_arm", "forearm", "hand", "thigh", "shin", "foot", "eye", "ear")
_WHOLE = ("background", "torso", "pelvis", "neck", "head", "hair", "nose")
PARTS = (*_WHOLE, *(f"{side}_{part}" for side in SIDES for part in _SIDED))
_PART = {name: index for index, name in enumerate(PARTS)}

# Landmark -> the parts that are this place of the body. The torso and the pelvis show a shoulder or hip only on
# the near side of the body: see _shown_by.
_LANDMARK_PARTS: dict[str, tuple[str, ...]] = {
    "nose": ("nose",),
    "chin": ("head",),
    "head_top": ("head", "hair"),
    "neck": ("neck", "torso"),
    "pelvis": ("pelvis", "torso"),
    **{
        f"{side}_{landmark}": tuple(f"{side}_{part}" for part in parts)
        for side in SIDES
        for landmark, parts in {
            "eye": ("eye",),
            "ear": ("ear",),
            "shoulder": ("upper_arm",),
            "elbow": ("upper_arm", "forearm"),
            "wrist": ("forearm", "hand"),
            "hand": ("hand",),
            "hip": ("thigh",),
            "knee": ("thigh", "shin"),
            "ankle": ("shin", "foot"),
            "heel": ("foot",),
            "toe": ("foot",),
        }.items()
    },
}
LANDMARKS = tuple(_LANDMARK_PARTS)
# How far behind the trunk's middle a joint may lie and still be seen on its surface: turned by about 50 degrees.
_TRUNK_DEPTH = {"shoulder": 0.085, "hip": 0.05}


def check_landmarks(keypoint_names: Sequence[str]) -> None:
    """Refuse keypoint names that the figure has no landmark for; raises InputError listing those it has."""
    unknown = [name for name in keypoint_names if name not in _LANDMARK_PARTS]
    if unknown:
        raise InputError(
            f"the synthetic figure has no landmark {', '.join(map(repr, unknown))}; "
            f"use a skeleton whose keypoints are among {', '.join(LANDMARKS)}"
        )


class Outline(NamedTuple):
    """One filled polygon: ``points`` (n, 2) in figure pixels; a surface also marks its part, a decoration does not."""

    part: int
    points: Points
    colour: Colour
    is_surface: bool


@dataclass(frozen=True)
class Figure:
    """Outlines in paint order, landmarks by name (x, y in figure pixels), and the parts that show each landmark."""

    outlines: tuple[Outline, ...]
    landmarks: dict[str, tuple[float, float]]
    shown_by: dict[str, frozenset[int]]

    def extent(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of everything drawn, in figure pixels."""
        points = np.concatenate([outline.points for outline in self.outlines if outline.is_surface])
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return float(left), float(top), float(right), float(bottom)


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
            hair=_scaled(hair, u(0.8, 1.2)),
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


def build_figure(
    body: Proportions,
    pose: Pose,
    outfit: Outfit,
    *,
    height: float,
    light: tuple[float, float] = (-0.6, -0.8),
    distance: float = 8.0,
) -> Figure:
    """The figure of a posed body whose standing height is ``height`` pixels.

    ``light`` is the image direction (x right, y down) that highlights lie towards; ``distance`` the camera's, in
    body heights: it sets how strongly the nearer limbs are enlarged.
    """
    return _Tailor(place_joints(body, pose), view_axes(pose), body, outfit, height, light, distance).figure()


def build_silhouette(height: float, colours: Sequence[Colour], stride: float) -> tuple[Outline, ...]:
    """Three outlines (legs, trunk, head) of a figure too far away to have limbs; the feet stand at (0, 0)."""
    legs = np.array(
        [
            (-0.07 - stride, 0),
            (-0.02 - stride, 0),
            (0, -0.35),
            (0.02 + stride, 0),
            (0.07 + stride, 0),
            (0.09, -0.5),
            (-0.09, -0.5),
        ]
    )
    trunk = _capsule(complex(0, -0.76), complex(0, -0.5), 0.12, 0.09)
    head = _capsule(complex(0, -0.93), complex(0, -0.92), 0.075, 0.07)
    return tuple(
        Outline(_PART["torso"], points * height, colour, is_surface=True)
        for points, colour in zip((legs, trunk, head), colours, strict=True)
    )


class _Tailor:
    """Cuts the outlines of one figure. Groups of outlines carry a depth key and are sorted by it at the end."""

    def __init__(
        self,
        body: Body,
        view: Vector,
        size: Proportions,
        outfit: Outfit,
        height: float,
        light: tuple[float, float],
        distance: float,
    ) -> None:
        self.body, self.view, self.size, self.outfit = body, view, size, outfit
        self.height, self.distance = height, distance
        self.light = complex(*light) / abs(complex(*light))
        self.groups: list[tuple[float, list[Outline]]] = []
        self.torso_axes, self.head_axes = body.torso_axes, body.head_axes
        names = list(body.points)
        camera = np.stack([body.points[name] for name in names]) @ view.T
        flat = self._flatten(camera)
        self.at = {name: complex(x, y) for name, (x, y) in zip(names, flat, strict=True)}
        self.depth = {name: float(z) for name, z in zip(names, camera[:, 2], strict=True)}
        self.enlarged = {name: distance / (distance - z) for name, z in self.depth.items()}

    def figure(self) -> Figure:
        """Everything, in paint order."""
        self._trunk()
        self._head()
        for side in SIDES:
            self._arm(side)
            self._leg(side)
        self.groups.sort(key=lambda group: group[0])
        outlines = tuple(outline for _, group in self.groups for outline in group)
        landmarks = {name: (self.at[name].real, self.at[name].imag) for name in LANDMARKS}
        return Figure(outlines, landmarks, {name: self._shown_by(name) for name in LANDMARKS})

    def _shown_by(self, landmark: str) -> frozenset[int]:
        parts = list(_LANDMARK_PARTS[landmark])
        behind = _TRUNK_DEPTH.get(landmark.partition("_")[2])
        if behind is not None and self.depth[landmark] > self._trunk_depth(landmark) - behind:
            parts += ["torso"] if landmark.endswith("shoulder") else ["pelvis", "torso"]
        return frozenset(_PART[part] for part in parts)

    def _trunk_depth(self, landmark: str) -> float:
        return self.depth["neck" if landmark.endswith("shoulder") else "pelvis"]

    def _flatten(self, camera: Points) -> Points:
        """Camera points (n, 3) -> figure pixels (n, 2)."""
        enlarged = self.height * self.distance / (self.distance - camera[:, 2:])
        return np.asarray(camera[:, :2] * enlarged * (1.0, -1.0), dtype=np.float64)

    def _project(self, points: Points) -> Points:
        return self._flatten(points @ self.view.T)

    def _lit(self, colour: Colour, depth: float) -> Colour:
        """Far limbs lie in the shade of the body."""
        return _scaled(colour, min(1.08, max(0.72, 1.0 + 1.3 * depth)))

    def _tube(
        self, part: str, start: str, end: str, radius: tuple[float, float], colour: Colour, depth: float
    ) -> list[Outline]:
        """A tapered limb between two points: dark rim, surface, highlight; radii in body heights."""
        pixels = [
            max(0.9, r * self.size.girth * self.height * self.enlarged[n])
            for r, n in zip(radius, (start, end), strict=True)
        ]
        return self._shaded(part, self.at[start], self.at[end], pixels[0], pixels[1], self._lit(colour, depth))

    def _shaded(
        self, part: str, start: complex, end: complex, first: float, last: float, colour: Colour
    ) -> list[Outline]:
        """A capsule with a dark rim and a highlight, both left out where it is too thin to show them."""
        index = _PART[part]
        thinner = min(first, last)
        rim = max(0.45, 0.13 * thinner)
        if thinner <= rim + 0.3:
            return [Outline(index, _capsule(start, end, first, last), colour, is_surface=True)]
        shift = self.light * 0.3
        rings = _capsules(
            ((end, start), (end, start), (end + shift * last, start + shift * first)),
            ((last, first), (last - rim, first - rim), (0.42 * last, 0.42 * first)),
        )
        outlines = [
            Outline(index, rings[0], _scaled(colour, 0.62), is_surface=True),
            Outline(index, rings[1], colour, is_surface=False),
        ]
        if thinner > 2.5:
            outlines.append(Outline(index, rings[2], _scaled(colour, 1.17), is_surface=False))
        return outlines

    def _bands(
        self, part: str, start: str, end: str, radius: tuple[float, float], places: Sequence[float], colour: Colour
    ) -> list[Outline]:
        """Bands across a limb at fractions of its length."""
        along = self.at[end] - self.at[start]
        if abs(along) < 0.02 * self.height:
            return []
        unit = along / abs(along)
        half_length = max(0.8, 0.011 * self.height)
        bands = []
        for place in places:
            centre = self.at[start] + place * along
            half_width = (radius[0] + place * (radius[1] - radius[0])) * self.size.girth * self.height * 0.95
            corners = [
                centre + unit * complex(a * half_length, b * half_width)
                for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
            ]
            bands.append(Outline(_PART[part], _plane(corners), colour, is_surface=False))
        return bands

    def _hull(self, part: str, points: Points, colour: Colour, *, is_surface: bool) -> Outline:
        """The hull of body points (n, 3), as seen."""
        hull = cv2.convexHull(self._project(points).astype(np.float32))
        return Outline(_PART[part], hull[:, 0].astype(np.float64), colour, is_surface)

    def _trunk(self) -> None:
        """Shirt, its front or back, trousers or skirt, and neck."""
        outfit, size, neck = self.outfit, self.size, self.body.points["neck"]
        wide, slim = size.shoulder_half_width, 0.9 + 0.35 * (size.girth - 0.9)
        left, front = self.torso_axes[:, 0] * slim, self.torso_axes[:, 2] * slim
        hem = 0.18 if outfit.tucked_in else 0.02
        profile = (  # (level between hips and neck, half width, half depth) of the shirt, from the collar down
            (1.02, 0.055, 0.036),
            (0.92, wide * 1.02, 0.052),
            (0.62, wide * 0.93, 0.066),
            (0.34, wide * 0.74, 0.058),
            (hem, size.hip_half_width + 0.035, 0.060),
        )
        levels, half_widths, half_depths = np.array(profile[::-1]).T

        def ring(level: float, inset: float, angles: Points = _RING) -> Points:
            half_width = float(np.interp(level, levels, half_widths)) - inset
            half_depth = float(np.interp(level, levels, half_depths)) - inset
            around = np.cos(angles)[:, None] * (half_width * left) + np.sin(angles)[:, None] * (half_depth * front)
            return np.asarray(neck * level + around, dtype=np.float64)

        def hoop(top: float, bottom: float, inset: float, colour: Colour, *, is_surface: bool = False) -> Outline:
            rings = np.concatenate([ring(top, inset), ring(bottom, inset)])
            return self._hull("torso", rings, colour, is_surface=is_surface)

        def patch(top: float, bottom: float, first: float, last: float, colour: Colour) -> Outline:
            """A piece of the surface between two levels and two angles in degrees (90 is the front, 0 the left)."""
            angles = np.radians(np.linspace(first, last, 5))
            edges = np.concatenate([ring(top, 0.0, angles), ring(bottom, 0.0, angles)[::-1]])
            return Outline(_PART["torso"], self._project(edges), colour, is_surface=False)

        cloth = self._lit(outfit.shirt, 0.0)
        pairs = [(upper[0], lower[0]) for upper, lower in itertools.pairwise(profile)]
        shirt = [hoop(*pair, 0.0, _scaled(cloth, 0.66), is_surface=True) for pair in pairs]
        shirt += [hoop(*pair, 0.006, cloth) for pair in pairs]
        facing = float((self.view @ front)[2])
        if outfit.shirt_pattern == "hoops":
            shirt += [hoop(level + 0.08, level, 0.007, outfit.pattern) for level in (0.22, 0.42, 0.62, 0.82)]
        elif outfit.shirt_pattern == "block":
            shirt.append(hoop(0.90, 0.62, 0.007, outfit.pattern))
        elif outfit.shirt_pattern == "dots" and abs(facing) > 0.4:
            middle = 90.0 if facing > 0 else -90.0
            places = [(level, middle + angle) for level in (0.2, 0.4, 0.6, 0.8) for angle in (-42.0, 28.0)]
            shirt += [patch(level + 0.08, level, angle, angle + 14.0, outfit.pattern) for level, angle in places]
        if facing > 0.12:
            shirt += self._shirt_front(patch)
        elif facing < -0.12:  # a yoke across the shoulders and a seam down the spine
            shirt.append(patch(0.93, 0.72, -150, -30, _scaled(cloth, 0.55)))
            shirt.append(patch(0.72, 0.05, -93, -87, _scaled(cloth, 0.5)))
        depth = float((self.view @ neck)[2]) * 0.5
        self.groups.append((depth, shirt))
        self._trousers_top(depth)
        neck_tube = self._tube("neck", "neck", "jaw", (0.032, 0.030), _scaled(outfit.skin, 0.9), 0.0)
        # The head covers the neck from the front as from behind.
        neck_depth = 0.5 * (self.depth["neck"] + self.depth["jaw"]) + 0.01
        self.groups.append((min(neck_depth, self.depth["head"] - 0.002), neck_tube))

    def _trousers_top(self, shirt_depth: float) -> None:
        """The trousers between waist and crotch, and the skirt."""
        outfit, hip, girth = self.outfit, self.size.hip_half_width, self.size.girth
        rings = np.concatenate(
            [
                np.stack([np.cos(_RING) * half_width, np.full_like(_RING, up), np.sin(_RING) * half_depth], axis=1)
                for up, half_width, half_depth in (
                    (0.055, hip + 0.026, 0.054),
                    (0.0, hip + 0.034 * girth, 0.060),
                    (-0.045, hip + 0.02 * girth, 0.050),
                )
            ]
        )
        cloth = self._lit(outfit.trousers, 0.0)
        seat = [
            self._hull("pelvis", rings, _scaled(cloth, 0.66), is_surface=True),
            self._hull("pelvis", rings * 0.93, cloth, is_surface=False),
        ]
        over_shirt = 0.012 if outfit.tucked_in else -0.012
        self.groups.append((self.depth["pelvis"] + over_shirt + min(0.0, shirt_depth), seat))
        if outfit.skirt:
            hems = [0.4 * self.body.points[f"{side}_hip"] + 0.6 * self.body.points[f"{side}_knee"] for side in SIDES]
            cut = np.concatenate([rings[len(_RING) : 2 * len(_RING)], *(hem + _BALL * 0.062 for hem in hems)])
            outer = self._hull("pelvis", cut, _scaled(cloth, 0.7), is_surface=True)
            centre = outer.points.mean(axis=0)
            inner = Outline(_PART["pelvis"], centre + (outer.points - centre) * 0.92, cloth, is_surface=False)
            nearest = max(float((self.view @ hem)[2]) for hem in hems)
            self.groups.append((0.5 * nearest + 0.03, [outer, inner]))

    def _shirt_front(self, patch: Callable[[float, float, float, float, Colour], Outline]) -> list[Outline]:
        outfit = self.outfit
        neckline = patch(0.99, 0.90, 72, 108, outfit.skin)
        if outfit.front_style == "zip":
            return [patch(0.9, 0.03, 83, 97, outfit.front), neckline]
        if outfit.front_style == "bib":
            return [patch(0.84, 0.3, 58, 122, outfit.front), neckline]
        return [patch(0.74, 0.5, 66, 114, outfit.front), patch(0.68, 0.56, 76, 104, outfit.shirt), neckline]

    def _head(self) -> None:
        outfit, radius = self.outfit, self.size.head_radius * self.height * self.enlarged["head"]
        skin, key = self._lit(outfit.skin, 0.0), self.depth["head"]
        at, depth = self.at, self.depth
        self.groups.append(
            (
                key,
                self._shaded(
                    "head", at["head"], at["head"] * 0.3 + at["chin"] * 0.7, radius * 0.98, radius * 0.62, skin
                ),
            )
        )
        front = float((self.view @ self.head_axes[:, 2])[2])
        dark: Colour = (35.0, 25.0, 25.0)
        if front > 0.1:
            mouth = _capsule(at["left_mouth_corner"], at["right_mouth_corner"], 0.075 * radius, 0.075 * radius)
            self.groups.append((key + 0.001, [Outline(_PART["head"], mouth, _scaled(skin, 0.5), is_surface=False)]))
        for side in SIDES:
            eye, ear = at[f"{side}_eye"], at[f"{side}_ear"]
            white = _capsule(eye, eye, max(0.9, 0.20 * radius), 0.0)
            pupil = _capsule(eye, eye, max(0.6, 0.125 * radius), 0.0)
            paint = [
                Outline(_PART[f"{side}_eye"], white, (238.0, 238.0, 238.0), is_surface=True),
                Outline(_PART[f"{side}_eye"], pupil, dark, is_surface=False),
            ]
            self.groups.append((depth[f"{side}_eye"] - 0.002, paint))
            lobe = self._shaded(f"{side}_ear", ear, ear + 0.001, 0.24 * radius, 0.24 * radius, _scaled(skin, 0.93))
            inner = _capsule(ear, ear, 0.1 * radius, 0.0)
            self.groups.append(
                (
                    depth[f"{side}_ear"] + 0.012,
                    [*lobe, Outline(_PART[f"{side}_ear"], inner, _scaled(skin, 0.6), is_surface=False)],
                )
            )
        nose = _capsule(
            at["nose"],
            at["nose"] * 0.8 + (at["left_eye"] + at["right_eye"]) * 0.1,
            max(0.8, 0.15 * radius),
            0.10 * radius,
        )
        tip = _capsule(at["nose"], at["nose"], max(0.5, 0.09 * radius), 0.0)
        nose_colour = (min(255.0, skin[0] * 1.08), skin[1] * 0.74, skin[2] * 0.70)
        self.groups.append(
            (
                depth["nose"],
                [
                    Outline(_PART["nose"], nose, _scaled(nose_colour, 0.8), is_surface=True),
                    Outline(_PART["nose"], tip, nose_colour, is_surface=False),
                ],
            )
        )
        self._hair(radius)

    def _hair(self, radius: float) -> None:
        outfit, at, key = self.outfit, self.at, self.depth["head"]
        if outfit.hair_style == "bald":
            return
        behind = self.depth["hair"] + 0.003
        hair = self._shaded(
            "hair", at["hair"], at["hair"] * 0.6 + at["crown"] * 0.4, radius * 0.95, radius * 0.85, outfit.hair
        )
        if outfit.hair_style == "long":
            fall = self._shaded(
                "hair",
                at["hair"],
                at["nape"] + (at["nape"] - at["hair"]) * 1.1,
                radius * 0.98,
                radius * 0.78,
                outfit.hair,
            )
            self.groups.append((self.depth["nape"] - 0.01, fall))
        elif outfit.hair_style == "bun":
            self.groups.append(
                (
                    self.depth["bun"],
                    self._shaded("hair", at["bun"], at["bun"] + 0.001, radius * 0.45, radius * 0.45, outfit.hair),
                )
            )
        self.groups.append((behind, hair))
        if outfit.hair_style == "cap":
            crown = self._shaded(
                "hair", at["crown"], at["head_top"] * 0.4 + at["crown"] * 0.6, radius * 0.86, radius * 0.7, outfit.cap
            )
            self.groups.append((key + 0.3 * (self.depth["crown"] - key) + 0.004, crown))
            brim = self._shaded(
                "hair", at["left_brim"], at["right_brim"], radius * 0.17, radius * 0.17, _scaled(outfit.cap, 0.85)
            )
            self.groups.append((0.5 * (self.depth["left_brim"] + self.depth["right_brim"]), brim))

    def _arm(self, side: Side) -> None:
        outfit, names = self.outfit, [f"{side}_{joint}" for joint in ("shoulder", "elbow", "wrist", "hand")]
        depth = [self.depth[name] for name in names]
        upper_radius, lower_radius = (0.035, 0.027), (0.027, 0.020)
        sleeve = outfit.shirt
        for part, start, end, radius, covered, key in (
            (
                "upper_arm",
                names[0],
                names[1],
                upper_radius,
                min(1.0, outfit.sleeves),
                0.5 * (depth[0] + depth[1]) + 0.018,
            ),
            ("forearm", names[1], names[2], lower_radius, outfit.sleeves - 1.0, 0.5 * (depth[1] + depth[2]) + 0.022),
        ):
            paint = self._clothed(
                f"{side}_{part}", start, end, radius, sleeve, covered, 0.5 * (self.depth[start] + self.depth[end])
            )
            if side == outfit.striped_side:
                paint += self._bands(f"{side}_{part}", start, end, radius, (0.35, 0.68), outfit.band)
            self.groups.append((key, paint))
        elbow = self.at[f"{side}_elbow_surface"]
        if self.depth[f"{side}_elbow_surface"] > self.depth[names[1]] and self.height > 70:
            patch = _capsule(elbow, elbow, 0.012 * self.height, 0.0)
            shade = _scaled(sleeve if outfit.sleeves > 1 else outfit.skin, 0.7)
            self.groups[-1][1].append(Outline(_PART[f"{side}_forearm"], patch, shade, is_surface=False))
        self.groups.append(
            (
                0.5 * (depth[2] + depth[3]) + 0.026,
                self._tube(f"{side}_hand", names[2], names[3], (0.021, 0.022), outfit.skin, depth[3]),
            )
        )

    def _leg(self, side: Side) -> None:
        outfit, names = self.outfit, [f"{side}_{joint}" for joint in ("hip", "knee", "ankle")]
        depth = [self.depth[name] for name in names]
        for part, start, end, radius, covered, key in (
            ("thigh", names[0], names[1], (0.052, 0.037), min(1.0, outfit.legs), 0.5 * (depth[0] + depth[1]) + 0.004),
            ("shin", names[1], names[2], (0.036, 0.024), outfit.legs - 1.0, 0.5 * (depth[1] + depth[2]) + 0.006),
        ):
            paint = self._clothed(
                f"{side}_{part}",
                start,
                end,
                radius,
                outfit.trousers,
                covered,
                0.5 * (self.depth[start] + self.depth[end]),
            )
            if side == outfit.striped_side:
                paint += self._bands(f"{side}_{part}", start, end, radius, (0.4, 0.7), outfit.band)
            self.groups.append((key, paint))
        knee = self.at[f"{side}_knee_surface"]
        if self.depth[f"{side}_knee_surface"] > self.depth[names[1]] and self.height > 70:
            cloth = outfit.trousers if outfit.legs > 1 else outfit.skin
            patch = _capsule(knee, knee, 0.018 * self.height, 0.0)
            self.groups.append(
                (
                    max(key for key, _ in self.groups[-2:]) + 0.001,
                    [Outline(_PART[f"{side}_shin"], patch, _scaled(cloth, 1.3), is_surface=False)],
                )
            )
        toe, heel = f"{side}_toe", f"{side}_heel"
        shoe = self._tube(
            f"{side}_foot", heel, toe, (0.025, 0.021), outfit.shoes, 0.5 * (self.depth[toe] + self.depth[heel])
        )
        self.groups.append((0.5 * (self.depth[toe] + depth[2]) + 0.004, shoe))

    def _clothed(
        self, part: str, start: str, end: str, radius: tuple[float, float], cloth: Colour, covered: float, depth: float
    ) -> list[Outline]:
        """A limb in skin with cloth over the first ``covered`` of it (0 to 1)."""
        if covered >= 1.0:
            return self._tube(part, start, end, radius, cloth, depth)
        paint = self._tube(part, start, end, radius, self.outfit.skin, depth)
        if covered > 0.0:
            first = max(0.9, radius[0] * self.size.girth * self.height * self.enlarged[start])
            last = first + covered * (radius[1] * self.size.girth * self.height * self.enlarged[end] - first)
            edge = self.at[start] + covered * (self.at[end] - self.at[start])
            paint += self._shaded(part, self.at[start], edge, first * 1.04, last * 1.12, self._lit(cloth, depth))
        return paint


_RING = np.linspace(0.0, 2.0 * np.pi, 12, endpoint=False)
_BALL = np.array(
    [(np.cos(a) * np.cos(b), np.sin(b), np.sin(a) * np.cos(b)) for a in _RING[::2] for b in (-1.2, 0.0, 1.2)]
)
_ARC = np.exp(1j * np.linspace(-np.pi / 2, np.pi / 2, 8))
_ARCS = np.stack([_ARC, -_ARC])  # half a circle at the far end of a capsule, half a circle at its start
_SKIN = np.array([(250, 219, 195), (232, 184, 148), (198, 140, 100), (141, 92, 62), (92, 58, 40)], dtype=np.float64)
_HAIR: tuple[Colour, ...] = (
    (28, 22, 20),
    (62, 40, 26),
    (105, 66, 36),
    (180, 130, 70),
    (222, 190, 120),
    (150, 60, 30),
    (150, 150, 150),
    (215, 215, 210),
)


def _along(colours: Points, place: float) -> Points:
    """The colour at ``place`` (0 to 1) along a list of colours."""
    position = place * (len(colours) - 1)
    lower = min(int(position), len(colours) - 2)
    mixed: Points = colours[lower] + (position - lower) * (colours[lower + 1] - colours[lower])
    return mixed


def _capsule(start: complex, end: complex, first: float, last: float) -> Points:
    """Outline (n, 2) of the region between a disc about ``start`` and one about ``end``; a disc if they coincide."""
    outline: Points = _capsules(((end, start),), ((last, first),))[0]
    return outline


def _capsules(ends: Sequence[tuple[complex, complex]], radii: Sequence[tuple[float, float]]) -> Points:
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


def _plane(points: Sequence[complex] | npt.NDArray[np.complex128]) -> Points:
    return np.asarray(points, dtype=np.complex128).reshape(-1, 1).view(np.float64)


def _scaled(colour: Colour, factor: float) -> Colour:
    return min(255.0, colour[0] * factor), min(255.0, colour[1] * factor), min(255.0, colour[2] * factor)


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
