import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uniformer_pose.data import coco
from uniformer_pose.data.categories import counted_categories
from uniformer_pose.data.coco import read_detections, read_ground_truth
from uniformer_pose.data.coco_json import CategoryRecord, read_json
from uniformer_pose.errors import InputError

COCO_TRAIN = "coco_people_train2017.json"
COCO_VAL = "coco_people_val2017.json"
COCO_BOXES = "coco_mini/person_detection_results/COCO_val2017_detections_AP_H_56_person.json"
NAN, INFINITY = float("nan"), float("inf")


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_the_people_of_coco_train_are_read(reference_folder, skeleton):
    people = read_ground_truth(reference_folder / COCO_TRAIN, reference_folder, skeleton)
    assert people.counts["read"] == 172
    assert people.summary() == (
        "coco_people_train2017.json, category person: kept 86 of 172 annotations in 28 images "
        "(left out: 5 crowd, 81 without labelled keypoint)"
    )


def test_the_people_of_coco_val_are_read(reference_folder, skeleton):
    people = read_ground_truth(reference_folder / COCO_VAL, reference_folder, skeleton)
    assert len(people) == 12
    first = int(np.flatnonzero(people.instance_ids == 442619)[0])
    assert people.image_ids[people.image_of_instance[first]] == 785
    assert people.boxes_xywh[first] == pytest.approx([280.79, 44.73, 218.7, 346.68])
    assert people.keypoints_in_image[first, 0].tolist() == [367, 81]
    assert people.visibility[first].tolist() == [2] * 17


def test_the_detections_of_coco_val_are_read(shared_folder, reference_folder, skeleton):
    boxes = read_detections(shared_folder / COCO_BOXES, reference_folder / COCO_VAL, reference_folder, skeleton)
    assert dict(zip(boxes.image_ids.tolist(), boxes.boxes_per_image.tolist(), strict=True)) == {
        785: 22,
        40083: 26,
        196141: 33,
        197388: 37,
    }
    record = json.loads((shared_folder / COCO_BOXES).read_text())[boxes.instance_ids[60]]
    assert boxes.boxes_xywh[60] == pytest.approx(record["bbox"])
    assert boxes.box_scores[60] == pytest.approx(record["score"])
    assert boxes.image_ids[boxes.image_of_instance[60]] == record["image_id"]
    assert not boxes.visibility.any()


@pytest.mark.parametrize("at_once", [1, 3, 10_000])
def test_instances_are_arrays_sorted_by_image_however_many_are_read_at_once(tiny_coco, monkeypatch, at_once):
    monkeypatch.setattr(coco, "_AT_ONCE", at_once)
    tiny_coco.content["annotations"].reverse()
    people = tiny_coco.read()
    assert people.instance_ids.tolist() == [12, 11, 21, 31]
    assert people.image_of_instance.tolist() == [0, 0, 1, 2]
    assert people.boxes_per_image.tolist() == [2, 1, 1]
    assert (people.keypoints_in_image.shape, people.keypoints_in_image.dtype) == ((4, 17, 2), np.float32)
    assert people.visibility.dtype == np.uint8
    assert people.box_scores.tolist() == [1, 1, 1, 1]
    assert (people.image_heights[1], people.image_widths[1]) == (64, 48)
    assert people.describe(2) == "annotation 21 of people.json"
    assert tiny_coco.read_detections().describe(2) == "detection 2 of detections.json"
    tiny_coco.annotation(21)["iscrowd"] = 1
    assert tiny_coco.read().image_ids.tolist() == [1, 3]


def test_annotated_boxes_are_clipped_to_the_last_pixel_and_detected_ones_are_not(tiny_coco):
    tiny_coco.annotation(11)["bbox"] = [-10, -5, 200, 30]
    assert tiny_coco.read().boxes_xywh[0].tolist() == [0, 0, 79, 25]
    tiny_coco.detections[0]["bbox"] = [-10, -5, 200, 30]
    assert tiny_coco.read_detections().boxes_xywh[0].tolist() == [-10, -5, 200, 30]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"iscrowd": 1, "keypoints": [0] * 51, "bbox": [0, 0, 0, 0]}, "crowd"),
        ({"keypoints": [5, 5, 0] * 17}, "without labelled keypoint"),
        ({"bbox": [10, 10, 20, -3]}, "with a box without area"),
        ({"bbox": [300, 10, 20, 20]}, "with a box outside the image"),
        ({"bbox": [10, -40, 20, 40]}, "with a box outside the image"),
        ({"category_id": 2, "keypoints": []}, "of another category"),
    ],
)
def test_ordinary_unusable_annotations_are_left_out_and_counted_once(tiny_coco, change, reason):
    tiny_coco.annotation(12).update(change)
    people = tiny_coco.read()
    assert people.instance_ids.tolist() == [11, 21, 31]
    assert {why: n for why, n in people.counts.items() if n} == {"read": 4, "kept": 3, reason: 1}
    assert f"kept 3 of 4 annotations in 3 images (left out: 1 {reason})" in people.summary()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [10, 10, 0, 20]}, "with a box without area"),
        ({"bbox": [80, 10, 20, 20]}, "with a box outside the image"),
        ({"category_id": 3}, "of another category"),
    ],
)
def test_ordinary_unusable_detections_are_left_out_and_counted(tiny_coco, change, reason):
    tiny_coco.detections[1].update(change)
    boxes = tiny_coco.read_detections()
    assert boxes.instance_ids.tolist() == [0, 2, 3]
    assert {why: n for why, n in boxes.counts.items() if n} == {"read": 4, "kept": 3, reason: 1}


def test_what_nobody_needs_may_be_absent_or_odd_and_keypoints_are_counted_not_believed(tiny_coco):
    tiny_coco.annotation(11).update(segmentation=[[NAN]], track={"id": [[]]}, area=NAN, num_keypoints=0)
    tiny_coco.annotation(12).update(iscrowd=1, keypoints=[])
    assert tiny_coco.read().instance_ids.tolist() == [11, 21, 31]
    for entry in tiny_coco.content["annotations"]:
        for name in ("iscrowd", "num_keypoints", "area"):
            del entry[name]
    tiny_coco.annotation(12)["keypoints"] = tiny_coco.annotation(11)["keypoints"]
    del tiny_coco.content["categories"]
    assert len(tiny_coco.read()) == 4


@pytest.mark.parametrize("annotations", ["none", "crowds"])
def test_nobody_left_is_no_error_here(tiny_coco, annotations):
    for entry in tiny_coco.content["annotations"]:
        entry["iscrowd"] = 1
    if annotations == "none":
        tiny_coco.content["annotations"] = []
    people = tiny_coco.read()
    assert (len(people), people.num_images, people.keypoints_in_image.shape) == (0, 0, (0, 17, 2))


@pytest.fixture
def cats_and_dogs(tiny_coco):
    """Person 11 and detection 0 are dogs (3), the others cats (2); both categories list the skeleton's keypoints."""
    names = list(tiny_coco.skeleton.keypoint_names)
    tiny_coco.content["categories"] = [
        {"id": 2, "name": "cat", "keypoints": names},
        {"id": 3, "name": "dog", "keypoints": names},
        {"id": 4, "name": "bowl"},
    ]
    for number, record in enumerate([*tiny_coco.content["annotations"], *tiny_coco.detections]):
        record["category_id"] = 3 if number in (0, 4) else 2
    return tiny_coco


@pytest.mark.parametrize(
    ("chosen", "kept", "said"),
    [
        (None, [11, 12, 21, 31], "people.json, categories cat, dog together: kept 4 of 4"),
        (["dog"], [11], "people.json, category dog: kept 1 of 4"),
        ([2], [12, 21, 31], "left out: 1 of another category"),
        (["Cat", 3], [11, 12, 21, 31], "categories cat, dog together"),
    ],
)
def test_annotations_and_detections_count_by_one_rule_that_is_said(cats_and_dogs, chosen, kept, said):
    people = cats_and_dogs.read(categories=chosen)
    assert people.instance_ids.tolist() == kept
    assert said in people.summary()
    assert len(cats_and_dogs.read_detections(categories=chosen)) == len(kept)


@pytest.mark.parametrize(
    ("categories", "counted"),
    [
        ([{"id": 5, "name": "Person"}, {"id": 6, "name": "dog"}], {5: "Person"}),
        ([{"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}], {5: "cat", 6: "dog"}),
        ([{"id": 5, "name": "person"}, {"id": 6, "name": "dog", "keypoints": ["nose"]}], {6: "dog"}),
        ([{"id": 5, "keypoints": []}], {5: "5"}),
        ([], {7: "7"}),
    ],
)
def test_without_keypoint_names_the_person_counts_else_all_that_are_listed_or_used(categories, counted):
    listed = [CategoryRecord(**entry) for entry in categories]
    assert counted_categories(listed, [7, 7], Path("a.json"), None) == counted
    assert counted_categories(None, [], Path("a.json"), None) == {1: "1"}  # COCO's person


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (["dgo"], "no category 'dgo'; it lists cat (2), dog (3), bowl (4)"),
        ([True], "no category True"),
        ([], "give names or ids"),
        (["bowl"], "none of its annotations is of a category that counts: they are of 2, 3, and 4 (bowl) counts"),
    ],
)
def test_a_choice_that_the_file_does_not_have_is_an_error_with_its_categories(cats_and_dogs, chosen, expected):
    with pytest.raises(InputError, match=re.escape(expected)) as error:
        cats_and_dogs.read(categories=chosen)
    assert "data.categories" in one_line(error)


def test_categories_with_other_keypoints_are_not_pooled_but_can_be_left_out(cats_and_dogs):
    cats_and_dogs.content["categories"][1]["keypoints"] = ["nose"]
    with pytest.raises(InputError, match=r"keypoint 2 is None in category 3.*data\.categories=\[cat\]"):
        cats_and_dogs.read()
    assert cats_and_dogs.read(categories=["cat"]).instance_ids.tolist() == [12, 21, 31]


def test_detections_of_other_categories_only_are_an_error_naming_both_sides(tiny_coco):
    for record in tiny_coco.detections:
        record["category_id"] = 0
    with pytest.raises(InputError, match=r"they are of 0, and 1 \(person\) counts.* data\.categories"):
        tiny_coco.read_detections()


def spoil(record: dict[str, Any], field: str, value: Any) -> None:
    record.update({field: value})
    if value is ...:
        del record[field]


def assert_refused(file: Path, expected: str, read: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=re.escape(expected)) as error:
        read()
    assert one_line(error).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("bbox", ..., "annotation 12 needs 4 finite numbers in 'bbox': x, y, width, height in pixels; it has none"),
        ("bbox", [1, 2, 3], "annotation 12 needs 4 finite numbers in 'bbox'"),
        ("bbox", [1, 2, 3e9, 4], "annotation 12 needs 4 finite numbers in 'bbox'"),
        ("bbox", [1, NAN, 3, 4], "annotations[1]: Expected `float`, got `null` - at `$.bbox[1]`"),
        ("bbox", [1, 2, INFINITY, 4], "annotations[1]: Expected `float`, got `null` - at `$.bbox[2]`"),
        ("bbox", [1, 2, "3", 4], "annotations[1]: Expected `float`, got `str` - at `$.bbox[2]`"),
        ("bbox", [1, 2, 10**400, 4], "annotations[1]: Number out of range"),
        ("keypoints", ..., "annotation 12 needs 51 finite numbers in 'keypoints'"),
        ("keypoints", [1] * 42, "annotation 12 needs 51 finite numbers in 'keypoints'"),
        ("keypoints", [3] * 51, "visibility (0 not labelled, 1 hidden, 2 visible) of the 17 keypoints of skeleton"),
        ("id", ..., "annotations[1]: Object missing required field `id`"),
        ("id", -1, "annotations[1]: Expected `int` >= 0 - at `$.id`"),
        ("id", 11, "annotation id 11 is given 2 times"),
        ("image_id", 1.5, "annotations[1]: Expected `int`, got `float` - at `$.image_id`"),
        ("image_id", 99, "annotations are in 1 images that the annotation file does not list (image_id 99)"),
        ("iscrowd", None, "got `null` - at `$.iscrowd`"),
    ],
)
def test_a_defect_of_an_annotation_is_named_in_one_line(tiny_coco, field, value, expected):
    spoil(tiny_coco.annotation(12), field, value)
    assert_refused(tiny_coco.annotation_file, expected, tiny_coco.read)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("id", 1, "image id 1 is given 2 times"),
        ("file_name", ..., "image 2 needs file_name, height and width"),
        ("file_name", 7, "Expected `str | null`, got `int` - at `$.images[1].file_name`"),
        ("file_name", "", "image 2 needs file_name, height and width, and has ''"),
        ("file_name", "a\0b", "image 2 needs file_name, height and width, and has 'a\\x00b'"),
        ("file_name", "a/../../x.jpg", "which leaves the image folder"),
        ("file_name", "/etc/passwd", "'/etc/passwd', which leaves the image folder"),
        ("height", ..., "image 2 needs file_name, height and width"),
        ("width", 0, "Expected `int` >= 1 - at `$.images[1].width`"),
        ("width", 2**40, "Expected `int` <= 2147483647 - at `$.images[1].width`"),
    ],
)
def test_a_defect_of_an_image_is_named_in_one_line(tiny_coco, field, value, expected):
    spoil(tiny_coco.content["images"][1], field, value)
    assert_refused(tiny_coco.annotation_file, expected, tiny_coco.read)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda content: content.pop("annotations"), "has no list 'annotations'"),
        (lambda content: content.update(images=[]), "has an empty list 'images'"),
        (lambda content: content["annotations"].append(5), "annotations[4]: Expected `object`, got `int`"),
        (lambda content: content.update(categories=3), "Expected `array | null`, got `int` - at `$.categories`"),
        (lambda content: content["categories"][0]["keypoints"].pop(), "keypoint 17 is None in category 1"),
        (lambda content: content["categories"][0]["keypoints"].reverse(), "keypoint 1 is 'right_ankle' in category 1"),
        (lambda content: content["categories"].append({"id": 1}), "category id 1 is given 2 times"),
    ],
)
def test_a_defect_of_a_file_is_named_in_one_line(tiny_coco, change, expected):
    change(tiny_coco.content)
    assert_refused(tiny_coco.annotation_file, expected, tiny_coco.read)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("score", ..., "Object missing required field `score` - at `$[1]`"),
        ("score", NAN, "Expected `float`, got `null` - at `$[1].score`"),
        ("score", 1e10, "detection number 1 needs a finite number in 'score'; it has [10000000000.0]"),
        ("bbox", [0, 0, 1], "detection number 1 needs 4 finite numbers in 'bbox'"),
        ("image_id", 91, "detections are in 1 images that the annotation file does not list (image_id 91)"),
    ],
)
def test_a_defect_of_a_detection_is_named_in_one_line(tiny_coco, field, value, expected):
    spoil(tiny_coco.detections[1], field, value)
    assert_refused(tiny_coco.detection_file, expected, tiny_coco.read_detections)


@pytest.mark.parametrize(("detections", "expected"), [([], "holds no detections"), ({}, "Expected `array`, got `obj")])
def test_what_is_no_detection_file_is_named_in_one_line(tiny_coco, detections, expected):
    tiny_coco.detections = detections
    assert_refused(tiny_coco.detection_file, expected, tiny_coco.read_detections)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b'{"images": [',
        b"<html>\nnot found</html>",
        b"\xff\xfe\x00",
        b"[]",
        b"{}",
        b'{"images": [{"id": 1e999}]}',
        b'{"images": [{"id": 1, "file_name": "\\ud800"}], "x": NaN}',
        b'{"images": [], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_a_file_that_is_no_annotation_file_is_named_in_one_line(tiny_coco, text):
    tiny_coco.annotation_file.write_bytes(text)
    arguments = (tiny_coco.annotation_file, tiny_coco.images, tiny_coco.skeleton)
    assert_refused(tiny_coco.annotation_file, "not valid COCO JSON (", lambda: read_ground_truth(*arguments))


def test_the_mark_that_windows_puts_in_front_of_utf_8_is_no_defect(tiny_coco):
    tiny_coco.write()
    for file in (tiny_coco.annotation_file, tiny_coco.detection_file):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    arguments = (tiny_coco.annotation_file, tiny_coco.images, tiny_coco.skeleton)
    assert len(read_ground_truth(*arguments)) == 4
    assert len(read_detections(tiny_coco.detection_file, *arguments)) == 4
    assert len(read_json(tiny_coco.annotation_file)["annotations"]) == 4


def test_a_missing_annotation_file_or_image_folder_is_named(tiny_coco, tmp_path):
    tiny_coco.write()
    with pytest.raises(InputError, match=r"none\.json: cannot be read \(No such file or directory\)"):
        read_ground_truth(tmp_path / "none.json", tiny_coco.images, tiny_coco.skeleton)
    with pytest.raises(InputError, match=r"image folder .*nowhere does not exist"):
        read_ground_truth(tiny_coco.annotation_file, tmp_path / "nowhere", tiny_coco.skeleton)


def test_images_may_lie_behind_a_linked_folder_but_no_link_leads_out_of_it(tiny_coco, tmp_path):
    tiny_coco.content["images"][0]["file_name"] = "part/one.jpg"
    tiny_coco.write()
    (tmp_path / "link").symlink_to(tiny_coco.images)
    people = read_ground_truth(tiny_coco.annotation_file, tmp_path / "link", tiny_coco.skeleton)
    assert people.image_path(0) == tiny_coco.images / "part" / "one.jpg"
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"x")
    (tiny_coco.images / "part").mkdir()
    (tiny_coco.images / "part" / "one.jpg").symlink_to(secret)
    with pytest.raises(InputError, match=r"part/one\.jpg: links to a file outside the image folder"):
        people.image_path(0)


def test_the_first_images_keep_their_people_and_count_the_others(tiny_coco):
    people = tiny_coco.read()
    first = people.first_images(2)
    assert first.instance_ids.tolist() == [11, 12, 21]
    assert first.image_ids.tolist() == [1, 2]
    assert len(first.file_names) == len(first.image_heights) == len(first.image_widths) == 2
    assert len(first.boxes_xywh) == len(first.keypoints_in_image) == len(first.visibility) == 3
    assert "kept 3 of 4 annotations in 2 images (left out: 1 after the first 2 images)" in first.summary()
    assert people.first_images(3) is people
    with pytest.raises(InputError, match="the first 0 images"):
        people.first_images(0)


def test_what_coordinates_refer_to_may_be_left_open_but_not_be_said_wrongly(tiny_coco):
    for info in (None, {}, {"image_orientation": None}, "a text", [1]):
        tiny_coco.content["info"] = info
        assert tiny_coco.read().image_orientation is None
    for stated in ("Displayed", "exif", True, ["stored"]):
        tiny_coco.content["info"] = {"image_orientation": stated}
        for read in (tiny_coco.read, tiny_coco.read_detections):
            with pytest.raises(InputError, match=r"people.json: info.image_orientation is .*stored.*displayed"):
                read()
