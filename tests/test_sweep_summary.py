import csv
import json

import pytest
from omegaconf import OmegaConf

from uniformer_pose.sweep_summary import SweepSummary, summary_rows


@pytest.fixture
def add_run(tmp_path):
    """Writes what a run of a sweep leaves behind; ``metrics`` None is a run that failed."""

    def add(number, overrides, metrics):
        run = tmp_path / str(number)
        (run / ".hydra").mkdir(parents=True)
        (run / ".hydra" / "overrides.yaml").write_text("".join(f"- {override}\n" for override in overrides) or "[]\n")
        if metrics is not None:
            (run / "metrics.json").write_text(json.dumps(metrics))

    return add


def end_sweep(folder):
    SweepSummary().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}}))


def test_the_table_lists_the_best_run_first_and_marks_failed_ones(tmp_path, add_run, capsys):
    add_run(0, ["seed=0", "model=uniformer_s"], {"AP": 0.5, "AR": 0.6})
    add_run(1, ["seed=1", "model=uniformer_s"], None)
    add_run(2, ["seed=2", "model=uniformer_b"], {"AP": 0.71234, "AR": 0.8})

    end_sweep(tmp_path)

    assert capsys.readouterr().out.splitlines() == [
        " run  overrides                     AP",
        "   2  seed=2 model=uniformer_b  0.7123",
        "   0  seed=0 model=uniformer_s  0.5000",
        "   1  seed=1 model=uniformer_s  failed",
        f"written to {tmp_path / 'summary.csv'}",
    ]


def test_the_csv_holds_every_metric_of_every_run(tmp_path, add_run):
    add_run(0, ["seed=0"], {"AP": 0.5, "AR": 0.25})
    add_run(1, ["seed=1", "tags=[a,b]"], {"AP": 0.75, "AR": -1.0})
    add_run(2, [], None)

    end_sweep(tmp_path)

    with (tmp_path / "summary.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"run": "1", "overrides": "seed=1 tags=[a,b]", "AP": "0.7500", "AR": "-1.0000"},
            {"run": "0", "overrides": "seed=0", "AP": "0.5000", "AR": "0.2500"},
            {"run": "2", "overrides": "", "AP": "", "AR": ""},
        ]


def test_a_score_of_zero_and_an_undefined_one_are_better_than_none(tmp_path, add_run):
    add_run(0, ["seed=0"], None)
    add_run(1, ["seed=1"], {"AP": -1.0})
    add_run(2, ["seed=2"], {"AP": 0.0})
    add_run(3, ["seed=3"], {"AP": None})  # NaN, as write_json puts it

    assert [row["run"] for row in summary_rows(tmp_path)] == ["2", "1", "0", "3"]


def test_equal_runs_stay_in_the_order_of_the_sweep(tmp_path, add_run):
    for number in (10, 9, 2):
        add_run(number, [f"seed={number}"], {"AP": 0.5})

    assert [row["run"] for row in summary_rows(tmp_path)] == ["2", "9", "10"]


def test_a_sweep_in_which_every_run_failed_has_a_table_too(tmp_path, add_run, capsys):
    add_run(0, ["seed=0"], None)

    end_sweep(tmp_path)

    assert "   0  seed=0     failed" in capsys.readouterr().out
    assert (tmp_path / "summary.csv").read_text().splitlines() == ["run,overrides,AP", "0,seed=0,"]


def test_the_metrics_of_the_first_run_need_not_be_those_of_all(tmp_path, add_run, capsys):
    add_run(0, ["seed=0"], {"loss": 0.5})

    end_sweep(tmp_path)

    assert "failed" in capsys.readouterr().out


def test_a_folder_without_runs_gets_no_table(tmp_path, capsys):
    end_sweep(tmp_path)

    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_overrides_are_shown_as_they_were_typed(tmp_path, add_run):
    add_run(0, ["++seed=0", "model=uniformer_s", "+more=1"], {"AP": 0.5})
    assert summary_rows(tmp_path)[0]["overrides"] == "seed=0 model=uniformer_s +more=1"


def test_on_the_screen_only_what_tells_runs_apart_is_shown(tmp_path, add_run, capsys):
    add_run(0, ["seed=0", "trainer=cpu", "data.root=somewhere/far/away"], {"AP": 0.5})
    add_run(1, ["seed=1", "trainer=cpu", "data.root=somewhere/far/away"], {"AP": 0.25})

    end_sweep(tmp_path)

    assert capsys.readouterr().out.splitlines()[1:3] == ["   0  seed=0     0.5000", "   1  seed=1     0.2500"]


def test_a_score_of_a_part_of_the_images_says_so(tmp_path, add_run, capsys):
    add_run(0, ["seed=0"], {"AP": 0.5, "partial": True, "images": 3, "of": 20})
    add_run(1, ["seed=1"], {"AP": 0.25})

    end_sweep(tmp_path)

    part, whole = capsys.readouterr().out.splitlines()[1:3]
    assert part.endswith("0.5000  3 of 20 images")
    assert whole.endswith("0.2500")
