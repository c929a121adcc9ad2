"""Poses of a jointed body: joint angles within human limits, and the three-dimensional joints they lead to.

Body frame: x towards the person's left, y up, z to the front; the origin is the middle of the hips and the unit
is the person's standing height. Angles are degrees. A body that faces the camera has its frame aligned with the
camera's (x right in the image, y up, z towards the camera), so its left is on the right of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Side = Literal["left", "right"]
PoseVariety = Literal["any", "frontal"]
SIDES: tuple[Side, Side] = ("left", "right")


@dataclass(frozen=True)
class Proportions:
    """Lengths, half widths and radii of one body, as fractions of its standing height."""

    head_radius: float
    neck: float
    torso: float
    upper_arm: float
    forearm: float
    thigh: float
    shin: float
    foot: float
    shoulder_half_width: float
    hip_half_width: float
    girth: float  # multiplies every limb radius

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Proportions:
        """A body between slim and stout; one in eight is a child, with a large head and short legs."""
        child = rng.random() < 0.12
        legs, arms, trunk = rng.uniform(0.93, 1.07, 3)
        if child:
            legs *= 0.86
            arms *= 0.92
        return cls(
            head_radius=(0.094 if child else 0.074) * rng.uniform(0.93, 1.08),
            neck=0.022 * rng.uniform(0.7, 1.3),
            torso=0.285 * trunk,
            upper_arm=0.168 * arms,
            forearm=0.150 * arms,
            thigh=0.245 * legs,
            shin=0.235 * legs,
            foot=0.115 * rng.uniform(0.9, 1.1),
            shoulder_half_width=0.112 * rng.uniform(0.88, 1.14),
            hip_half_width=0.066 * rng.uniform(0.9, 1.15),
            girth=rng.uniform(0.88, 1.28),
        )


@dataclass(frozen=True)
class ArmAngles:
    """Shoulder and elbow of one arm.

    ``elevation`` is the upper arm's angle from hanging down (0) to straight up (180); ``azimuth`` says in which
    direction it is lifted: 0 to the front, 90 outwards, 180 to the back. The elbow folds by ``elbow`` towards
    ``fold``: a direction in the torso frame as (outwards, up, front), made perpendicular to the upper arm.
    """

    elevation: float
    azimuth: float
    elbow: float
    fold: tuple[float, float, float] = (0.0, 0.2, 1.0)


@dataclass(frozen=True)
class LegAngles:
    """Hip flexion (to the front), hip abduction (outwards), knee flexion and how far the toes point down."""

    flexion: float
    abduction: float
    knee: float
    plantar: float = 0.0


@dataclass(frozen=True)
class Pose:
    """All joint angles of a body, and how the body stands to the camera.

    ``lean`` bends the torso to the front, ``side_lean`` to the person's left, ``twist`` turns the shoulders
    against the hips to the person's left. ``head_pitch`` nods to the front. ``yaw`` turns the whole body about the
    vertical: 0 faces the camera, 90 faces the right edge of the image, 180 shows the back. ``camera_pitch`` looks
    down on the body, ``roll`` turns it counter-clockwise in the image plane.
    """

    name: str
    left_arm: ArmAngles
    right_arm: ArmAngles
    left_leg: LegAngles
    right_leg: LegAngles
    lean: float = 0.0
    side_lean: float = 0.0
    twist: float = 0.0
    head_yaw: float = 0.0
    head_pitch: float = 0.0
    head_tilt: float = 0.0
    yaw: float = 0.0
    camera_pitch: float = 0.0
    roll: float = 0.0


@dataclass(frozen=True)
class Body:
    """The posed body in its own frame: named points, and the axes of its torso and head.

    The columns of ``torso_axes`` and ``head_axes`` are (left, up, front).
    """

    points: dict[str, Vector]
    torso_axes: Vector
    head_axes: Vector


def view_axes(pose: Pose) -> Vector:
    """(3, 3) rotation from the body frame to the camera frame (x right, y up, z towards the camera)."""
    return _about(2, pose.roll) @ _about(0, pose.camera_pitch) @ _about(1, pose.yaw)


def place_joints(body: Proportions, pose: Pose) -> Body:
    """Every joint and surface point of a body in a pose, by forward kinematics from the hips outwards."""
    torso_axes = _about(2, -pose.side_lean) @ _about(0, pose.lean) @ _about(1, pose.twist)
    neck = torso_axes @ np.array([0.0, body.torso, 0.0])
    head_axes = torso_axes @ _about(1, pose.head_yaw) @ _about(0, pose.head_pitch) @ _about(2, pose.head_tilt)
    radius = body.head_radius
    head = (
        neck + torso_axes @ np.array([0.0, body.neck, 0.012]) + head_axes @ np.array([0.0, 1.05 * radius, 0.1 * radius])
    )
    points = {"pelvis": np.zeros(3), "neck": neck, "head": head}
    for name, offset in _ON_HEAD.items():
        points[name] = head + head_axes @ (radius * offset)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        mirror = np.array([sign, 1.0, 1.0])
        for name, offset in _ON_HEAD_SIDES.items():
            points[f"{side}_{name}"] = head + head_axes @ (radius * offset * mirror)
        arm, leg = (pose.left_arm, pose.left_leg) if side == "left" else (pose.right_arm, pose.right_leg)

        upper, elbow_fold = _arm_directions(arm)
        bend = np.radians(arm.elbow)
        lower = np.cos(bend) * upper + np.sin(bend) * elbow_fold
        shoulder = neck + torso_axes @ np.array([sign * body.shoulder_half_width, -0.022, 0.0])
        elbow = shoulder + torso_axes @ (mirror * upper) * body.upper_arm
        forearm = torso_axes @ (mirror * lower)
        points[f"{side}_shoulder"], points[f"{side}_elbow"] = shoulder, elbow
        points[f"{side}_wrist"] = elbow + forearm * body.forearm
        points[f"{side}_hand"] = points[f"{side}_wrist"] + forearm * 0.05
        # The point of the elbow lies opposite to the side it folds to.
        points[f"{side}_elbow_surface"] = elbow - torso_axes @ (mirror * (elbow_fold - 0.4 * lower)) * 0.02 * body.girth

        thigh, shin, instep = _leg_directions(leg)
        hip = np.array([sign * body.hip_half_width, 0.0, 0.0])
        knee = hip + mirror * thigh * body.thigh
        ankle = knee + mirror * shin * body.shin
        toes = np.cos(np.radians(leg.plantar)) * instep + np.sin(np.radians(leg.plantar)) * shin
        toes += np.array([0.25, 0.0, 0.0])
        toes /= np.linalg.norm(toes)
        sole = ankle + mirror * shin * 0.028
        points[f"{side}_hip"], points[f"{side}_knee"], points[f"{side}_ankle"] = hip, knee, ankle
        points[f"{side}_heel"] = sole - mirror * toes * 0.22 * body.foot
        points[f"{side}_toe"] = sole + mirror * toes * 0.78 * body.foot
        points[f"{side}_knee_surface"] = (
            knee + mirror * (instep + _leg_directions(replace(leg, knee=0.0))[2]) * 0.5 * 0.03 * body.girth
        )
    return Body(points, torso_axes, head_axes)


def fine_points(size: Proportions, body: Body) -> dict[str, Vector]:
    """Points of a body that only some skeletons have: both ends of the neck, corners of the eyes, the outer toes."""
    at, half_eye = body.points, 0.17 * size.head_radius * body.head_axes[:, 0]
    points = {"thorax": (at["left_shoulder"] + at["right_shoulder"]) / 2, "upper_neck": (at["neck"] + at["jaw"]) / 2}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        eye, toe, heel = (at[f"{side}_{name}"] for name in ("eye", "toe", "heel"))
        outwards = sign * np.cross(at[f"{side}_ankle"] - heel, toe - heel)
        outwards *= size.girth / np.linalg.norm(outwards)
        points[f"{side}_eye_inner"], points[f"{side}_eye_outer"] = eye - sign * half_eye, eye + sign * half_eye
        points[f"{side}_big_toe"] = toe - 0.010 * outwards
        points[f"{side}_small_toe"] = toe + 0.014 * outwards - 0.12 * (toe - heel)
    return points


def sample_pose(rng: np.random.Generator, variety: PoseVariety = "any") -> Pose:
    """A random pose: mostly upright, sometimes lying or upside down; mostly from the front, then side, then back.

    With ``variety="frontal"`` always upright, on the feet and seen from the front, which a small network learns soon.
    """
    frontal = variety == "frontal"
    names, samplers, weights = zip(*(_FRONTAL_POSES if frontal else _POSES), strict=True)
    choice = int(rng.choice(len(names), p=np.array(weights) / sum(weights)))
    view = rng.random()
    yaw = (
        rng.normal(0, 28)
        if frontal or view < 0.55
        else rng.normal(180, 28)
        if view < 0.78
        else rng.choice((-90, 90)) + rng.normal(0, 22)
    )
    limbs = samplers[choice](rng)
    roll = limbs.pop("roll", rng.normal(0, 5))
    return Pose(
        name=names[choice],
        head_yaw=float(np.clip(rng.normal(0, 20), -65, 65)),
        head_pitch=float(np.clip(rng.normal(3, 11), -30, 35)),
        head_tilt=float(np.clip(rng.normal(0, 7), -20, 20)),
        twist=float(np.clip(rng.normal(0, 9), -30, 30)),
        side_lean=float(np.clip(rng.normal(0, 5), -25, 25)),
        yaw=float(yaw),
        camera_pitch=float(np.clip(rng.normal(4, 7), -12, 25)),
        roll=float(roll),
        **{"lean": float(np.clip(rng.normal(2, 5), -15, 20)), **limbs},
    )


# Points on the head in head radii from its centre (left, up, front); those of a side are given for the left.
_ON_HEAD = {
    "head_top": np.array([0.0, 1.05, 0.0]),
    "nose": np.array([0.0, -0.12, 1.0]),
    "chin": np.array([0.0, -1.02, 0.40]),
    "mouth": np.array([0.0, -0.52, 0.86]),
    "jaw": np.array([0.0, -0.36, 0.16]),
    "hair": np.array([0.0, 0.26, -0.36]),
    "nape": np.array([0.0, -0.55, -0.62]),
    "crown": np.array([0.0, 0.62, -0.12]),
    "bun": np.array([0.0, 0.80, -0.85]),
}
_ON_HEAD_SIDES = {
    "eye": np.array([0.36, 0.15, 0.80]),
    "ear": np.array([1.02, -0.02, -0.05]),
    "mouth_corner": np.array([0.24, -0.50, 0.84]),
    "brim": np.array([0.62, 0.52, 0.98]),
}


def _arm_directions(arm: ArmAngles) -> tuple[Vector, Vector]:
    """Unit upper arm and fold direction of an arm as (outwards, up, front)."""
    elevation, azimuth = np.radians(arm.elevation), np.radians(arm.azimuth)
    upper = np.array([np.sin(elevation) * np.sin(azimuth), -np.cos(elevation), np.sin(elevation) * np.cos(azimuth)])
    fold = np.asarray(arm.fold, dtype=np.float64)
    fold = fold - upper * (fold @ upper)
    length = float(np.linalg.norm(fold))
    if length < 0.05:  # asked to fold along itself: fold to the front, or up where the arm points to the front
        fallback = np.array([0.0, 1.0, 0.0]) if abs(upper[2]) > 0.8 else np.array([0.0, 0.0, 1.0])
        fold = fallback - upper * (fallback @ upper)
        length = float(np.linalg.norm(fold))
    return upper, fold / length


def _leg_directions(leg: LegAngles) -> tuple[Vector, Vector, Vector]:
    """Unit thigh, shin and instep (perpendicular to the shin, to the front) of a leg as (outwards, up, front)."""
    flexion, abduction, knee = np.radians([leg.flexion, leg.abduction, leg.knee])
    outwards, down = np.sin(abduction), -np.cos(abduction)
    thigh = np.array([outwards * np.cos(flexion), down * np.cos(flexion), np.sin(flexion)])
    calf = np.array([outwards * np.sin(flexion), down * np.sin(flexion), -np.cos(flexion)])  # where the knee folds to
    return thigh, np.cos(knee) * thigh + np.sin(knee) * calf, np.sin(knee) * thigh - np.cos(knee) * calf


def _about(axis: int, degrees: float) -> Vector:
    """Rotation about an axis (0 x, 1 y, 2 z) that carries the next one towards the one after it."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rotation = np.eye(3)
    rotation[[first, second], [first, second]] = cosine
    rotation[first, second], rotation[second, first] = -sine, sine
    return rotation


Range = tuple[float, float]

# What follows draws the angles of each kind of pose. A sampler returns keyword arguments of Pose.
_Sampled = dict[str, "ArmAngles | LegAngles | float"]


# Weight, elevation, azimuth and elbow of a relaxed arm, and where it folds to.
_RELAXED_ARMS: tuple[tuple[float, Range, Range, Range, tuple[float, float, float] | None], ...] = (
    (0.42, (5, 28), (50, 115), (4, 45), (0.0, 0.2, 1.0)),  # hanging
    (0.12, (35, 50), (88, 110), (85, 105), (-1.0, -0.2, 0.35)),  # hand on the hip
    (0.10, (15, 40), (15, 50), (85, 115), (-1.0, 0.2, 0.4)),  # across the chest
    (0.12, (10, 40), (0, 50), (60, 125), None),  # holding something before the body
    (0.10, (70, 115), (75, 100), (40, 125), (0.1, 1.0, 0.2)),  # waving
    (0.08, (60, 105), (0, 100), (0, 25), (0.0, 0.2, 1.0)),  # pointing to the side or to the front
    (0.06, (20, 45), (140, 175), (40, 100), (-1.0, -0.2, 0.2)),  # hand behind the back
)


def _relaxed_arm(rng: np.random.Generator) -> ArmAngles:
    kind = rng.choice(len(_RELAXED_ARMS), p=[entry[0] for entry in _RELAXED_ARMS])
    _, elevation, azimuth, elbow, fold = _RELAXED_ARMS[kind]
    u = rng.uniform
    return ArmAngles(u(*elevation), u(*azimuth), u(*elbow), fold or (u(-0.6, 0.3), 0.6, 1.0))


def _limbs(arms: Sequence[ArmAngles], legs: Sequence[LegAngles], **trunk: float) -> _Sampled:
    """Arms and legs, each left and right."""
    return {"left_arm": arms[0], "right_arm": arms[1], "left_leg": legs[0], "right_leg": legs[1], **trunk}


def _standing(rng: np.random.Generator) -> _Sampled:
    u = rng.uniform
    arms = [_relaxed_arm(rng) for _ in SIDES]
    return _limbs(arms, [LegAngles(u(-6, 12), u(0, 14), u(0, 14)) for _ in SIDES])


def _striding(
    rng: np.random.Generator,
    least: float,
    most: float,
    elbow: tuple[float, float],
    lean: tuple[float, float] | None = None,
) -> _Sampled:
    u = rng.uniform
    stride = u(least, most)
    front = LegAngles(stride * u(0.8, 1.2), u(0, 5), u(3, 12) + max(0.0, stride - 35) * 1.6)
    back = LegAngles(-stride * u(0.4, 0.8), u(0, 5), u(12, 30) + stride * 0.7, 25)
    front_arm = ArmAngles(stride * u(0.7, 1.2), u(5, 35), u(*elbow))
    back_arm = ArmAngles(stride * u(0.7, 1.2), u(140, 165), u(*elbow))
    arms, legs = [back_arm, front_arm], [front, back]
    if rng.random() >= 0.5:
        arms.reverse()
        legs.reverse()
    return _limbs(arms, legs, **({} if lean is None else {"lean": u(*lean)}))


def _sitting(rng: np.random.Generator) -> _Sampled:
    u = rng.uniform
    arms = [
        ArmAngles(u(12, 45), u(10, 50), u(25, 95), (-0.4, 0.2, 1.0)) if rng.random() < 0.7 else _relaxed_arm(rng)
        for _ in SIDES
    ]
    knee = u(65, 100)
    return _limbs(arms, [LegAngles(u(72, 95), u(2, 22), knee + u(-12, 12)) for _ in SIDES], lean=u(-10, 20))


def _arms_raised(rng: np.random.Generator) -> _Sampled:
    u = rng.uniform
    arms = [ArmAngles(u(118, 172), u(65, 98), u(0, 75), (u(-1, 0.2), 1.0, 0.1)) for _ in SIDES]
    return _standing(rng) | {"left_arm": arms[0], "right_arm": arms[1]}


def _star(rng: np.random.Generator) -> _Sampled:
    u = rng.uniform
    arms = [ArmAngles(u(70, 135), u(80, 98), u(0, 30), (0, 1, 0.3)) for _ in SIDES]
    return _limbs(arms, [LegAngles(u(-5, 12), u(18, 40), u(0, 20), 20) for _ in SIDES])


def _crouching(rng: np.random.Generator) -> _Sampled:
    u = rng.uniform
    arms = [ArmAngles(u(20, 80), u(5, 50), u(10, 70)) for _ in SIDES]
    legs = [LegAngles(u(least, 112), u(5, 30), u(95, 130)) for least in (75, 60)]
    return _limbs(arms, legs, lean=u(10, 35))


def _kicking(rng: np.random.Generator) -> _Sampled:
    u = rng.uniform
    legs = [LegAngles(u(35, 90), u(0, 35), u(0, 75), 25), LegAngles(u(-8, 5), u(0, 6), u(0, 20))]
    arms = [ArmAngles(u(30, 95), u(60, 110), u(0, 60)) for _ in SIDES]
    if rng.random() < 0.5:
        legs.reverse()
    return _limbs(arms, legs, lean=u(-15, 5))


def _bowing(rng: np.random.Generator) -> _Sampled:
    lean = rng.uniform(35, 75)
    arms = [ArmAngles(lean + rng.uniform(-20, 20), rng.uniform(-5, 20), rng.uniform(0, 30)) for _ in SIDES]
    return _standing(rng) | {"left_arm": arms[0], "right_arm": arms[1], "lean": lean}


def _lying(rng: np.random.Generator) -> _Sampled:
    limbs = (_standing, _arms_raised, _sitting)[rng.choice(3, p=(0.6, 0.2, 0.2))](rng)
    return limbs | {"roll": float(rng.choice((-90, 90)) + rng.normal(0, 12))}


def _upside_down(rng: np.random.Generator) -> _Sampled:
    u = rng.uniform
    arms = {f"{side}_arm": ArmAngles(u(150, 176), u(80, 96), u(0, 15), (0, 0, 1)) for side in SIDES}
    return {**(_star(rng) if rng.random() < 0.5 else _standing(rng)), **arms, "roll": 180 + rng.normal(0, 16)}


_POSES: tuple[tuple[str, Callable[[np.random.Generator], _Sampled], float], ...] = (
    ("standing", _standing, 0.28),
    ("walking", partial(_striding, least=15, most=35, elbow=(8, 50)), 0.17),
    ("running", partial(_striding, least=35, most=60, elbow=(70, 110), lean=(5, 22)), 0.08),
    ("sitting", _sitting, 0.13),
    ("arms raised", _arms_raised, 0.11),
    ("star", _star, 0.06),
    ("crouching", _crouching, 0.04),
    ("kicking", _kicking, 0.05),
    ("bowing", _bowing, 0.02),
    ("lying", _lying, 0.04),
    ("upside down", _upside_down, 0.02),
)
_FRONTAL_POSES = tuple(pose for pose in _POSES if pose[0] in ("standing", "walking", "arms raised", "star", "kicking"))
