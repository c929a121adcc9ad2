"""YOLO-pose labels to pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from uniformer_pose.data.conversion.yolo_pose import label_file, read_yolo_pose
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton, load_skeleton

DESCRIPTION = {
    "path": "../nowhere/horses",
    "train": "images/train",
    "val": "images/val",
    "kpt_shape": [3, 3],
    "flip_idx": [0, 2, 1],
    "names": {0: "horse"},
}
LINE = "0 0.5 0.5 0.4 0.6 0.5 0.25 2 0.4 0.5 1 0 0 0"
POINTS = [[40, 10, 2], [32, 20, 1], [0, 0, 0]]


@pytest.fixture
def horses(tmp_path: Path, picture: Callable[..., Path]) -> Path:
    """Two training images of 40x80 and one for validation, one horse in each; b.png has no label file."""
    root = tmp_path / "horses"
    for name in ("train/a.png", "train/b.png", "val/c.png"):
        picture(root / "images" / name)
    for name in ("train/a.txt", "val/c.txt"):
        (root / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "labels" / name).write_text(LINE + "\n")
    describe(root)
    return root


def describe(root: Path, **changes: Any) -> None:
    content = {key: value for key, value in {**DESCRIPTION, **changes}.items() if value is not None}
    (root / "data.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture
def yolo(horses: Path, convert: Callable[..., Any]) -> Callable[..., Any]:
    """Converts the horses."""
    return lambda source=horses, **settings: convert(read_yolo_pose, source, **settings)


def names(converted: Any, split: str = "train") -> list[str]:
    return [image["file_name"] for image in converted.content(split)["images"]]


def test_fractions_become_pixels_of_every_split(horses: Path, yolo: Callable[..., Any]) -> None:
    converted = yolo(horses / "data.yaml")
    assert (names(converted), names(converted, "val")) == (["a.png", "b.png"], ["c.png"])
    assert converted.keypoints("a.png") == [POINTS]
    assert converted.keypoints("b.png") == []
    (horse,) = converted.content()["annotations"]
    assert (horse["bbox"], horse["area"]) == ([24, 8, 32, 24], pytest.approx(0.53 * 32 * 24))
    assert converted.content()["categories"][0]["name"] == "horse"
    assert converted.skeleton.mirror_permutation.tolist() == [0, 2, 1]
    assert converted.skeleton.keypoint_names == ("keypoint_1", "keypoint_2", "keypoint_3")


def test_with_two_numbers_a_keypoint_a_negative_or_zero_one_is_not_labelled(
    horses: Path, yolo: Callable[..., Any]
) -> None:
    describe(horses, kpt_shape=[3, 2])
    for labels in ("train/a.txt", "val/c.txt"):
        (horses / "labels" / labels).write_text("0 0.5 0.5 0.4 0.6 0.5 -0.1 0.4 0.5 0 0")
    assert yolo().keypoints("a.png")[0] == [[0, 0, 0], [32, 20, 2], [0, 0, 0]]


def test_names_and_order_of_keypoints_are_the_descriptions_or_a_given_skeletons(
    horses: Path, yolo: Callable[..., Any], skeleton_of_three: Skeleton
) -> None:
    assert yolo(skeleton=skeleton_of_three).skeleton.keypoint_names == ("nose", "left_ear", "right_ear")
    describe(horses, kpt_names={0: ["Left Ear", "Right Ear", "nose"]}, flip_idx=None)
    assert yolo().skeleton.left_right_pairs == (("Left Ear", "Right Ear"),)
    assert yolo(skeleton=skeleton_of_three).keypoints("a.png")[0] == [POINTS[2], POINTS[0], POINTS[1]]
    with pytest.raises(InputError, match="its 3 keypoints are not the 17"):
        yolo(skeleton=load_skeleton("coco_17"))


def test_several_classes_are_one_unless_some_are_chosen(horses: Path, yolo: Callable[..., Any]) -> None:
    describe(horses, names=["dog", "horse"])
    for labels in ("train/a.txt", "val/c.txt"):
        (horses / "labels" / labels).write_text(f"{LINE}\n1{LINE[1:]}\n1{LINE[1:]}\n")
    assert len(yolo().keypoints("a.png")) == len(yolo(categories=["dog", 1]).keypoints("a.png")) == 3
    assert any("dog, horse together" in note for note in yolo().log.notes)
    assert len(yolo(categories=["horse"]).keypoints("a.png")) == 2
    with pytest.raises(InputError, match=r"has no category 'hose'; it lists dog \(0\), horse \(1\)"):
        yolo(categories=["hose"])


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("labels/train/a.txt", b"\n0 0.5\n", "labels/train/a.txt:2: has 2 numbers, kpt_shape makes it 14"),
        (
            "labels/train/a.txt",
            b"0 40 20 32 24 40 10 2 32 20 1 0 0 0",
            "a.txt:1: all of its 2 labelled keypoints are outside the picture of 40x80",
        ),
        ("images/train/b.png", b"<html>", "images/train/b.png: no image"),
        ("labels/train/b.txt", b"\xff\xfe\x00", "labels/train/b.txt: cannot be read"),
    ],
)
def test_a_bad_line_and_a_bad_file_are_named(
    horses: Path, yolo: Callable[..., Any], file: str, content: bytes, expected: str
) -> None:
    (horses / file).write_bytes(content)
    with pytest.raises(InputError) as error:
        yolo()
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kpt_shape": None}, "missing required field `kpt_shape`"),
        ({"kpt_shape": [10**9, 3]}, "kpt_shape"),
        ({"flip_idx": "x"}, "flip_idx"),
        ({"names": None}, "missing required field `names`"),
        ({"train": "data.yaml"}, "no images there"),
        ({"train": "../../etc"}, "is not in"),
    ],
)
def test_a_description_that_cannot_be_used_is_told_in_one_line(
    horses: Path, yolo: Callable[..., Any], changes: dict[str, Any], expected: str
) -> None:
    describe(horses, **changes)
    with pytest.raises(InputError) as error:
        yolo()
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_description_runs_nothing_and_a_wrong_folder_of_labels_is_noticed(
    horses: Path, yolo: Callable[..., Any]
) -> None:
    for content in ("", "a: [", "\0", f"train: !!python/object/apply:os.mkdir ['{horses / 'made'}']"):
        (horses / "data.yaml").write_text(content)
        with pytest.raises(InputError, match="no description of YOLO poses"):
            yolo()
    assert not (horses / "made").exists()  # nothing in a file runs
    describe(horses)
    (horses / "labels").rename(horses / "annotations")
    with pytest.raises(InputError, match=r"none of 2 images has its label file, such as .*/a\.txt"):
        yolo()


def test_pictures_and_labels_elsewhere_need_the_users_word(
    horses: Path, yolo: Callable[..., Any], tmp_path: Path, picture: Callable[..., Path]
) -> None:
    (horses / "images/train/b.png").unlink()
    (horses / "images/train/b.png").symlink_to(picture(tmp_path / "secret.png"))
    (sentence,) = yolo(skip=True).log.problems
    assert "leads out of" in sentence
    (horses / "images").rename(tmp_path / "images")
    (horses / "labels").rename(tmp_path / "labels")
    describe(horses, path="..")
    with pytest.raises(InputError, match=r"is not in .*; give images=<folder that holds the images>"):
        yolo()
    assert names(yolo(images=tmp_path), "val") == ["c.png"]


def test_several_folders_and_files_of_windows_are_read(horses: Path, yolo: Callable[..., Any]) -> None:
    (horses / "labels/train/a.txt").write_bytes(b"\xef\xbb\xbf" + LINE.encode() + b"\r\n")
    describe(horses, train=["images\\train", "/mnt/x/images/val"])
    data = horses / "data.yaml"
    data.write_bytes(b"\xef\xbb\xbf" + data.read_bytes().replace(b"\n", b"\r\n"))
    converted = yolo()
    assert names(converted) == ["train/a.png", "train/b.png", "val/c.png"]
    assert label_file(Path("/images/d/images/a.b.jpg")) == Path("/images/d/labels/a.b.txt")
    assert label_file(Path("/d/pictures/a.jpg")) == Path("/d/pictures/a.txt")
    assert converted.keypoints("train/a.png") == [POINTS]


def test_a_line_keeps_what_can_be_used(horses: Path, yolo: Callable[..., Any]) -> None:
    lines = ("0.5 0.5 0.4 0.6", "400 200 32 24 0.5 0.25 2 0.4 0.5 1 nan nan 2")
    (horses / "labels/train/a.txt").write_text("\n".join(f"0.0 {line}" for line in lines))
    without_keypoints, without_box = yolo().people_in("a.png")
    assert (without_keypoints["bbox"], without_keypoints["num_keypoints"]) == ([24, 8, 32, 24], 0)
    assert (without_box["bbox"], without_box["keypoints"]) == (pytest.approx([31, 9, 10, 12]), POINTS)
