"""A clothed figure from a posed body: coloured outlines in paint order, and where its landmarks lie.

The figure is drawn back to front (painter's algorithm): every body part has one depth, so an arm before the chest
covers the chest and the eyes of a turned head are covered by it. What tells left from right is what tells it on a
person: face, shirt front, back, kneecaps and toes. One side of the body also carries bands on sleeve and trouser
leg, so that the limbs of one side are recognised as such.

Frames: the figure is built in pixels with the middle of the hips at (0, 0), x right, y down; placing it in an image
adds an offset. Depth is in body heights, larger is nearer to the camera.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from uniformer_pose.synthetic.landmarks import LANDMARK_PARTS
from uniformer_pose.synthetic.outfit import Colour, Outfit, scaled
from uniformer_pose.synthetic.outline import Outline, Points, capsule, capsules, mark, plane
from uniformer_pose.synthetic.pose import SIDES, Pose, Proportions, Side, fine_points, place_joints, view_axes

# How far behind the trunk's middle a joint may lie and still be seen on its surface: turned by about 50 degrees.
_TRUNK_DEPTH = {"shoulder": 0.085, "hip": 0.05}
_ON_THE_FACE = ("chin", *(f"{side}_mouth_corner" for side in SIDES))  # not seen on the back of the head

_RIM, _SHADE, _HIGHLIGHT = 0.62, 0.66, 1.17  # of a colour: at the edge of a limb, of the trunk, and where light falls
_WHITE_OF_EYE: Colour = (238.0, 238.0, 238.0)
_PUPIL: Colour = (35.0, 25.0, 25.0)
_SMALLEST_WITH_JOINTS = 70  # pixels of standing height from which elbows and kneecaps are drawn
_NECK_RADII, _HAND_RADII, _FOOT_RADII = (0.032, 0.030), (0.021, 0.022), (0.025, 0.021)  # in body heights
_ARM = (("upper_arm", "shoulder", "elbow", (0.035, 0.027), 0.018), ("forearm", "elbow", "wrist", (0.027, 0.020), 0.022))
_LEG = (("thigh", "hip", "knee", (0.052, 0.037), 0.004), ("shin", "knee", "ankle", (0.036, 0.024), 0.006))
"""Limbs: part, the joints it lies between, its radii, and how far in front of its bones it is painted."""


@dataclass(frozen=True)
class Figure:
    """Outlines in paint order, landmarks by name (x, y in figure pixels), and the parts that show each landmark."""

    outlines: tuple[Outline, ...]
    landmarks: dict[str, tuple[float, float]]
    shown_by: dict[str, frozenset[str]]

    def extent(self, part: str | None = None) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of everything drawn, or of one part, in figure pixels."""
        surfaces = [outline for outline in self.outlines if outline.is_surface and part in (None, outline.part)]
        points = np.concatenate([outline.points for outline in surfaces])
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return float(left), float(top), float(right), float(bottom)


def build_figure(
    size: Proportions,
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
    return _Tailor(size, pose, outfit, height, complex(*light) / abs(complex(*light)), distance).figure()


def build_silhouette(height: float, colours: Sequence[Colour], stride: float) -> tuple[Outline, ...]:
    """Three outlines (legs, trunk, head) of a figure too far away to have limbs; the feet stand at (0, 0)."""
    feet = [(-0.07 - stride, 0), (-0.02 - stride, 0), (0, -0.35), (0.02 + stride, 0), (0.07 + stride, 0)]
    legs = np.array([*feet, (0.09, -0.5), (-0.09, -0.5)])
    trunk = capsule(complex(0, -0.76), complex(0, -0.5), 0.12, 0.09)
    head = capsule(complex(0, -0.93), complex(0, -0.92), 0.075, 0.07)
    return tuple(
        Outline("torso", points * height, colour) for points, colour in zip((legs, trunk, head), colours, strict=True)
    )


class _Tailor:
    """Cuts the outlines of one figure. Groups of outlines carry a depth key and are sorted by it at the end."""

    def __init__(
        self, size: Proportions, pose: Pose, outfit: Outfit, height: float, light: complex, distance: float
    ) -> None:
        self.size, self.outfit, self.height, self.light, self.distance = size, outfit, height, light, distance
        self.body, self.view = place_joints(size, pose), view_axes(pose)
        self.groups: list[tuple[float, list[Outline]]] = []
        names = list(self.body.points)
        camera = np.stack([self.body.points[name] for name in names]) @ self.view.T
        self.at = {name: complex(x, y) for name, (x, y) in zip(names, self._flatten(camera), strict=True)}
        self.depth: dict[str, float] = dict(zip(names, camera[:, 2].tolist(), strict=True))
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
        fine = fine_points(self.size, self.body)
        where = {name: (at.real, at.imag) for name, at in self.at.items()}
        where |= {name: (x, y) for name, (x, y) in zip(fine, self._project(np.stack([*fine.values()])), strict=True)}
        landmarks = {name: where[name] for name in LANDMARK_PARTS}
        return Figure(outlines, landmarks, {name: self._shown_by(name) for name in LANDMARK_PARTS})

    def _shown_by(self, landmark: str) -> frozenset[str]:
        if landmark in _ON_THE_FACE and not self._faces_the_camera():
            return frozenset()
        parts, trunk = list(LANDMARK_PARTS[landmark]), "neck" if landmark.endswith("shoulder") else "pelvis"
        behind = _TRUNK_DEPTH.get(landmark.partition("_")[2])
        if behind is not None and self.depth[landmark] > self.depth[trunk] - behind:
            parts += ["torso"] if trunk == "neck" else ["pelvis", "torso"]
        return frozenset(parts)

    def _faces_the_camera(self) -> bool:
        return float((self.view @ self.body.head_axes[:, 2])[2]) > 0.1

    def _flatten(self, camera: Points) -> Points:
        """Camera points (n, 3) -> figure pixels (n, 2)."""
        enlarged = self.height * self.distance / (self.distance - camera[:, 2:])
        return np.asarray(camera[:, :2] * enlarged * (1.0, -1.0), dtype=np.float64)

    def _project(self, points: Points) -> Points:
        return self._flatten(points @ self.view.T)

    def _add(self, depth: float, outlines: list[Outline]) -> None:
        self.groups.append((depth, outlines))

    def _lit(self, colour: Colour, depth: float) -> Colour:
        """Far limbs lie in the shade of the body."""
        return scaled(colour, min(1.08, max(0.72, 1.0 + 1.3 * depth)))

    def _radius(self, radius: float, point: str) -> float:
        """A radius in body heights as pixels at a point, wide enough to be seen."""
        return max(0.9, radius * self.size.girth * self.height * self.enlarged[point])

    def _tube(
        self, part: str, start: str, end: str, radii: tuple[float, float], colour: Colour, depth: float
    ) -> list[Outline]:
        """A tapered limb between two points: dark rim, surface, highlight; radii in body heights."""
        first, last = self._radius(radii[0], start), self._radius(radii[1], end)
        return self._shaded(part, self.at[start], self.at[end], first, last, self._lit(colour, depth))

    def _shaded(
        self, part: str, start: complex, end: complex, first: float, last: float, colour: Colour
    ) -> list[Outline]:
        """A capsule with a dark rim and a highlight, both left out where it is too thin to show them."""
        thinner = min(first, last)
        rim = max(0.45, 0.13 * thinner)
        if thinner <= rim + 0.3:
            return [Outline(part, capsule(start, end, first, last), colour)]
        shift = self.light * 0.3
        rings = capsules(
            ((end, start), (end, start), (end + shift * last, start + shift * first)),
            ((last, first), (last - rim, first - rim), (0.42 * last, 0.42 * first)),
        )
        outlines = [Outline(part, rings[0], scaled(colour, _RIM)), mark(part, rings[1], colour)]
        if thinner > 2.5:
            outlines.append(mark(part, rings[2], scaled(colour, _HIGHLIGHT)))
        return outlines

    def _bands(
        self, part: str, start: str, end: str, radii: tuple[float, float], places: Sequence[float]
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
            half_width = (radii[0] + place * (radii[1] - radii[0])) * self.size.girth * self.height * 0.95
            signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
            corners = [centre + unit * complex(a * half_length, b * half_width) for a, b in signs]
            bands.append(mark(part, plane(corners), self.outfit.band))
        return bands

    def _hull(self, part: str, points: Points, colour: Colour, *, is_surface: bool) -> Outline:
        """The hull of body points (n, 3), as seen."""
        hull = cv2.convexHull(self._project(points).astype(np.float32))
        return Outline(part, hull[:, 0].astype(np.float64), colour, is_surface)

    def _trunk(self) -> None:
        """Shirt, its front or back, trousers or skirt, and neck."""
        size, neck = self.size, self.body.points["neck"]
        wide, slim = size.shoulder_half_width, 0.9 + 0.35 * (size.girth - 0.9)
        left, front = self.body.torso_axes[:, 0] * slim, self.body.torso_axes[:, 2] * slim
        hem = 0.18 if self.outfit.tucked_in else 0.02
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

        depth = float((self.view @ neck)[2]) * 0.5
        self._add(depth, self._shirt(ring, [entry[0] for entry in profile], float((self.view @ front)[2])))
        self._trousers_top(depth)
        neck_tube = self._tube("neck", "neck", "jaw", _NECK_RADII, scaled(self.outfit.skin, 0.9), 0.0)
        # The head covers the neck from the front as from behind.
        neck_depth = 0.5 * (self.depth["neck"] + self.depth["jaw"]) + 0.01
        self._add(min(neck_depth, self.depth["head"] - 0.002), neck_tube)

    def _shirt(self, ring: Callable[..., Points], levels: Sequence[float], facing: float) -> list[Outline]:
        """The shirt between the ``levels``, its pattern, and what tells front from back; facing is 1 for the front."""

        def hoop(top: float, bottom: float, inset: float, colour: Colour, *, is_surface: bool = False) -> Outline:
            rings = np.concatenate([ring(top, inset), ring(bottom, inset)])
            return self._hull("torso", rings, colour, is_surface=is_surface)

        def patch(top: float, bottom: float, first: float, last: float, colour: Colour) -> Outline:
            """A piece of the surface between two levels and two angles in degrees (90 is the front, 0 the left)."""
            angles = np.radians(np.linspace(first, last, 5))
            edges = np.concatenate([ring(top, 0.0, angles), ring(bottom, 0.0, angles)[::-1]])
            return mark("torso", self._project(edges), colour)

        outfit = self.outfit
        cloth, pairs = self._lit(outfit.shirt, 0.0), list(itertools.pairwise(levels))
        shirt = [hoop(*pair, 0.0, scaled(cloth, _SHADE), is_surface=True) for pair in pairs]
        shirt += [hoop(*pair, 0.006, cloth) for pair in pairs]
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
            shirt.append(patch(0.93, 0.72, -150, -30, scaled(cloth, 0.55)))
            shirt.append(patch(0.72, 0.05, -93, -87, scaled(cloth, 0.5)))
        return shirt

    def _shirt_front(self, patch: Callable[[float, float, float, float, Colour], Outline]) -> list[Outline]:
        outfit = self.outfit
        neckline = patch(0.99, 0.90, 72, 108, outfit.skin)
        if outfit.front_style == "zip":
            return [patch(0.9, 0.03, 83, 97, outfit.front), neckline]
        if outfit.front_style == "bib":
            return [patch(0.84, 0.3, 58, 122, outfit.front), neckline]
        return [patch(0.74, 0.5, 66, 114, outfit.front), patch(0.68, 0.56, 76, 104, outfit.shirt), neckline]

    def _trousers_top(self, shirt_depth: float) -> None:
        """The trousers between waist and crotch, and the skirt."""
        hip, girth = self.size.hip_half_width, self.size.girth
        levels = (  # height above the hips, half width, half depth
            (0.055, hip + 0.026, 0.054),
            (0.0, hip + 0.034 * girth, 0.060),
            (-0.045, hip + 0.02 * girth, 0.050),
        )
        cosine, sine = np.cos(_RING), np.sin(_RING)
        rings = np.concatenate(
            [np.stack([cosine * wide, np.full_like(_RING, up), sine * deep], axis=1) for up, wide, deep in levels]
        )
        cloth = self._lit(self.outfit.trousers, 0.0)
        seat = [
            self._hull("pelvis", rings, scaled(cloth, _SHADE), is_surface=True),
            self._hull("pelvis", rings * 0.93, cloth, is_surface=False),
        ]
        over_shirt = 0.012 if self.outfit.tucked_in else -0.012
        self._add(self.depth["pelvis"] + over_shirt + min(0.0, shirt_depth), seat)
        if self.outfit.skirt:
            hems = [0.4 * self.body.points[f"{side}_hip"] + 0.6 * self.body.points[f"{side}_knee"] for side in SIDES]
            cut = np.concatenate([rings[len(_RING) : 2 * len(_RING)], *(hem + _BALL * 0.062 for hem in hems)])
            outer = self._hull("pelvis", cut, scaled(cloth, 0.7), is_surface=True)
            centre = outer.points.mean(axis=0)
            nearest = max(float((self.view @ hem)[2]) for hem in hems)
            self._add(0.5 * nearest + 0.03, [outer, mark("pelvis", centre + (outer.points - centre) * 0.92, cloth)])

    def _head(self) -> None:
        at, depth, radius = self.at, self.depth, self.size.head_radius * self.height * self.enlarged["head"]
        skin, key = self._lit(self.outfit.skin, 0.0), self.depth["head"]
        jaw = at["head"] * 0.3 + at["chin"] * 0.7
        self._add(key, self._shaded("head", at["head"], jaw, radius * 0.98, radius * 0.62, skin))
        if self._faces_the_camera():
            mouth = capsule(at["left_mouth_corner"], at["right_mouth_corner"], 0.075 * radius, 0.075 * radius)
            self._add(key + 0.001, [mark("head", mouth, scaled(skin, 0.5))])
        for side in SIDES:
            eye, ear = at[f"{side}_eye"], at[f"{side}_ear"]
            white = Outline(f"{side}_eye", capsule(eye, eye, max(0.9, 0.20 * radius), 0.0), _WHITE_OF_EYE)
            pupil = mark(f"{side}_eye", capsule(eye, eye, max(0.6, 0.125 * radius), 0.0), _PUPIL)
            self._add(depth[f"{side}_eye"] - 0.002, [white, pupil])
            lobe = self._shaded(f"{side}_ear", ear, ear + 0.001, 0.24 * radius, 0.24 * radius, scaled(skin, 0.93))
            inner = mark(f"{side}_ear", capsule(ear, ear, 0.1 * radius, 0.0), scaled(skin, 0.6))
            self._add(depth[f"{side}_ear"] + 0.012, [*lobe, inner])
        bridge = at["nose"] * 0.8 + (at["left_eye"] + at["right_eye"]) * 0.1
        colour = (min(255.0, skin[0] * 1.08), skin[1] * 0.74, skin[2] * 0.70)
        shape = capsule(at["nose"], bridge, max(0.8, 0.15 * radius), 0.10 * radius)
        tip = mark("nose", capsule(at["nose"], at["nose"], max(0.5, 0.09 * radius), 0.0), colour)
        self._add(depth["nose"], [Outline("nose", shape, scaled(colour, 0.8)), tip])
        self._hair(radius)

    def _hair(self, radius: float) -> None:
        style, colour, cap = self.outfit.hair_style, self.outfit.hair, self.outfit.cap
        at, depth = self.at, self.depth
        if style == "bald":
            return

        def lock(start: complex, end: complex, first: float, last: float, of: Colour) -> list[Outline]:
            return self._shaded("hair", start, end, radius * first, radius * last, of)

        hair, crown = at["hair"], at["crown"]
        if style == "long":
            fall = at["nape"] + (at["nape"] - hair) * 1.1
            self._add(depth["nape"] - 0.01, lock(hair, fall, 0.98, 0.78, colour))
        elif style == "bun":
            self._add(depth["bun"], lock(at["bun"], at["bun"] + 0.001, 0.45, 0.45, colour))
        self._add(depth["hair"] + 0.003, lock(hair, hair * 0.6 + crown * 0.4, 0.95, 0.85, colour))
        if style == "cap":
            key = depth["head"] + 0.3 * (depth["crown"] - depth["head"]) + 0.004
            self._add(key, lock(crown, at["head_top"] * 0.4 + crown * 0.6, 0.86, 0.7, cap))
            brim = lock(at["left_brim"], at["right_brim"], 0.17, 0.17, scaled(cap, 0.85))
            self._add(0.5 * (depth["left_brim"] + depth["right_brim"]), brim)

    def _arm(self, side: Side) -> None:
        outfit, depth = self.outfit, self.depth
        self._limb(side, _ARM, outfit.shirt, outfit.sleeves, (0.35, 0.68))
        if self._shows(f"{side}_elbow"):
            shade = scaled(outfit.shirt if outfit.sleeves > 1 else outfit.skin, 0.7)
            self.groups[-1][1].append(mark(f"{side}_forearm", self._disc(f"{side}_elbow_surface", 0.012), shade))
        wrist, hand = f"{side}_wrist", f"{side}_hand"
        palm = self._tube(hand, wrist, hand, _HAND_RADII, outfit.skin, depth[hand])
        self._add(0.5 * (depth[wrist] + depth[hand]) + 0.026, palm)

    def _leg(self, side: Side) -> None:
        outfit, depth = self.outfit, self.depth
        self._limb(side, _LEG, outfit.trousers, outfit.legs, (0.4, 0.7))
        if self._shows(f"{side}_knee"):
            cloth = scaled(outfit.trousers if outfit.legs > 1 else outfit.skin, 1.3)
            key = max(key for key, _ in self.groups[-2:]) + 0.001
            self._add(key, [mark(f"{side}_shin", self._disc(f"{side}_knee_surface", 0.018), cloth)])
        toe, heel = f"{side}_toe", f"{side}_heel"
        shoe = self._tube(f"{side}_foot", heel, toe, _FOOT_RADII, outfit.shoes, 0.5 * (depth[toe] + depth[heel]))
        self._add(0.5 * (depth[toe] + depth[f"{side}_ankle"]) + 0.004, shoe)

    def _shows(self, joint: str) -> bool:
        """Whether the outside of an elbow or a knee is turned to the camera, and large enough to be seen."""
        return self.depth[f"{joint}_surface"] > self.depth[joint] and self.height > _SMALLEST_WITH_JOINTS

    def _disc(self, point: str, radius: float) -> Points:
        return capsule(self.at[point], self.at[point], radius * self.height, 0.0)

    def _limb(
        self,
        side: Side,
        limb: Sequence[tuple[str, str, str, tuple[float, float], float]],
        cloth: Colour,
        covered: float,
        bands: tuple[float, float],
    ) -> None:
        """The two parts of a limb in cloth as far as it is covered (0 none, 2 all), with bands on the striped side."""
        for (name, first, last, radii, forward), share in zip(limb, (min(1.0, covered), covered - 1.0), strict=True):
            part, start, end = f"{side}_{name}", f"{side}_{first}", f"{side}_{last}"
            middle = 0.5 * (self.depth[start] + self.depth[end])
            paint = self._clothed(part, start, end, radii, cloth, share, middle)
            if side == self.outfit.striped_side:
                paint += self._bands(part, start, end, radii, bands)
            self._add(middle + forward, paint)

    def _clothed(
        self, part: str, start: str, end: str, radii: tuple[float, float], cloth: Colour, covered: float, depth: float
    ) -> list[Outline]:
        """A limb in skin with cloth over the first ``covered`` of it (0 to 1)."""
        if covered >= 1.0:
            return self._tube(part, start, end, radii, cloth, depth)
        paint = self._tube(part, start, end, radii, self.outfit.skin, depth)
        if covered > 0.0:
            first = self._radius(radii[0], start)
            last = first + covered * (radii[1] * self.size.girth * self.height * self.enlarged[end] - first)
            edge = self.at[start] + covered * (self.at[end] - self.at[start])
            paint += self._shaded(part, self.at[start], edge, first * 1.04, last * 1.12, self._lit(cloth, depth))
        return paint


_RING = np.linspace(0.0, 2.0 * np.pi, 12, endpoint=False)
_BALL = np.array(
    [(np.cos(a) * np.cos(b), np.sin(b), np.sin(a) * np.cos(b)) for a in _RING[::2] for b in (-1.2, 0.0, 1.2)]
)
