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

from uniformer_pose.data.conversion import dataset_writer
from uniformer_pose.data.conversion.source import Problems, SourceDataset, SourceImage, SourcePerson, SplitName
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton, load_skeleton

SKELETON = Skeleton("two", ("head", "tail"), (0.1, 0.2), ((1, 2, 3),) * 2, (), (), (), (("head", "tail"),))


@pytest.fixture
def source(tmp_path: Path, picture: Callable[..., Path]) -> SourceDataset:
    """Two training images, one with a person; one validation image with a person."""
    names: dict[SplitName, list[str]] = {"train": ["a.png", "deep/b.png"], "val": ["c.png"]}
    for name in ("a.png", "deep/b.png", "c.png"):
        picture(tmp_path / "source" / name, 40, 80)
    person = SourcePerson(np.array([10.0, 5, 20, 30]), np.array([[12.3456789, 7, 2], [0, 0, 0]]))

    def read(_split: SplitName, name: str, problems: Problems) -> SourceImage | None:
        if name == "broken.png":
            problems.add("broken.png: broken")
            return None
        people = [] if name == "a.png" else [person]
        return SourceImage(tmp_path / "source" / name, Path(name).as_posix(), 40, 80, people)

    return SourceDataset(SKELETON, "worm", names, read, ["a note"])


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_layout_is_complete_and_nothing_else_is_left(
    source: SourceDataset, write: Callable[..., Any], tmp_path: Path
) -> None:
    summary = write(source)
    assert files(tmp_path / "converted") == {
        "images/train/a.png",
        "images/train/deep/b.png",
        "images/val/c.png",
        "annotations/train.json",
        "annotations/val.json",
        "skeleton.yaml",
        "conf/data/converted.yaml",
        "conversion.json",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["converted", "source"]
    assert summary.text().splitlines() == [
        "train 2 images, 1 people, 1 of them with labelled keypoints",
        "val   1 images, 1 people, 1 of them with labelled keypoints",
        "note: a note",
    ]


def test_the_annotations_are_coco(source: SourceDataset, write: Callable[..., Any], tmp_path: Path) -> None:
    write(source)
    content = json.loads((tmp_path / "converted/annotations/train.json").read_text())
    assert content["categories"] == [
        {"id": 1, "name": "worm", "supercategory": "worm", "keypoints": ["head", "tail"], "skeleton": [[1, 2]]}
    ]
    assert [image["file_name"] for image in content["images"]] == ["a.png", "deep/b.png"]
    (worm,) = content["annotations"]
    assert worm["image_id"] == 2
    assert worm["keypoints"] == [12.346, 7, 2, 0, 0, 0]
    assert worm["area"] == 300  # half of its box


def test_the_skeleton_is_read_back_as_it_was(source: SourceDataset, write: Callable[..., Any], tmp_path: Path) -> None:
    write(source)
    assert load_skeleton(tmp_path / "converted/skeleton.yaml") == SKELETON


def test_the_data_config_names_what_was_written(
    source: SourceDataset, write: Callable[..., Any], tmp_path: Path
) -> None:
    summary = write(source)
    config = yaml.safe_load(summary.config_file.read_text())
    assert config["root"] == str(tmp_path / "converted")
    assert config["defaults"] == ["_people"]
    assert config["codec"] == {"height": 64, "width": 64, "sigma": 1.5}
    for key in ("train_annotations", "train_images", "val_annotations", "val_images"):
        assert (tmp_path / "converted" / config[key]).exists()


def test_images_are_linked_or_copied(source: SourceDataset, write: Callable[..., Any], tmp_path: Path) -> None:
    assert write(source).copied == 0
    assert (tmp_path / "converted/images/train/a.png").samefile(tmp_path / "source/a.png")
    assert write(source, to=tmp_path / "copies", image_files="copy").copied == 3
    assert not (tmp_path / "copies/images/train/a.png").samefile(tmp_path / "source/a.png")


def test_where_links_are_impossible_images_are_copied(
    source: SourceDataset, write: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert write(source).copied == 3
    assert (tmp_path / "converted/images/train/a.png").read_bytes() == (tmp_path / "source/a.png").read_bytes()


def test_a_folder_with_files_is_left_alone(source: SourceDataset, write: Callable[..., Any], tmp_path: Path) -> None:
    write(source)
    before = {name: (tmp_path / "converted" / name).stat().st_mtime_ns for name in files(tmp_path / "converted")}
    with pytest.raises(InputError, match="holds files; give a new folder, or overwrite=true"):
        write(source)
    assert before == {
        name: (tmp_path / "converted" / name).stat().st_mtime_ns for name in files(tmp_path / "converted")
    }


def test_overwrite_replaces_a_converted_dataset_as_a_whole(
    source: SourceDataset, write: Callable[..., Any], tmp_path: Path
) -> None:
    write(source)
    source.images["train"] = ["deep/b.png"]
    write(source, overwrite=True)
    assert files(tmp_path / "converted/images") == {"train/deep/b.png", "val/c.png"}
    assert files(tmp_path / "source") == {"a.png", "deep/b.png", "c.png"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["converted", "source"]


def test_overwrite_never_deletes_what_no_conversion_wrote(
    source: SourceDataset, write: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("years of work")
    for target in (tmp_path / "thesis", tmp_path / "source"):
        with pytest.raises(InputError, match="holds files that no conversion wrote, and stays as it is"):
            write(source, to=target, overwrite=True)
    (tmp_path / "next.part").mkdir()
    (tmp_path / "next.part/notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"next\.part holds files that no conversion wrote"):
        write(source, to=tmp_path / "next")
    assert (tmp_path / "thesis/chapter.txt").exists()
    assert (tmp_path / "next.part/notes.txt").exists()


def test_a_file_or_a_link_in_the_way_is_refused(
    source: SourceDataset, write: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "source")
    for name in ("file", "link"):
        with pytest.raises(InputError, match="is no folder"):
            write(source, to=tmp_path / name, overwrite=True)


def test_an_interrupted_conversion_leaves_nothing_and_the_old_dataset(
    source: SourceDataset, write: Callable[..., Any], tmp_path: Path
) -> None:
    write(source)
    read = source.read

    def interrupted(split: SplitName, name: str, problems: Problems) -> SourceImage | None:
        if split == "val":
            raise KeyboardInterrupt
        return read(split, name, problems)

    source.read = interrupted
    with pytest.raises(KeyboardInterrupt):
        write(source, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["converted", "source"]
    assert len(files(tmp_path / "converted")) == 8


def test_what_a_killed_conversion_left_is_cleared_by_the_next(
    source: SourceDataset, write: Callable[..., Any], tmp_path: Path
) -> None:
    left = tmp_path / "converted.part"
    left.mkdir()
    (left / "conversion.json").write_text(json.dumps({"converted_by": dataset_writer.CONVERTER}))
    write(source)
    assert not left.exists()


def test_a_problem_stops_the_conversion_or_is_listed(
    source: SourceDataset, write: Callable[..., Any], tmp_path: Path
) -> None:
    source.images["train"].append("broken.png")
    with pytest.raises(InputError, match=r"^broken\.png: broken; correct it, or on_problem=skip"):
        write(source)
    assert not (tmp_path / "converted").exists()
    summary = write(source, on_problem="skip")
    assert (tmp_path / "converted/left_out.txt").read_text() == "broken.png: broken\n"
    assert summary.text().endswith(f"left out: 1, listed in {tmp_path / 'converted/left_out.txt'}")
    assert json.loads((tmp_path / "converted/conversion.json").read_text())["left_out"] == 1


def test_a_split_without_labelled_people_is_refused(source: SourceDataset, write: Callable[..., Any]) -> None:
    source.images["val"] = ["a.png"]
    with pytest.raises(InputError, match="val: 1 images, 0 people, none with a labelled keypoint"):
        write(source)


def test_an_image_that_is_named_twice_is_a_problem(source: SourceDataset, write: Callable[..., Any]) -> None:
    source.images["train"].append("./deep/b.png")
    with pytest.raises(InputError, match="is named twice"):
        write(source)


def test_progress_counts_every_image(source: SourceDataset, write: Callable[..., Any]) -> None:
    calls: list[tuple[int, int]] = []
    write(source, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
