"""What a conversion leaves on disk, and what it leaves alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from uniformer_pose.data.conversion.dataset_writer import split_by_share, write_dataset
from uniformer_pose.data.conversion.source import Log, Settings, Source, SourceImage, SourcePerson, find_inside
from uniformer_pose.data.conversion.usable_people import ImageHeader, read_header
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import load_skeleton


@pytest.fixture
def source(tmp_path: Path, picture: Callable[..., Path]) -> Source:
    """Two training images, one with a person; one validation image with a person."""
    person = SourcePerson(np.array([10.0, 5, 20, 30]), np.array([[12.3456789, 7, 2], [0, 0, 0]]), "here")
    files = {name: picture(tmp_path / "source" / name) for name in ("a.png", "deep/b.png", "c.png")}
    train = [SourceImage(files["a.png"], "a.png", []), SourceImage(files["deep/b.png"], "deep/b.png", [person])]
    return Source(["head", "tail"], "worm", {"train": train, "val": [SourceImage(files["c.png"], "c.png", [person])]})


def write(source: Source, to: Path, *, skip: bool = False, **settings: Any) -> tuple[list[str], Log]:
    log = Log(skip=skip)
    return write_dataset(source, to, "worms", Settings(), log, made_from={}, **settings), log


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_layout_is_complete_and_nothing_else_is_left(source: Source, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    calls: list[tuple[int, int]] = []
    lines, _ = write(source, tmp_path / "new", on_progress=lambda done, total: calls.append((done, total)))
    assert files(tmp_path / "new") == {
        "images/train/a.png",
        "images/train/deep/b.png",
        "images/val/c.png",
        "annotations/train.json",
        "annotations/val.json",
        "skeleton.yaml",
        "conf/data/worms.yaml",
        "conf/data/sets/worms.yaml",
        "conversion.json",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "source"]
    assert lines == [
        "2 images; train.json, category worm: kept 1 of 1 annotations in 1 images",
        "1 images; val.json, category worm: kept 1 of 1 annotations in 1 images",
    ]
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_annotations_skeleton_and_data_config_are_those_that_training_reads(source: Source, tmp_path: Path) -> None:
    write(source, tmp_path / "new")
    content = json.loads((tmp_path / "new/annotations/train.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "worm", "keypoints": ["head", "tail"], "skeleton": []}]
    assert content["images"][1] == {"id": 2, "file_name": "deep/b.png", "height": 40, "width": 80}
    (worm,) = content["annotations"]
    assert (worm["image_id"], worm["keypoints"], worm["area"]) == (2, [12.346, 7, 2, 0, 0, 0], pytest.approx(318))
    assert load_skeleton(tmp_path / "new/skeleton.yaml").keypoint_names == ("head", "tail")
    assert yaml.safe_load((tmp_path / "new/conf/data/worms.yaml").read_text())["defaults"] == [
        "_people",
        "sets/worms@_here_",
    ]
    config = yaml.safe_load((tmp_path / "new/conf/data/sets/worms.yaml").read_text())
    assert config["root"] == str(tmp_path / "new")
    for key in ("train_annotations", "train_images", "val_annotations", "val_images"):
        assert (tmp_path / "new" / config[key]).exists()


def test_images_are_linked_or_else_copied(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    original = tmp_path / "source/a.png"
    for name, linked in (("links", True), ("impossible", False)):
        if not linked:
            monkeypatch.setattr(os, "link", refuse)
        write(source, tmp_path / name)
        written = tmp_path / name / "images/train/a.png"
        assert written.samefile(original) == linked
        assert written.read_bytes() == original.read_bytes()


def test_what_is_there_already_stays_as_it_is(source: Source, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("years of work")
    (tmp_path / "next.part").mkdir()
    (tmp_path / "next.part/notes.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "source")
    before = files(tmp_path)
    for name, words in (
        *((name, "is there already; give a folder that is new or empty") for name in ("thesis", "file", "link")),
        ("next", r"next\.part cannot be made .*delete it"),
    ):
        with pytest.raises(InputError, match=words):
            write(source, tmp_path / name)
    assert files(tmp_path) == before


def test_an_interrupted_conversion_leaves_nothing(source: Source, tmp_path: Path) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(source, tmp_path / "new", on_progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_problem_stops_the_conversion_or_is_listed(source: Source, tmp_path: Path) -> None:
    source.splits["train"] += [SourceImage(tmp_path / f"absent_{n}.png", f"absent_{n}.png", []) for n in range(2)]
    with pytest.raises(InputError, match=r"absent_0\.png: no image that can be read \(and 1 like it\); correct it"):
        write(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    _, log = write(source, tmp_path / "new", skip=True)
    assert json.loads((tmp_path / "new/conversion.json").read_text())["left_out"] == log.problems
    assert len(log.problems) == 2


def test_a_split_without_labelled_people_is_refused(source: Source, tmp_path: Path) -> None:
    source.splits["val"] = source.splits["train"][:1]
    with pytest.raises(InputError, match="val has 1 images and nobody with labelled keypoints; no training"):
        write(source, tmp_path / "new")


def test_what_is_no_picture_has_no_header(tmp_path: Path, picture: Callable[..., Path]) -> None:
    path = picture(tmp_path / "a.jpg", 30, 50, 6)
    assert read_header(path) == ImageHeader((30, 50), 6)
    assert read_header(path).displayed == (50, 30)
    for content in (b"", b"<html>", b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.jpg: no image"):
            read_header(path)


@given(
    names=st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=40, unique=True), share=st.floats(0.01, 0.99)
)
def test_a_share_of_the_images_goes_to_validation_and_none_is_lost(names: list[str], share: float) -> None:
    images = [SourceImage(Path(), name, []) for name in names]
    parts = {split: [i.name for i in found] for split, found in split_by_share(images, share).items()}
    assert sorted(parts["train"] + parts["val"]) == sorted(names)
    assert 1 <= len(parts["val"]) <= len(names) - 1
    assert abs(len(parts["val"]) - share * len(names)) <= 1
    again = split_by_share(images[::-1], share)["val"]
    assert {image.name for image in again} == set(parts["val"])  # whatever their order
    with pytest.raises(InputError, match="1 images cannot be divided"):
        split_by_share(images[:1], share)


@pytest.mark.parametrize("name", ["a/\u00fcber.png", "a/u\u0308ber.png", "C:\\x\\a\\\u00fcber.png"])
def test_an_image_is_found_by_a_name_from_another_machine(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/\u00fcber.png").touch()
    log = Log()
    assert find_inside(tmp_path.resolve(), name, log) == tmp_path.resolve() / "a/\u00fcber.png"
    assert log.repairs.total() == (name.replace("\\", "/") != "a/\u00fcber.png")


OUTSIDE = ["/etc/passwd", "../secret.png", "..\\secret.png", "link/secret.png"]


@pytest.mark.parametrize("name", [*OUTSIDE, "\ud800.png", "x\0.png", "", "a" * 300, "loop"])
def test_no_image_is_found_outside_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").touch()
    (tmp_path / "in/link").symlink_to(tmp_path)
    (tmp_path / "in/loop").symlink_to(tmp_path / "in/loop")
    with pytest.raises(InputError):
        find_inside((tmp_path / "in").resolve(), name, Log())
