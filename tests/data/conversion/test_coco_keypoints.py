"""COCO JSON with other keypoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from uniformer_pose.data.conversion.coco_keypoints import read_coco_keypoints
from uniformer_pose.data.conversion.source import ConversionSettings, Problems, SourceDataset, SourceImage
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import load_skeleton


def coco(source: Path, **settings: Any) -> SourceDataset:
    return read_coco_keypoints(source, ConversionSettings(**{"name": "cats", **settings}))


def content() -> dict[str, Any]:
    return {
        "categories": [
            {"id": 3, "name": "cat", "keypoints": ["nose", "L_ear", "R_ear"], "skeleton": [[1, 2], [1, 3]]},
            {"id": 4, "name": "box"},
        ],
        "images": [
            {"id": 7, "file_name": "a.png", "height": 40, "width": 80},
            {"id": 9, "file_name": "sub/b.png", "height": 40, "width": 80},
            {"id": 8, "file_name": "empty.png", "height": 40, "width": 80},
        ],
        "annotations": [
            {
                "id": 21,
                "image_id": 7,
                "category_id": 3,
                "bbox": [1, 2, 30, 20],
                "area": 300,
                "keypoints": [5, 6, 2, 7, 8, 1, 3, 3, 0],
                "num_keypoints": 9,
                "iscrowd": 0,
                "segmentation": [[1, 2, 3, 4, 5, 6]],
            },
            {"id": 22, "image_id": 9, "category_id": 3, "bbox": [1, 2, 3, 4], "keypoints": [1, 1, 2] * 3, "iscrowd": 1},
            {"id": 23, "image_id": 9, "category_id": 4, "bbox": [1, 2, 3, 4]},
        ],
    }


@pytest.fixture
def cats(tmp_path: Path, picture: Callable[..., Path]) -> Callable[..., Path]:
    """Writes an annotation file beside its pictures."""
    picture(tmp_path / "a.png", 40, 80)
    picture(tmp_path / "sub" / "b.png", 40, 80)
    picture(tmp_path / "empty.png", 40, 80)

    def write(changed: dict[str, Any] | None = None, name: str = "cats.json") -> Path:
        (tmp_path / name).write_text(json.dumps(content() if changed is None else changed))
        return tmp_path / name

    return write


def everything(dataset: SourceDataset) -> tuple[dict[str, SourceImage], list[str]]:
    problems = Problems(allowed=True)
    images = {}
    for split, names in dataset.images.items():
        for name in names:
            image = dataset.read(split, name, problems)
            if image is not None:
                images[name] = image
    return images, dataset.problems + problems.sentences


def test_the_category_gives_the_skeleton(cats: Callable[..., Path]) -> None:
    dataset = coco(cats())
    assert dataset.category == "cat"
    assert dataset.skeleton.keypoint_names == ("nose", "L_ear", "R_ear")
    assert dataset.skeleton.left_right_pairs == (("L_ear", "R_ear"),)
    assert dataset.skeleton.limb_indices.tolist() == [[0, 1], [0, 2]]
    assert any("1 annotations of other categories are not converted" in note for note in dataset.notes)


def test_people_keep_ids_areas_and_further_fields(cats: Callable[..., Path]) -> None:
    images, problems = everything(coco(cats()))
    assert problems == []
    (cat,) = images["a.png"].people
    assert images["a.png"].image_id == 7
    assert cat.annotation_id == 21
    assert cat.area == 300
    assert cat.box_xywh.tolist() == [1, 2, 30, 20]
    assert cat.keypoints.tolist() == [[5, 6, 2], [7, 8, 1], [0, 0, 0]]
    assert cat.other_fields == {"iscrowd": 0, "segmentation": [[1, 2, 3, 4, 5, 6]]}
    assert images["sub/b.png"].people[0].area is None
    assert images["sub/b.png"].people[0].other_fields == {"iscrowd": 1}


def test_a_second_file_is_for_validation(cats: Callable[..., Path]) -> None:
    dataset = coco(cats(), val_source=cats(name="val.json"))
    assert dataset.images["train"] == dataset.images["val"] == ["a.png", "sub/b.png", "empty.png"]
    other = content()
    other["categories"][0]["keypoints"] = ["nose", "R_ear", "L_ear"]
    dataset = coco(cats(), val_source=cats(other, "val.json"))
    assert any("val.json" in note and "order" in note for note in dataset.notes)
    image = dataset.read("val", "a.png", Problems(allowed=False))
    assert image is not None
    assert image.people[0].keypoints.tolist() == [[5, 6, 2], [0, 0, 0], [7, 8, 1]]
    other["categories"][0]["keypoints"] = ["nose", "R_ear", "tail"]
    with pytest.raises(InputError, match=r"val\.json: .* without L_ear and with tail of its own"):
        coco(cats(), val_source=cats(other, "val.json"))


def test_one_of_several_categories_is_chosen_by_name(cats: Callable[..., Path]) -> None:
    two = content()
    two["categories"].append({"id": 5, "name": "dog", "keypoints": ["nose"]})
    with pytest.raises(InputError, match=r"category 5 lists 1 keypoints, category 3 has 3; .*category=\[cat\]"):
        coco(cats(two))
    assert coco(cats(two), category="dog").skeleton.num_keypoints == 1
    assert coco(cats(two), category=5).skeleton.num_keypoints == 1
    with pytest.raises(InputError, match="has no category 'cta'; it lists cat"):
        coco(cats(two), category="cta")


def test_without_keypoints_in_any_category_there_is_nothing_to_convert(cats: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="no category lists keypoints"):
        coco(cats({**content(), "categories": [{"id": 1, "name": "person"}]}))


def test_sizes_show_whether_a_turned_picture_was_annotated_as_displayed_or_as_stored(
    cats: Callable[..., Path], picture: Callable[..., Path]
) -> None:
    turned = content()
    turned["images"][0].update(height=80, width=40)
    source = cats(turned)
    picture(source.parent / "a.png", 40, 80, 6)
    images, problems = everything(coco(source))
    assert problems == []
    assert (images["a.png"].height, images["a.png"].width) == (80, 40)
    (cat,) = images["a.png"].people
    assert cat.keypoints.tolist() == [[5, 6, 2], [7, 8, 1], [0, 0, 0]]
    assert cat.box_xywh.tolist() == [1, 2, 30, 20]
    assert "segmentation" in cat.other_fields

    images, _ = everything(coco(cats()))
    (cat,) = images["a.png"].people
    assert (images["a.png"].height, images["a.png"].width) == (80, 40)
    assert cat.keypoints.tolist() == [[33, 5, 2], [31, 7, 1], [0, 0, 0]]
    assert cat.box_xywh.tolist() == [18, 1, 20, 30]
    assert "segmentation" not in cat.other_fields  # it would lie where nothing is


@pytest.mark.parametrize(
    ("settings", "info", "stored"),
    [
        ({}, None, True),
        ({"exif": "displayed"}, None, False),
        ({}, {"image_orientation": "displayed"}, False),
        ({"exif": "stored"}, {"image_orientation": "displayed"}, True),
    ],
)
def test_where_sizes_do_not_show_it_the_user_the_file_or_cocos_rule_decides(
    cats: Callable[..., Path], picture: Callable[..., Path], settings: Any, info: Any, stored: bool
) -> None:
    source = cats({**content(), "info": info})
    picture(source.parent / "a.png", 40, 80, 3)  # upside down
    dataset = coco(source, **settings)
    images, _ = everything(dataset)
    assert images["a.png"].people[0].keypoints[0].tolist() == ([74, 33, 2] if stored else [5, 6, 2])
    assert any("exif=" in repair for repair in dataset.repairs) == (not settings and info is None)


@pytest.mark.parametrize("displayed", [True, False])
def test_one_picture_whose_size_shows_it_decides_for_those_whose_sizes_do_not(
    cats: Callable[..., Path], picture: Callable[..., Path], displayed: bool
) -> None:
    changed = content()
    if displayed:
        changed["images"][1].update(height=80, width=40)
    source = cats(changed)
    picture(source.parent / "a.png", 40, 80, 3)  # upside down
    picture(source.parent / "sub/b.png", 40, 80, 8)
    images, problems = everything(coco(source))
    assert problems == []
    assert images["a.png"].people[0].keypoints[0].tolist() == ([5, 6, 2] if displayed else [74, 33, 2])
    assert (images["sub/b.png"].height, images["sub/b.png"].width) == (80, 40)


@pytest.mark.parametrize("ids", [(0, 1), (5, 5), ("x", "y"), (None, 2)])
def test_annotation_ids_that_cannot_stay_are_numbered(cats: Callable[..., Path], ids: tuple[Any, Any]) -> None:
    changed = content()
    for annotation, annotation_id in zip(changed["annotations"], ids, strict=False):
        annotation["id"] = annotation_id
    dataset = coco(cats(changed))
    assert any("they are numbered from 1" in note for note in dataset.notes)
    images, _ = everything(dataset)
    assert images["a.png"].people[0].annotation_id is None


def test_a_person_without_keypoints_stays_as_one_without_labels(cats: Callable[..., Path]) -> None:
    changed = content()
    del changed["annotations"][0]["keypoints"]
    images, problems = everything(coco(cats(changed)))
    assert problems == []
    assert images["a.png"].people[0].keypoints.tolist() == [[0, 0, 0]] * 3


BAD_ENTRIES: dict[str, tuple[str, int, dict[str, Any], str]] = {
    "keypoints": ("annotations", 0, {"keypoints": [1, 2, 3]}, "annotation 21 has 3 numbers in 'keypoints'"),
    "keypoints outside": ("annotations", 0, {"keypoints": [500, 6, 2] * 3}, "annotation 21: all of its 3 labelled"),
    "one point, no box": ("annotations", 0, {"keypoints": [5, 6, 2] * 3, "bbox": None}, "has no usable box, and 3"),
    "unknown image": ("annotations", 0, {"image_id": 99}, "annotation number 1 is in an image that the file does not"),
    "image id no number": ("annotations", 0, {"image_id": [7]}, "annotation number 1 is in an image"),
    "no file": ("images", 0, {"file_name": "c.png"}, "image 7: "),
    "outside": ("images", 0, {"file_name": "../a.png"}, "image 7: '../a.png' leads out of"),
    "no name": ("images", 0, {"file_name": None}, "image number 1 needs an id and a file_name of its own"),
    "size": ("images", 0, {"height": 41}, "is 40x80 pixels (height x width), the source says 41x80"),
}


@pytest.mark.parametrize("defect", BAD_ENTRIES)
def test_an_entry_that_cannot_be_converted_is_named(cats: Callable[..., Path], defect: str) -> None:
    section, number, change, expected = BAD_ENTRIES[defect]
    changed = content()
    changed[section][number].update(change)
    _, problems = everything(coco(cats(changed)))
    assert any(expected in sentence for sentence in problems)
    assert all("\n" not in sentence for sentence in problems)


def test_the_people_of_coco_are_the_same_after_conversion(
    shared_folder: Path, tmp_path: Path, write: Callable[..., Any]
) -> None:
    from uniformer_pose.data.coco import read_ground_truth

    root = shared_folder / "coco_mini"
    train, val = (root / f"annotations/person_keypoints_{split}2017.json" for split in ("train", "val"))
    dataset = coco(train, val_source=val, images=root / "train2017", val_images=root / "val2017")
    write(dataset, image_files="copy")
    coco_17 = load_skeleton("coco_17")
    for split, file in (("train", train), ("val", val)):
        before = read_ground_truth(file, root / f"{split}2017", coco_17)
        converted = tmp_path / "converted"
        after = read_ground_truth(converted / f"annotations/{split}.json", converted / f"images/{split}", coco_17)
        order = {i: n for n, i in enumerate(after.instance_ids.tolist())}
        again = [order[i] for i in before.instance_ids.tolist()]
        assert (after.keypoints_in_image[again] == before.keypoints_in_image).all()
        assert (after.visibility[again] == before.visibility).all()
        assert after.boxes_xywh[again] == pytest.approx(before.boxes_xywh, abs=1e-3)
        assert before.counts == after.counts
