"""The table of a sweep's runs, from what they left on disk."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from uniformer_pose.sweep_summary import SweepSummary, sweep_runs

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
    assert [line.split() for line in capsys.readouterr().out.splitlines()[:6]] == [
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
    ended_sweep(tmp_path, {number: ([f"model={number}"], {"AP": score}) for number, score in scores.items()})
    assert [run.number for run in sweep_runs(tmp_path)] == ["9", "10", "2", "1", "0"]


def test_the_number_that_counts_is_what_each_run_monitored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = {0: 40.0, 1: None, 2: 70.5}
    for number in scores:
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "config.yaml").write_text("evaluation: {monitor: val/PCKh}")
    runs: Runs = {
        number: ([f"seed={number}"], None if score is None else {"PCKh": score, "AP": 0.1 * number})
        for number, score in scores.items()
    }
    ended_sweep(tmp_path, runs)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:4] == [
        ["run", "overrides", "PCKh"],
        *(["2", "seed=2", "70.5000"], ["0", "seed=0", "40.0000"], ["1", "seed=1", "failed"]),
    ]
    assert lines[6] == ["setting", "n", "PCKh", "sd", "difference", "from", "to", "pairs"]
    assert lines[7][:3] == ["2", "55.2500", "21.5668"]


def test_a_folder_without_runs_gets_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended_sweep(tmp_path, {})
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_runs_that_differ_by_their_seed_become_one_row_with_the_paired_difference_to_the_first_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {"null": (0.5, 0.52, 0.51), "ema": (0.49, 0.53, 0.53), "udp": (0.4, None, 0.42)}
    settings = [(part, seed) for part in scores for seed in range(3)]
    runs: Runs = {
        number: (["experiment=e", f"seed={seed}", f"without={part}"], {"AP": scores[part][seed]})
        for number, (part, seed) in enumerate(settings)
    }
    ended_sweep(tmp_path, runs)
    table = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert [line.split() for line in table[:4]] == [
        ["setting", "n", "AP", "sd", "difference", "from", "to", "pairs"],
        ["without=null", "3", "0.5100", "0.0100", "0"],
        # Differences -0.01, 0.01, 0.02: mean 1/150, sd 0.0152753, times 4.302653 / sqrt(3).
        ["without=ema", "3", "0.5167", "0.0231", "+0.0067", "-0.0313", "+0.0446", "3"],
        # -0.1, -0.09: mean -0.095, sd 0.00707107, times 12.706205 / sqrt(2).
        ["without=udp", "2", "0.4100", "0.0141", "-0.0950", "-0.1585", "-0.0315", "2"],
    ]
    assert table[-1] == f"written to {tmp_path / 'settings.csv'}"
    with (tmp_path / "settings.csv").open(newline="") as file:
        rows = {row["setting"]: row for row in csv.DictReader(file)}
    assert float(rows["without=ema"]["low"]) == pytest.approx(1 / 150 - 4.302652730 * 0.0152752523 / 3**0.5, abs=1e-9)
    assert float(rows["without=udp"]["high"]) == pytest.approx(-0.095 + 12.70620474 * 0.00707106781 / 2**0.5, abs=1e-9)


def test_seeds_alone_are_one_setting_and_without_seeds_there_is_no_second_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended_sweep(tmp_path / "seeds", {number: (["model=a", f"seed={number}"], {"AP": 0.5}) for number in (0, 1)})
    assert "model=a  2  0.5000  0.0000" in capsys.readouterr().out
    ended_sweep(tmp_path / "models", {number: ([f"model={number}", "seed=0"], {"AP": 0.5}) for number in (0, 1)})
    assert "setting" not in capsys.readouterr().out
    assert not (tmp_path / "models" / "settings.csv").exists()


def test_a_setting_that_failed_altogether_compares_with_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: Runs = {n: ([f"model={'ab'[n // 2]}", f"seed={n % 2}"], {"AP": 0.5} if n > 1 else None) for n in range(4)}
    ended_sweep(tmp_path, runs)
    assert "model=b  2  0.5000  0.0000" in capsys.readouterr().out
