"""YOLO-pose labels to pixels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from uniformer_pose.data.conversion.source import ConversionSettings, Problems, SourceDataset, SourceImage
from uniformer_pose.data.conversion.yolo_pose import label_file, read_yolo_pose
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import load_skeleton

DESCRIPTION = {
    "path": "../nowhere/horses",
    "train": "images/train",
    "val": "images/val",
    "kpt_shape": [3, 3],
    "flip_idx": [0, 2, 1],
    "names": {0: "horse"},
}
LINE = "0 0.5 0.5 0.4 0.6 0.5 0.25 2 0.4 0.5 1 0 0 0"


def yolo(source: Path, **settings: Any) -> SourceDataset:
    return read_yolo_pose(source, ConversionSettings(**{"name": "horses", **settings}))


@pytest.fixture
def horses(tmp_path: Path, picture: Callable[..., Path]) -> Path:
    """Two training images of 40x80 and one for validation, one horse in each; b.png has no label file."""
    root = tmp_path / "horses"
    for name in ("train/a.png", "train/b.png", "val/c.png"):
        picture(root / "images" / name, 40, 80)
    for name in ("train/a.txt", "val/c.txt"):
        (root / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "labels" / name).write_text(LINE + "\n")
    describe(root)
    return root


def describe(root: Path, **changes: Any) -> None:
    content = {key: value for key, value in {**DESCRIPTION, **changes}.items() if value is not None}
    (root / "data.yaml").write_text(yaml.safe_dump(content))


def people(root: Path, split: Any = "train", name: str = "a.png", **settings: Any) -> SourceImage:
    problems = Problems(allowed=True)
    image = yolo(root, **settings).read(split, name, problems)
    assert problems.sentences == []
    assert image is not None
    return image


def problem(root: Path, **settings: Any) -> str:
    problems = Problems(allowed=True)
    yolo(root, **settings).read("train", "a.png", problems)
    (sentence,) = problems.sentences
    assert "\n" not in sentence
    return sentence


def test_fractions_become_pixels(horses: Path) -> None:
    image = people(horses)
    assert (image.height, image.width) == (40, 80)
    (horse,) = image.people
    assert horse.box_xywh == pytest.approx([24, 8, 32, 24])
    assert horse.keypoints.tolist() == [[40, 10, 2], [32, 20, 1], [0, 0, 0]]


def test_the_splits_are_those_of_the_description(horses: Path) -> None:
    dataset = yolo(horses / "data.yaml")
    assert dataset.images == {"train": ["a.png", "b.png"], "val": ["c.png"]}
    assert dataset.category == "horse"
    assert dataset.skeleton.mirror_permutation.tolist() == [0, 2, 1]
    assert dataset.skeleton.keypoint_names == ("keypoint_1", "keypoint_2", "keypoint_3")


def test_an_image_without_labels_has_nobody(horses: Path) -> None:
    assert people(horses, name="b.png").people == []


@pytest.mark.parametrize(("numbers", "labelled"), [("0.5 0.25", 2), ("-1 0.25", 0), ("0.5 -0.1", 0), ("0 0", 0)])
def test_with_two_numbers_a_keypoint_a_negative_or_zero_one_is_not_labelled(
    horses: Path, numbers: str, labelled: int
) -> None:
    describe(horses, kpt_shape=[1, 2], flip_idx=[0])
    (horses / "labels/train/a.txt").write_text(f"0 0.5 0.5 0.4 0.6 {numbers}")
    ((x, y, visibility),) = people(horses).people[0].keypoints
    assert visibility == labelled
    assert (x, y) == ((40, 10) if labelled else (0, 0))


def test_names_of_keypoints_are_used_and_of_a_given_skeleton(horses: Path, tmp_path: Path) -> None:
    describe(horses, kpt_names={0: ["nose", "left_ear", "right_ear"]}, flip_idx=None)
    skeleton = yolo(horses).skeleton
    assert skeleton.keypoint_names == ("nose", "left_ear", "right_ear")
    assert skeleton.left_right_pairs == (("left_ear", "right_ear"),)
    describe(horses, kpt_shape=[17, 3])
    coco = load_skeleton("coco_17")
    assert yolo(horses, skeleton=coco).skeleton is coco


def test_labels_refer_to_the_picture_as_it_is_displayed(horses: Path, picture: Callable[..., Path]) -> None:
    picture(horses / "images/train/a.png", 40, 80, 6)  # shown as 80 high, 40 wide, turned clockwise
    image = people(horses)
    assert (image.height, image.width) == (80, 40)
    assert image.people[0].keypoints[0].tolist() == [20, 20, 2]
    assert image.people[0].box_xywh == pytest.approx([12, 16, 16, 48])
    # Stored x 40, y 10: turned clockwise, row 10 of 40 from the top is column 39 - 10.
    assert people(horses, exif="stored").people[0].keypoints[0].tolist() == [29, 40, 2]


def test_one_class_of_several_is_chosen_by_name(horses: Path) -> None:
    describe(horses, names=["dog", "horse"])
    (horses / "labels/train/a.txt").write_text(f"{LINE}\n1{LINE[1:]}\n1{LINE[1:]}\n")
    with pytest.raises(InputError, match="has the classes dog, horse; choose with category"):
        yolo(horses)
    with pytest.raises(InputError, match=r"has no class 'hose'; did you mean horse\?"):
        yolo(horses, category="hose")
    dataset = yolo(horses, category="horse")
    assert "objects of class dog are not converted" in dataset.notes
    assert len(people(horses, category="horse").people) == 2
    assert len(people(horses, category="dog").people) == 1
    assert len(people(horses, category=["dog", 1]).people) == 3


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0 0.5", "has 2 numbers, kpt_shape makes it 14"),
        (LINE + " 1", "has 15 numbers"),
        ("0 40 20 32 24 40 10 2 32 20 1 0 0 0", "all of its 2 labelled keypoints are outside the picture of 40x80"),
        ("0 0.5 0.5 0 0 0.5 0.25 2 0.5 0.25 2 0 0 0", "has no usable box, and 2 labelled keypoints"),
    ],
)
def test_a_bad_line_is_named_with_its_number(horses: Path, line: str, expected: str) -> None:
    (horses / "labels/train/a.txt").write_text(f"{LINE}\n{line}\n")
    sentence = problem(horses)
    assert sentence.startswith(f"{horses / 'labels/train/a.txt'}:2: ")
    assert expected in sentence


def test_a_picture_that_cannot_be_read_is_named(horses: Path) -> None:
    (horses / "images/train/a.png").write_text("<html>")
    assert problem(horses) == f"{horses / 'images/train/a.png'}: not an image that can be read"


def test_a_label_file_that_is_no_text_is_named(horses: Path) -> None:
    (horses / "labels/train/a.txt").write_bytes(b"\xff\xfe\x00")
    assert "labels/train/a.txt: cannot be read" in problem(horses)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kpt_shape": None}, "kpt_shape is None; a pose dataset has"),
        ({"kpt_shape": [3, 4]}, "kpt_shape is"),
        ({"kpt_shape": "17x3"}, "kpt_shape is"),
        ({"flip_idx": [0, 1]}, "flip_idx"),
        ({"flip_idx": "x"}, "flip_idx must be a list"),
        ({"names": None}, "'names' must list the classes"),
        ({"train": None}, "has no 'train'"),
        ({"train": "images/absent"}, "is neither a folder nor a list of images"),
        ({"train": "labels/train"}, "no images there"),
        ({"train": "/etc"}, "leads out of"),
        ({"train": "../../etc"}, "leads out of"),
    ],
)
def test_a_description_that_cannot_be_used_is_told_in_one_line(
    horses: Path, changes: dict[str, Any], expected: str
) -> None:
    describe(horses, **changes)
    with pytest.raises(InputError) as error:
        yolo(horses)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "- a", "a: [", "\0"])
def test_a_file_that_is_no_description_is_refused(horses: Path, content: str) -> None:
    (horses / "data.yaml").write_text(content)
    with pytest.raises(InputError):
        yolo(horses)


def test_python_objects_in_a_description_are_not_made(horses: Path, tmp_path: Path) -> None:
    (horses / "data.yaml").write_text(f"train: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']")
    with pytest.raises(InputError, match="not valid YAML"):
        yolo(horses)
    assert not (tmp_path / "made").exists()


def test_a_path_that_leads_elsewhere_needs_the_users_word(horses: Path, tmp_path: Path) -> None:
    (horses / "images").rename(tmp_path / "images")
    (horses / "labels").rename(tmp_path / "labels")
    describe(horses, path="..")
    with pytest.raises(InputError, match=r"leads out of .*; if that is meant, give images="):
        yolo(horses)
    assert yolo(horses, images=tmp_path).images["val"] == ["c.png"]


def test_a_wrong_folder_of_labels_is_noticed(horses: Path) -> None:
    (horses / "labels").rename(horses / "annotations")
    with pytest.raises(InputError, match=r"none of the 2 train images has its label file, such as .*/a\.txt"):
        yolo(horses)


def test_a_link_out_of_the_dataset_is_not_followed(horses: Path, tmp_path: Path, picture: Callable[..., Path]) -> None:
    (horses / "images/train/a.png").unlink()
    (horses / "images/train/a.png").symlink_to(picture(tmp_path / "secret.png", 40, 80))
    assert "leads out of" in problem(horses)


def test_without_a_val_a_share_of_the_images_is_taken(horses: Path) -> None:
    describe(horses, val=None)
    dataset = yolo(horses, val_share=0.5)
    assert sorted(dataset.images["train"] + dataset.images["val"]) == ["a.png", "b.png"]
    assert any("no 'val': 1 of the images" in note for note in dataset.notes)


def test_images_may_be_given_as_a_list_of_files_or_folders(horses: Path) -> None:
    (horses / "train.txt").write_text("./images/train/a.png\nimages/val/c.png\n")
    describe(horses, train=["train.txt", "images/train"])
    assert yolo(horses).images["train"] == ["train/a.png", "train/b.png", "val/c.png"]
    (horses / "train.txt").write_text("../../secret.png\n")
    with pytest.raises(InputError, match="leads out of"):
        yolo(horses)


def test_the_folders_that_roboflow_writes_are_found(tmp_path: Path, picture: Callable[..., Path]) -> None:
    for part, name in (("train", "a"), ("valid", "b")):
        picture(tmp_path / part / "images" / f"{name}.png", 40, 80)
        (tmp_path / part / "labels").mkdir()
        (tmp_path / part / "labels" / f"{name}.txt").write_text(LINE)
    describe(tmp_path, path=None, train="../train/images", val="../valid/images")
    dataset = yolo(tmp_path)
    assert dataset.images == {"train": ["a.png"], "val": ["b.png"]}
    assert len(people(tmp_path).people) == 1


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("/d/images/train/a.jpg", "/d/labels/train/a.txt"),
        ("/images/d/images/a.b.jpg", "/images/d/labels/a.b.txt"),
        ("/d/pictures/a.jpg", "/d/pictures/a.txt"),
    ],
)
def test_labels_lie_beside_the_last_folder_called_images(image: str, labels: str) -> None:
    assert label_file(Path(image)) == Path(labels)


def test_converted_horses_are_the_labelled_ones(horses: Path, write: Callable[..., Any], tmp_path: Path) -> None:
    summary = write(yolo(horses))
    assert (summary.images, summary.people) == ({"train": 2, "val": 1}, {"train": 1, "val": 1})
    content = json.loads((tmp_path / "converted/annotations/train.json").read_text())
    assert content["annotations"] == [
        {
            "iscrowd": 0,
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [24, 8, 32, 24],
            "area": 384.0,
            "keypoints": [40, 10, 2, 32, 20, 1, 0, 0, 0],
            "num_keypoints": 2,
        }
    ]
    assert content["images"][0] == {"id": 1, "file_name": "a.png", "height": 40, "width": 80}
    assert np.array_equal(
        np.frombuffer((tmp_path / "converted/images/train/a.png").read_bytes(), np.uint8),
        np.frombuffer((horses / "images/train/a.png").read_bytes(), np.uint8),
    )


def test_marks_line_ends_and_separators_of_windows_are_read(horses: Path) -> None:
    (horses / "labels/train/a.txt").write_bytes(b"\xef\xbb\xbf" + LINE.encode() + b"\r\n")
    (horses / "train.txt").write_bytes(b"\xef\xbb\xbf./images/train/a.png\r\nimages\\train\\b.png\r\n")
    describe(horses, train="train.txt")
    data = horses / "data.yaml"
    data.write_bytes(b"\xef\xbb\xbf" + data.read_bytes().replace(b"\n", b"\r\n"))
    assert yolo(horses).images["train"] == ["a.png", "b.png"]
    assert people(horses).people[0].keypoints.tolist() == [[40, 10, 2], [32, 20, 1], [0, 0, 0]]


def test_a_list_may_name_images_as_another_machine_does(horses: Path) -> None:
    (horses / "train.txt").write_text(f"{horses}/images/train/a.png\n/mnt/x/images/train/b.png\n")
    describe(horses, train="train.txt")
    assert yolo(horses).images["train"] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("numbers", "visibility"),
    [
        ("0.5 1.043 2 0.4 0.5 1 0 0 0", [0, 1, 0]),
        ("nan nan 2 0.4 0.5 1 0 0 0", [0, 1, 0]),
        ("0.5 0.25 3 0.4 0.5 1 0 0 0", [0, 1, 0]),
        ("0.5 0.25 0.93 0.4 0.5 0.2 0 0 0", [2, 0, 0]),
        ("", [0, 0, 0]),
    ],
)
def test_a_line_keeps_what_can_be_used(horses: Path, numbers: str, visibility: list[int]) -> None:
    (horses / "labels/train/a.txt").write_text(f"0.0 0.5 0.5 0.4 0.6 {numbers}\n")
    (horse,) = people(horses).people
    assert horse.keypoints[:, 2].tolist() == visibility
    assert horse.box_xywh == pytest.approx([24, 8, 32, 24])


@pytest.mark.parametrize("box", ["0.5 0.5 0 0.6", "nan 0.5 0.4 0.6", "400 200 32 24"])
def test_a_box_that_cannot_be_used_is_drawn_around_the_keypoints(horses: Path, box: str) -> None:
    (horses / "labels/train/a.txt").write_text(f"0 {box} 0.5 0.25 2 0.4 0.5 1 0 0 0\n")
    assert people(horses).people[0].box_xywh == pytest.approx([31, 9, 10, 12])


def test_names_in_another_order_than_a_given_skeletons_are_permuted(horses: Path, fields_of_three: Path) -> None:
    describe(horses, kpt_names={0: ["Left Ear", "Right Ear", "nose"]}, flip_idx=[1, 0, 2])
    image = people(horses, skeleton=load_skeleton(fields_of_three))
    assert image.people[0].keypoints.tolist() == [[0, 0, 0], [40, 10, 2], [32, 20, 1]]
