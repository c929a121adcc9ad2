"""The table of a sweep's runs, from what they left on disk."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from uniformer_pose.sweep_summary import SweepSummary, summary_rows

Runs = dict[int, tuple[list[str], dict[str, object] | None]]


def ended_sweep(folder: Path, runs: Runs) -> None:
    """What the runs of a sweep leave behind, metrics None of one that failed, and the sweep's end."""
    for number, (overrides, metrics) in runs.items():
        run = folder / str(number)
        (run / ".hydra").mkdir(parents=True)
        (run / ".hydra" / "overrides.yaml").write_text("".join(f"- {override}\n" for override in overrides) or "[]\n")
        if metrics is not None:
            (run / "metrics.json").write_text(json.dumps(metrics))
    SweepSummary().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}}))


def test_the_best_run_is_first_failed_ones_are_marked_and_the_csv_holds_every_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: Runs = {
        0: (["++seed=0", "trainer=cpu", "tags=[a,b]"], {"AP": 0.5, "AR": 0.6}),
        1: (["++seed=1", "trainer=cpu", "tags=[a,b]"], None),
        2: (["++seed=2", "trainer=cpu", "model=b"], {"AP": 0.71234, "AR": -1.0}),
        3: (["++seed=3", "trainer=cpu", "model=b"], {"AP": 0.25, "partial": True, "images": 3, "of": 20}),
    }
    ended_sweep(tmp_path, runs)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["run", "overrides", "AP"],
        ["2", "seed=2", "model=b", "0.7123"],
        ["0", "seed=0", "tags=[a,b]", "0.5000"],
        ["3", "seed=3", "model=b", "0.2500", "3", "of", "20", "images"],
        ["1", "seed=1", "tags=[a,b]", "failed"],
        ["written", "to", str(tmp_path / "summary.csv")],
    ]
    with (tmp_path / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["overrides"] == "seed=0 trainer=cpu tags=[a,b]"
    assert [(row["run"], row["AP"], row["AR"]) for row in rows] == [
        ("2", "0.7123", "-1.0000"),
        ("0", "0.5000", "0.6000"),
        ("3", "0.2500", ""),
        ("1", "", ""),
    ]


def test_scores_order_the_runs_then_their_numbers(tmp_path: Path) -> None:
    scores = {0: None, 1: -1.0, 2: 0.0, 9: 0.5, 10: 0.5}
    ended_sweep(tmp_path, {number: ([f"seed={number}"], {"AP": score}) for number, score in scores.items()})
    assert [row["run"] for row in summary_rows(tmp_path)] == ["9", "10", "2", "1", "0"]


def test_a_folder_without_runs_gets_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended_sweep(tmp_path, {})
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
