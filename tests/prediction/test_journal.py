"""A run that was interrupted knows what is done, and no other run is mistaken for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from uniformer_pose.errors import InputError
from uniformer_pose.prediction.journal import FILE_NAME, Journal

SETTINGS = {"source": "photos", "flip_test": False}


def opened(folder: Path, overwrite: bool = False, **changes: object) -> Journal:
    return Journal(folder, {**SETTINGS, **changes}, overwrite=overwrite)


def test_what_is_added_is_there_next_time(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.begin(["a", "b"])
        journal.add("a", {"people": [1, 2]})
    with opened(tmp_path) as journal:
        assert "a" in journal
        assert "b" not in journal
        assert journal.has_begun("b")
        assert journal.finished_before == 1
        journal.add("b", {})
        assert list(journal.records()) == [{"name": "a", "people": [1, 2]}, {"name": "b"}]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_last_line_that_was_cut_off_counts_as_not_written(tmp_path: Path, cut: int) -> None:
    with opened(tmp_path) as journal:
        journal.add("a", {"people": []})
        journal.add("b", {"people": []})
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:-cut])
    with opened(tmp_path) as journal:
        assert "a" in journal
        assert "b" not in journal
        journal.add("b", {"people": [3]})
        assert [record["name"] for record in journal.records()] == ["a", "b"]


def test_other_settings_are_named_unless_begun_anew(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.add("a", {})
    with pytest.raises(InputError, match=r"other settings \(flip_test was False and is True\); .*overwrite=true"):
        opened(tmp_path, flip_test=True).__enter__()
    with opened(tmp_path, overwrite=True, flip_test=True) as journal:
        assert "a" not in journal


def test_settings_in_a_group_are_named_without_being_listed(tmp_path: Path) -> None:
    with opened(tmp_path, detector={"model": {"a": 1}}) as journal:
        journal.add("a", {})
    with pytest.raises(InputError, match=r"other settings \(another detector\)"):
        opened(tmp_path, detector={"model": {"a": 2}}).__enter__()


def test_a_run_that_ended_before_anything_was_done_binds_nobody(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    with opened(tmp_path, flip_test=True) as journal:
        journal.add("a", {})
    with opened(tmp_path, flip_test=True) as journal:
        assert "a" in journal


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("precious\n")
    with pytest.raises(InputError, match="not the journal of a run"):
        opened(tmp_path).__enter__()
    assert (tmp_path / FILE_NAME).read_text() == "precious\n"


def test_two_runs_do_not_write_one_folder(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(InputError, match="another run is writing there"):
        opened(tmp_path).__enter__()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written to"):
        opened(tmp_path / "file" / "folder").__enter__()
