"""A training that goes bad, and the command that its last line names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_training_that_diverges_names_the_command_which_shows_where(
    tiny_run: list[str], synthetic_root: Path, run_script: Callable, tmp_path: Path
) -> None:
    # A rate at which the weights leave fp32's range within a few steps.
    settings = ["training.learning_rate_per_256=1e30", "training.warmup_steps=0"]
    failed = run_script("train.py", [*tiny_run, f"data.root={synthetic_root}", *settings], tmp_path)

    assert failed.returncode == 1
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("error: the loss or a gradient became NaN or infinite in epoch 0 at step ")
    dump = re.search(r"python src/replay.py dump=(\S+) shows where it began", last)[1]

    replayed = run_script("replay.py", [f"dump={dump}"], tmp_path)

    assert replayed.returncode == 0, replayed.stderr
    assert re.search(r"^first not finite, (for|back)ward: ", replayed.stdout, flags=re.MULTILINE)
    assert "annotation" in replayed.stdout
