"""The places of a body that the figure has, by which names of keypoints, and the parts of it that show each of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import places_by_name
from uniformer_pose.synthetic.pose import SIDES

LANDMARK_PARTS: dict[str, tuple[str, ...]] = {
    "nose": ("nose",),
    "chin": ("head",),
    "head_top": ("head", "hair"),
    "upper_neck": ("neck", "head"),
    **dict.fromkeys(("neck", "thorax"), ("neck", "torso")),
    "pelvis": ("pelvis", "torso"),
    **{
        f"{side}_{landmark}": tuple(f"{side}_{part}" for part in parts)
        for side in SIDES
        for landmark, parts in {
            **dict.fromkeys(("eye", "eye_inner", "eye_outer"), ("eye",)),
            "ear": ("ear",),
            "shoulder": ("upper_arm",),
            "elbow": ("upper_arm", "forearm"),
            "wrist": ("forearm", "hand"),
            "hand": ("hand",),
            "hip": ("thigh",),
            "knee": ("thigh", "shin"),
            "ankle": ("shin", "foot"),
            **dict.fromkeys(("heel", "toe", "big_toe", "small_toe"), ("foot",)),
        }.items()
    },
    **{f"{side}_mouth_corner": ("head",) for side in SIDES},
}
"""Landmark -> the parts that are this place of the body. The torso and the pelvis show a shoulder or hip too, but only
on the near side of the body, and a head shows mouth and chin from the front."""

_OTHER_NAMES = {
    "hip": "pelvis",  # Halpe
    **{f"{side}_finger": f"{side}_hand" for side in SIDES},  # Human-Art
    **{f"{side}_hand_root": f"{side}_wrist" for side in SIDES},  # COCO-WholeBody and Halpe
    # Of their 68 points of the face (Sagonas et al. 2013).
    **{"face-8": "chin", "face-30": "nose", "face-48": "right_mouth_corner", "face-54": "left_mouth_corner"},
    **{"face-36": "right_eye_outer", "face-39": "right_eye_inner"},
    **{"face-42": "left_eye_inner", "face-45": "left_eye_outer"},
}
_TOO_FINE = re.compile(r"face-\d+|(left|right)_(thumb|(fore|middle_|ring_|pinky_)finger)\d")


@cache
def landmarks_of(keypoint_names: tuple[str, ...]) -> tuple[str | None, ...]:
    """The landmark that each keypoint is, None where the figure has none: by name, see ``places_by_name``."""
    landmarks = [*LANDMARK_PARTS]
    places = places_by_name(keypoint_names, landmarks)
    by_name = (None if place is None else landmarks[place] for place in places)
    return tuple(_OTHER_NAMES.get(name, found) for name, found in zip(keypoint_names, by_name, strict=True))


def not_shown(keypoint_names: Sequence[str]) -> list[str]:
    """The keypoints that nobody in a picture will have."""
    names = tuple(keypoint_names)
    return [name for name, landmark in zip(names, landmarks_of(names), strict=True) if landmark is None]


def check_landmarks(keypoint_names: Sequence[str]) -> None:
    """Refuse keypoints that are no landmark, nor a point of face or hand that is too fine for the figure.

    Raises InputError naming landmarks it has.
    """
    unknown = [name for name in not_shown(keypoint_names) if not _TOO_FINE.fullmatch(name)]
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise InputError(
            f"the synthetic figure has no landmark {', '.join(map(repr, unknown[:3]))}{more}; "
            f"use a shipped skeleton of people, or keypoints among {', '.join(LANDMARK_PARTS)}"
        )
