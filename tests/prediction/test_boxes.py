"""Boxes from a file reach the pictures they belong to, and what is no box is counted."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uniformer_pose.errors import InputError
from uniformer_pose.prediction.boxes import DetectedBoxes, FullPictures, ListedBoxes, boxes_of_file
from uniformer_pose.prediction.detection import PersonBoxes, kept_boxes

PICTURE = np.zeros((40, 60, 3), dtype=np.uint8)


def written(folder: Path, content: Any) -> Path:
    path = folder / "boxes.json"
    path.write_text(json.dumps(content))
    return path


def annotations(*entries: dict[str, Any]) -> dict[str, Any]:
    images = [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "sub/b.jpg"}]
    people = [{"category_id": 1, "iscrowd": 0, **entry} for entry in entries]
    return {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}


def test_annotations_name_their_pictures(tmp_path: Path) -> None:
    content = annotations({"image_id": 7, "bbox": [1, 2, 3, 4]}, {"image_id": 7, "bbox": [5, 6, 7, 8]})
    boxes = boxes_of_file(written(tmp_path, content))
    found = boxes.of_picture("a.jpg")
    assert found is not None
    assert found.boxes.boxes_xywh.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert found.boxes.scores.tolist() == [1, 1]
    assert found.number == 7


def test_a_listed_picture_without_people_has_nobody_and_an_unlisted_one_is_told_apart(tmp_path: Path) -> None:
    boxes = boxes_of_file(written(tmp_path, annotations({"image_id": 7, "bbox": [1, 2, 3, 4]})))
    listed = boxes.of_picture("sub/b.jpg")
    assert listed is not None
    assert len(listed.boxes) == 0
    assert listed.number == 9
    assert boxes.of_picture("c.jpg") is None
    finder = ListedBoxes(boxes)
    assert [len(found) for found in finder(["a.jpg", "c.jpg", "sub/b.jpg"], [PICTURE] * 3)] == [1, 0, 0]
    assert finder.remarks() == [f"{boxes.file} does not list 1 pictures, first c.jpg"]


def test_detections_know_pictures_by_number_as_coco_names_them(tmp_path: Path) -> None:
    content = [{"image_id": 139, "bbox": [1, 2, 3, 4], "score": 0.5, "category_id": 1}]
    boxes = boxes_of_file(written(tmp_path, content))
    for name in ("000000000139.jpg", "139.png", "val/000000000139.jpg"):
        found = boxes.of_picture(name)
        assert found is not None
        assert found.boxes.scores.tolist() == [0.5]
    assert boxes.of_picture("140.jpg") is None
    assert boxes.of_picture("person.jpg") is None


def test_detections_may_say_the_name(tmp_path: Path) -> None:
    boxes = boxes_of_file(written(tmp_path, [{"file_name": "x/y.jpg", "bbox": [1, 2, 3, 4], "score": 0.5}]))
    assert boxes.of_picture("x/y.jpg") is not None
    assert boxes.of_picture("y.jpg") is None


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"bbox": [1, 2, 3, 4], "category_id": 3}, "of another category"),
        ({"bbox": [1, 2, 3, 4], "iscrowd": 1}, "crowds"),
        ({"bbox": [1, 2, 0, 4]}, "without a usable box"),
        ({"bbox": [1, 2, -3, 4]}, "without a usable box"),
        ({"bbox": [1, 2, 3]}, "without a usable box"),
        ({"bbox": "no"}, "without a usable box"),
        ({}, "without a usable box"),
        ({"bbox": [1, 2, float("nan"), 4]}, "without a usable box"),
        ({"bbox": [1, 2, float("inf"), 4]}, "without a usable box"),
        ({"bbox": [1, 2, 1e12, 4]}, "without a usable box"),
        ({"bbox": [1, 2, 3, 4], "score": float("nan")}, "without a usable box"),
        ({"bbox": [True, 2, 3, 4]}, "without a usable box"),
    ],
)
def test_what_is_no_box_is_left_out_and_counted(tmp_path: Path, entry: dict[str, Any], reason: str) -> None:
    good = {"image_id": 7, "bbox": [1, 2, 3, 4]}
    boxes = boxes_of_file(written(tmp_path, annotations(good, {"image_id": 7, **entry})))
    assert boxes.left_out == {reason: 1}
    assert boxes.summary().endswith(f"boxes.json: 1 boxes on 2 pictures (left out: 1 {reason})")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("3", "neither COCO annotations nor a list of detections"),
        ("{}", "has no lists of images and annotations"),
        ('{"images": [3], "annotations": []}', "image 0 of the list has no id and file_name"),
        ("[3]", "entry 0 is a int"),
        ('[{"bbox": [1, 2, 3, 4]}]', "entry 0 does not say its picture"),
        ('[{"image_id": [1], "bbox": [1, 2, 3, 4]}]', "entry 0 does not say its picture"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_file_of_something_else_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        boxes_of_file(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("said", ["im_01", "im_01.jpg", "sub/im_01.jpg", "sub/im_01"])
def test_detections_may_say_the_name_with_or_without_its_ending_and_folder(tmp_path: Path, said: str) -> None:
    boxes = boxes_of_file(written(tmp_path, [{"image_id": said, "bbox": [1, 2, 3, 4], "score": 0.5}]))
    found = boxes.of_picture("sub/im_01.jpg")
    assert found is not None
    assert len(found.boxes) == 1
    assert boxes.of_picture("im_012.jpg") is None


@pytest.mark.parametrize("image_id", [139, 139.0, "139", "000000000139"])
def test_a_number_is_one_however_it_is_written(tmp_path: Path, image_id: object) -> None:
    boxes = boxes_of_file(written(tmp_path, [{"image_id": image_id, "bbox": [1, 2, 3, 4], "category_id": "1"}]))
    assert boxes.of_picture("000000000139.jpg") is not None
    content = {"images": [{"id": str(image_id), "file_name": "a.jpg"}], "annotations": []}
    content["annotations"] = [{"image_id": image_id, "bbox": [1, 2, 3, 4], "category_id": 1.0}]
    if image_id != 139.0 or isinstance(image_id, str):
        assert boxes_of_file(written(tmp_path, content)).of_picture("a.jpg") is not None


@pytest.mark.parametrize("category", [0, 18])
def test_boxes_of_another_category_are_an_error_until_it_is_chosen(tmp_path: Path, category: int) -> None:
    path = written(tmp_path, [{"image_id": "a", "bbox": [1, 2, 3, 4], "category_id": category}] * 3)
    with pytest.raises(InputError, match=rf"0 boxes.*3 of another category.*{category} \(3 boxes\).*boxes_category="):
        boxes_of_file(path)
    boxes = boxes_of_file(path, categories=[category])
    assert boxes.num_boxes == 3
    assert list(boxes.categories) == [category]
    with pytest.raises(InputError, match="boxes_category"):
        boxes_of_file(path, categories=["dog"])  # a list of detections has no names


def test_a_category_of_annotations_is_chosen_by_its_name(tmp_path: Path) -> None:
    content = annotations(
        {"image_id": 7, "bbox": [1, 2, 3, 4], "category_id": 18}, {"image_id": 7, "bbox": [1, 2, 3, 4]}
    )
    content["categories"] = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    assert boxes_of_file(written(tmp_path, content)).left_out == {"of another category": 1}
    assert list(boxes_of_file(written(tmp_path, content), categories=["Dog"]).categories) == [18]


def test_boxes_that_meet_no_picture_of_the_source_are_an_error(tmp_path: Path) -> None:
    boxes = boxes_of_file(written(tmp_path, annotations({"image_id": 7, "bbox": [1, 2, 3, 4]})))
    boxes.require_boxes_on(["a.jpg", "c.jpg"])
    with pytest.raises(InputError, match=r"lists none of the 2 pictures of the source, such as c.jpg; it lists a.jpg"):
        boxes.require_boxes_on(["c.jpg", "d.jpg"])
    with pytest.raises(InputError, match="no box on the 1 pictures"):
        boxes.require_boxes_on(["sub/b.jpg", "c.jpg"])


def test_a_name_that_may_be_either_of_two_pictures_is_an_error(tmp_path: Path) -> None:
    boxes = boxes_of_file(written(tmp_path, [{"image_id": 1, "bbox": [1, 2, 3, 4]}]))
    with pytest.raises(InputError, match=r"1 may be train/1.jpg or val/001.jpg"):
        boxes.require_boxes_on(["train/1.jpg", "val/001.jpg"])


def test_annotations_of_pictures_that_are_not_listed_are_counted(tmp_path: Path) -> None:
    content = annotations({"image_id": 7, "bbox": [1, 2, 3, 4]}, {"image_id": 8, "bbox": [1, 2, 3, 4]})
    assert boxes_of_file(written(tmp_path, content)).left_out == {"of a picture that is not listed": 1}


def test_a_file_says_what_its_boxes_refer_to_and_how_large_its_pictures_are(tmp_path: Path) -> None:
    content = annotations({"image_id": 7, "bbox": [1, 2, 3, 4]})
    content["images"][0] |= {"height": 40, "width": 60}
    silent = boxes_of_file(written(tmp_path, content))
    assert (silent.orientation, silent.assumed) == (None, "stored")
    content["info"] = {"image_orientation": "displayed"}
    boxes = boxes_of_file(written(tmp_path, content))
    picture = boxes.of_picture("a.jpg")
    assert boxes.orientation == "displayed"
    assert picture is not None
    assert (picture.height, picture.width) == (40, 60)
    detections = boxes_of_file(written(tmp_path, [{"image_id": 7, "bbox": [1, 2, 3, 4]}]))
    assert (detections.orientation, detections.assumed) == (None, "displayed")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent.json: cannot be read"):
        boxes_of_file(tmp_path / "absent.json")


def test_a_full_picture_is_one_person() -> None:
    (found,) = FullPictures()(["a"], [PICTURE])
    assert found.boxes_xywh.tolist() == [[0, 0, 60, 40]]


def test_detected_boxes_are_filtered_and_their_loss_is_told() -> None:
    people = PersonBoxes(
        np.array([[0.0, 0, 20, 30], [1, 1, 20, 30], [0, 0, 2, 2], [30, 0, 20, 30]]), np.array([0.9, 0.8, 0.9, 0.1])
    )
    finder = DetectedBoxes(lambda images: [people] * len(images), partial(kept_boxes, min_score=0.3))
    (found,) = finder(["a"], [PICTURE])
    assert found.scores.tolist() == [0.9]
    assert finder.remarks() == ["detector: kept 1 boxes (left out: 1 low score, 1 too small, 1 overlap)"]
