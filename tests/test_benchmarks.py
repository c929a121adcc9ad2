"""The scripts in benchmarks/ run and print a row for each side; what they print is for people to judge."""

from __future__ import annotations

import importlib
import json
import re
import warnings
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPTS = Path(__file__).resolve().parents[1] / "benchmarks"
SMALL = ("model=uniformer_xxs", "data=coco_256x192", "trainer=cpu", "data.batch_size=4", "data.num_workers=0")


def script(name: str, monkeypatch: pytest.MonkeyPatch, **constants: object) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    module = importlib.import_module(name)
    for constant, value in constants.items():
        monkeypatch.setattr(module, constant, value)
    return module


def rows(text: str) -> dict[str, float]:
    """The first number of each line that has one behind a name."""
    return {name.strip(): float(rate) for name, rate in re.findall(r"^(\S.*?) {2,}([\d.e+]+) ", text, re.MULTILINE)}


def test_sides_take_turns_and_are_compared_round_by_round(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paired, order = script("paired", monkeypatch), []
    clock = iter([0, 9, 18, 19, 20, 24, 30, 34, 40, 41])  # a warm-up, then rounds of 1 and 4, 4 and 1 seconds
    monkeypatch.setattr(paired.time, "process_time", lambda: float(next(clock)))
    sides = {"one": lambda: order.append("one") or 8, "two": lambda: order.append("two") or 8}
    paired.take_turns(sides, "crops", rounds=2)
    assert order == ["two", "one", "one", "two", "two", "one"]
    assert rows(capsys.readouterr().out) == {"one": 8.0, "two": 2.0}


def test_data_and_evaluation_are_measured(
    rendered_coco: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*SMALL, f"data.root={rendered_coco}"]
    script("loader", monkeypatch, SAMPLES=4, ROUNDS=1, WORKERS=(1,)).main(overrides)
    script("evaluation", monkeypatch, ROUNDS=1, IMAGES=5).main(overrides)
    measured = rows(capsys.readouterr().out)
    sides = ["bare imread + warpAffine", "plain images", "plain images, 1 workers", "decoded once an image"]
    assert set(measured) == {*sides, "coco_keypoint_metrics", "pycocotools"}
    assert min(measured.values()) > 0


def test_network_and_step_are_measured(
    rendered_coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*SMALL, f"data.root={rendered_coco}"]
    script("step", monkeypatch, STEPS=2, ROUNDS=1).main(overrides)
    inference = script("inference", monkeypatch, ROUNDS=1, BATCH_SIZES=(1,))
    paired = script("paired", monkeypatch)
    config = paired.training_config(overrides)
    model = paired.random_model(config, paired.data_module(config))
    monkeypatch.setattr(inference, "load_model", lambda _weights: (model, "a small model"))
    inference.main("a small model", str(torch.get_num_threads()))
    measured = rows(capsys.readouterr().out)
    assert {"with the loader", "one batch, on the device", "network, eager fp32"} <= set(measured)
    assert min(measured.values()) > 0


def test_heads_are_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    heads = script("heads", monkeypatch, ROUNDS=1, BATCH_SIZE=1, DEPTHS=(1, 1, 1, 1))
    heads.main(64, 64)
    measured = rows(capsys.readouterr().out)
    assert set(measured) == set(heads.HEADS)
    assert min(measured.values()) > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_script_for_a_gpu_runs_at_its_smallest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "compile", torch.compile)  # which the script replaces
    gpu = script("gpu", monkeypatch)
    with warnings.catch_warnings():
        gpu.main(str(tmp_path / "gpu.json"), "--toy")
    found = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [row for row in found if "note" in row] == []
    assert sum("images/s" in row for row in found) == 5
    assert sum("share of bandwidth" in row for row in found) == 20
    assert {"boxes/s", "largest share", "share of compute"} <= {key for row in found for key in row}


def test_a_row_out_of_memory_is_said_and_the_next_one_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def out_of_memory() -> dict[str, float]:
        raise torch.OutOfMemoryError

    table = script("gpu", monkeypatch).Table(60)
    table.add("large", out_of_memory)
    table.add("small", lambda: {"images/s": 2.0}, beside={"images/s": 1.0})
    assert table.rows == [
        {"row": "large", "note": "out of memory"},
        {"row": "small", "images/s": 2.0, "x images/s": 2.0},
    ]
    assert "out of memory" in capsys.readouterr().out
