"""Evaluation on two processes: every person once, so the same AP as on one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "evaluate_on_processes.py"


@pytest.mark.slow
def test_ap_on_two_processes_equals_ap_on_one_for_odd_and_even_numbers_of_people(
    trained_run: Path, tmp_path: Path
) -> None:
    finished = subprocess.run(
        [sys.executable, str(SCRIPT), str(trained_run / "checkpoints" / "best.ckpt"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    together = outcome.pop("5, 1, 4")  # several sets in one pass: each as alone
    assert together["1"] == together["2"]
    for place, people in enumerate(("5", "1", "4")):
        prefix = f"val/{people}/" if place else "val/"
        of_set = {name: together["1"][name.replace("val/", prefix)] for name in outcome[people]["1"]}
        assert of_set == outcome[people]["1"]
    assert set(outcome) == {"1", "4", "5", "7"}
    for people, runs in outcome.items():
        assert runs["1"] == runs["2"], people
        assert runs["1"]["val/AP"] > 0.5, people
    for people in ("5", "7"):
        found = outcome[people]["1"]
        assert found["val/visibility_labelled_roc_auc"] is None  # nothing is unlabelled
        assert 0.5 < found["val/visibility_visible_roc_auc"] < 1, people
    # The poses are displaced, so that the number is one which a lost or a doubled person changes.
    assert all(outcome[people]["1"]["val/AP"] < 1 for people in ("4", "5", "7"))
