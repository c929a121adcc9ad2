"""Where a run keeps its files, who may write there, and what is recorded of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from uniformer_pose import run as run_module
from uniformer_pose.errors import InputError
from uniformer_pose.run import (
    folder_of_first_process,
    git_revision,
    is_first_process,
    only_training_in,
    record_run,
    run_folder,
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_with_checkpoint(folder: str, time: int) -> None:
    path = Path(folder) / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    path.touch()
    os.utime(path, (time, time))


ARRAY = {"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}


@pytest.mark.parametrize(
    ("run_id", "resume", "environment", "folder"),
    [
        (None, None, {}, "now"),
        ("a", None, {}, "a"),
        (None, None, {"SLURM_JOB_ID": "7"}, "now"),
        (None, "auto", {}, "newest"),
        (None, "auto", {"SLURM_JOB_ID": "7"}, "slurm_7"),  # which a requeued job comes back to
        (None, "auto", ARRAY, "slurm_7_3"),
        (5, "auto", {"SLURM_JOB_ID": "7"}, "5"),
        ("../x", None, {}, "__x"),
        ("/x", None, {}, "_x"),
        ("..", None, {}, "_"),
    ],
)
def test_a_run_is_called_after_the_time_its_id_its_job_or_is_the_newest_and_stays_in_the_folder_of_runs(
    run_id: str | int | None, resume: str | None, environment: dict[str, str], folder: str, monkeypatch
) -> None:
    run_with_checkpoint("runs/train/older", 100)
    run_with_checkpoint("runs/train/newest", 200)
    Path("runs/train/c/checkpoints").mkdir(parents=True)  # ended before anything was saved
    run_with_checkpoint("runs/train/x_sweep/0", 300)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert run_folder("train", run_id, resume, now="now") == f"runs/train/{folder}"


def test_without_checkpoints_resuming_is_a_new_run() -> None:
    assert run_folder("train", None, "auto", now="now") == "runs/train/now"


def test_other_processes_look_where_the_first_one_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"name": "train", "run_id": None, "resume": "auto", "run_dir": "own"}
    run_with_checkpoint("runs/train/b", 100)
    monkeypatch.setattr(sys, "argv", ["train.py", "hydra.run.dir=mine", "hydra.run.dir=."])
    assert folder_of_first_process(config) == Path("own")
    assert is_first_process()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not is_first_process()
    monkeypatch.setenv("RANK", "1")
    assert folder_of_first_process(config) == Path("mine")
    monkeypatch.setattr(sys, "argv", ["hydra.run.dir=."])
    assert folder_of_first_process(config) == Path("runs/train/b")


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    script = "import pathlib, uniformer_pose.run as run\nwith run.only_training_in(pathlib.Path('.')): print('in')"
    command = [sys.executable, "-c", script]
    with only_training_in(tmp_path):
        second = subprocess.run(command, capture_output=True, text=True, check=False)
    third = subprocess.run(command, capture_output=True, text=True, check=False)

    assert "another process is training there" in second.stderr
    assert third.stdout == "in\n"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"), only_training_in(tmp_path / "file" / "run"):
        pass
    with pytest.raises(InputError, match=r"file.run[^\n]*cannot be written[^\n]*give [^\n]*$"):
        record_run(tmp_path / "file" / "run", config_yaml="", command=["train.py"])


def test_config_command_and_versions_are_written_and_environment_variables_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARMLESS_NAME", "hunter2")
    monkeypatch.setattr(run_module, "_DISTRIBUTIONS", ("torch", "a-package-that-is-absent"))
    text, run = "# a comment\nlr: '1e-4'\nmonkey: yes\n", tmp_path / "new" / "run"
    record_run(run, config_yaml=text, command=["src/train.py", "seed=0", "tags=[a, b]"])
    record_run(run, config_yaml=text, command=["src/train.py", "seed=1"])

    assert (run / "config.yaml").read_text() == text
    assert (run / "command.txt").read_text() == "src/train.py seed=0 'tags=[a, b]'\nsrc/train.py seed=1\n"
    versions = json.loads((run / "versions.json").read_text())
    assert {"code", "python", "platform", "cpu_count"} <= versions.keys()
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert versions["a-package-that-is-absent"] == "not installed"
    assert not [path for path in run.iterdir() if "hunter2" in path.read_text()]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_code_is_named_by_its_commit_and_by_whether_it_was_changed(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=A Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(checkout), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    checkout = tmp_path / "checkout"
    for name in ("package", "ignored"):
        (checkout / name).mkdir(parents=True)
        (checkout / name / "module.py").write_text("x = 1\n")
    (checkout / ".gitignore").write_text("ignored/\n")
    assert git_revision(checkout) == git_revision(tmp_path / "absent") == "unknown"
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "First")
    git("tag", "v1")
    commit = git("rev-parse", "HEAD")

    assert git_revision(checkout / "package") == commit
    assert git_revision(checkout / "ignored") == "unknown"  # as an installed package in a virtual environment
    (checkout / "package" / "module.py").write_text("x = 2\n")
    assert git_revision(checkout / "package") == f"{commit}-dirty"
