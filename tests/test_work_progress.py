"""Counted work in a log file."""

from __future__ import annotations

import pytest

from uniformer_pose import work_progress


def test_short_work_says_nothing_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with work_progress.work_progress("images") as report:
        report(1, 2)
        report(2, 2)
    assert capsys.readouterr() == ("", "")


def test_long_work_says_now_and_then_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(work_progress.time, "monotonic", lambda: next(clock))
    with work_progress.work_progress("images") as report:
        report(1, 9)
        report(2, 9)
        report(3, None)
        report(4, None)
    assert capsys.readouterr().err == "2/9 images\n4 images\n"
