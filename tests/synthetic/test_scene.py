"""What annotations say must be what the picture shows: keypoint places, visibility, boxes, areas."""

import dataclasses

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import load_skeleton
from uniformer_pose.synthetic.figure import build_figure
from uniformer_pose.synthetic.landmarks import check_landmarks
from uniformer_pose.synthetic.outfit import Outfit
from uniformer_pose.synthetic.pose import ArmAngles, LegAngles, Pose, Proportions
from uniformer_pose.synthetic.scene import Canvas, PlacedFigure, describe_person, render_scene
from uniformer_pose.synthetic.settings import SyntheticSettings

NAMES = load_skeleton("coco_17").keypoint_names
ARM = ArmAngles(elevation=35, azimuth=90, elbow=10)
LEG = LegAngles(flexion=0, abduction=10, knee=0)
FRONT = Pose("standing", ARM, ARM, LEG, LEG)
OUTFIT = dataclasses.replace(Outfit.sample(np.random.default_rng(1), "left"), hair_style="short", skirt=False)
BODY = Proportions.sample(np.random.default_rng(1))


def canvas(height=240, width=200):
    return Canvas(np.full((height, width, 3), 90, dtype=np.uint8))


def place(on, x=100.0, y=120.0, height=200.0, pose=FRONT):
    placed = PlacedFigure(build_figure(BODY, pose, OUTFIT, height=height), x, y)
    return on.paint(placed.figure.outlines, x, y), placed


def visibility(person):
    return dict(zip(NAMES, person.keypoints[:, 2].astype(int), strict=True))


def random_scene(seed, **changes):
    small = {"image_height": 128, "image_width": 160, "people_per_image": (2, 4), "crowd_share": 0.0}
    settings = SyntheticSettings(1, 1, keypoint_names=NAMES, **(small | changes))
    return render_scene(np.random.default_rng(seed), settings)


def test_eye_keypoints_lie_at_the_centre_of_the_painted_eyes():
    on = canvas(600, 400)
    layer, placed = place(on, 200.25, 319.6, height=600.0)
    person = describe_person(on, layer, placed, NAMES)
    for name in ("left_eye", "right_eye"):
        rows, columns = np.nonzero(on.mask(layer, name))
        assert (columns.mean(), rows.mean()) == pytest.approx(person.keypoints[NAMES.index(name), :2], abs=0.3)


def test_from_the_side_the_near_ear_and_shoulder_are_seen_and_the_far_ones_covered():
    on = canvas()
    pose = dataclasses.replace(FRONT, left_arm=dataclasses.replace(ARM, elevation=2), yaw=90)
    seen = visibility(describe_person(on, *place(on, pose=pose), NAMES))
    assert (seen["right_ear"], seen["left_ear"]) == (2, 1)
    assert (seen["right_shoulder"], seen["left_shoulder"]) == (2, 1)
    assert (seen["right_hip"], seen["left_hip"]) == (2, 1)


def test_joints_behind_another_person_are_covered_and_the_rest_are_seen():
    on = canvas()
    layer, placed = place(on, 80)
    hanging = dataclasses.replace(ARM, elevation=4)
    front_layer, front = place(on, 102, 195, pose=dataclasses.replace(FRONT, left_arm=hanging, right_arm=hanging))
    seen = visibility(describe_person(on, layer, placed, NAMES))
    assert (seen["nose"], seen["left_shoulder"], seen["right_ankle"]) == (2, 2, 2)
    assert seen["left_knee"] == 1
    assert visibility(describe_person(on, front_layer, front, NAMES))["left_shoulder"] == 2


def test_box_area_and_keypoints_are_those_of_the_pixels_that_are_seen():
    on = canvas(height=150)  # cut at the knees
    layer, placed = place(on, 60)
    place(on, 110)
    person, mask = describe_person(on, layer, placed, NAMES), on.mask(layer)
    rows, columns = np.nonzero(mask)
    x, y, width, height = person.box_xywh
    assert (x, y, x + width - 1, y + height - 1) == (columns.min(), rows.min(), columns.max(), 149)
    assert person.area == mask.sum()
    assert (visibility(person)["left_knee"], visibility(person)["nose"]) == (0, 2)


@pytest.mark.parametrize("seed", range(6))
def test_seen_keypoints_lie_inside_their_persons_box_in_random_scenes(seed):
    for person in random_scene(seed).people:
        x, y, width, height = person.box_xywh
        seen = person.keypoints[person.keypoints[:, 2] == 2]
        assert np.all((seen[:, 0] >= x - 0.5) & (seen[:, 0] <= x + width - 0.5))
        assert np.all((seen[:, 1] >= y - 0.5) & (seen[:, 1] <= y + height - 0.5))
        labelled = person.keypoints[person.keypoints[:, 2] > 0]
        assert np.all((labelled[:, :2] >= 0) & (labelled[:, :2] <= (159, 127)))
        assert np.all(person.keypoints[person.keypoints[:, 2] == 0] == 0)


def test_a_crowd_is_one_region_whose_run_lengths_give_its_area_and_box():
    crowd = next(
        s.crowd for s in (random_scene(seed, crowd_share=1.0, people_per_image=(0, 1)) for seed in range(9)) if s.crowd
    )
    encoded = coco_mask.frPyObjects(crowd.segmentation, 128, 160)
    assert coco_mask.area(encoded) == crowd.area > 0
    assert coco_mask.toBbox(encoded).tolist() == list(crowd.box_xywh)


def test_a_keypoint_name_that_the_figure_does_not_know_is_refused_with_those_it_knows():
    check_landmarks(["head_top", "neck", "pelvis", "left_toe", "right_hand"])
    with pytest.raises(InputError, match=r"'left_antler'.*nose.*left_toe") as error:
        check_landmarks(["nose", "left_antler"])
    assert "\n" not in str(error.value)
