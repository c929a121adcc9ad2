"""Files that appear whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from uniformer_pose.errors import InputError
from uniformer_pose.files import write_json, write_whole


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with write_whole(path) as part:
        part.write_text("all of it")
        assert not path.exists()
        assert part.parent == path.parent
    assert path.read_text() == "all of it"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("before")

    def stopped(part: Path) -> None:
        part.write_text("half of")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), write_whole(path) as part:
        stopped(part)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_one_line_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/x.json: cannot be written \(.*\); give output="):
        write_json(tmp_path / "file" / "x.json", {}, advice="give output=")
    with pytest.raises(OSError, match="file"):
        write_json(tmp_path / "file" / "x.json", {})


def test_json_has_null_for_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [1, float("nan")], "b": ("é", 0.5)}, indent=None)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == {"a": [1, None], "b": ["é", 0.5]}
    assert " " not in text
