import os
import subprocess
import sys
from pathlib import Path

import pytest

from uniformer_pose.errors import InputError
from uniformer_pose.run_directory import (
    FinishedTraining,
    finished_training,
    folder_of_first_process,
    is_first_process,
    newest_run,
    only_training_in,
    run_folder,
    write_finished,
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run_with_checkpoint(folder, time):
    path = Path(folder) / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    path.touch()
    os.utime(path, (time, time))


def folder(*, run_id=None, resume="auto", **environment):
    return run_folder("train", run_id=run_id, resume=resume, now="now", environment=environment).as_posix()


def test_a_run_is_called_after_the_time_unless_it_is_given_a_name():
    assert folder(resume=None) == "runs/train/now"
    assert folder(resume=None, run_id="a") == "runs/train/a"
    assert folder(resume=None, SLURM_JOB_ID="7") == "runs/train/now"


def test_resuming_means_the_run_whose_checkpoints_are_newest():
    assert folder() == "runs/train/now"
    run_with_checkpoint("runs/train/b", 100)
    run_with_checkpoint("runs/train/a", 200)
    Path("runs/train/c/checkpoints").mkdir(parents=True)  # ended before anything was saved
    run_with_checkpoint("runs/train/x_sweep/0", 300)
    assert folder() == "runs/train/a"
    assert newest_run(Path("runs/other")) is None


def test_a_requeued_slurm_job_comes_back_to_its_folder_and_another_job_does_not():
    run_with_checkpoint("runs/train/b", 100)
    assert folder(SLURM_JOB_ID="7") == folder(SLURM_JOB_ID="7", SLURM_RESTART_COUNT="1") == "runs/train/slurm_7"
    array = {"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    assert folder(**array) == "runs/train/slurm_7_3"
    assert folder(run_id=5, SLURM_JOB_ID="7") == "runs/train/5"


@pytest.mark.parametrize("run_id", ["../x", "/x", ".."])
def test_a_run_id_never_leads_out_of_the_folder_of_runs(run_id):
    path = run_folder("train", run_id=run_id, resume=None, now="now", environment={})
    assert path.parent == Path("runs/train")
    assert path.name not in ("..", ".")


def test_other_processes_look_where_the_first_one_writes():
    config = {"name": "train", "run_id": None, "resume": "auto"}
    run_with_checkpoint("runs/train/b", 100)
    arguments = ["train.py", "hydra.run.dir=mine", "hydra.run.dir=."]
    assert folder_of_first_process(Path("own"), config, arguments, {"RANK": "0"}) == Path("own")
    assert folder_of_first_process(Path(), config, arguments, {"RANK": "1"}) == Path("mine")
    assert folder_of_first_process(Path(), config, ["hydra.run.dir=."], {"RANK": "1"}) == Path("runs/train/b")


def test_one_process_of_all_is_the_first():
    assert is_first_process({})
    assert is_first_process({"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": ""})
    assert not is_first_process({"RANK": "8", "LOCAL_RANK": "0"})
    assert not is_first_process({"LOCAL_RANK": "1"})


def test_two_trainings_do_not_share_a_folder(tmp_path):
    script = """
import sys
from pathlib import Path
from uniformer_pose.run_directory import only_training_in
with only_training_in(Path(sys.argv[1]), is_first_process=True):
    print("in")
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    with only_training_in(tmp_path, is_first_process=True):
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        with only_training_in(tmp_path, is_first_process=False):
            pass
    third = subprocess.run(command, capture_output=True, text=True, check=False)

    assert "another process is training there" in second.stderr
    assert third.stdout == "in\n"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="cannot be written to"),
        only_training_in(tmp_path / "file" / "run", is_first_process=True),
    ):
        pass


def test_a_finished_training_is_known_by_its_epochs_and_ap(tmp_path):
    assert finished_training(tmp_path) is None
    write_finished(tmp_path, FinishedTraining(3, 0.5, {"seed": 0}))
    assert finished_training(tmp_path) == (3, 0.5, {"seed": 0})
    write_finished(tmp_path, FinishedTraining(3, float("nan"), {}))
    assert str(finished_training(tmp_path)[1]) == "nan"
    (tmp_path / "finished.json").write_text("{")
    assert finished_training(tmp_path) is None
