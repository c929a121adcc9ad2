"""The same seed gives the same weights, whoever loads the data."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch


def weights_hash(checkpoint: Path) -> str:
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "deterministic"), [pytest.param(1, "warn", marks=pytest.mark.long), (2, "true")])
def test_the_number_of_workers_changes_no_weight_and_deterministic_kernels_suffice_on_a_cpu(
    tiny_run: list[str],
    synthetic_root: Path,
    trained_run: Path,
    run_program,
    tmp_path: Path,
    workers: int,
    deterministic: str,
) -> None:
    finished = run_program(
        "train.py",
        [
            *tiny_run,
            f"data.num_workers={workers}",
            f"trainer.deterministic={deterministic}",
            f"data.root={synthetic_root}",
            f"hydra.run.dir={tmp_path / 'run'}",
        ],
        tmp_path,
    )
    assert finished.returncode == 0, finished.stderr
    assert weights_hash(tmp_path / "run" / "checkpoints" / "last.ckpt") == weights_hash(
        trained_run / "checkpoints" / "last.ckpt"
    )
