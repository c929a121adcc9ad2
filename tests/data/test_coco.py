import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uniformer_pose.data.categories import counted_categories
from uniformer_pose.data.coco import read_detections, read_ground_truth
from uniformer_pose.data.coco_json import CategoryRecord, read_json
from uniformer_pose.errors import InputError

COCO_TRAIN = "coco_people_train2017.json"
COCO_VAL = "coco_people_val2017.json"
COCO_BOXES = "coco_mini/person_detection_results/COCO_val2017_detections_AP_H_56_person.json"


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_the_people_of_coco_train_are_read(reference_folder, skeleton):
    people = read_ground_truth(reference_folder / COCO_TRAIN, reference_folder, skeleton)
    assert len(people) == 86
    assert people.counts["read"] == 172
    assert people.counts["crowd"] == 5
    assert people.counts["without labelled keypoint"] == 81
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
    assert len(boxes) == 118
    assert dict(zip(boxes.image_ids.tolist(), boxes.boxes_per_image.tolist(), strict=True)) == {
        785: 22,
        40083: 26,
        196141: 33,
        197388: 37,
    }
    records = json.loads((shared_folder / COCO_BOXES).read_text())
    for index in (0, 60, 117):
        record = records[boxes.instance_ids[index]]
        assert boxes.boxes_xywh[index] == pytest.approx(record["bbox"])
        assert boxes.box_scores[index] == pytest.approx(record["score"])
        assert boxes.image_ids[boxes.image_of_instance[index]] == record["image_id"]
    assert not boxes.visibility.any()


def test_instances_are_arrays_sorted_by_image(tiny_coco):
    tiny_coco.content["annotations"].reverse()
    people = tiny_coco.read()
    assert people.instance_ids.tolist() == [12, 11, 21, 31]
    assert people.image_of_instance.tolist() == [0, 0, 1, 2]
    assert people.boxes_per_image.tolist() == [2, 1, 1]
    assert people.keypoints_in_image.shape == (4, 17, 2)
    assert people.keypoints_in_image.dtype == np.float32
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
        ({"iscrowd": 1}, "crowd"),
        ({"keypoints": [0] * 51}, "without labelled keypoint"),
        ({"keypoints": [5, 5, 0] * 17}, "without labelled keypoint"),
        ({"bbox": [10, 10, 0, 20]}, "with a box without area"),
        ({"bbox": [10, 10, 20, -3]}, "with a box without area"),
        ({"bbox": [300, 10, 20, 20]}, "with a box outside the image"),
        ({"bbox": [10, -40, 20, 40]}, "with a box outside the image"),
        ({"category_id": 2}, "of another category"),
        ({"iscrowd": 1, "keypoints": [0] * 51, "bbox": [0, 0, 0, 0]}, "crowd"),
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


def test_optional_fields_may_be_absent_and_the_number_of_keypoints_is_counted_not_believed(tiny_coco):
    tiny_coco.annotation(11)["num_keypoints"] = 0
    assert len(tiny_coco.read()) == 4
    for entry in tiny_coco.content["annotations"]:
        for name in ("iscrowd", "num_keypoints", "area"):
            del entry[name]
    assert len(tiny_coco.read()) == 4


def test_what_nobody_needs_may_be_odd(tiny_coco):
    tiny_coco.annotation(11).update(segmentation=[[NAN]], track={"id": [[]]}, area=NAN)
    tiny_coco.annotation(12).update(iscrowd=1, keypoints=[])
    assert tiny_coco.read().instance_ids.tolist() == [11, 21, 31]


def test_nobody_left_is_no_error_here(tiny_coco):
    for entry in tiny_coco.content["annotations"]:
        entry["iscrowd"] = 1
    people = tiny_coco.read()
    assert len(people) == 0
    assert people.num_images == 0
    assert people.keypoints_in_image.shape == (0, 17, 2)


def test_without_categories_every_annotation_is_a_person(tiny_coco):
    del tiny_coco.content["categories"]
    tiny_coco.annotation(11)["category_id"] = 7
    assert len(tiny_coco.read()) == 4


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
        (None, [11, 12, 21, 31], "people.json, categories cat, dog as one class: kept 4 of 4"),
        (["dog"], [11], "people.json, category dog: kept 1 of 4"),
        ([2], [12, 21, 31], "left out: 1 of another category"),
        (["Cat", 3], [11, 12, 21, 31], "categories cat, dog as one class"),
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
        ([{"id": 5, "name": "dog", "keypoints": []}], {5: "dog"}),
        ([{"id": 5}], {5: "5"}),
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
        ([9], "no category 9"),
        ([True], "no category True"),
        ([], "give names or ids"),
        (["bowl"], "none of its 4 annotations is of a category that counts: they are of 2, 3"),
    ],
)
def test_a_choice_that_the_file_does_not_have_is_an_error_with_its_categories(cats_and_dogs, chosen, expected):
    with pytest.raises(InputError, match=re.escape(expected)) as error:
        cats_and_dogs.read(categories=chosen)
    assert "data.categories" in one_line(error)


def test_categories_with_other_keypoints_are_not_pooled_but_can_be_left_out(cats_and_dogs):
    cats_and_dogs.content["categories"][1]["keypoints"] = ["nose"]
    with pytest.raises(InputError, match=r"category 3 lists 1 keypoints.*data\.categories=\[cat\]"):
        cats_and_dogs.read()
    assert cats_and_dogs.read(categories=["cat"]).instance_ids.tolist() == [12, 21, 31]


def test_detections_of_other_categories_only_are_an_error_naming_both_sides(tiny_coco):
    for record in tiny_coco.detections:
        record["category_id"] = 0
    with pytest.raises(InputError, match=r"they are of 0, and in people\.json 1 \(person\) counts") as error:
        tiny_coco.read_detections()
    assert "data.categories" in one_line(error)


NAN, INFINITY = float("nan"), float("inf")


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
        ("bbox", ..., "annotation 12 has no 'bbox'"),
        ("keypoints", ..., "annotation 12 has no 'keypoints'"),
        ("image_id", ..., "annotation 12 has no 'image_id'"),
        ("id", ..., "annotation number 2 has no 'id'"),
        ("bbox", [1, NAN, 3, 4], "annotation 12 has nan in 'bbox'; it needs finite"),
        ("bbox", [1, 2, INFINITY, 4], "annotation 12 has inf in 'bbox'"),
        ("bbox", [1, 2, "3", 4], "annotation 12 has '3' in 'bbox'; expected `float`"),
        ("bbox", [1, 2, True, 4], "annotation 12 has True in 'bbox'"),
        ("bbox", [1, 2, 10**400, 4], "annotation 12 has 1000"),
        ("bbox", [1, 2, 3], "annotation 12 has 3 numbers in 'bbox'; it needs 4"),
        ("keypoints", [NAN] + [1] * 50, "annotation 12 has nan in 'keypoints'"),
        ("keypoints", [1] * 42, "has 42 numbers in 'keypoints'; it needs 51 (x, y, visibility of the 17 keypoints of "),
        ("keypoints", [3] * 51, "annotation 12 has a visibility other"),
        ("id", "12", "annotation number 2 has '12' in 'id'; expected `int`"),
        ("id", 0, "annotation number 2 has 0 in 'id'; expected `int` >= 1"),
        ("id", 11, "annotation id 11 is given to 2 annotations"),
        ("image_id", 1.5, "annotation 12 has 1.5 in 'image_id'"),
        ("image_id", 99, "1 annotations are in 1 images that the annotation file does not list (image_id 99)"),
        ("iscrowd", None, "annotation 12 has None in 'iscrowd'"),
        ("iscrowd", -1, "annotation 12 has -1 in 'iscrowd'"),
    ],
)
def test_a_defect_of_an_annotation_is_named_in_one_line(tiny_coco, field, value, expected):
    spoil(tiny_coco.annotation(12), field, value)
    assert_refused(tiny_coco.annotation_file, expected, tiny_coco.read)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("id", 1, "image id 1 is given to 2 images"),
        ("file_name", ..., "image 2 has no 'file_name'"),
        ("height", ..., "image 2 has no 'height'"),
        ("width", 0, "image 2 has 0 in 'width'; expected `int` >= 1"),
        ("width", 2**40, "image 2 has 1099511627776 in 'width'"),
        ("file_name", "", "image 2 has file_name ''"),
        ("file_name", 7, "image 2 has 7 in 'file_name'"),
        ("file_name", "../x.jpg", "'../x.jpg', which leaves the image folder"),
        ("file_name", "a/../../x.jpg", "which leaves the image folder"),
        ("file_name", "/etc/passwd", "'/etc/passwd', which leaves the image folder"),
        ("file_name", "a\0b", "image 2 has file_name 'a\\x00b'"),
    ],
)
def test_a_defect_of_an_image_is_named_in_one_line(tiny_coco, field, value, expected):
    spoil(tiny_coco.content["images"][1], field, value)
    assert_refused(tiny_coco.annotation_file, expected, tiny_coco.read)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda content: content.update(annotations=[]), "has an empty list 'annotations'"),
        (lambda content: content.pop("annotations"), "has no list 'annotations'"),
        (lambda content: content.update(images=[]), "has an empty list 'images'"),
        (lambda content: content["annotations"].append(5), "annotation number 5 is 5; expected `object`"),
        (lambda content: content["images"].append([]), "image number 4 is []; expected `object`"),
        (lambda content: content.update(categories=3), "has 3 in 'categories'; expected `array"),
        (
            lambda content: content["categories"][0]["keypoints"].pop(),
            "category 1 lists 16 keypoints, skeleton coco_17",
        ),
        (lambda content: content["categories"][0]["keypoints"].reverse(), "keypoint 1 is 'right_ankle' in category 1"),
        (lambda content: content["categories"].append({"id": 1}), "category id 1 is given to 2 categories"),
    ],
)
def test_a_defect_of_a_file_is_named_in_one_line(tiny_coco, change, expected):
    change(tiny_coco.content)
    assert_refused(tiny_coco.annotation_file, expected, tiny_coco.read)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("score", ..., "detection number 1 has no 'score'"),
        ("score", NAN, "detection number 1 has nan in 'score'"),
        ("score", "0.5", "detection number 1 has '0.5' in 'score'"),
        ("bbox", [0, 0, INFINITY, 1], "detection number 1 has inf in 'bbox'"),
        ("bbox", ..., "detection number 1 has no 'bbox'"),
        ("image_id", 91, "1 detections are in 1 images that the annotation file does not list (image_id 91)"),
    ],
)
def test_a_defect_of_a_detection_is_named_in_one_line(tiny_coco, field, value, expected):
    spoil(tiny_coco.detections[1], field, value)
    assert_refused(tiny_coco.detection_file, expected, tiny_coco.read_detections)


@pytest.mark.parametrize(
    ("detections", "expected"),
    [
        ([], "holds no detections"),
        ([None], "detection number 0 is None; expected `object`"),
        ({"images": []}, "a detection file is a list of image_id, category_id, bbox and score, not an object"),
    ],
)
def test_what_is_no_detection_file_is_named_in_one_line(tiny_coco, detections, expected):
    tiny_coco.detections = detections
    assert_refused(tiny_coco.detection_file, expected, tiny_coco.read_detections)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "not valid JSON"),
        (b'{"images": [', "not valid JSON"),
        (b"<html>\nnot found</html>", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "an annotation file is an object with images, not a list"),
        (b'{"images": [], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not valid JSON"),
        (b"{}", "has no 'images'"),
        (b'{"images": [{"id": 1e999}]}', "image number 1 has inf in 'id'"),
    ],
)
def test_a_file_that_is_no_annotation_file_is_named_in_one_line(tiny_coco, text, expected):
    tiny_coco.annotation_file.write_bytes(text)
    arguments = (tiny_coco.annotation_file, tiny_coco.images, tiny_coco.skeleton)
    assert_refused(tiny_coco.annotation_file, expected, lambda: read_ground_truth(*arguments))


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


def test_images_may_lie_in_subfolders_and_behind_a_linked_folder(tiny_coco, tmp_path):
    tiny_coco.content["images"][0]["file_name"] = "part/one.jpg"
    tiny_coco.write()
    (tmp_path / "link").symlink_to(tiny_coco.images)
    people = read_ground_truth(tiny_coco.annotation_file, tmp_path / "link", tiny_coco.skeleton)
    assert people.image_path(0) == tiny_coco.images / "part" / "one.jpg"


def test_a_link_out_of_the_image_folder_is_refused(tiny_coco, tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"x")
    name = tiny_coco.content["images"][0]["file_name"]
    (tiny_coco.images / name).unlink()
    (tiny_coco.images / name).symlink_to(secret)
    people = tiny_coco.read()
    with pytest.raises(InputError, match="links to a file outside the image folder") as error:
        people.image_path(0)
    assert str(tiny_coco.images / name) in one_line(error)


def test_the_first_images_keep_their_people_and_count_the_others(tiny_coco):
    people = tiny_coco.read()
    first = people.first_images(2)
    assert first.instance_ids.tolist() == [11, 12, 21]
    assert first.image_ids.tolist() == [1, 2]
    assert len(first.file_names) == len(first.image_heights) == len(first.image_widths) == 2
    assert len(first.boxes_xywh) == len(first.keypoints_in_image) == len(first.visibility) == 3
    assert first.summary() == (
        "people.json, category person: kept 3 of 4 annotations in 2 images (left out: 1 after the first 2 images)"
    )
    assert people.first_images(3) is people
    with pytest.raises(InputError, match="the first 0 images"):
        people.first_images(0)


@pytest.mark.parametrize("info", [None, {}, {"image_orientation": None}, "a text", [1]])
def test_a_file_may_leave_open_what_its_coordinates_refer_to(tiny_coco, info):
    tiny_coco.content["info"] = info
    assert tiny_coco.read().image_orientation is None


@pytest.mark.parametrize("stated", ["Displayed", "exif", True, 6, ["stored"]])
def test_an_orientation_that_is_none_is_refused(tiny_coco, stated):
    tiny_coco.content["info"] = {"image_orientation": stated}
    with pytest.raises(InputError, match=r"people.json: info.image_orientation is .*stored.*displayed"):
        tiny_coco.read()
    with pytest.raises(InputError, match=r"people.json: info.image_orientation"):
        tiny_coco.read_detections()
