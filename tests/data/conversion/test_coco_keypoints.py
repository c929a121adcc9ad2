"""COCO JSON with other keypoints: what is plain is converted and counted; a point is lost rather than a person."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from uniformer_pose.data.coco import read_ground_truth
from uniformer_pose.data.conversion.coco_keypoints import read_coco_keypoints
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton, load_skeleton

NAN = math.nan
CAT = {"category_id": 3, "bbox": [5, 5, 30, 30], "area": 400, "keypoints": [10, 11, 2, 20, 21, 1, 30, 31, 2]}
NAMES = ["nose", "left_ear", "right_ear"]


@pytest.fixture
def cats(tmp_path: Path, picture: Callable[..., Path], convert: Callable[..., Any]) -> Callable[..., Any]:
    """Converts a file of two pictures with a cat in each, the first changed; it is for training and validation."""
    folder = tmp_path / "source"
    for name in ("a.png", "b.png"):
        picture(folder / name)

    def run(
        annotation: dict[str, Any] | None = None,
        image: dict[str, Any] | None = None,
        val: dict[str, Any] | None = None,
        **given: Any,
    ) -> Any:
        content: dict[str, Any] = {
            "categories": [{"id": 3, "name": "cat", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]}],
            "images": [{"id": n, "file_name": f"{letter}.png"} for n, letter in ((7, "a"), (8, "b"))],
            "annotations": [{**CAT, "id": 1, "image_id": 7, **(annotation or {})}, {**CAT, "id": 2, "image_id": 8}],
            **{key: given.pop(key) for key in ("categories", "images", "annotations", "info") if key in given},
        }
        content["images"][0].update(image or {})
        if "only" in given:
            given["categories"] = given.pop("only")
        (folder / "cats.json").write_text(json.dumps(content))
        (folder / "val.json").write_text(json.dumps({**content, **(val or {})}))
        return convert(read_coco_keypoints, folder / "cats.json", **{"val_source": folder / "val.json", **given})

    return run


def repairs_of(converted: Any) -> dict[str, int]:
    """Of one split: both hold the file."""
    return {repair: times // 2 for repair, times in (+converted.log.repairs).items()}


def test_the_category_gives_the_skeleton_and_people_keep_what_they_have(cats: Callable[..., Any]) -> None:
    other = {"id": 23, "image_id": 8, "category_id": 4, "bbox": [1, 2, 3, 4]}
    cat = {**CAT, "id": 21, "image_id": 7, "num_keypoints": 9, "segmentation": [[1, 2, 3, 4, 5, 6]]}
    crowd = {**CAT, "id": 22, "image_id": 8, "area": None, "iscrowd": 1}
    converted = cats(
        categories=[{"id": 3, "name": "cat", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]}, {"id": 4}],
        annotations=[cat, crowd, other],
    )
    assert converted.skeleton.keypoint_names == tuple(NAMES)
    assert converted.skeleton.left_right_pairs == (("left_ear", "right_ear"),)
    assert converted.skeleton.limb_indices.tolist() == [[0, 1], [0, 2]]
    assert any("1 annotations of other categories are not converted" in note for note in converted.log.notes)
    content = converted.content()
    assert content["categories"][0]["name"] == "cat"
    assert content["info"]["image_orientation"] == "displayed"
    first, second = content["annotations"]
    kept = {"id": 21, "image_id": 7, "category_id": 1, "iscrowd": 0, "num_keypoints": 3}
    assert first == {**CAT, **kept, "segmentation": [[1, 2, 3, 4, 5, 6]]}
    assert (second["iscrowd"], second["area"]) == (1, pytest.approx(0.53 * 900))


def test_keypoints_of_a_second_file_and_of_a_given_skeleton_are_matched_by_name(
    cats: Callable[..., Any], skeleton_of_three: Skeleton
) -> None:
    moved = [{"id": 3, "name": "cat", "keypoints": ["Left Ear", "NOSE", "right-ear"]}]
    converted = cats(val={"categories": moved})
    assert converted.keypoints("a.png")[0] == [[10, 11, 2], [20, 21, 1], [30, 31, 2]]
    assert converted.keypoints("a.png", "val")[0] == [[20, 21, 1], [10, 11, 2], [30, 31, 2]]
    assert any("val.json" in note and "order" in note for note in converted.log.notes)
    converted = cats(categories=moved, skeleton=skeleton_of_three)
    assert converted.keypoints("a.png")[0] == [[20, 21, 1], [10, 11, 2], [30, 31, 2]]
    other = [{"id": 3, "name": "cat", "keypoints": ["nose", "right_ear", "tail"]}]
    with pytest.raises(InputError, match=r"val\.json: .* without left_ear and with tail of its own"):
        cats(val={"categories": other})


def test_one_of_several_categories_is_chosen_by_name_or_id(cats: Callable[..., Any]) -> None:
    two = [{"id": 3, "name": "cat", "keypoints": NAMES}, {"id": 5, "name": "dog", "keypoints": ["nose"]}]
    with pytest.raises(InputError, match=r"category 5 lists 1 keypoints, category 3 has 3; .*category=\[cat\]"):
        cats(categories=two)
    for wanted in ("dog", 5):
        alone = {"category_id": 5, "keypoints": [10, 11, 2]}
        assert cats(alone, categories=two, only=[wanted]).skeleton.keypoint_names == ("nose",)
    with pytest.raises(InputError, match="has no category 'cta'; it lists cat"):
        cats(categories=two, only=["cta"])
    same = [{"id": i, "name": name, "keypoints": NAMES} for i, name in ((3, "cat"), (4, "dog"))]
    assert len(cats({"category_id": 4}, categories=same).people()) == 2
    with pytest.raises(InputError, match="no category lists keypoints"):
        cats(categories=[{"id": 3, "name": "person"}])


@pytest.mark.parametrize("categories", [[{"id": 3}], None])
def test_a_given_skeleton_names_the_keypoints_of_a_category_without(
    cats: Callable[..., Any], skeleton_of_three: Skeleton, categories: Any
) -> None:
    converted = cats(categories=categories, skeleton=skeleton_of_three)
    assert converted.keypoints("a.png")[0] == [[10, 11, 2], [20, 21, 1], [30, 31, 2]]


OTHERS = [20, 21, 2, 30, 31, 2]


@pytest.mark.parametrize(
    ("keypoints", "visibility", "told"),
    [
        ([10, 11, NAN, *OTHERS], [0, 2, 2], "no number"),
        ([10, 11, -1, *OTHERS], [0, 2, 2], "below 0"),
        ([10, 11, 3, *OTHERS], [0, 2, 2], "above 2"),
        ([10, 11, True, *OTHERS], [2, 2, 2], "true and false"),
        ([10, 11, False, *OTHERS], [0, 2, 2], "true and false"),
        ([10, 11, 0.93, 20, 21, 0.4, 30, 31, 0], [2, 0, 0], "confidences below 0.5"),
        ([NAN, 11, 2, *OTHERS], [0, 2, 2], "without coordinates"),
        (["x", 11, 2, *OTHERS], [0, 2, 2], "without coordinates"),
        ([10**400, 11, 2, *OTHERS], [0, 2, 2], "without coordinates"),
        ([83.44, 11, 2, *OTHERS], [0, 2, 2], "outside their picture"),
        ([[10, 11, 2], [20, 21, 1], [30, 31, 0]], [2, 1, 0], None),
        (["10", "11", "2", "20.5", "21", "1", "30", "31", "0"], [2, 1, 0], None),
        ([10, 11, 0, 0, 30, 31], [2, 0, 2], "x and y alone"),
        (None, [0, 0, 0], "without keypoints"),
    ],
)
def test_keypoints_of_any_kind_cost_at_most_a_point_and_are_counted(
    cats: Callable[..., Any], keypoints: Any, visibility: list[int], told: str | None
) -> None:
    converted = cats({"keypoints": keypoints})
    (points,) = converted.keypoints("a.png")
    assert [point[2] for point in points] == visibility
    assert points[0] == ([10, 11, visibility[0]] if visibility[0] else [0, 0, 0])
    repairs = repairs_of(converted)
    assert [count for repair, count in repairs.items() if told is not None and told in repair] == [1] * (
        told is not None
    )
    assert told is not None or repairs == {}


def test_the_threshold_of_confidences_can_be_set(cats: Callable[..., Any]) -> None:
    confidences = {"keypoints": [10, 11, 0.93, 20, 21, 0.4, 30, 31, 0]}
    assert cats(confidences, min_confidence=0.3).people().visibility.tolist()[0] == [2, 2, 0]


@pytest.mark.parametrize("box", [None, [5, 5, 0, 0], [5, 5, NAN, 4], [1, 2, 3], [500, 5, 9, 9]])
def test_where_no_box_can_be_used_one_is_drawn_and_counted(cats: Callable[..., Any], box: Any) -> None:
    converted = cats({"bbox": box})
    assert converted.box("a.png") == pytest.approx([8, 9, 24, 24])
    assert [count for repair, count in repairs_of(converted).items() if "boxes drawn" in repair] == [1]


@pytest.mark.parametrize(
    ("image_ids", "of_first", "of_second"),
    [((7.0, "8"), "7.0", 8.0), (("a", "b"), "a", "b")],
)
def test_ids_may_be_text_or_have_a_decimal_point(
    cats: Callable[..., Any], image_ids: Any, of_first: Any, of_second: Any
) -> None:
    converted = cats(
        images=[{"id": i, "file_name": name} for i, name in zip(image_ids, ("a.png", "b.png"), strict=True)],
        categories=[{"id": "1", "name": "cat", "keypoints": "nose, left_ear,right_ear"}],
        annotations=[
            {"id": f"{n}", "image_id": i, "category_id": c, "bbox": [1, 2, 30, 30], "keypoints": [10 * n, 11, 2] * 3}
            for n, (i, c) in enumerate(((of_first, 1.0), (of_second, "1")), start=1)
        ],
    )
    people = converted.people()
    assert people.keypoints_in_image[:, 0, 0].tolist() == [10, 20]
    assert people.file_names.tolist() == ["a.png", "b.png"]
    assert people.image_ids.tolist() == ([1, 2] if image_ids == ("a", "b") else [7, 8])
    assert any("ids written as text" in repair for repair in repairs_of(converted))


@pytest.mark.parametrize("ids", [(0, 1), (5, 5), (None, 2)])
def test_annotation_ids_that_cannot_stay_are_numbered(cats: Callable[..., Any], ids: tuple[Any, Any]) -> None:
    pairs = zip(ids, (7, 8), strict=True)
    converted = cats(annotations=[{**CAT, "id": own, "image_id": image_id} for own, image_id in pairs])
    assert any("now from 1" in note for note in converted.log.notes)
    assert [entry["id"] for entry in converted.content()["annotations"]] == [1, 2]


@pytest.mark.parametrize(("crowd", "is_crowd"), [("0", 0), (None, 0), ("no", 0), ("1", 1), (True, 1)])
def test_who_is_a_crowd_is_one_afterwards_and_nobody_else(cats: Callable[..., Any], crowd: Any, is_crowd: int) -> None:
    assert cats({"iscrowd": crowd}).people().counts["crowd"] == is_crowd


BAD_ENTRIES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "keypoints": ({"keypoints": [1, 2, 3]}, {}, "annotation 1 has 3 numbers in 'keypoints'"),
    "keypoints outside": ({"keypoints": [500, 6, 2] * 3}, {}, "annotation 1: all of its 3 labelled"),
    "one point, no box": ({"keypoints": [5, 6, 2] * 3, "bbox": None}, {}, "has no usable box, and 3"),
    "unknown image": ({"image_id": 99}, {}, "annotation 1 is in image 99"),
    "outside": ({}, {"file_name": "../../a.jpg"}, "image 7: '../../a.jpg' is not in"),
    "no name": ({}, {"file_name": None}, "image number 1 needs an id and a file_name of its own"),
    "no image": ({}, {"file_name": "cats.json"}, "not an image"),
    "size": ({}, {"height": 41, "width": 80}, "is 40x80 pixels (height x width), the source says 41x80"),
}


@pytest.mark.parametrize("defect", BAD_ENTRIES)
def test_an_entry_that_cannot_be_converted_is_named(cats: Callable[..., Any], defect: str) -> None:
    annotation, image, expected = BAD_ENTRIES[defect]
    problems = cats(annotation, image, skip=True).log.problems
    assert any(expected in sentence for sentence in problems)
    assert all("\n" not in sentence for sentence in problems)
    with pytest.raises(InputError, match="on_problem=skip"):
        cats(annotation, image)


def test_sizes_show_whether_a_turned_picture_was_annotated_as_displayed_or_as_stored(
    cats: Callable[..., Any], picture: Callable[..., Path], tmp_path: Path
) -> None:
    picture(tmp_path / "source/a.png", 40, 80, 6)
    outline = {"segmentation": [[1, 2, 3, 4, 5, 6]]}
    converted = cats(outline, {"height": 80, "width": 40})
    assert [converted.content()["images"][0][side] for side in ("height", "width")] == [80, 40]
    assert converted.keypoints("a.png")[0] == [[10, 11, 2], [20, 21, 1], [30, 31, 2]]
    assert "segmentation" in converted.content()["annotations"][0]
    converted = cats(outline, {"height": 40, "width": 80})
    assert [converted.content()["images"][0][side] for side in ("height", "width")] == [80, 40]
    assert converted.keypoints("a.png")[0] == [[28, 10, 2], [18, 20, 1], [8, 30, 2]]
    assert converted.box("a.png") == [5, 5, 30, 30]
    assert "segmentation" not in converted.content()["annotations"][0]  # it would lie where nothing is


SIZES = {"height": 40, "width": 80}
UPRIGHT, TURNED = [10, 11, 2], [69, 28, 2]


@pytest.mark.parametrize(
    ("given", "second", "expected"),
    [
        ({}, {}, TURNED),  # COCO's rule
        ({"exif": "displayed"}, {}, UPRIGHT),
        ({"info": {"image_orientation": "displayed"}}, {}, UPRIGHT),
        ({"exif": "stored", "info": {"image_orientation": "displayed"}}, {}, TURNED),
        ({}, {"height": 80, "width": 40}, UPRIGHT),  # another picture shows it by its size
        ({}, SIZES, TURNED),
    ],
)
def test_where_sizes_do_not_show_it_the_user_the_file_other_pictures_or_cocos_rule_decide(
    cats: Callable[..., Any],
    picture: Callable[..., Path],
    tmp_path: Path,
    given: Any,
    second: dict[str, int],
    expected: list[int],
) -> None:
    picture(tmp_path / "source/a.png", 40, 80, 3)  # upside down
    picture(tmp_path / "source/b.png", 40, 80, 8 if second else None)
    images = [{"id": 7, "file_name": "a.png", **SIZES}, {"id": 8, "file_name": "b.png", **(second or SIZES)}]
    converted = cats(images=images, **given)
    assert converted.keypoints("a.png")[0][0] == expected
    assert any("exif=" in repair for repair in repairs_of(converted)) == (not given)


def test_the_people_of_coco_are_the_same_after_conversion(
    reference_folder: Path, tmp_path: Path, convert: Callable[..., Any]
) -> None:
    train, val = (reference_folder / f"coco_people_{split}2017.json" for split in ("train", "val"))
    for file in (train, val):
        for image in json.loads(file.read_text())["images"]:
            Image.new("L", (image["width"], image["height"])).save(tmp_path / image["file_name"])
    converted = convert(read_coco_keypoints, train, val_source=val, images=tmp_path)
    coco_17 = load_skeleton("coco_17")
    assert converted.skeleton.sigmas == coco_17.sigmas
    for split, file in (("train", train), ("val", val)):
        before, after = read_ground_truth(file, tmp_path, coco_17), converted.people(split)
        order = {i: n for n, i in enumerate(after.instance_ids.tolist())}
        again = [order[i] for i in before.instance_ids.tolist()]
        np.testing.assert_array_equal(after.keypoints_in_image[again], before.keypoints_in_image)
        np.testing.assert_array_equal(after.visibility[again], before.visibility)
        assert after.boxes_xywh[again] == pytest.approx(before.boxes_xywh, abs=1e-3)
        assert before.counts == after.counts
