"""Every defect is planted once, and found once under its own name."""

from __future__ import annotations

import copy
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uniformer_pose.data.checking.dataset import check_dataset
from uniformer_pose.data.checking.report import KINDS, Split
from uniformer_pose.data.coco import read_ground_truth
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.skeleton import load_skeleton

NAN = float("nan")
Plant = Callable[[Any], object]


def with_exif(jpeg: bytes, orientation: int) -> bytes:
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    payload = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def person(data: Any, number: int, split: str = "train") -> dict[str, Any]:
    """The annotation in image ``number``: there is one in each."""
    image_id = data.contents[split]["images"][number]["id"]
    return next(entry for entry in data.contents[split]["annotations"] if entry["image_id"] == image_id)


def keypoints(data: Any, number: int) -> np.ndarray:
    return np.array(person(data, number)["keypoints"], dtype=float).reshape(-1, 3)


def set_keypoints(data: Any, number: int, values: np.ndarray) -> None:
    person(data, number).update(keypoints=values.ravel().tolist(), num_keypoints=int((values[:, 2] > 0).sum()))


def change(number: int, split: str = "train", **fields: Any) -> Plant:
    return lambda data: person(data, number, split).update(fields)


def drop(number: int, name: str, split: str = "train") -> Plant:
    return lambda data: person(data, number, split).pop(name)


def file_of(number: int, content: bytes) -> Plant:
    return lambda data: data.image_path(number).write_bytes(content)


def add_image(**fields: Any) -> Plant:
    return lambda data: data.train["images"].append({**data.train["images"][13], "id": 901, **fields})


def link_outwards(data: Any) -> None:
    path = data.image_path(6)
    path.rename(data.root / "elsewhere.jpg")
    path.symlink_to(data.root / "elsewhere.jpg")


def link_to_itself(data: Any) -> None:
    data.image_path(6).unlink()
    data.image_path(6).symlink_to(data.image_path(6))


def turned_picture(data: Any) -> None:
    """Annotated on the picture as a viewer shows it, which is 200x192 instead of 192x200."""
    path = data.image_path(8)
    path.write_bytes(with_exif(path.read_bytes(), 6))
    data.train["images"][8].update(height=200, width=192)
    values = keypoints(data, 8)
    values[:, :2] = 20 + values[:, :2] / 2
    set_keypoints(data, 8, values)
    person(data, 8).update(bbox=[20 + side / 2 for side in person(data, 8)["bbox"][:2]] + [100, 100], area=2000.0)


def one_labelled_keypoint_outside(data: Any) -> None:
    values = keypoints(data, 32)
    values[0] = (-30, 50, 2)
    set_keypoints(data, 32, values)


def one_keypoint_far_from_the_box(data: Any) -> None:
    person(data, 33).update(bbox=[20.0, 20.0, 60.0, 100.0], area=3000.0)
    values = np.tile([40.0, 60.0, 2.0], (17, 1))
    values[:, :2] += np.arange(17)[:, None] % 5
    values[0, :2] = (150, 60)
    set_keypoints(data, 33, values)


def hide_everything(data: Any) -> None:
    """As CrowdPose counts: who has hidden keypoints only has none."""
    values = keypoints(data, 0)
    values[:, 2] = np.minimum(values[:, 2], 1)
    set_keypoints(data, 0, values)
    person(data, 0)["num_keypoints"] = 0


def swap_hips(data: Any) -> None:
    left, right = data.skeleton.indices(["left_hip", "right_hip"])
    for number in range(60):
        values = keypoints(data, number)
        values[[left, right]] = values[[right, left]]
        set_keypoints(data, number, values)


# Each in an image of its own, so that all of them can stand in one dataset.
PLANTS: dict[str, Plant] = {
    "image_unusable": lambda data: data.image_path(0).unlink(),
    "image_with_exif_rotation": lambda data: data.image_path(9).write_bytes(
        with_exif(data.image_path(9).read_bytes(), 3)
    ),
    "image_content_repeated": lambda data: shutil.copyfile(data.image_path(11), data.image_path(10)),
    "image_also_in_training": lambda data: shutil.copyfile(data.image_path(12), data.image_path(0, "val")),
    "entry_invalid": change(17, id="seventeen"),
    "annotation_of_unknown_category": change(15, category_id=77),
    "annotation_repeated": lambda data: data.train["annotations"].append({**person(data, 22), "id": 904}),
    "box_unusable": change(26, bbox=[10, 10, 0, 40]),
    "keypoint_outside_image": one_labelled_keypoint_outside,
    "keypoint_outside_box": one_keypoint_far_from_the_box,
    "num_keypoints_wrong": change(36, num_keypoints=0),
    "part_flag_wrong": change(38, face_valid=False, face_kpts=[5.0, 5.0, 0.3] * 68),
    "area_unusable": change(37, area=1e6),
}

# Further forms of the same kinds.
VARIANTS: list[tuple[str, str, Plant]] = [
    ("image_unusable", "the image file is empty", file_of(1, b"")),
    ("image_unusable", "outside the image folder", link_outwards),
    ("image_unusable", "loop", link_to_itself),
    ("image_unusable", "says 192x210", lambda data: data.train["images"][7].update(width=210)),
    ("image_unusable", "data.image_orientation=displayed", turned_picture),
    ("entry_invalid", "$.file_name", add_image(file_name=7)),
    ("entry_invalid", "leaves the image folder", add_image(file_name="../secret.jpg")),
    ("entry_invalid", "has the id", lambda data: data.train["images"].append({**data.train["images"][13]})),
    ("entry_invalid", "is in image 999", change(21, image_id=999)),
    ("entry_invalid", "'bbox'", drop(23, "bbox")),
    ("entry_invalid", "visibility", lambda data: person(data, 30)["keypoints"].__setitem__(2, 3)),
    ("entry_invalid", "image_orientation", lambda data: data.train["info"].update(image_orientation="upright")),
    ("entry_invalid", "does not list", lambda data: data.detections[0].update(image_id=777)),
    ("box_unusable", "300, 10, 20, 40", change(27, bbox=[300, 10, 20, 40])),
    ("part_flag_wrong", "by foot_valid", change(38, foot_valid=True, foot_kpts=[0] * 18, face_valid=False)),
    ("num_keypoints_wrong", "labelled, all hidden: not scored", hide_everything),
    ("area_unusable", "has area 0", change(2, "val", area=0)),
    ("area_unusable", "has area nan", drop(1, "area", "val")),
]


def areas_of_boxes(data: Any) -> None:
    for entry in data.val["annotations"]:
        entry["area"] = round(entry["bbox"][2] * entry["bbox"][3], 1)


def forget_left_ears(data: Any) -> None:
    for entry in data.train["annotations"]:
        index = 3 * data.skeleton.keypoint_names.index("left_ear")
        entry["keypoints"][index : index + 3] = [0, 0, 0]
        del entry["num_keypoints"]


# These concern a whole file, so they cannot stand beside others.
WHOLE_FILE_PLANTS: dict[str, Plant] = {
    "category_keypoints_differ": lambda data: data.train["categories"][0]["keypoints"].__setitem__(0, "snout"),
    "no_people": lambda data: data.train.update(annotations=[]),
    "keypoint_never_labelled": forget_left_ears,
    "left_right_swapped": swap_hips,
    "area_is_box": areas_of_boxes,
    "detections_miss_most_people": lambda data: [entry.update(bbox=[0, 0, 5, 5]) for entry in data.detections],
}


def test_a_sound_dataset_has_no_defect(dataset) -> None:
    train, val = dataset.check()
    assert train.found + val.found == []
    assert "  nothing wrong" in train.lines()
    assert (len(train.people), len(val.people), len(val.detections)) == (60, 8, 8)


@pytest.mark.parametrize("kind", WHOLE_FILE_PLANTS)
def test_a_defect_of_a_whole_file_is_found_once_and_nothing_else_is(dataset, kind: str) -> None:
    WHOLE_FILE_PLANTS[kind](dataset)
    found = dataset.found(read_images=False)
    found.pop("no_people", None) if kind == "category_keypoints_differ" else None
    assert {name: entry.count for name, entry in found.items()} == {kind: 1}


@pytest.mark.parametrize(("kind", "words", "plant"), VARIANTS)
def test_a_form_of_a_defect_is_found_and_said(dataset, kind: str, words: str, plant: Plant) -> None:
    plant(dataset)
    found = dataset.found(read_images=kind.startswith("image"))
    found.pop("no_people", None)  # where the reader refuses the whole file
    assert {name: entry.count for name, entry in found.items()} == {kind: 1}
    assert words in found[kind].examples[0]


def test_all_planted_defects_together_are_each_found_once_where_they_are(dataset) -> None:
    for plant in PLANTS.values():
        plant(dataset)
    found = dataset.found()
    assert {kind: (entry.count, entry.severity) for kind, entry in found.items()} == {
        kind: (1, KINDS[kind][0]) for kind in PLANTS
    }
    box = found["box_unusable"].examples[0]
    file_name = dataset.train["images"][26]["file_name"]
    assert box.startswith(f"{file_name}: annotation {person(dataset, 26)['id']} has the box 10, 10, 0, 40")


def test_every_kind_of_defect_has_a_test_that_plants_it() -> None:
    assert set(KINDS) == {*PLANTS, *WHOLE_FILE_PLANTS, "side_without_partner"}


def test_a_side_without_partner_is_told_once_with_how_to_switch_mirroring_off(dataset) -> None:
    coco = load_skeleton("coco_17")
    pairs = tuple(pair for pair in coco.left_right_pairs if "left_ear" not in pair)
    splits = dataset.splits()
    check_dataset(splits, replace(coco, left_right_pairs=pairs), read_images=False)
    (line,) = [line for split in splits for line in split.lines() if "side_without_partner:" in line]
    assert "left_ear, right_ear" in line
    assert line.endswith("augmentation.geometric.flip_probability=0 evaluation.flip_test=false")


def test_the_first_of_many_examples_are_kept_and_people_without_keypoints_need_no_box(dataset) -> None:
    for number in range(25):
        person(dataset, number)["bbox"] = [10, 10, -1, 5]
    person(dataset, 30).update(bbox=[0, 0, 0, 0], keypoints=[0] * 51, num_keypoints=0)
    found = dataset.found(read_images=False)["box_unusable"]
    assert (found.count, len(found.examples)) == (25, 10)


@pytest.mark.parametrize(("split", "severity"), [("train", "remark"), ("val", "error")])
@pytest.mark.parametrize(("field", "value"), [("num_keypoints", 0), ("area", None), ("area", 0)])
def test_what_evaluation_needs_is_an_error_where_it_is_scored(
    dataset, split: str, severity: str, field: str, value: Any
) -> None:
    person(dataset, 0, split)[field] = value
    assert [found.severity for found in dataset.found(read_images=False).values()] == [severity]
    if field == "area":
        assert dataset.found(read_images=False, area="box") == {}


def test_the_number_of_workers_changes_nothing_and_progress_counts_every_image(dataset) -> None:
    for kind in ("image_unusable", "image_content_repeated", "image_also_in_training"):
        PLANTS[kind](dataset)
    dataset.train["images"].append({"id": 905, "file_name": "nobody.jpg", "height": 10, "width": 10})
    calls: list[tuple[int, int]] = []
    several = dataset.check(workers=3, on_progress=lambda done, total: calls.append((done, total)))
    assert [split.to_dict() for split in several] == [split.to_dict() for split in dataset.check(workers=1)]
    assert calls == [(done, 68) for done in range(1, 69)]


def test_a_limit_checks_the_images_that_training_would_use_and_no_others(dataset) -> None:
    PLANTS["image_content_repeated"](dataset)
    PLANTS["area_unusable"](dataset)
    calls: list[tuple[int, int]] = []
    splits = dataset.check(max_images=3, on_progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (6, 6)  # of both splits
    assert [split.people.num_images for split in splits] == [3, 3]
    assert all("after the first 3 images" in split.lines()[1] for split in splits)
    assert not any(split.found for split in splits)
    dataset.contents["train"]["annotations"][40].pop("bbox")
    assert set(dataset.found(max_images=3, read_images=False)) == {"entry_invalid"}  # training stops at it


def test_files_that_are_absent_or_no_json_cannot_be_checked(dataset) -> None:
    train, val = dataset.splits()
    val.annotations.rename(val.annotations.with_suffix(".txt"))
    with pytest.raises(InputError, match=r"person_keypoints_val\.json: no such file"):
        check_dataset([train, val], dataset.skeleton)
    for text, words in (("<html>", "not valid JSON"), ("[]", "images"), ('{"images": []}', "'images'")):
        train.annotations.write_text(text)
        with pytest.raises(InputError, match=words):
            check_dataset([train], dataset.skeleton)


def test_two_pictures_are_the_same_by_their_pixels_and_size_whatever_the_file(dataset) -> None:
    names = [entry["file_name"] for entry in dataset.train["images"][:2]]
    for name, suffix, pixels in ((names[0], ".png", np.zeros((192, 200))), (names[1], ".bmp", np.zeros((192, 200)))):
        cv2.imwrite(str(dataset.root / f"images/train/{name}{suffix}"), pixels)
        (dataset.root / f"images/train/{name}{suffix}").rename(dataset.root / f"images/train/{name}")
    assert {kind: entry.count for kind, entry in dataset.found().items()} == {"image_content_repeated": 1}


def test_people_of_coco_are_sound_but_for_remarks(reference_folder: Path, tmp_path: Path) -> None:
    every: tuple[Any, ...] = ("train", "val")
    splits = [Split(split, reference_folder / f"coco_people_{split}2017.json", tmp_path) for split in every]
    check_dataset(splits, load_skeleton("coco_17"), read_images=False)
    found = [{kind.kind: kind.count for kind in split.found} for split in splits]
    assert found == [{"keypoint_outside_box": 6}, {}]
    assert [len(split.people) for split in splits] == [86, 12]


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.sampled_from([10**400, -1.5, NAN, float("inf"), "", "x", "../a.jpg", [], [1, 2, 3, 4], [[]], {}, {"a": 1}]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_training_or_evaluation_refuses_is_an_error_of_the_check(tiny_coco, data: st.DataObject) -> None:
    sound = copy.deepcopy(tiny_coco.content)
    try:
        for _ in range(data.draw(st.integers(1, 2))):
            section = data.draw(st.sampled_from(["images", "annotations", "categories"]))
            entry = data.draw(st.sampled_from(tiny_coco.content[section]))
            name = data.draw(st.sampled_from(sorted(entry)))
            if data.draw(st.booleans()) and isinstance(entry[name], list) and entry[name]:
                entry[name][data.draw(st.integers(0, len(entry[name]) - 1))] = data.draw(JUNK)
            elif data.draw(st.booleans()):
                entry[name] = data.draw(JUNK)
            elif len(entry) > 1:
                del entry[name]
        tiny_coco.write()
    finally:
        spoilt, tiny_coco.content = tiny_coco.content, sound
    refused = False
    try:
        read_ground_truth(tiny_coco.annotation_file, tiny_coco.images, tiny_coco.skeleton)
        CocoGroundTruth.load(tiny_coco.annotation_file, tiny_coco.skeleton)
    except InputError:
        refused = True
    split = Split("val", tiny_coco.annotation_file, tiny_coco.images)
    try:
        check_dataset([split], tiny_coco.skeleton, read_images=False)
    except InputError:
        assert refused
        return
    assert split.number_of("error") or not refused, spoilt
