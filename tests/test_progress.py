"""Counted work in a log file, and tables of text."""

from __future__ import annotations

import pytest

from uniformer_pose import progress
from uniformer_pose.progress import markdown_table, progress_bar, text_table


def test_short_work_says_nothing_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("images") as report:
        report(1, 2)
        report(2, 2)
    assert capsys.readouterr() == ("", "")


def test_long_work_says_now_and_then_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress_bar("images") as report:
        for done in (1, 2):
            report(done, 9)
        for done in (3, 4):
            report(done)
    with progress_bar("a.pth", unit="bytes") as report:
        for done in (1_000_000, 2_000_000):
            report(done, 3_500_000)
    assert capsys.readouterr().err == "2/9 images\n4 images\na.pth: 2.0/3.5 MB\n"


def test_columns_are_as_wide_as_they_need_and_brackets_are_no_markup() -> None:
    rows = [["boxes", "AP"], ["gt [red]", "0.5"], ["x" * 300, "0.1234"]]
    lines = text_table(rows).splitlines()
    assert [line.split() for line in lines] == [["boxes", "AP"], ["gt", "[red]", "0.5"], ["x" * 300, "0.1234"]]
    assert {len(line) for line in lines} == {300 + 2 + 6}
    assert markdown_table([["a", "b"], ["c", "1"]]) == "| a | b |\n|---|---:|\n| c | 1 |"
