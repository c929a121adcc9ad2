"""The same command again continues a run that a scheduler took the machine away from."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import wandb

from programs import composed
from train import train
from uniformer_pose.config_parts import TrainConfig
from uniformer_pose.entry_point import checked_config
from uniformer_pose.errors import InputError

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


@pytest.fixture
def train_here(tiny_run: list[str], synthetic_root: Path, tmp_path: Path) -> Callable[..., float]:
    """Trains in this process, in one run directory, as the command line with these arguments would."""

    def run(*arguments: str) -> float:
        given = [*tiny_run, f"data.root={synthetic_root}", "resume=auto", f"run_dir={tmp_path / 'run'}", *arguments]
        return train(checked_config(composed("train", *given), TrainConfig))

    return run


def test_resuming_answers_to_the_configuration(
    train_here: Callable[..., float],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoints = tmp_path / "run" / "checkpoints"
    interval = "trainer.check_val_every_n_epoch=2"  # of one epoch: the last is evaluated all the same
    train_here(interval)
    assert f"ckpt_path={checkpoints / 'best.ckpt'}" in capsys.readouterr().out
    assert (checkpoints / "best.ckpt").is_file()
    written = (checkpoints / "last.ckpt").stat().st_mtime_ns

    train_here(interval)
    assert "finished" in capsys.readouterr().out
    for setting in ("seed=1", "model.depths=[2,1,1,1]", "data.max_images=9", "scheduler.per_step.warmup.total_iters=7"):
        with pytest.raises(InputError, match=f"{setting.partition('=')[0]}.*name=<another>"):
            train_here(interval, setting)
    for setting in ("seed=1", "model.depths=[2,1,1,1]", "data.max_images=9"):
        with pytest.raises(InputError, match=f"another experiment.*{setting.partition('=')[0]}"):
            train_here(interval, setting, "trainer.max_epochs=2")
    assert (checkpoints / "last.ckpt").stat().st_mtime_ns == written

    monkeypatch.setattr(wandb, "init", lambda *_, **__: pytest.fail("a run was begun"))
    with pytest.raises(InputError, match="nowhere"):
        train_here(interval, "data.root=nowhere", "logger=wandb", "trainer.max_epochs=2")

    with caplog.at_level("INFO"):
        train_here(interval, "trainer.max_epochs=3", "optimizer.lr_per_256=0.25", "optimizer.weight_decay=0.3")
    for name in ("optimizer.lr_per_256", "optimizer.weight_decay", "trainer.max_epochs"):
        assert any(f"{name} " in record.message and "is now" in record.message for record in caplog.records)
    (group,) = torch.load(checkpoints / "last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert (group["initial_lr"], group["weight_decay"]) == (0.25 * 8 / 256, 0.3)
    assert sum("learning rate 0.00781 = 0.25 x 8 / 256" in record.message for record in caplog.records) == 1


def test_a_training_with_nothing_left_to_do_and_no_score_is_evaluated(
    train_here: Callable[..., float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_here("trainer.limit_val_batches=0")
    printed = capsys.readouterr().out
    assert f"ckpt_path={tmp_path / 'run' / 'checkpoints' / 'last.ckpt'}" in printed
    assert not (tmp_path / "run" / "metrics.json").exists()

    (tmp_path / "run" / "finished.json").unlink()
    assert train_here() == train_here() == 0.0
    assert (tmp_path / "run" / "metrics.json").exists()
    train_here("trainer.max_epochs=2")
    (tmp_path / "run" / "finished.json").unlink()
    with pytest.raises(InputError, match=r"max_epochs=1: .*last\.ckpt"):
        train_here()


@pytest.mark.slow
def test_a_requeued_slurm_job_goes_on_in_its_run_directory_and_a_finished_one_says_so(
    tiny_run: list[str], synthetic_root: Path, run_program, tmp_path: Path
) -> None:
    command = [
        *tiny_run,
        f"data.root={synthetic_root}",
        "trainer.check_val_every_n_epoch=1000",
        "callbacks.resume_checkpoints.every_n_steps=1",
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
    stopped_at = re.search(r"stopped by SIGUSR1 after step (\d+)", output)
    assert stopped_at, output
    kept = {path: torch.load(path, weights_only=True) for path in (run / "checkpoints").glob("*.ckpt")}
    epochs = kept[run / "checkpoints" / "interrupted.ckpt"]["epoch"] + 1

    again = [*command, f"trainer.max_epochs={epochs}"]
    continued = run_program("train.py", again, tmp_path, **SLURM, SLURM_RESTART_COUNT="1")
    assert continued.returncode == 0, continued.stderr
    log = continued.stdout + continued.stderr
    resumed = re.search(r"resuming from (\S+)", log)
    assert resumed, log
    assert kept[Path(resumed[1])]["global_step"] == int(stopped_at[1])
    assert f"trainer.max_epochs 1000 is now {epochs}" in log
    assert [path.name for path in run.parent.iterdir()] == ["slurm_7"]

    finished = run_program("train.py", again, tmp_path, **SLURM)
    assert finished.returncode == 0, finished.stderr
    assert "finished, AP" in finished.stdout
