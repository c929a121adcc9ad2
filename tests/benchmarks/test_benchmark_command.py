from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from benchmark import BenchmarkConfig, benchmark
from uniformer_pose.entry_point import accept_any_argument, checked_config, config_groups
from uniformer_pose.errors import InputError

CONF = Path(__file__).resolve().parents[2] / "conf"


def checked(*arguments: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        given = accept_any_argument([*arguments, "run_dir=here"], config_groups(CONF))
        return checked_config(compose("benchmark", given), BenchmarkConfig)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "what is required: give what=..."),
        (["what=speed"], "what='speed': must be 'loader',"),
        (["what=loader", "rounds=0"], "rounds=0: must be greater than or equal to 1"),
        (["what=loader", "threads=0"], "threads=0: must be greater than or equal to 1"),
        (["what=loader", "workers=[-1]"], "workers[0]=-1: must be greater than or equal to 0"),
        (["what=scale", "people_per_image=[]"], "people_per_image=[]: "),
        (["what=scale", "input_sizes=[[256]]"], "input_sizes[0]=[256]: must be a list"),
        (["what=loader", "round=3"], "round=3: no such key; did you mean rounds?"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        checked(*arguments)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_step_is_measured_by_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "2026-01-02_step.json"
    tiny = ["model=uniformer_xxs", "data=synthetic_128x96", "data.batch_size=1", "trainer=cpu", "rounds=1", "steps=1"]

    benchmark(checked("what=step", *tiny, f"out={out}"))
    benchmark(checked("what=summary", f"out={tmp_path}"))

    printed = capsys.readouterr().out
    assert "The training step reaches" in printed
    assert json.loads(out.read_text())["settings"]["model"]["depths"] == [1, 1, 3, 1]
    assert "The training step reaches" in (tmp_path / "README.md").read_text()


def test_a_result_that_is_no_json_file_is_refused_before_any_work() -> None:
    with pytest.raises(InputError, match=r"out=x\.txt: give a file whose name ends in \.json"):
        benchmark(checked("what=step", "trainer=cpu", "out=x.txt"))
