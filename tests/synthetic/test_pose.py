"""The jointed body: where joints come to lie, and which side is left."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformer_pose.synthetic.pose import ArmAngles, LegAngles, Pose, Proportions, place_joints, sample_pose, view_axes

HANGING = ArmAngles(elevation=0, azimuth=90, elbow=0)
STRAIGHT = LegAngles(flexion=0, abduction=0, knee=0)


def seen_from_camera(pose, body=None):
    body = body or Proportions.sample(np.random.default_rng(0))
    return {name: view_axes(pose) @ point for name, point in place_joints(body, pose).points.items()}


@pytest.mark.parametrize("joint", ["eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"])
def test_left_is_on_the_right_of_the_image_for_a_body_facing_the_camera_and_on_the_left_from_behind(joint):
    facing = seen_from_camera(Pose("standing", HANGING, HANGING, STRAIGHT, STRAIGHT, yaw=0))
    turned = seen_from_camera(Pose("standing", HANGING, HANGING, STRAIGHT, STRAIGHT, yaw=180))
    assert facing[f"left_{joint}"][0] > facing[f"right_{joint}"][0]
    assert turned[f"left_{joint}"][0] < turned[f"right_{joint}"][0]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_limbs_keep_their_lengths_in_every_sampled_pose(seed):
    rng = np.random.default_rng(seed)
    body = Proportions.sample(rng)
    points = place_joints(body, sample_pose(rng)).points
    for side in ("left", "right"):
        for start, end, length in (
            ("shoulder", "elbow", body.upper_arm),
            ("elbow", "wrist", body.forearm),
            ("hip", "knee", body.thigh),
            ("knee", "ankle", body.shin),
        ):
            assert np.linalg.norm(points[f"{side}_{end}"] - points[f"{side}_{start}"]) == pytest.approx(length)
