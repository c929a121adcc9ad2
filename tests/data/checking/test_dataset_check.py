"""Every defect is planted once, and found once under its own name."""

from __future__ import annotations

import copy
import shutil
import struct
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uniformer_pose.data.checking import dataset_check
from uniformer_pose.data.checking.dataset_check import SplitFiles, check_dataset
from uniformer_pose.data.checking.defects import DEFECT_KINDS
from uniformer_pose.data.checking.text_report import text_report
from uniformer_pose.data.coco import read_ground_truth
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.skeleton import load_skeleton

NAN = float("nan")


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


def change(number: int, split: str = "train", **fields: Any) -> Callable[[Any], None]:
    return lambda data: person(data, number, split).update(fields)


def drop(number: int, name: str, split: str = "train") -> Callable[[Any], None]:
    return lambda data: person(data, number, split).pop(name) and None


def file_of(number: int, content: bytes) -> Callable[[Any], None]:
    return lambda data: data.image_path(number).write_bytes(content) and None


def cut_off(data: Any) -> None:
    path = data.image_path(2)
    path.write_bytes(path.read_bytes()[:-200])


def folder_instead_of_file(data: Any) -> None:
    data.image_path(5).unlink()
    data.image_path(5).mkdir()


def link_outwards(data: Any) -> None:
    path = data.image_path(6)
    path.rename(data.root / "elsewhere.jpg")
    path.symlink_to(data.root / "elsewhere.jpg")


def turned_picture(data: Any) -> None:
    """Annotated on the picture as a viewer shows it, which is 200x192 instead of 192x200."""
    path = data.image_path(8)
    path.write_bytes(with_exif(path.read_bytes(), 6))
    data.train["images"][8].update(height=200, width=192)
    values = keypoints(data, 8)
    values[:, :2] = 20 + values[:, :2] / 2
    set_keypoints(data, 8, values)
    person(data, 8).update(bbox=[20 + side / 2 for side in person(data, 8)["bbox"][:2]] + [100, 100], area=2000.0)


def exif(data: Any) -> None:
    data.image_path(9).write_bytes(with_exif(data.image_path(9).read_bytes(), 3))


def twelve_bits_of_sixteen(data: Any) -> None:
    path = data.image_path(55)
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    path.write_bytes(cv2.imencode(".png", pixels.astype(np.uint16) << 4)[1].tobytes())


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


def coordinates_of_an_unlabelled_keypoint(data: Any) -> None:
    values = keypoints(data, 34)
    values[3] = (50, 50, 0)
    set_keypoints(data, 34, values)


def bad_visibility(data: Any) -> None:
    person(data, 30)["keypoints"][2] = 3


def swap_everything(data: Any) -> None:
    """Left is where the viewer's left is, in a face that looks at the viewer."""
    values = keypoints(data, 50)[data.skeleton.mirror_permutation]
    nose, left_eye, right_eye = data.skeleton.indices(["nose", "left_eye", "right_eye"])
    x, y = values[nose, :2]
    values[[nose, left_eye, right_eye]] = [(x, y, 2), (x - 6, y - 6, 2), (x + 6, y - 6, 2)]
    set_keypoints(data, 50, values)


def swap_hips(data: Any) -> None:
    values = keypoints(data, 51)
    left, right = data.skeleton.indices(["left_hip", "right_hip"])
    values[[left, right]] = values[[right, left]]
    set_keypoints(data, 51, values)


def detection(data: Any, **fields: Any) -> None:
    data.detections.append({**copy.deepcopy(data.detections[0]), "score": 0.1, **fields})


# Each in an image of its own, so that all of them can stand in one dataset.
PLANTS: dict[str, Callable[[Any], object]] = {
    "image_missing": lambda data: data.image_path(0).unlink(),
    "image_empty": file_of(1, b""),
    "image_cut_off": cut_off,
    "image_is_a_web_page": file_of(3, b"<!DOCTYPE html><html>not found</html>"),
    "image_not_decodable": file_of(4, b"this is no image at all"),
    "image_unreadable": folder_instead_of_file,
    "image_outside_folder": link_outwards,
    "image_size_differs": lambda data: data.train["images"][7].update(width=210),
    "image_size_of_turned_picture": turned_picture,
    "image_with_exif_rotation": exif,
    "image_of_few_bits": twelve_bits_of_sixteen,
    "image_content_repeated": lambda data: shutil.copyfile(data.image_path(11), data.image_path(10)),
    "image_also_in_training": lambda data: shutil.copyfile(data.image_path(12), data.image_path(0, "val")),
    "image_entry_invalid": lambda data: data.train["images"].append({"id": 901, "file_name": 7}),
    "file_name_leaves_folder": lambda data: data.train["images"].append(
        {"id": 902, "file_name": "../secret.jpg", "height": 192, "width": 200}
    ),
    "image_id_repeated": lambda data: data.train["images"].append({**data.train["images"][13], "file_name": "x.jpg"}),
    "file_name_repeated": lambda data: data.train["images"].append({**data.train["images"][14], "id": 903}),
    "several_categories": lambda data: data.train["categories"].append(
        {**data.train["categories"][0], "id": 8, "name": "child"}
    ),
    "annotation_of_unknown_category": change(15, category_id=77),
    "annotation_of_other_category": lambda data: (
        data.train["categories"].append({"id": 5, "name": "dog"}),
        person(data, 16).update(category_id=5),
    ),
    "annotation_entry_invalid": change(17, id="seventeen"),
    "annotation_id_not_positive": change(18, id=0),
    "annotation_id_repeated": lambda data: person(data, 19).update(id=person(data, 20)["id"]),
    "annotation_of_unknown_image": change(21, image_id=999),
    "annotation_repeated": lambda data: data.train["annotations"].append({**person(data, 22), "id": 904}),
    "box_missing": drop(23, "bbox"),
    "box_malformed": change(24, bbox=[1, 2, 3]),
    "box_not_finite": change(25, bbox=[1, NAN, 30, 40]),
    "box_without_area": change(26, bbox=[10, 10, 0, 40]),
    "box_outside_image": change(27, bbox=[300, 10, 20, 40]),
    "box_partly_outside": change(28, bbox=[5.0, 5.0, 250.0, 187.0]),
    "keypoints_missing": drop(29, "keypoints"),
    "visibility_invalid": bad_visibility,
    "keypoints_of_wrong_number": change(31, keypoints=[1, 2, 2] * 16),
    "keypoint_outside_image": one_labelled_keypoint_outside,
    "keypoint_outside_box": one_keypoint_far_from_the_box,
    "unlabelled_with_coordinates": coordinates_of_an_unlabelled_keypoint,
    "keypoints_not_finite": lambda data: person(data, 35)["keypoints"].__setitem__(4, NAN),
    "num_keypoints_wrong": change(36, num_keypoints=3),
    "area_implausible": change(37, area=1e6),
    "left_right_swapped_in_face": swap_everything,
    "left_right_swapped_in_person": swap_hips,
    "area_missing": drop(1, "area", "val"),
    "area_zero": change(2, "val", area=0),
    "detection_entry_invalid": lambda data: detection(data, score=NAN),
    "detection_of_unknown_image": lambda data: detection(data, image_id=777),
    "detection_box_malformed": lambda data: detection(data, bbox=[1, 2, "3", 4]),
    "detection_box_without_area": lambda data: detection(data, bbox=[1, 2, -3, 4]),
    "detection_box_outside_image": lambda data: detection(data, bbox=[400, 2, 3, 4]),
    "detection_score_out_of_range": lambda data: detection(data, bbox=[2, 2, 30, 40], score=1.5),
    "detection_of_other_category": lambda data: detection(data, category_id=3),
    "detection_repeated": lambda data: detection(data),
}


def spoil_categories(data: Any) -> None:
    data.train["categories"][0]["keypoints"][0] = "snout"


def forget_left_ears(data: Any) -> None:
    for entry in data.train["annotations"]:
        index = 3 * data.skeleton.keypoint_names.index("left_ear")
        entry["keypoints"][index : index + 3] = [0, 0, 0]
        del entry["num_keypoints"]


def exchange_hips(data: Any) -> None:
    left, right = data.skeleton.indices(["left_hip", "right_hip"])
    for entry in data.train["annotations"]:
        values = np.array(entry["keypoints"]).reshape(-1, 3)
        values[[left, right]] = values[[right, left]]
        entry["keypoints"] = values.ravel().tolist()


# These concern a whole file, so they cannot stand beside others.
WHOLE_FILE_PLANTS: dict[str, Callable[[Any], object]] = {
    "category_keypoints_differ": spoil_categories,
    "no_people": lambda data: data.train.update(annotations=[]),
    "keypoint_never_labelled": forget_left_ears,
    "left_right_swapped_throughout": exchange_hips,
    "detections_miss_most_people": lambda data: [entry.update(bbox=[0, 0, 5, 5]) for entry in data.detections],
}


def test_a_sound_dataset_has_no_defect(dataset) -> None:
    report = dataset.check()
    assert [found.to_dict() for split in report.splits for found in split.findings.found] == []
    assert report.num_errors == report.num_remarks == 0
    train, val = report.splits
    assert train.counts == {
        "images": 60,
        "annotations": 60,
        "crowd": 0,
        "without labelled keypoint": 0,
        "people": 60,
        "images with people": 60,
        "images read": 60,
    }
    assert val.detection_counts == {
        "detections": 8,
        "boxes of people": 8,
        "images without a box": 0,
        "people with a box": 8,
    }


@pytest.mark.parametrize("kind", [*PLANTS, *WHOLE_FILE_PLANTS])
def test_a_planted_defect_is_found_once_and_nothing_else_is(dataset, kind: str) -> None:
    {**PLANTS, **WHOLE_FILE_PLANTS}[kind](dataset)
    assert dataset.found(read_images=kind.startswith("image")) == {kind: 1}


def test_all_planted_defects_together_are_each_found_once(dataset) -> None:
    for plant in PLANTS.values():
        plant(dataset)
    report = dataset.check()
    found = {entry.kind: entry for split in report.splits for entry in split.findings.found}
    assert {kind: entry.count for kind, entry in found.items()} == dict.fromkeys(PLANTS, 1)
    assert report.num_errors + report.num_remarks == len(PLANTS)
    for kind, entry in found.items():
        assert entry.severity == DEFECT_KINDS[kind].severity
        assert len(entry.examples) == 1


def test_every_kind_of_defect_has_a_test_that_plants_it() -> None:
    elsewhere = {"fewer_people_than_a_batch", "refused_by_the_reader", "side_without_partner"}
    assert set(DEFECT_KINDS) == {*PLANTS, *WHOLE_FILE_PLANTS, *elsewhere}


def test_a_side_without_partner_is_told_once_with_how_to_switch_mirroring_off(dataset) -> None:
    coco = load_skeleton("coco_17")
    pairs = tuple(pair for pair in coco.left_right_pairs if "left_ear" not in pair)
    report = check_dataset(dataset.files(), replace(coco, left_right_pairs=pairs), read_images=False)
    assert (report.num_errors, report.num_remarks) == (0, 1)
    (line,) = [line for line in text_report(report).splitlines() if "side_without_partner:" in line]
    assert "left_ear, right_ear" in line
    assert line.endswith("augmentation.geometric.flip_probability=0 evaluation.flip_test=false")


def test_people_who_do_not_fill_a_batch_are_an_error(dataset) -> None:
    assert dataset.found(batch_size=60) == {}
    assert dataset.found(batch_size=61) == {"fewer_people_than_a_batch": 1}


def test_what_only_the_reader_notices_is_an_error_too(dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_content: Any, file: Path, *_: Any, **_settings: Any) -> None:
        raise InputError(f"{file}: a new rule; obey it")

    monkeypatch.setattr(dataset_check, "ground_truth_of", refuse)
    train = dataset.check().splits[0]
    assert [(found.kind, found.examples[0].detail) for found in train.findings.found] == [
        ("refused_by_the_reader", "a new rule; obey it")
    ]


def test_examples_name_the_image_and_the_annotation(dataset) -> None:
    PLANTS["box_without_area"](dataset)
    PLANTS["image_cut_off"](dataset)
    box, image = sorted(dataset.check().splits[0].findings.found, key=lambda found: found.kind)
    entry = dataset.train["images"][26]
    assert box.examples[0].file_name == entry["file_name"]
    assert box.examples[0].annotation_id == person(dataset, 26)["id"]
    assert box.examples[0].detail.endswith(
        "has the box x 10, y 10, width 0, height 40 in an image of 192x200 (height x width)"
    )
    assert image.examples[0].file_name == dataset.train["images"][2]["file_name"]
    assert image.examples[0].detail.startswith("the JPEG is cut off after ")


def test_all_defects_are_counted_and_the_first_are_kept_as_examples(dataset) -> None:
    for number in range(25):
        person(dataset, number)["bbox"] = [10, 10, -1, 5]
    (found,) = dataset.check(max_examples=3).splits[0].findings.found
    assert found.count == 25
    assert len(found.examples) == 3


def test_a_box_without_area_of_a_person_without_keypoints_loses_nobody(dataset) -> None:
    person(dataset, 0).update(bbox=[0, 0, 0, 0], keypoints=[0] * 51, num_keypoints=0)
    assert dataset.check().num_errors == 0


def test_num_keypoints_that_decides_who_is_scored_is_an_error_in_validation_only(dataset) -> None:
    person(dataset, 0)["num_keypoints"] = 0
    assert dataset.check().num_errors == 0
    person(dataset, 0, "val")["num_keypoints"] = 0
    assert dataset.check().num_errors == 1


def test_a_missing_area_is_a_remark_where_nothing_is_scored(dataset) -> None:
    del person(dataset, 0)["area"]
    report = dataset.check()
    assert (report.num_errors, report.num_remarks) == (0, 1)


def test_without_reading_images_only_the_json_files_count(dataset) -> None:
    PLANTS["image_missing"](dataset)
    PLANTS["box_missing"](dataset)
    assert dataset.found(read_images=False) == {"box_missing": 1}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_number_of_workers_changes_nothing(dataset, workers: int) -> None:
    for kind in ("image_missing", "image_content_repeated", "image_also_in_training"):
        PLANTS[kind](dataset)
    assert dataset.check(workers=workers).to_dict() == dataset.check(workers=2).to_dict()


def test_progress_counts_every_image(dataset) -> None:
    calls: list[tuple[int, int]] = []
    dataset.check(workers=2, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 68) for done in range(1, 69)]


def test_images_without_people_are_not_read(dataset) -> None:
    dataset.train["images"].append({"id": 905, "file_name": "absent.jpg", "height": 10, "width": 10})
    assert dataset.found() == {}


@pytest.mark.parametrize("num_images", [1, 3])
def test_a_limit_checks_the_images_that_training_would_use_and_no_others(dataset, num_images: int) -> None:
    PLANTS["image_content_repeated"](dataset)
    calls: list[tuple[int, int]] = []
    report = dataset.check(max_images=num_images, on_progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (2 * num_images, 2 * num_images)  # of both splits
    for split in report.splits:
        assert split.people is not None
        assert (len(split.people.image_ids), split.max_images) == (num_images, num_images)
    assert {split["max_images"] for split in report.to_dict()["splits"].values()} == {num_images}
    assert report.num_errors == 0


def test_a_limit_hides_no_reason_for_which_training_would_stop(dataset) -> None:
    PLANTS["box_missing"](dataset)
    report = dataset.check(max_images=1)
    assert report.num_errors == 1
    assert [split.max_images for split in report.splits].count(None) == 1
    with pytest.raises(InputError, match="first 0 images"):
        dataset.check(max_images=0)


def test_an_absent_file_is_named_before_anything_is_checked(dataset) -> None:
    train, val = dataset.files()
    val.annotations.unlink()
    with pytest.raises(InputError, match=r"person_keypoints_val\.json: no such file"):
        check_dataset([train, val], dataset.skeleton)


def test_a_file_that_is_no_json_cannot_be_checked(dataset) -> None:
    train, _val = dataset.files()
    train.annotations.write_text("<html>")
    with pytest.raises(InputError, match="not valid JSON"):
        check_dataset([train], dataset.skeleton)


def test_coco_mini_is_sound_but_for_remarks(shared_folder: Path) -> None:
    root = shared_folder / "coco_mini"
    boxes = root / "person_detection_results/COCO_val2017_detections_AP_H_56_person.json"
    report = check_dataset(
        [
            SplitFiles("train", root / "annotations/person_keypoints_train2017.json", root / "train2017"),
            SplitFiles("val", root / "annotations/person_keypoints_val2017.json", root / "val2017", boxes),
        ],
        load_skeleton("coco_17"),
    )
    train, val = report.splits
    assert report.num_errors == 0
    assert {found.kind: found.count for found in train.findings.found} == {"keypoint_outside_box": 6}
    assert {found.kind: found.count for found in val.findings.found} == {"detection_repeated": 1}
    assert (train.counts["people"], train.counts["crowd"], train.counts["without labelled keypoint"]) == (86, 5, 81)
    assert (val.counts["people"], val.detection_counts["people with a box"]) == (12, 12)
    assert train.distributions["box area"] == {"small (below 32x32 pixels)": 0, "medium (to 96x96)": 39, "large": 47}


def test_distributions_are_those_of_the_people(dataset) -> None:
    values = keypoints(dataset, 0)
    values[0] = 0
    values[1, 2] = 1
    set_keypoints(dataset, 0, values)
    train = dataset.check(read_images=False).splits[0].distributions
    labelled = np.array([entry["keypoints"] for entry in dataset.train["annotations"]]).reshape(60, 17, 3)[..., 2]
    for index, name in enumerate(dataset.skeleton.keypoint_names):
        expected = {
            word: int((labelled[:, index] == v).sum()) for v, word in enumerate(["not labelled", "hidden", "visible"])
        }
        assert train["visibility by keypoint"][name] == expected
    assert train["people per image"] == {"1": 60}
    assert train["image height"]["50 %"] == 192
    assert train["labelled keypoints"] == int((labelled > 0).sum())


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            CocoGroundTruth.load(tiny_coco.annotation_file, tiny_coco.skeleton)
    except InputError:
        refused = True
    files = SplitFiles("val", tiny_coco.annotation_file, tiny_coco.images)
    try:
        report = check_dataset([files], tiny_coco.skeleton, read_images=False)
    except InputError:
        assert refused
        return
    assert report.num_errors or not refused, spoilt
