"""Geometry and rules that all formats share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from uniformer_pose.data.checking.image_check import read_header
from uniformer_pose.data.conversion.plain_values import Repairs
from uniformer_pose.data.conversion.source import (
    Problems,
    SourcePerson,
    find_inside,
    path_inside,
    split_by_share,
    stored_to_displayed,
)
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton

SKELETON = Skeleton("two", ("left", "right"), (0.1, 0.1), ((0, 0, 0),) * 2, (("left", "right"),), (), (), ())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_points_of_the_stored_picture_are_found_in_the_displayed_one(tmp_path: Path, orientation: int) -> None:
    stored = np.zeros((30, 50), dtype=np.uint8)
    stored[4, 7], stored[20, 33] = 255, 128
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        shown = np.array(ImageOps.exif_transpose(image))
    header = read_header(tmp_path / "a.png")
    assert header is not None
    person = SourcePerson(np.array([7.0, 4, 27, 17]), np.array([[7.0, 4, 2], [33, 20, 2]]))
    keypoints = np.array([[*np.argwhere(shown == value)[0][::-1], 2] for value in (255, 128)], dtype=float)
    low = keypoints[:, :2].min(axis=0)
    box = np.concatenate([low, keypoints[:, :2].max(axis=0) + 1 - low])  # the pixels' outer edges
    mirrored = orientation in (2, 4, 5, 7)  # a left hand looks like a right one
    turned = stored_to_displayed(person, header, SKELETON)
    assert turned.keypoints.tolist() == keypoints[:: -1 if mirrored else 1].tolist()
    assert turned.box_xywh.tolist() == box.tolist()


def test_unlabelled_keypoints_stay_zero_when_the_picture_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((30, 50), dtype=np.uint8)).save(tmp_path / "a.png", exif=exif)
    header = read_header(tmp_path / "a.png")
    assert header is not None
    person = SourcePerson(np.array([1.0, 2, 3, 4]), np.array([[0.0, 0, 0], [6, 24, 1]]))
    assert stored_to_displayed(person, header, SKELETON).keypoints.tolist() == [[0, 0, 0], [5, 6, 1]]


@given(
    names=st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=40, unique=True), share=st.floats(0.01, 0.99)
)
def test_a_share_of_the_images_goes_to_validation_and_none_is_lost(names: list[str], share: float) -> None:
    parts = split_by_share(names, share, seed=0)
    assert sorted(parts["train"] + parts["val"]) == sorted(names)
    assert 1 <= len(parts["val"]) <= len(names) - 1
    assert abs(len(parts["val"]) - share * len(names)) <= 1
    assert set(split_by_share(names[::-1], share, seed=0)["val"]) == set(parts["val"])


def test_another_seed_chooses_other_images() -> None:
    names = [f"{number}.jpg" for number in range(100)]
    assert split_by_share(names, 0.2, seed=0) != split_by_share(names, 0.2, seed=1)


@pytest.mark.parametrize(("names", "share"), [(["a"], 0.1), (["a", "b"], 0.0), (["a", "b"], 1.0)])
def test_what_cannot_be_divided_is_refused(names: list[str], share: float) -> None:
    with pytest.raises(InputError):
        split_by_share(names, share, seed=0)


@pytest.mark.parametrize(
    "name", ["../a.jpg", "/etc/passwd", "x/../../a.jpg", "", " ", "a\0b", "..\\..\\a.jpg", "link/a.jpg"]
)
def test_a_name_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path)
    with pytest.raises(InputError):
        path_inside((tmp_path / "in").resolve(), name)


def test_names_may_have_folders_and_backslashes(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    assert path_inside(root, "a/b.jpg") == path_inside(root, "a\\b.jpg") == root / "a" / "b.jpg"


@pytest.mark.parametrize(
    "name",
    [
        "a/\u00fcber.png",
        "a/u\u0308ber.png",
        "a\\\u00fcber.png",
        "/home/me/set/a/\u00fcber.png",
        "C:\\x\\a\\\u00fcber.png",
    ],
)
def test_an_image_is_found_by_a_name_from_another_machine(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/\u00fcber.png").touch()
    repairs = Repairs()
    assert find_inside(tmp_path.resolve(), name, repairs) == tmp_path.resolve() / "a/\u00fcber.png"
    assert repairs.total() == (name.replace("\\", "/") != "a/\u00fcber.png")


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.png", "a/../../secret.png", "\ud800.png", "x\0.png", ""])
def test_no_image_is_found_outside_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").touch()
    with pytest.raises(InputError):
        find_inside((tmp_path / "in").resolve(), name, Repairs())


def test_problems_are_told_with_the_first_and_the_number_of_others() -> None:
    problems = Problems(allowed=False)
    problems.refuse()
    problems.add("a.txt:1: bad")
    problems.add("a.txt:2: bad")
    with pytest.raises(InputError, match=r"^a\.txt:1: bad \(and 1 like it\); correct it, or on_problem=skip"):
        problems.refuse()


def test_a_hundred_problems_end_the_conversion_at_once_unless_they_are_allowed() -> None:
    problems = Problems(allowed=False)
    for number in range(99):
        problems.add(f"line {number}")
    with pytest.raises(InputError, match="and 99 or more like it"):
        problems.add("line 99")
    allowed = Problems(allowed=True)
    for number in range(1000):
        allowed.add(f"line {number}")
    allowed.refuse()
    assert len(allowed.sentences) == 1000
