"""What is plain to a person is converted, counted and said; a point is lost rather than a person."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uniformer_pose.data.coco import read_ground_truth
from uniformer_pose.data.conversion.coco_keypoints import read_coco_keypoints
from uniformer_pose.data.conversion.plain_values import Repairs, plain_id, plain_number, usable_box, usable_keypoints
from uniformer_pose.data.conversion.source import ConversionSettings
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import load_skeleton

NAN = math.nan
BOX = np.array([5.0, 5, 30, 30])


@pytest.fixture
def cats(tmp_path: Path, picture: Callable[..., Path], write: Callable[..., Any]) -> Callable[..., Any]:
    """Converts a file of two pictures with a cat in each, the first changed, and returns what training reads of it."""
    folder = tmp_path / "source"
    for name in ("a.png", "b.png"):
        picture(folder / name, 40, 80)

    def convert(
        annotation: dict[str, Any] | None = None, top: dict[str, Any] | None = None, **settings: Any
    ) -> tuple[Any, dict[str, int]]:
        cat = {"category_id": 3, "bbox": [5, 5, 30, 30], "area": 400, "keypoints": [10, 11, 2, 20, 21, 1, 30, 31, 2]}
        content: dict[str, Any] = {
            "categories": [{"id": 3, "name": "cat", "keypoints": ["nose", "left_ear", "right_ear"]}],
            "images": [{"id": n, "file_name": f"{letter}.png"} for n, letter in ((7, "a"), (8, "b"))],
            "annotations": [{**cat, "id": 1, "image_id": 7, **(annotation or {})}, {**cat, "id": 2, "image_id": 8}],
            **(top or {}),
        }
        (folder / "cats.json").write_text(json.dumps(content))
        asked = {"val_source": folder / "cats.json", **settings}
        dataset = read_coco_keypoints(folder / "cats.json", ConversionSettings(name="cats", **asked))
        summary = write(dataset, overwrite=True)
        converted = tmp_path / "converted"
        skeleton = load_skeleton(converted / "skeleton.yaml")
        people = read_ground_truth(converted / "annotations/train.json", converted / "images/train", skeleton)
        assert all(f"note: {count} {repair}" in summary.text() for repair, count in summary.repairs.items())
        return people, {repair: count // 2 for repair, count in summary.repairs.items()}  # both splits hold the file

    return convert


@pytest.mark.parametrize(
    ("given", "becomes", "told"),
    [
        (None, 0, "no number"),
        (NAN, 0, "no number"),
        ("", 0, "no number"),
        ([2], 0, "no number"),
        (-1, 0, "below 0"),
        (3, 0, "above 2"),
        (True, 2, "true and false"),
        (False, 0, "true and false"),
        ("2", 2, None),
        ("1.0", 1, None),
        (1.0, 1, None),
        (0.4, 0, "confidences below 0.5"),
    ],
)
def test_a_visibility_of_any_kind_unlabels_at_most_its_point(
    cats: Callable[..., Any], given: Any, becomes: int, told: str | None
) -> None:
    people, repairs = cats({"keypoints": [10, 11, given, 20, 21, 2, 30, 31, 2]})
    assert people.visibility.tolist()[0] == [becomes, 2, 2]
    assert sum(count for repair, count in repairs.items() if told is not None and told in repair) == (told is not None)
    assert told is not None or repairs == {}


def test_confidences_are_labels_from_a_threshold_on(cats: Callable[..., Any]) -> None:
    confidences = {"keypoints": [10, 11, 0.93, 20, 21, 0.4, 30, 31, 0]}
    people, repairs = cats(confidences)
    assert people.visibility.tolist()[0] == [2, 0, 0]
    assert repairs["confidences of at least 0.5 read as visible"] == 1
    assert repairs["confidences below 0.5 read as not labelled"] == 1
    people, repairs = cats(confidences, min_confidence=0.3)
    assert people.visibility.tolist()[0] == [2, 2, 0]


@pytest.mark.parametrize(
    ("x", "y"), [(NAN, 11), (None, 11), ("x", 11), (10, math.inf), (10, 1e30), (10**400, 11), (True, 11), (83.44, 11)]
)
def test_a_point_without_place_in_the_picture_is_unlabelled(cats: Callable[..., Any], x: Any, y: Any) -> None:
    people, repairs = cats({"keypoints": [x, y, 2, 20, 21, 2, 30, 31, 2]})
    assert people.visibility.tolist()[0] == [0, 2, 2]
    assert people.keypoints_in_image[0, 0].tolist() == [0, 0]
    assert sum(repairs.values()) == 1


@pytest.mark.parametrize(
    ("keypoints", "visibility"),
    [
        ([[10, 11, 2], [20, 21, 1], [30, 31, 0]], [2, 1, 0]),
        ([10, 11, 0, 0, 30, 31], [2, 0, 2]),
        (["10", "11", "2", "20.5", "21", "1", "30", "31", "0"], [2, 1, 0]),
    ],
)
def test_keypoints_in_other_shapes_are_read(cats: Callable[..., Any], keypoints: Any, visibility: list[int]) -> None:
    people, _ = cats({"keypoints": keypoints})
    assert people.visibility.tolist()[0] == visibility
    assert people.keypoints_in_image[0, 0].tolist() == [10, 11]


@pytest.mark.parametrize("nothing", [[], None])
def test_no_keypoints_are_a_person_without_labels(cats: Callable[..., Any], nothing: Any) -> None:
    people, repairs = cats({"keypoints": nothing})
    assert people.counts["without labelled keypoint"] == 1
    assert len(people) == 1
    assert any("without keypoints" in repair for repair in repairs)


@pytest.mark.parametrize(
    "box", [None, [], [5, 5, 0, 0], [5, 5, NAN, 4], [1, 2, 3], "none", [500, 5, 10, 10], [5, 5, -4, 3], [NAN] * 4]
)
def test_where_no_box_can_be_used_one_is_drawn_and_counted(cats: Callable[..., Any], box: Any) -> None:
    people, repairs = cats({"bbox": box})
    assert people.boxes_xywh[0].tolist() == pytest.approx([8, 9, 24, 24])
    assert len(people) == 2
    assert [count for repair, count in repairs.items() if "boxes drawn" in repair] == [1]


@pytest.mark.parametrize(
    ("image_ids", "of_first", "of_second"),
    [(("7", "8"), "7", 8), ((7.0, 8.0), 7, 8.0), (("a", "b"), "a", "b"), (("7.0", 8), 7.0, "8")],
)
def test_ids_may_be_text_or_have_a_decimal_point(
    cats: Callable[..., Any], image_ids: Any, of_first: Any, of_second: Any
) -> None:
    top = {
        "images": [{"id": i, "file_name": name} for i, name in zip(image_ids, ("a.png", "b.png"), strict=True)],
        "categories": [{"id": "1", "name": "cat", "keypoints": ["nose", "left_ear", "right_ear"]}],
        "annotations": [
            {"id": f"{n}", "image_id": i, "category_id": c, "bbox": [1, 2, 30, 30], "keypoints": [10 * n, 11, 2] * 3}
            for n, (i, c) in enumerate(((of_first, 1.0), (of_second, "1")), start=1)
        ],
    }
    people, repairs = cats(top=top)
    assert people.keypoints_in_image[:, 0, 0].tolist() == [10, 20]
    assert people.file_names.tolist() == ["a.png", "b.png"]
    assert people.image_ids.tolist() == ([1, 2] if image_ids == ("a", "b") else [7, 8])
    assert any("ids written as text" in repair for repair in repairs)


@pytest.mark.parametrize("crowd", ["0", None, 0.0, False, "", "no"])
def test_who_is_no_crowd_is_no_crowd_afterwards(cats: Callable[..., Any], crowd: Any) -> None:
    assert len(cats({"iscrowd": crowd})[0]) == 2


@pytest.mark.parametrize("crowd", ["1", 1.0, True])
def test_a_crowd_is_one_however_it_is_written(cats: Callable[..., Any], crowd: Any) -> None:
    assert cats({"iscrowd": crowd})[0].counts["crowd"] == 1


def test_absolute_names_inside_the_image_folder_are_read(cats: Callable[..., Any], tmp_path: Path) -> None:
    names = [str((tmp_path / "source/a.png").resolve()), "C:\\Users\\me\\images\\b.png"]
    people, repairs = cats(
        top={"images": [{"id": n, "file_name": name} for n, name in zip((7, 8), names, strict=True)]}
    )
    assert people.file_names.tolist() == ["a.png", "b.png"]
    assert sum(count for repair, count in repairs.items() if "file names" in repair) == 2


@pytest.mark.parametrize(
    "categories",
    [
        [{"id": 3, "name": "cat"}],
        [{"id": 3, "supercategory": "animal"}],
        [],
        None,
        [{"id": 3, "name": "cat", "keypoints": []}],
    ],
)
def test_a_given_skeleton_names_the_keypoints_of_a_category_without(
    cats: Callable[..., Any], fields_of_three: Path, categories: Any
) -> None:
    people, _ = cats(top={"categories": categories}, skeleton=load_skeleton(fields_of_three))
    assert people.keypoints_in_image[0].tolist() == [[10, 11], [20, 21], [30, 31]]


def test_names_of_keypoints_may_be_one_text(cats: Callable[..., Any]) -> None:
    people, _ = cats(top={"categories": [{"id": 3, "name": "cat", "keypoints": "nose, left_ear,right_ear"}]})
    assert people.visibility.tolist()[0] == [2, 1, 2]


def test_a_given_skeleton_brings_keypoints_into_its_order(cats: Callable[..., Any], fields_of_three: Path) -> None:
    categories = [{"id": 3, "name": "cat", "keypoints": ["Left Ear", "NOSE", "right-ear"]}]
    people, _ = cats(top={"categories": categories}, skeleton=load_skeleton(fields_of_three))
    assert people.keypoints_in_image[0].tolist() == [[20, 21], [10, 11], [30, 31]]


def test_categories_with_the_same_keypoints_are_converted_together_unless_one_is_chosen(
    cats: Callable[..., Any],
) -> None:
    names = ["nose", "left_ear", "right_ear"]
    two = [{"id": i, "name": name, "keypoints": names} for i, name in ((3, "cat"), (4, "dog"))]
    assert len(cats({"category_id": 4}, {"categories": two})[0]) == 2


@pytest.mark.parametrize(("value", "number"), [("12.5", 12.5), (" 3 ", 3), ("1e3", 1000), (4, 4)])
def test_numbers_in_text_are_numbers(value: object, number: float) -> None:
    assert plain_number(value) == number


@pytest.mark.parametrize("value", ["", "x", "nan", "inf", "1,5", "1e999", None, [], True, 10**400, {}])
def test_what_is_no_number_is_none(value: object) -> None:
    assert math.isnan(plain_number(value))


@pytest.mark.parametrize(
    ("value", "found"),
    [(7, 7), ("7", 7), (7.0, 7), (" 7.0", 7), ("a7", "a7"), (7.5, None), (None, None), (True, None), ("", None)],
)
def test_ids_are_whole_numbers_or_words(value: object, found: object) -> None:
    assert plain_id(value, Repairs()) == found


def test_who_has_all_points_outside_the_picture_is_refused_with_the_first() -> None:
    keypoints = np.array([[500.0, 20, 2], [600, 30, 1], [0, 0, 0]])
    with pytest.raises(InputError, match=r"all of its 2 labelled keypoints .* x 500, y 20"):
        usable_keypoints(keypoints, 40, 80, min_confidence=0.5, repairs=Repairs())


def test_a_drawn_box_has_a_margin_and_stays_in_the_picture() -> None:
    nothing = np.full(4, NAN)
    keypoints = np.array([[10.0, 20, 2], [30, 60, 1], [500, 500, 0]])
    assert usable_box(nothing, keypoints, 100, 100, margin=0.1, repairs=Repairs()).tolist() == [6, 16, 28, 48]
    assert usable_box(nothing, keypoints, 62, 31, margin=0.1, repairs=Repairs()).tolist() == [6, 16, 25, 46]


def test_a_box_needs_two_places_and_who_has_none_at_all_is_left_out_and_counted() -> None:
    nothing, repairs = np.full(4, NAN), Repairs()
    with pytest.raises(InputError, match="1 labelled keypoints, around which none can be drawn"):
        usable_box(nothing, np.array([[1.0, 2, 2], [0, 0, 0]]), 40, 80, margin=0.1, repairs=repairs)
    assert usable_box(nothing, np.zeros((2, 3)), 40, 80, margin=0.1, repairs=repairs) is None
    assert repairs.total() == 1
