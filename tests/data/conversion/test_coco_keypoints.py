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


def test_the_category_gives_the_skeleton_and_people_keep_what_is_trained_on_and_scored(
    cats: Callable[..., Any],
) -> None:
    other = {"id": 23, "image_id": 8, "category_id": 4, "bbox": [1, 2, 3, 4]}
    cat = {**CAT, "id": 21, "image_id": 7, "num_keypoints": 9, "segmentation": [[1, 2, 3, 4, 5, 6]]}
    crowd = {**CAT, "id": 22, "image_id": 8, "area": None, "iscrowd": 1}
    listed = [{"id": 3, "name": "cat", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]}, {"id": 4}]
    converted = cats(categories=listed, annotations=[cat, crowd, other])
    assert converted.skeleton.keypoint_names == tuple(NAMES)
    assert converted.skeleton.left_right_pairs == (("left_ear", "right_ear"),)
    assert converted.skeleton.limb_indices.tolist() == [[0, 1], [0, 2]]
    assert "cats.json: category cat; 1 of others" in converted.log.notes
    first, second = converted.content()["annotations"]
    assert first == {**CAT, "id": 1, "image_id": 7, "category_id": 1, "iscrowd": 0, "num_keypoints": 3}
    assert (second["iscrowd"], second["area"]) == (1, pytest.approx(0.53 * 900))
    assert "kept 1 of 2 annotations in 1 images (left out: 1 crowd)" in converted.lines[0]
    listed[0]["skeleton"] = [[1, 2], [1, 9]]  # another figure's limbs
    assert cats(categories=listed).skeleton.limbs == ()


def test_keypoints_of_a_second_file_and_of_a_given_skeleton_are_matched_by_name(
    cats: Callable[..., Any], skeleton_of_three: Skeleton
) -> None:
    moved = [{"id": 3, "name": "cat", "keypoints": ["Left Ear", "NOSE", "right-ear"]}]
    converted = cats(val={"categories": moved})
    assert converted.keypoints("a.png")[0] == [[10, 11, 2], [20, 21, 1], [30, 31, 2]]
    assert converted.content("val")["annotations"][0]["keypoints"] == [20, 21, 1, 10, 11, 2, 30, 31, 2]
    assert any("val.json" in note and "order" in note for note in converted.log.notes)
    in_order = [[20, 21, 1], [10, 11, 2], [30, 31, 2]]
    assert cats(categories=moved, skeleton=skeleton_of_three).keypoints("a.png")[0] == in_order
    other = [{"id": 3, "name": "cat", "keypoints": ["nose", "right_ear", "tail"]}]
    with pytest.raises(InputError, match=r"val\.json: .* without left_ear and with tail of its own"):
        cats(val={"categories": other})
    nameless = cats(categories=None, skeleton=skeleton_of_three)
    assert nameless.keypoints("a.png")[0] == [[10, 11, 2], [20, 21, 1], [30, 31, 2]]
    with pytest.raises(InputError, match="no category lists keypoints"):
        cats(categories=[{"id": 3, "name": "person"}])


def test_how_crowded_an_image_is_stays_with_it(cats: Callable[..., Any]) -> None:
    images = cats(image={"crowdIndex": 0.25}).content()["images"]
    assert [image.get("crowdIndex") for image in images] == [0.25, None]


def test_one_of_several_categories_is_chosen_by_name_or_id(cats: Callable[..., Any]) -> None:
    two = [{"id": 3, "name": "cat", "keypoints": NAMES}, {"id": 5, "name": "dog", "keypoints": ["nose"]}]
    with pytest.raises(InputError, match=r"categories of one kind: category=\[cat\]"):
        cats(categories=two)
    for wanted in ("dog", 5):
        alone = {"category_id": 5, "keypoints": [10, 11, 2]}
        assert cats(alone, categories=two, only=[wanted]).skeleton.keypoint_names == ("nose",)
    with pytest.raises(InputError, match="has no category 'cta'; it lists cat"):
        cats(categories=two, only=["cta"])


OTHERS = [20, 21, 2, 30, 31, 2]


@pytest.mark.parametrize(
    ("keypoints", "visibility", "told"),
    [
        ([10, 11, NAN, *OTHERS], [0, 2, 2], "none of 0, 1, 2"),
        ([10, 11, 3, *OTHERS], [0, 2, 2], "none of 0, 1, 2"),
        ([10, 11, 0.93, 20, 21, 0.4, 30, 31, 0], [2, 0, 0], "confidences below 0.5"),
        (["x", 11, 2, *OTHERS], [0, 2, 2], "without coordinates"),
        ([10**400, 11, 2, *OTHERS], [0, 2, 2], "without coordinates"),
        ([83.44, 11, 2, *OTHERS], [0, 2, 2], "outside their picture"),
        (["10", "11", "2", "20.5", "21", "1", "30", "31", "0"], [2, 1, 0], None),
        (None, [0, 0, 0], "without keypoints"),
    ],
)
def test_keypoints_of_any_kind_cost_at_most_a_point_and_are_counted(
    cats: Callable[..., Any], keypoints: Any, visibility: list[int], told: str | None
) -> None:
    converted = cats({"keypoints": keypoints})
    points = converted.keypoints("a.png")[0]
    assert [point[2] for point in points] == visibility
    assert points[0] == ([10, 11, visibility[0]] if visibility[0] else [0, 0, 0])
    counted = [count for repair, count in converted.log.repairs.items() if told is not None and told in repair]
    assert counted == ([] if told is None else [2])  # once in each split


@pytest.mark.parametrize("box", [None, [5, 5, 0, 0], [5, 5, NAN, 4], [1, 2, 3], [500, 5, 9, 9]])
def test_where_no_box_can_be_used_one_is_drawn_and_counted(cats: Callable[..., Any], box: Any) -> None:
    converted = cats({"bbox": box})
    assert converted.people_in("a.png")[0]["bbox"] == pytest.approx([8, 9, 24, 24])
    assert [count for repair, count in converted.log.repairs.items() if "boxes drawn" in repair] == [2]


@pytest.mark.parametrize(
    ("annotation", "image", "expected"),
    [
        ({"keypoints": [1, 2, 3]}, {}, "annotation 1: has 3 numbers in 'keypoints'"),
        ({"keypoints": [500, 6, 2] * 3}, {}, "annotation 1: all of its 3 labelled"),
        ({"keypoints": [5, 6, 2] * 3, "bbox": None}, {}, "annotation 1: has no usable box"),
        ({"image_id": 99}, {}, "1 people are in image 99"),
        ({"image_id": "7"}, {}, "entry 1 of 'annotations' cannot be read"),
        ({}, {"file_name": "../../a.jpg"}, "image 7: '../../a.jpg' is not in"),
        ({}, {"file_name": None}, "entry 1 of 'images' cannot be read"),
        ({}, {"id": 8}, "image 8: has the id of an earlier one"),
        ({}, {"file_name": "b.png"}, "b.png is named twice"),
        ({}, {"file_name": "cats.json"}, "no image that can be read"),
        ({}, {"height": 41, "width": 80}, "is 40x80 pixels (height x width) as stored, the source says 41x80"),
    ],
)
def test_an_entry_that_cannot_be_converted_is_named(
    cats: Callable[..., Any], annotation: dict[str, Any], image: dict[str, Any], expected: str
) -> None:
    problems = cats(annotation, image, skip=True).log.problems
    assert any(expected in sentence for sentence in problems)
    assert all("\n" not in sentence for sentence in problems)
    with pytest.raises(InputError, match="on_problem=skip"):
        cats(annotation, image)


SIZES = {"height": 40, "width": 80}
TURNED = {"height": 80, "width": 40}


@pytest.mark.parametrize(
    ("exif", "given", "first", "second", "frame"),
    [
        (6, {}, TURNED, {}, "displayed"),
        (6, {}, SIZES, {}, "stored"),
        (3, {}, SIZES, SIZES, "stored"),  # COCO's rule
        (3, {"exif": "displayed"}, SIZES, SIZES, "displayed"),
        (3, {"info": {"image_orientation": "displayed"}}, SIZES, SIZES, "displayed"),
        (3, {"exif": "stored", "info": {"image_orientation": "displayed"}}, SIZES, SIZES, "stored"),
        (3, {}, SIZES, TURNED, "displayed"),  # another picture shows it by its size
    ],
)
def test_coordinates_keep_their_frame_which_the_user_the_sizes_the_file_or_cocos_rule_tell(
    cats: Callable[..., Any],
    picture: Callable[..., Path],
    tmp_path: Path,
    exif: int,
    given: Any,
    first: dict[str, int],
    second: dict[str, int],
    frame: str,
) -> None:
    picture(tmp_path / "source/a.png", 40, 80, exif)
    picture(tmp_path / "source/b.png", 40, 80, 8 if second == TURNED else None)
    images = [{"id": 7, "file_name": "a.png", **first}, {"id": 8, "file_name": "b.png", **second}]
    converted = cats(images=images, **given)
    content = converted.content()
    assert content["info"]["image_orientation"] == frame
    assert {side: content["images"][0][side] for side in ("height", "width")} == first
    assert converted.keypoints("a.png")[0] == [[10, 11, 2], [20, 21, 1], [30, 31, 2]]
    guessed = exif == 3 and not given and second == SIZES
    assert any("exif=" in repair for repair in converted.log.repairs) == guessed


def test_pictures_whose_sizes_contradict_each_other_are_told(
    cats: Callable[..., Any], picture: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / f"source/{name}", 40, 80, 6)
    images = [{"id": 7, "file_name": "a.png", **TURNED}, {"id": 8, "file_name": "b.png", **SIZES}]
    with pytest.raises(InputError, match=r"b\.png is 80x40 pixels .* as displayed, the source says 40x80"):
        cats(images=images)


def test_the_people_of_coco_are_the_same_after_conversion(
    reference_folder: Path, tmp_path: Path, convert: Callable[..., Any]
) -> None:
    train, val = (reference_folder / f"coco_people_{split}2017.json" for split in ("train", "val"))
    for file in (train, val):
        for image in json.loads(file.read_text())["images"]:
            Image.new("L", (image["width"], image["height"])).save(tmp_path / image["file_name"])
    converted = convert(read_coco_keypoints, train, val_source=val, images=tmp_path)
    coco_17 = load_skeleton("coco_17")
    assert converted.skeleton.measures_as(coco_17)
    for split, file in (("train", train), ("val", val)):
        before, after = read_ground_truth(file, tmp_path, coco_17), converted.people(split)
        np.testing.assert_array_equal(after.keypoints_in_image, before.keypoints_in_image)
        np.testing.assert_array_equal(after.visibility, before.visibility)
        assert after.boxes_xywh == pytest.approx(before.boxes_xywh, abs=1e-3)
        assert before.counts == after.counts
