"""Kills and signals at random moments; NUM_KILLS says how many. Twenty and more were run by hand once."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

NUM_KILLS = 2
SCRIPT = Path(__file__).parent / "killed_trainings.py"


def outcomes(folder, trials):
    finished = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), json.dumps(trials)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]


@pytest.mark.slow
def test_whenever_it_is_killed_the_training_comes_to_the_same_weights(tmp_path):
    draw = random.Random(0)
    trials = [{"signal": "SIGKILL", "moment": draw.uniform(0, 1), "every_n_steps": 2} for _ in range(NUM_KILLS)]

    for trial, outcome in zip(trials, outcomes(tmp_path / "runs", trials), strict=True):
        assert outcome["differences"] == [], trial
        assert outcome["damaged"] == [], trial


@pytest.mark.slow
def test_a_signal_to_either_of_two_processes_or_both_stops_both_with_one_checkpoint(tmp_path):
    trials = [
        {"signal": "SIGTERM", "to": 1, "moment": 0.4, "processes": 2},
        {"signal": "SIGUSR1", "to": 0, "moment": 0.3, "processes": 2},
        {"signal": "SIGTERM", "to": "all", "moment": 0.5, "processes": 2},
    ]

    for trial, outcome in zip(trials, outcomes(tmp_path / "runs", trials), strict=True):
        assert outcome["statuses"] == [143, 143], trial
        assert outcome["seconds"] < 30, trial
        assert outcome["differences"] == [], trial

    last = torch.load(tmp_path / "runs" / "straight_0" / "checkpoints" / "last.ckpt", weights_only=True)
    one, other = last["callbacks"]["ResumeCheckpoints"]["processes"]
    assert not torch.equal(one["torch"], other["torch"])  # else both drop the same paths
    assert not torch.equal(one["numpy"][0], other["numpy"][0])
