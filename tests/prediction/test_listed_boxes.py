"""Boxes from a file reach the pictures they belong to, and what is no box is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uniformer_pose.errors import InputError
from uniformer_pose.prediction.listed_boxes import ListedBoxes, listed_boxes_for, read_listed_boxes
from uniformer_pose.prediction.sources import Source, SourceItem

PICTURE = np.zeros((40, 60, 3), dtype=np.uint8)
BOX = [1, 2, 3, 4]


def read(folder: Path, content: Any, *names: str, **categories: Any) -> ListedBoxes:
    path = folder / "boxes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_listed_boxes(path, names or ["a.jpg"], **categories)


def annotations(*entries: dict[str, Any]) -> dict[str, Any]:
    images = [{"id": 7, "file_name": "a.jpg", "height": 40, "width": 60}, {"id": 9, "file_name": "sub/b.jpg"}]
    people = [{"category_id": 1, "iscrowd": 0, "image_id": 7, **entry} for entry in entries]
    return {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}


def counts(boxes: ListedBoxes, *names: str) -> list[int]:
    return [len(found) for found in boxes(names, [PICTURE] * len(names))]


def test_annotations_name_their_pictures_and_say_their_ids_and_sizes(tmp_path: Path) -> None:
    boxes = read(tmp_path, annotations({"bbox": BOX}, {"bbox": [5, 6, 7, 8]}), "a.jpg", "sub/b.jpg", "c.jpg")
    (found,) = boxes(["a.jpg"], [PICTURE])
    assert (found.boxes_xywh.tolist(), found.scores.tolist()) == ([BOX, [5, 6, 7, 8]], [1, 1])
    assert boxes.ids == {"a.jpg": 7, "sub/b.jpg": 9}
    assert boxes.sizes == {"a.jpg": (40, 60)}


def test_a_listed_picture_without_people_has_nobody_and_an_unlisted_one_is_told_apart(tmp_path: Path) -> None:
    boxes = read(tmp_path, annotations({"bbox": BOX}), "a.jpg", "c.jpg", "sub/b.jpg")
    assert counts(boxes, "a.jpg", "c.jpg", "sub/b.jpg") == [1, 0, 0]
    assert boxes.remarks()[1].endswith("boxes.json does not list 1 pictures, first c.jpg")


@pytest.mark.parametrize("image_id", [139, 139.0, "139", "000000000139"])
def test_detections_know_pictures_by_number_however_it_is_written(tmp_path: Path, image_id: Any) -> None:
    for name in ("000000000139.jpg", "139.png", "val/000000000139.jpg"):
        names = (name, "140.jpg", "person.jpg")
        boxes = read(tmp_path, [{"image_id": image_id, "bbox": BOX, "score": 0.5, "category_id": 1}], *names)
        assert counts(boxes, *names) == [1, 0, 0]
        assert boxes.ids == {name: 139}


@pytest.mark.parametrize("said", ["im_01", "im_01.jpg", "sub/im_01.jpg", "sub/im_01"])
def test_detections_may_say_the_name_with_or_without_its_ending_and_folder(tmp_path: Path, said: str) -> None:
    for key in ("image_id", "file_name"):
        boxes = read(tmp_path, [{key: said, "bbox": BOX, "score": 0.5}], "sub/im_01.jpg", "im_012.jpg")
        assert counts(boxes, "sub/im_01.jpg", "im_012.jpg") == [1, 0]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"bbox": BOX, "category_id": 3}, "of another category"),
        ({"bbox": BOX, "image_id": 8}, "of no listed picture"),
        ({"bbox": BOX, "iscrowd": 1}, "crowds"),
        *(({"bbox": box}, "without a usable box") for box in ([1, 2, 0, 4], [1, 2, 3, -4], [1, 2, 3], "no", None)),
        *(({"bbox": [1, 2, odd, 4]}, "without a usable box") for odd in (float("nan"), float("inf"), 1e12, True)),
        ({}, "without a usable box"),
        ({"bbox": BOX, "score": float("nan")}, "without a usable box"),
    ],
)
def test_what_is_no_box_is_left_out_and_counted(tmp_path: Path, entry: dict[str, Any], reason: str) -> None:
    boxes = read(tmp_path, annotations({"bbox": BOX}, entry))
    assert boxes.remarks()[0].endswith(f"boxes.json: 1 boxes on 2 pictures (left out: 1 {reason})")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("3", "neither COCO annotations nor a list of detections"),
        ("{}", "neither COCO annotations nor a list of detections"),
        ('{"annotations": []}', "no list 'images'"),
        ('{"images": [3], "annotations": []}', "image number 1"),
        ('{"images": [{"id": 3}], "annotations": []}', "no file_name"),
        ("[3]", "nobody to pose"),
        ("[]", "nobody to pose"),
        ('[{"bbox": [1, 2, 3, 4]}]', "1 of no listed picture"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_file_of_something_else_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        read(tmp_path, text)
    assert str(raised.value).startswith(f"{tmp_path / 'boxes.json'}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("category", [0, 18])
def test_boxes_of_another_category_are_an_error_until_it_is_chosen(tmp_path: Path, category: int) -> None:
    content = [{"image_id": "a", "bbox": BOX, "category_id": category}] * 3
    with pytest.raises(InputError, match=rf"0 boxes.*3 of another category.*{category} \(3 boxes\).*boxes_category="):
        read(tmp_path, content)
    boxes = read(tmp_path, content, categories=[category])
    assert (counts(boxes, "a.jpg"), list(boxes.categories)) == ([3], [category])
    with pytest.raises(InputError, match="boxes_category"):
        read(tmp_path, content, categories=["dog"])  # a list of detections has no names


def test_a_category_of_annotations_is_chosen_by_its_name(tmp_path: Path) -> None:
    content = annotations({"bbox": BOX, "category_id": 18}, {"bbox": BOX})
    content["categories"].append({"id": 18, "name": "dog"})
    assert "(left out: 1 of another category)" in read(tmp_path, content).remarks()[0]
    assert list(read(tmp_path, content, categories=["Dog"]).categories) == [18]


def test_a_file_says_what_its_boxes_refer_to(tmp_path: Path) -> None:
    content = annotations({"bbox": BOX})
    silent = read(tmp_path, content)
    assert (silent.orientation, silent.assumed) == (None, "stored")
    assert read(tmp_path, content | {"info": {"image_orientation": "displayed"}}).orientation == "displayed"
    assert read(tmp_path, [{"image_id": "a", "bbox": BOX}]).assumed == "displayed"


def test_boxes_that_do_not_fit_the_source_are_an_error(tmp_path: Path) -> None:
    content = annotations({"bbox": BOX})
    with pytest.raises(InputError, match=r"lists none of the 2 pictures of the source, such as .*c.jpg.*lists a.jpg"):
        read(tmp_path, content, "c.jpg", "d.jpg")
    with pytest.raises(InputError, match="no box on the 1 pictures"):
        read(tmp_path, content, "sub/b.jpg", "c.jpg")
    with pytest.raises(InputError, match=r"1 may be train/1.jpg or val/001.jpg"):
        read(tmp_path, [{"image_id": 1, "bbox": BOX}], "train/1.jpg", "val/001.jpg")
    video = Source((SourceItem(Path("a.mp4"), "a.mp4"),), {}, {})
    with pytest.raises(InputError, match="not of videos"):
        listed_boxes_for(video, "boxes.json", None)
    with pytest.raises(InputError, match=r"boxes_category=cat: .*give boxes=<file>"):
        listed_boxes_for(video, "full", "cat")
    with pytest.raises(InputError, match=r"absent.json: cannot be read"):
        read_listed_boxes(tmp_path / "absent.json", ["a.jpg"])
