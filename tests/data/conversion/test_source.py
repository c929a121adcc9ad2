"""Rules that all formats share: names of files, splits, problems, turned pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from uniformer_pose.data.conversion.dataset_writer import split_by_share
from uniformer_pose.data.conversion.source import Log, SourceImage, SourcePerson, find_inside
from uniformer_pose.data.conversion.usable_people import ImageHeader, read_header, stored_to_displayed
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton

SKELETON = Skeleton("two", ("left", "right"), (0.1, 0.1), ((0, 0, 0),) * 2, (("left", "right"),), (), (), ())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_points_of_the_stored_picture_are_found_in_the_displayed_one(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    stored = np.zeros((30, 50, 3), dtype=np.uint8)
    stored[4, 7], stored[20, 33] = 255, 128
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / f"a.{suffix}", exif=exif)
    with Image.open(tmp_path / f"a.{suffix}") as image:
        shown = np.array(ImageOps.exif_transpose(image))[..., 0]
    header = read_header(tmp_path / f"a.{suffix}")
    assert header == ImageHeader((30, 50), orientation)
    assert header.displayed == shown.shape
    if suffix == "jpg":
        return  # its pixels are not exact
    person = SourcePerson(np.array([7.0, 4, 27, 17]), np.array([[7.0, 4, 2], [33, 20, 2]]), "here")
    keypoints = np.array([[*np.argwhere(shown == value)[0][::-1], 2] for value in (255, 128)], dtype=float)
    low = keypoints[:, :2].min(axis=0)
    box = np.concatenate([low, keypoints[:, :2].max(axis=0) + 1 - low])  # the pixels' outer edges
    mirrored = orientation in (2, 4, 5, 7)  # a left hand looks like a right one
    turned = stored_to_displayed(person, header, SKELETON)
    assert turned.keypoints.tolist() == keypoints[:: -1 if mirrored else 1].tolist()
    assert turned.box_xywh.tolist() == box.tolist()


def test_unlabelled_keypoints_stay_zero_when_the_picture_is_turned() -> None:
    person = SourcePerson(np.array([1.0, 2, 3, 4]), np.array([[0.0, 0, 0], [6, 24, 1]]), "here")
    turned = stored_to_displayed(person, ImageHeader((30, 50), 6), SKELETON)
    assert turned.keypoints.tolist() == [[0, 0, 0], [5, 6, 1]]


@pytest.mark.parametrize("content", [None, b"", b"<html>", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_image_has_no_header(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.jpg: "):
        read_header(tmp_path / "a.jpg")


def images(names: list[str]) -> list[SourceImage]:
    return [SourceImage(Path(), name, []) for name in names]


@given(
    names=st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=40, unique=True), share=st.floats(0.01, 0.99)
)
def test_a_share_of_the_images_goes_to_validation_and_none_is_lost(names: list[str], share: float) -> None:
    parts = {split: [i.name for i in found] for split, found in split_by_share(images(names), share).items()}
    assert sorted(parts["train"] + parts["val"]) == sorted(names)
    assert 1 <= len(parts["val"]) <= len(names) - 1
    assert abs(len(parts["val"]) - share * len(names)) <= 1
    again = split_by_share(images(names[::-1]), share)["val"]
    assert {image.name for image in again} == set(parts["val"])  # whatever their order


@pytest.mark.parametrize(("names", "share"), [(["a"], 0.1), (["a", "b"], 0.0), (["a", "b"], 1.0)])
def test_what_cannot_be_divided_is_refused(names: list[str], share: float) -> None:
    with pytest.raises(InputError):
        split_by_share(images(names), share)


@pytest.mark.parametrize("name", ["a/\u00fcber.png", "a/u\u0308ber.png", "C:\\x\\a\\\u00fcber.png"])
def test_an_image_is_found_by_a_name_from_another_machine(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/\u00fcber.png").touch()
    log = Log()
    assert find_inside(tmp_path.resolve(), name, log) == tmp_path.resolve() / "a/\u00fcber.png"
    assert log.repairs.total() == (name.replace("\\", "/") != "a/\u00fcber.png")


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../secret.png",
        "..\\secret.png",
        "link/secret.png",
        "\ud800.png",
        "x\0.png",
        "",
        "a" * 300,
        "loop",
    ],
)
def test_no_image_is_found_outside_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").touch()
    (tmp_path / "in/link").symlink_to(tmp_path)
    (tmp_path / "in/loop").symlink_to(tmp_path / "in/loop")
    with pytest.raises(InputError):
        find_inside((tmp_path / "in").resolve(), name, Log())


def test_problems_are_told_with_the_first_and_the_number_of_others_and_a_hundred_end_the_conversion() -> None:
    log = Log()
    log.refuse()
    log.problem("a.txt:1: bad")
    log.problem("a.txt:2: bad")
    with pytest.raises(InputError, match=r"^a\.txt:1: bad \(and 1 like it\); correct it, or on_problem=skip"):
        log.refuse()
    for number in range(3, 100):
        log.problem(f"line {number}")
    with pytest.raises(InputError, match="and 99 or more like it"):
        log.problem("line 100")
    skipped = Log(skip=True)
    for number in range(1000):
        skipped.problem(f"line {number}")
    skipped.refuse()
    assert len(skipped.problems) == 1000
