"""The same command again continues a run that a scheduler took the machine away from."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from uniformer_pose.training.checkpoint_files import progress_of

SCRIPT = Path(__file__).resolve().parents[2] / "src" / "train.py"
# What srun sets for the only task of a job; a requeued job keeps its number.
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "poses",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


@pytest.mark.slow
def test_a_requeued_slurm_job_goes_on_in_its_run_directory_and_a_finished_one_says_so(
    tiny_run: list[str], synthetic_root: Path, run_script, tmp_path: Path
) -> None:
    command = [
        *tiny_run,
        f"data.root={synthetic_root}",
        "trainer.check_val_every_n_epoch=1000",
        "callbacks.resume_points.every_n_steps=1",
        "resume=auto",
    ]
    run = tmp_path / "runs" / "train" / "slurm_7"
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), *command, "trainer.max_epochs=1000"],
        cwd=tmp_path,
        env={**os.environ, **SLURM, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        deadline = time.monotonic() + 200
        while not (run / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert "stopped by SIGUSR1 after step" in output
    epochs = progress_of(run / "checkpoints" / "interrupted.ckpt")[0] + 1

    again = [*command, f"trainer.max_epochs={epochs}"]
    continued = run_script("train.py", again, tmp_path, **SLURM, SLURM_RESTART_COUNT="1")
    assert continued.returncode == 0, continued.stderr
    log = continued.stdout + continued.stderr
    assert f"resuming from {run / 'checkpoints' / 'interrupted.ckpt'}" in log
    assert f"trainer.max_epochs 1000 is now {epochs}: this is no longer the interrupted run" in log
    assert [path.name for path in run.parent.iterdir()] == ["slurm_7"]
    steps = [line.split(",")[0] for line in (run / "csv" / "metrics.csv").read_text().splitlines()]
    assert len(steps) > epochs

    finished = run_script("train.py", again, tmp_path, **SLURM)
    assert finished.returncode == 0, finished.stderr
    assert f"finished (trainer.max_epochs={epochs})" in finished.stdout + finished.stderr
