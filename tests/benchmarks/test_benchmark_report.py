from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from uniformer_pose.benchmarks.machine import machine_facts, machine_line
from uniformer_pose.benchmarks.measurement import Measurement
from uniformer_pose.benchmarks.report import (
    BenchmarkResult,
    Comparison,
    comparison_record,
    comparison_table,
    result_text,
    summary_page,
    write_result,
    write_whole,
)
from uniformer_pose.errors import InputError
from uniformer_pose.run_record import library_versions


def outcome(speed: float = 2.0, peak: int | None = None) -> BenchmarkResult:
    plain = Measurement("plain", "crops", "cpu", [10, 10], [1.0, 1.0], [1.0, 1.0])
    fast = Measurement("fast", "crops", "cpu", [10, 10], [1 / speed, 1 / speed], [1.0, 1.0], peak)
    return BenchmarkResult("loader", [Comparison("One core", [plain, fast])], {"gain": speed}, [f"It is {speed}x."])


@pytest.fixture(scope="module")
def machine() -> dict[str, Any]:
    return machine_facts(torch.device("cpu"))


def write(path: Path, machine: dict[str, Any], speed: float = 2.0) -> None:
    date = f"{path.name[:10]}T10:00:00+00:00"
    write_result(path, outcome(speed), machine=machine, settings={"rounds": 2}, command=["python", "a b"], date=date)


def test_the_table_has_medians_spread_and_the_ratio() -> None:
    header, plain, fast = comparison_table(comparison_record(outcome().comparisons[0]))

    assert header == ["cpu clock", "crops/s", "quartiles", "ms each", "x first", "its quartiles"]
    assert plain == ["plain", "10", "10 - 10", "100", "1.000", "1.000 - 1.000"]
    assert fast == ["fast", "20", "20 - 20", "50", "2.000", "2.000 - 2.000"]


def test_memory_is_shown_where_it_was_measured() -> None:
    header, plain, fast = comparison_table(comparison_record(outcome(peak=3 * 2**20).comparisons[0]))

    assert (header[-1], plain[-1], fast[-1]) == ("peak MB", "-", "3")


def test_the_text_names_machine_versions_numbers_and_verdict(machine: dict[str, Any]) -> None:
    text = result_text(outcome(), machine)

    assert text.startswith(machine_line(machine))
    assert f"torch {machine['versions']['torch']}" in text
    assert "fast" in text
    assert "gain" in text
    assert text.endswith("It is 2.0x.")


def test_the_file_holds_every_round_and_can_be_read_by_anyone(tmp_path: Path, machine: dict[str, Any]) -> None:
    write(tmp_path / "deep" / "2026-01-02_loader.json", machine)

    record = json.loads((tmp_path / "deep" / "2026-01-02_loader.json").read_text())
    assert record["command"] == "python 'a b'"
    assert record["comparisons"][0]["sides"][1]["seconds"] == [0.5, 0.5]
    assert record["machine"]["versions"] == library_versions()
    assert record["settings"] == {"rounds": 2}


def test_the_page_shows_the_newest_of_each_benchmark(tmp_path: Path, machine: dict[str, Any]) -> None:
    for name, speed in (("2026-01-02_loader", 2.0), ("2026-03-02_loader", 3.0), ("2026-01-02_loader_h100", 5.0)):
        write(tmp_path / f"{name}.json", machine, speed)
    (tmp_path / "2026-03-02_loader.svg").write_text("<svg/>")

    page = summary_page(tmp_path)

    assert "It is 3.0x." in page
    assert "It is 5.0x." in page
    assert "It is 2.0x." not in page
    assert "![loader](2026-03-02_loader.svg)" in page


@pytest.mark.parametrize("content", ["no json", "[]", '{"format": 1}', '{"format": 7}'])
def test_a_file_of_others_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)

    with pytest.raises(InputError, match=r"x\.json: .*measure anew"):
        summary_page(tmp_path)


def test_a_file_of_another_version_is_refused(tmp_path: Path, machine: dict[str, Any]) -> None:
    write(tmp_path / "2026-01-02_loader.json", machine)
    text = (tmp_path / "2026-01-02_loader.json").read_text().replace('"format": 1', '"format": 2')
    (tmp_path / "2026-01-02_loader.json").write_text(text)

    with pytest.raises(InputError, match="format 2, but this version reads 1; measure anew"):
        summary_page(tmp_path)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no results"):
        summary_page(tmp_path)


def test_a_file_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(InputError, match="out="):
        write_whole(tmp_path / "file" / "x.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_machine_is_described_without_its_name(machine: dict[str, Any]) -> None:
    import platform

    assert machine["cores"] >= 1
    assert machine["memory_gigabytes"] > 0
    assert platform.node() not in machine_line(machine)
