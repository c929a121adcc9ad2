"""What a person names becomes a list of pictures and videos, or a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from uniformer_pose.errors import InputError
from uniformer_pose.prediction.sources import find_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in ("b.jpg", "a.PNG", "trip/c.jpeg", "trip/d.mp4", "notes.txt.bak", "trip/raw.cr2"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "empty").mkdir()
    return root


def names(source: str) -> list[tuple[str, str]]:
    return [(item.kind, item.name) for item in find_source(source).items]


def test_a_folder_is_everything_below_it_in_order(folder: Path) -> None:
    assert names(str(folder)) == [
        ("picture", "a.PNG"),
        ("picture", "b.jpg"),
        ("picture", "trip/c.jpeg"),
        ("video", "trip/d.mp4"),
    ]
    assert find_source(str(folder)).ignored == {".bak": 1, ".cr2": 1}


def test_a_pattern_keeps_the_folders_below_its_fixed_part(folder: Path) -> None:
    assert names(f"{folder}/*.jpg") == [("picture", "b.jpg")]
    assert names(f"{folder}/**/*.jp*g") == [("picture", "b.jpg"), ("picture", "trip/c.jpeg")]
    assert names(f"{folder}/t*/c.jpeg") == [("picture", "trip/c.jpeg")]


def test_a_file_by_itself_has_its_own_name(folder: Path) -> None:
    assert names(str(folder / "trip" / "c.jpeg")) == [("picture", "c.jpeg")]
    assert names(str(folder / "trip" / "d.mp4")) == [("video", "d.mp4")]


def test_a_link_out_of_the_folder_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (folder / "z.jpg").symlink_to(tmp_path / "secret.jpg")
    source = find_source(str(folder))
    assert source.refused == {str(folder / "z.jpg"): "links to a file outside the folder"}
    assert all(item.name != "z.jpg" for item in source.items)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "no such file or folder"),
        ("{folder}/empty", "no pictures or videos there"),
        ("https://host/a.jpg", "addresses are not opened; download it and give its path"),
        ("rtsp://camera/1", "addresses are not opened"),
        ("{folder}/b.jpeg", r"no such file or folder; did you mean .*photos/b.jpg\?"),
        ("{folder}/nowhere/x.jpg", "no such file or folder; check the path"),
        ("{folder}/*.tif", "no pictures or videos there"),
        ("{folder}/trip/*.cr2", "no pictures or videos there, only 1 other files"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(folder: Path, source: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        find_source(source.format(folder=folder))
    assert "\n" not in str(raised.value)
