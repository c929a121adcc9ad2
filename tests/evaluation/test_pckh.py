import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.io import savemat

from uniformer_pose.data.mpii_json import read_mpii_file
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation import PosePredictions, keypoint_metrics
from uniformer_pose.evaluation.pckh import pckh_metrics, read_head_sizes

NAMES = ("head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle", "PCKh", "PCKh@0.1")


def with_our_names(metrics):
    renamed = {"PCK": "PCKh", "PCK@0.1": "PCKh@0.1"}
    return {renamed.get(name, name.removesuffix(" PCK").lower()): value for name, value in metrics.items()}


def assert_equal_to_mmpose(expected, folder):
    files = folder / expected["annotation_file"], folder / expected["headbox_file"]
    people = read_mpii_file(files[0])
    sizes = read_head_sizes(files[1], people)
    np.testing.assert_allclose(sizes, expected["head_sizes"], rtol=1e-12)
    poses = PosePredictions.from_boxed_poses(expected["predictions"])
    for evaluation in expected["evaluations"]:
        wanted = with_our_names(evaluation["metrics"])
        assert tuple(wanted) == NAMES
        assert pckh_metrics(people, sizes, poses, threshold=evaluation["threshold"]) == pytest.approx(wanted, abs=1e-5)
        if evaluation["threshold"] == 0.5:
            metrics = keypoint_metrics("mpii", files[0], expected["predictions"], headbox_file=files[1])
            assert metrics == pytest.approx(wanted, abs=1e-5)


def test_the_numbers_of_made_up_people_are_those_of_mmpose(reference_folder):
    assert_equal_to_mmpose(json.loads((reference_folder / "mpii_synthetic.json").read_text()), reference_folder)


def test_the_numbers_of_a_real_sample_are_those_of_mmpose(shared_folder):
    expected = json.loads((shared_folder / "reference" / "other_datasets_mpii.json").read_text())
    assert_equal_to_mmpose(expected, shared_folder)


class Four:
    """Four people with all joints, whose heads have a size of 0.6 x 50 = 30 pixels, and exact predictions."""

    def __init__(self, folder):
        self.file, self.headbox_file = folder / "mpii_val.json", folder / "mpii_gt_val.mat"
        points = np.random.default_rng(0).integers(50, 400, (4, 16, 2)).astype(float)
        self.people = [
            {"image": f"{n:09d}.jpg", "joints": rows, "joints_vis": [1] * 16, "center": [200, 200], "scale": 2.0}
            for n, rows in enumerate(points.tolist())
        ]
        self.boxes = np.repeat(np.array([[100.0, 100.0], [130.0, 140.0]])[..., None], 4, axis=2)
        self.poses = PosePredictions(
            ids=np.arange(4),
            image_ids=np.arange(4),
            boxes_xywh=np.ones((4, 4)),
            box_scores=np.ones(4),
            areas=np.ones(4),
            keypoints_in_image=points - 1,
            keypoint_scores=np.ones((4, 16)),
        )

    def metrics(self, poses=None):
        self.file.write_text(json.dumps(self.people))
        savemat(self.headbox_file, {"headboxes_src": self.boxes})
        poses = self.poses if poses is None else poses
        return keypoint_metrics("mpii", self.file, poses, headbox_file=self.headbox_file)


@pytest.fixture
def four(tmp_path):
    return Four(tmp_path)


def test_a_joint_is_right_within_half_the_heads_size_and_counts_as_often_as_it_is_annotated(four):
    assert four.metrics() == dict.fromkeys(NAMES, 100.0)
    four.poses.keypoints_in_image[0, 9] += [15.0, 0.0]  # the head's top, by exactly half the head
    four.poses.keypoints_in_image[1, 10] += [14.9, 0.0]  # right wrist
    four.poses.keypoints_in_image[2, 6] += [99.0, 0.0]  # pelvis, which is in no number
    four.people[3]["joints_vis"][0] = four.people[2]["joints_vis"][0] = 0  # right ankle
    four.poses.keypoints_in_image[1, 0] += [99.0, 0.0]
    joints = 14 * 4 - 2
    expected = dict.fromkeys(NAMES, 100.0) | {
        "head": 75.0,
        "ankle": (50 + 100) / 2,
        "PCKh": 100 * (joints - 2) / joints,
        "PCKh@0.1": 100 * (joints - 3) / joints,
    }
    assert four.metrics() == pytest.approx(expected)


def test_people_without_a_pose_are_missed_aloud_and_joints_of_nobody_are_minus_one(four):
    for person in four.people:
        person["joints_vis"][9] = 0
    with pytest.warns(UserWarning, match="1 of 4 people have no prediction"):
        metrics = four.metrics(four.poses.take(np.array([3, 0, 2])))
    assert (metrics["head"], metrics["PCKh"]) == (-1.0, pytest.approx(75.0))
    with pytest.warns(UserWarning, match="4 of 4 people have no prediction"):
        assert four.metrics([])["PCKh"] == 0.0


def test_people_with_a_head_of_no_size_are_left_out_aloud(four):
    four.boxes[..., 1] = 7.0
    four.poses.keypoints_in_image[1] += 500
    with pytest.warns(UserWarning, match="1 people have a head box of no size"):
        assert four.metrics() == dict.fromkeys(NAMES, 100.0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda four: four.people.pop(), r"headboxes_src has shape \(2, 2, 4\), where .* with 3 people"),
        (lambda four: four.people[2]["joints"].pop(), r"entry 2 needs 16 joints.* it has 15, 16 and '000000002.jpg'"),
        (lambda four: four.people[2].update(image="b.jpg"), "entry 2 needs .* a number in the image's name"),
        (lambda four: four.people[2].pop("joints_vis"), r"missing required field `joints_vis` - at `\$\[2\]`"),
        (lambda four: four.people.clear(), "holds no people"),
        (lambda four: four.poses.ids.__setitem__(0, 4), "ids of the predictions are not places, each once, in the 4"),
        (
            lambda four: four.poses.image_ids.__setitem__(1, 3),
            "prediction 1 is on image 3, and that person .* 000000001",
        ),
        (lambda four: four.poses.keypoints_in_image.fill(np.nan), "4 of 4 predictions hold NaN"),
    ],
)
def test_a_defect_is_named_in_one_line(four, change, expected):
    change(four)
    with pytest.raises(InputError, match=expected) as caught:
        four.metrics()
    assert "\n" not in str(caught.value)


def test_files_that_hold_no_head_boxes_are_named(four, tmp_path):
    four.metrics()
    for content in (None, b"no mat"):
        file = tmp_path / "other.mat"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(InputError, match=r"other\.mat: no head boxes .*; give MPII's mpii_gt_val.mat"):
            keypoint_metrics("mpii", four.file, four.poses, headbox_file=file)
    savemat(file, {"pos_gt_src": four.boxes})
    with pytest.raises(InputError, match="no head boxes"):
        keypoint_metrics("mpii", four.file, four.poses, headbox_file=file)
    with pytest.raises(InputError, match="have 15 keypoints, MPII's people have 16"):
        keypoint_metrics("mpii", four.file, four.poses.of_keypoints(slice(15)), headbox_file=four.headbox_file)


def test_nothing_is_said_of_sound_files(four):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        four.metrics(replace(four.poses, ids=four.poses.ids))
