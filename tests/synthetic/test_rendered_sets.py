"""Rendered people in the forms of published sets: read back as they were drawn, crowd indices, head boxes."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.io import loadmat

from uniformer_pose.data.coco import annotations_of, categories_of
from uniformer_pose.data.coco_json import read_annotation_file
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import load_skeleton
from uniformer_pose.synthetic import write_synthetic_dataset
from uniformer_pose.synthetic.dataset import render_image
from uniformer_pose.synthetic.figure import build_figure
from uniformer_pose.synthetic.outfit import Outfit
from uniformer_pose.synthetic.pose import ArmAngles, LegAngles, Pose, Proportions
from uniformer_pose.synthetic.scene import Canvas, PlacedFigure, describe_person
from uniformer_pose.synthetic.set_form import crowd_index
from uniformer_pose.synthetic.settings import SyntheticSettings

ARM = ArmAngles(elevation=35, azimuth=90, elbow=10)
LEG = LegAngles(flexion=0, abduction=10, knee=0)
LISTS = {  # of an annotation's keypoints, and how many of the figure's points are in them
    "coco_17": (["keypoints"], 17),
    "crowdpose_14": (["keypoints"], 14),
    "exlpose_14": (["keypoints"], 14),
    "aic_14": (["keypoints"], 14),
    "mpii_16": (["keypoints"], 16),
    "halpe_26": (["keypoints"], 26),
    "halpe_136": (["keypoints"], 36),
    "humanart_21": (["keypoints_21"], 21),
    "coco_wholebody_133": (["keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts"], 33),
}


def written(root, split="val"):
    file = root / "annotations" / f"person_keypoints_{split}.json"
    return file, json.loads(file.read_text())


def read_back(root, skeleton):
    file = written(root)[0]
    content = read_annotation_file(file)
    return annotations_of(content, file, skeleton, categories_of(content, file, skeleton, None))


def seen_of(skeleton, yaw):
    """Name -> x, y, visibility of a large standing figure turned by ``yaw`` degrees."""
    outfit = dataclasses.replace(Outfit.sample(np.random.default_rng(1), "left"), hair_style="short", skirt=False)
    body, pose = Proportions.sample(np.random.default_rng(1)), Pose("standing", ARM, ARM, LEG, LEG, yaw=yaw)
    placed = PlacedFigure(build_figure(body, pose, outfit, height=900.0), 350.0, 500.0)
    canvas = Canvas(np.full((1100, 700, 3), 90, dtype=np.uint8))
    person = describe_person(canvas, canvas.paint(placed.figure.outlines, 350.0, 500.0), placed, skeleton)
    return dict(zip(skeleton, person.keypoints, strict=True))


@pytest.mark.parametrize("name", LISTS)
def test_what_is_read_with_a_sets_skeleton_is_what_was_drawn(rendered_set, name):
    skeleton, root = load_skeleton(name), rendered_set(name)
    content = written(root)[1]
    settings = content["info"]["settings"]
    known = {field.name for field in dataclasses.fields(SyntheticSettings)}
    settings = SyntheticSettings(**{key: value for key, value in settings.items() if key in known})
    scenes = [render_image(settings, "val", number) for number in range(1, 7)]
    drawn = [person.keypoints for scene in scenes for person in scene.people]
    found = read_back(root, skeleton)
    if name == "coco_wholebody_133":  # of feet, faces and hands it labels what is seen
        drawn = [np.where((np.arange(133)[:, None] < 17) | (points[:, 2:] == 2), points, 0) for points in drawn]
    np.testing.assert_array_equal(found.keypoints[~found.is_crowd], drawn)
    lists, shown = LISTS[name]
    assert sorted(key for key in content["annotations"][0] if key.startswith("keypoints") or "kpts" in key) == sorted(
        lists
    )
    (category,) = content["categories"]
    assert len(category.get("unlabelled", [])) == skeleton.num_keypoints - shown
    ever = np.array(skeleton.keypoint_names)[(found.keypoints[..., 2] > 0).any(axis=0)]
    assert {*category.get("unlabelled", [])}.isdisjoint(ever)
    assert len(ever) == shown
    assert all(("crowdIndex" in image) is (name != "coco_17") for image in content["images"])


def test_a_category_lists_its_sets_names_and_another_skeleton_is_another_dataset(rendered_set):
    content = written(rendered_set("crowdpose_14"))[1]
    assert content["categories"][0]["keypoints"] == list(load_skeleton("crowdpose_14").names_in_files)
    sizes = {"num_train_images": 12, "num_val_images": 6, "image_height": 96, "image_width": 128, "crowd_share": 0.3}
    with pytest.raises(InputError, match=r"settings \(.*names_in_files, skeleton\)"):
        write_synthetic_dataset(rendered_set("crowdpose_14"), **sizes)


def test_a_crowd_index_is_the_ratio_of_others_keypoints_to_ones_own_in_a_persons_box():
    def person(box, *points):
        return {"bbox": box, "keypoints": [number for x, y, seen in points for number in (x, y, seen)]}

    one = person([0, 0, 10, 10], (1, 1, 2), (2, 2, 1), (9, 9, 2), (30, 5, 1))
    two = person([8, 8, 20, 20], (10, 10, 1), (20, 20, 2), (5, 5, 0))  # the last is not labelled, and counts nowhere
    nobody = person([0, 0, 50, 50], (3, 3, 0))
    assert crowd_index([one, two, nobody]) == round((1 / 4 + 1 / 2) / 2, 2)
    assert crowd_index([one]) == crowd_index([nobody]) == crowd_index([]) == 0
    within = person([0, 0, 50, 50], (12, 12, 2))  # more of others' than of its own: no more than 1
    assert crowd_index([within, one, two]) == 1


@pytest.mark.shared
def test_crowd_indices_are_those_of_the_published_sample(shared_folder):
    file = shared_folder / "other_datasets" / "crowdpose" / "annotations" / "mmpose_crowdpose_test.json"
    content = json.loads(file.read_text())
    for image in content["images"]:
        people = [person for person in content["annotations"] if person["image_id"] == image["id"]]
        assert crowd_index(people) == image["crowdIndex"]


def test_pictures_of_more_people_are_of_all_crowd_levels(tmp_path):
    sizes = {"num_train_images": 0, "num_val_images": 60, "image_height": 96, "image_width": 128}
    write_synthetic_dataset(tmp_path, skeleton=load_skeleton("crowdpose_14"), people_per_image=(3, 6), **sizes)
    indices = np.array([image["crowdIndex"] for image in written(tmp_path)[1]["images"]])
    levels = [(indices < 0.2).mean(), ((indices >= 0.2) & (indices < 0.8)).mean(), (indices >= 0.8).mean()]
    assert min(levels) > 0.03  # 0.37, 0.53 and 0.10 of 200 images


def test_mpiis_head_boxes_are_in_a_column_an_annotation_and_on_its_head(rendered_set):
    root = rendered_set("mpii_16")
    file = root / "annotations" / "mpii_gt_val.mat"
    assert file.read_bytes()[:116] == b"MATLAB 5.0 MAT-file".ljust(116)  # no date: the same bytes again
    people, boxes = written(root)[1]["annotations"], loadmat(file)["headboxes_src"]
    assert boxes.shape == (2, 2, len(people))
    assert [person["id"] for person in people] == list(range(len(people)))
    assert not any(person["iscrowd"] or "head_box" in person for person in people)
    names = load_skeleton("mpii_16").keypoint_names
    upright = 0
    for person, box in zip(people, boxes.transpose(2, 0, 1), strict=True):
        points = dict(zip(names, np.add(np.reshape(person["keypoints"], (-1, 3)), (1, 1, 0)), strict=True))
        (top_x, top_y, top), (neck_x, neck_y, neck) = points["head_top"], points["upper_neck"]
        size = box[1] - box[0]
        assert (size > 0).all()
        if top and neck:
            length = np.hypot(top_x - neck_x, top_y - neck_y)
            assert (np.abs(box.mean(axis=0) - ((top_x + neck_x) / 2, (top_y + neck_y) / 2)) < 0.4 * size).all()
            assert 0.6 < 0.6 * np.hypot(*size) / length < 2.5
            upright += 1
    assert upright >= 5


def test_face_and_toes_lie_on_their_own_side_and_are_hidden_from_behind():
    names = load_skeleton("coco_wholebody_133").keypoint_names
    front, back = seen_of(names, 0.0), seen_of(names, 180.0)
    on_the_face = [
        "face-36",
        "face-39",
        "face-30",
        "face-42",
        "face-45",
    ]  # from the right eye's outer corner to the left
    assert (np.diff([front[name][0] for name in on_the_face]) > 5).all()
    assert front["face-48"][0] + 10 < front["face-8"][0] < front["face-54"][0] - 10
    for name in (*on_the_face, "face-8", "face-48", "face-54"):
        assert (front[name][2], back[name][2]) == (2, 1)
    toes = ["right_small_toe", "right_big_toe", "left_big_toe", "left_small_toe"]
    assert (np.diff([front[name][0] for name in toes]) > 5).all()
    assert (np.diff([back[name][0] for name in toes]) < -5).all()
    assert [front[name][2] for name in (*toes, "left_heel")] == [2] * 5
    assert front["face-0"].tolist() == front["left_thumb1"].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(front["left_hand_root"], front["left_wrist"])


def test_the_neck_of_mpii_lies_between_its_thorax_and_the_top_of_the_head():
    seen = seen_of(load_skeleton("mpii_16").keypoint_names, 0.0)
    heights = [seen[name][1] for name in ("head_top", "upper_neck", "thorax", "pelvis")]
    assert (np.diff(heights) > 20).all()
    assert seen["thorax"][:2] == pytest.approx((seen["left_shoulder"] + seen["right_shoulder"])[:2] / 2, abs=0.02)
