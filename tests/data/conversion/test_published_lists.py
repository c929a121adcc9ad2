"""MPII's and AI Challenger's own lists of people: what is written is in COCO's conventions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from uniformer_pose.data.coco import read_ground_truth
from uniformer_pose.data.conversion.ai_challenger import read_ai_challenger
from uniformer_pose.data.conversion.mpii import read_mpii
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import load_skeleton

Convert = Callable[..., Any]


@pytest.fixture
def mpii(tmp_path: Path, picture: Callable[..., Path], convert: Convert) -> Convert:
    """Converts a list of people in two pictures of 40x80 pixels, the same for training and validation."""
    for name in ("000000012.png", "000000034.png"):
        picture(tmp_path / "pictures" / name)

    def run(people: list[dict[str, Any]], **given: Any) -> Any:
        file = tmp_path / "mpii.json"
        file.write_text(json.dumps(people))
        asked = {"images": tmp_path / "pictures", "val_source": file, "skeleton": load_skeleton("mpii_16")}
        return convert(read_mpii, file, **(asked | given))

    return run


def person(number: int = 12, **changes: Any) -> dict[str, Any]:
    joints = [[20.0 + place, 5.0 + place] for place in range(16)]
    shown = {"joints": joints, "joints_vis": [1] * 16, "center": [31.0, 11.0], "scale": 0.2}
    return {"image": f"{number:09}.png", **shown, **changes}


def test_mpiis_joints_and_centre_count_from_1_and_its_crop_lies_lower(mpii: Convert) -> None:
    joints, seen = person()["joints"], [1] * 16
    joints[3], seen[3] = [-1.0, -1.0], 0
    made = mpii([person(34), person(joints=joints, joints_vis=seen), person(34, scale=0.1)])
    content = made.content("val")
    assert content["info"]["boxes"] == "uncut"
    assert [image["id"] for image in content["images"]] == [34, 12]
    assert {entry["id"]: entry["image_id"] for entry in content["annotations"]} == {0: 34, 1: 12, 2: 34}
    entry = next(entry for entry in content["annotations"] if entry["id"] == 1)
    # centre (31, 11 + 15 x 0.2) - 1, side 200 x 0.2, beyond the picture's top
    assert entry["bbox"] == pytest.approx([30 - 20, 13 - 20, 40, 40])
    assert entry["area"] == pytest.approx(0.53 * 1600)
    rows = np.reshape(entry["keypoints"], (16, 3))
    assert rows[0].tolist() == [19, 4, 2]
    assert rows[3].tolist() == [0, 0, 0]
    assert rows[15].tolist() == [34, 19, 2]
    assert entry["num_keypoints"] == 15
    people = made.people("val")
    assert people.instance_ids.tolist() == [0, 2, 1]
    assert people.boxes_xywh[2].tolist() == [10, -7, 40, 40]
    assert people.boxes_xywh[1].tolist() == [20, 1.5, 20, 20]
    assert made.skeleton.measures_as(load_skeleton("mpii_16"))
    assert "note: MPII's lists do not say which joints are hidden: all that are annotated count as visible" in (
        made.log.lines()
    )


def test_mpiis_head_boxes_come_along_where_they_lie_beside_the_validation_list(mpii: Convert, tmp_path: Path) -> None:
    (tmp_path / "mpii_gt_val.mat").write_bytes(b"heads")
    made = mpii([person(34), person()])
    assert (made.folder / "annotations" / "mpii_gt_val.mat").read_bytes() == b"heads"
    config = yaml.safe_load((made.folder / "conf/data/sets/mine.yaml").read_text())
    assert (config["metric"], config["headbox_file"]) == ("pckh", "annotations/mpii_gt_val.mat")


def test_a_person_of_mpii_without_centre_has_a_box_around_its_joints_and_is_counted(mpii: Convert) -> None:
    made = mpii([person(center=[-1.0, -1.0]), person(34)])
    assert any("boxes drawn around the keypoints" in line for line in made.log.lines())
    assert made.content()["annotations"][0]["bbox"] == pytest.approx([17.5, 2.5, 18, 18])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"joints": [[1.0, 2.0]] * 15}, "person 1: has 15 joints, joints_vis"),
        ({"joints_vis": [2] * 16}, "it needs 16, of 0 and 1"),
        ({"joints_vis": None}, "person 1: cannot be read: Expected `array`, got `null`"),
        ({"image": "absent.png"}, "'absent.png' is not in"),
    ],
)
def test_what_is_no_person_of_mpii_is_told_in_one_line(mpii: Convert, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as raised:
        mpii([person(34), person(**changes)])
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("read", [read_mpii, read_ai_challenger])
def test_another_files_form_is_told_in_one_line(convert: Convert, tmp_path: Path, read: Any) -> None:
    (tmp_path / "coco.json").write_text('{"images": []}')
    with pytest.raises(InputError, match=r"coco.json: is no list of (people|images); give"):
        convert(read, tmp_path / "coco.json")


def test_uncut_is_the_only_word_on_boxes(mpii: Convert) -> None:
    made = mpii([person(), person(34)])
    file = made.folder / "annotations/train.json"
    file.write_text(file.read_text().replace('"uncut"', '"whole"'))
    with pytest.raises(InputError, match=r"info.boxes is 'whole'; write uncut, or leave it out"):
        made.people()
    file.write_text(file.read_text().replace('"boxes"', '"box"'))
    assert made.people().boxes_xywh[0].tolist() == [10, 0, 40, 33]


def test_mpiis_real_sample_is_written_with_every_person(shared_folder: Path, tmp_path: Path, convert: Convert) -> None:
    folder = shared_folder / "other_datasets" / "mpii"
    file, skeleton = folder / "annotations/mpii_val.json", load_skeleton("mpii_16")
    asked = {"images": folder / "images", "val_source": file, "skeleton": skeleton}
    made = convert(read_mpii, file, **asked)
    people = read_ground_truth(made.folder / "annotations/val.json", made.folder / "images/val", skeleton)
    records = json.loads(file.read_text())
    assert len(people) == len(records) == 5
    for index, number in enumerate(people.instance_ids.tolist()):
        record, box = records[number], people.boxes_xywh[index]
        assert people.file_names[people.image_of_instance[index]] == record["image"]
        seen = np.array(record["joints_vis"]) > 0
        assert (people.visibility[index] == 2 * seen).all()
        np.testing.assert_allclose(
            people.keypoints_in_image[index][seen], np.array(record["joints"])[seen] - 1, atol=1e-3
        )
        x, y = record["center"]
        centre = [x - 1, y + 15 * record["scale"] - 1]
        np.testing.assert_allclose(box[:2] + box[2:] / 2, centre, atol=2e-3)
        np.testing.assert_allclose(box[2:], 200 * record["scale"], atol=1e-3)


@pytest.fixture
def aic(tmp_path: Path, picture: Callable[..., Path], convert: Convert) -> Convert:
    """Converts a list of the two pictures a.jpg and b.jpg of 40x80 pixels, which are for training and validation."""
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / "pictures" / name)

    def run(*entries: dict[str, Any], **given: Any) -> Any:
        file = tmp_path / "aic.json"
        file.write_text(json.dumps(entries))
        asked = {"images": tmp_path / "pictures", "val_source": file, "skeleton": load_skeleton("aic_14")}
        return convert(read_ai_challenger, file, **(asked | given))

    return run


def test_ai_challengers_visibilities_and_corners_become_cocos(aic: Convert) -> None:
    points = [number for place in range(14) for number in (20 + place, 10 + place, place % 3 + 1)]
    two, boxes = {"human1": points, "human2": points}, {"human1": [15, 5, 45, 35], "human3": [0] * 4}
    made = aic(
        {
            "image_id": "a",
            "keypoint_annotations": two,
            "human_annotations": boxes,
        },
        {"image_id": "b", "url": "x", "keypoint_annotations": two, "human_annotations": {"human2": [1, 2, 41, 39]}},
    )
    first, second = made.people_in("a.jpg")
    assert first["bbox"] == [15, 5, 30, 30]
    assert first["keypoints"][:3] == [[20, 10, 2], [21, 11, 1], [0, 0, 0]]  # 1 visible, 2 hidden, 3 not labelled
    assert first["num_keypoints"] == 10
    assert second["bbox"] == pytest.approx([18.7, 8.7, 15.6, 15.6])  # around its keypoints
    lines = made.log.lines()
    assert "note: 2 boxes without keypoints left out" in lines
    assert "note: 4 boxes drawn around the keypoints, where no usable one was given" in lines
    assert made.content()["info"].get("boxes") is None
    assert made.skeleton.measures_as(load_skeleton("aic_14"))


@pytest.mark.parametrize(
    ("points", "said"),
    [([20, 10, 1] * 13, "has 39 numbers; it needs 42"), ([20, 10, 0] * 14, "1 visible, 2 hidden, 3 unlabelled")],
)
def test_what_is_no_person_of_ai_challenger_is_told_in_one_line(aic: Convert, points: list[int], said: str) -> None:
    with pytest.raises(InputError, match="human1 of image a: ") as raised:
        aic({"image_id": "a", "keypoint_annotations": {"human1": points}})
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
