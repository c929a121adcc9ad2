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

from uniformer_pose.data.conversion.dataset_writer import write_dataset
from uniformer_pose.data.conversion.source import Log, Settings, Source, SourceImage, SourcePerson
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
        "conversion.json",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "source"]
    assert lines == [
        "train 2 images, 1 people, 1 of them with labelled keypoints",
        "val   1 images, 1 people, 1 of them with labelled keypoints",
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
    config = yaml.safe_load((tmp_path / "new/conf/data/worms.yaml").read_text())
    assert config["root"] == str(tmp_path / "new")
    assert config["defaults"] == ["_people"]
    for key in ("train_annotations", "train_images", "val_annotations", "val_images"):
        assert (tmp_path / "new" / config[key]).exists()


def test_images_are_linked_or_else_copied(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    write(source, tmp_path / "links")
    monkeypatch.setattr(os, "link", refuse)
    write(source, tmp_path / "impossible")
    original = tmp_path / "source/a.png"
    for name, linked in (("links", True), ("impossible", False)):
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
        ("thesis", "holds files; give a folder that is new or empty"),
        ("next", r"next\.part cannot be made .*delete it"),
        ("file", "is no folder"),
        ("link", "is no folder"),
    ):
        with pytest.raises(InputError, match=words):
            write(source, tmp_path / name)
    assert files(tmp_path) == before


def test_an_interrupted_conversion_leaves_nothing(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(source, tmp_path / "new", on_progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_problem_stops_the_conversion_or_is_listed(source: Source, tmp_path: Path) -> None:
    broken = SourceImage(tmp_path / "absent.png", "absent.png", [], "list.txt:3")
    twice = SourceImage(tmp_path / "source/a.png", "a.png", [])
    source.splits["train"] += [broken, twice]
    with pytest.raises(InputError, match=r"^list\.txt:3: .*absent\.png: no such image \(and 1 like it\); correct it"):
        write(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    _, log = write(source, tmp_path / "new", skip=True)
    assert (tmp_path / "new/left_out.txt").read_text().splitlines() == log.problems
    assert "is named twice" in log.problems[1]
    assert json.loads((tmp_path / "new/conversion.json").read_text())["left_out"] == 2


def test_a_split_without_labelled_people_is_refused(source: Source, tmp_path: Path) -> None:
    source.splits["val"] = source.splits["train"][:1]
    with pytest.raises(InputError, match="val   1 images, 0 people, 0 of them with labelled keypoints; no training"):
        write(source, tmp_path / "new")
