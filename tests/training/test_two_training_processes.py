"""Two processes train as one: they stop together, evaluate the same weights, and wait for nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_setup import tiny_setup

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Of both processes, by training."""
    folder = tmp_path_factory.mktemp("two")
    tiny = tiny_setup(folder)
    tiny.write_people()
    tiny.write_model(tiny.model(seed=1))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, str(Path(__file__).with_name("two_processes.py")), str(folder)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    return [torch.load(folder / f"outcomes_{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("bad", ["input", "loss"])
def test_a_bad_batch_on_one_process_is_kept_from_the_weights_of_both(outcomes: list[dict[str, Any]], bad: str) -> None:
    first, second = (outcome[bad] for outcome in outcomes)
    assert torch.equal(first["weights"], second["weights"])
    assert first["weights"].isfinite().all()
    assert first["message"] == second["message"]
    assert "at step 1, with" in first["message"]
    assert first["message"].count("(annotation") == 1  # of the second process's batch of one


def test_what_the_config_asks_of_ddp_changes_no_number(outcomes: list[dict[str, Any]]) -> None:
    for outcome in outcomes:
        assert outcome["config"]["message"] == "finished"
        assert outcome["config"]["AP"] == outcome["torch"]["AP"]
        for training in ("", "accumulated "):
            assert torch.equal(*(outcome[training + strategy]["weights"] for strategy in ("config", "torch")))


def test_both_learn_the_same_from_a_teacher(outcomes: list[dict[str, Any]]) -> None:
    first, second = outcomes
    assert first["taught"]["message"] == "finished"
    assert torch.equal(first["taught"]["weights"], second["taught"]["weights"])
    assert not torch.equal(first["taught"]["weights"], first["plain"]["weights"])


def test_all_processes_evaluate_the_statistics_of_the_first(outcomes: list[dict[str, Any]]) -> None:
    for outcome in outcomes:
        assert torch.equal(outcome["config"]["statistics"], outcomes[0]["torch"]["statistics"])


def test_no_process_reads_a_number_but_in_logged_steps(outcomes: list[dict[str, Any]]) -> None:
    for outcome in outcomes:
        assert outcome["counted"]["steps"] == 100
        assert set(outcome["counted"]["reads"]) <= {50, 100}
