"""Checkpoints on the disk: what a full disk, a kill, a slow disk and an error in the writing thread leave behind."""

import errno
import os
import resource
import signal
import threading

import pytest
import torch

from uniformer_pose.errors import InputError
from uniformer_pose.training.resume.checkpoint_files import DurableCheckpoints, write_checkpoint

OLD, NEW = {"weights": torch.zeros(1000)}, {"weights": torch.ones(100_000)}


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def value_of(path):
    return float(torch.load(path, weights_only=True)["weights"][0])


@pytest.fixture
def files():
    return DurableCheckpoints()


@pytest.fixture
def slow_disk(monkeypatch):
    """Nothing is flushed to the disk before the event is set."""
    go, flush = threading.Event(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (go.wait(20), flush(handle)))
    yield go
    go.set()


@pytest.fixture
def limited_file_size():
    """No file of this process may grow beyond 100 kB: a disk that fills up while a file is being written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_training_goes_on_while_a_slow_disk_gets_the_state_of_the_moment_of_saving(files, slow_disk, tmp_path):
    state = {"weights": torch.zeros(10), "callbacks": {"steps": [1, 2]}}
    files.save_checkpoint(state, tmp_path / "sub" / "last.ckpt")
    state["weights"].add_(1)
    state["callbacks"]["steps"].append(3)
    assert not (tmp_path / "sub" / "last.ckpt").exists()

    slow_disk.set()
    read = files.load_checkpoint(tmp_path / "sub" / "last.ckpt")
    assert (read["weights"].sum(), read["callbacks"]) == (0, {"steps": [1, 2]})
    assert names_in(tmp_path / "sub") == ["last.ckpt"]


def test_one_file_is_written_at_a_time_and_one_that_is_removed_only_after_its_successor_is_there(
    files, slow_disk, tmp_path
):
    (tmp_path / "old.ckpt").write_bytes(b"old")
    files.save_checkpoint(OLD, tmp_path / "new.ckpt")
    files.remove_checkpoint(tmp_path / "old.ckpt")
    assert (tmp_path / "old.ckpt").exists()

    threading.Timer(0.3, slow_disk.set).start()
    files.save_checkpoint(NEW, tmp_path / "newer.ckpt")  # waits
    assert "new.ckpt" in names_in(tmp_path)
    assert "old.ckpt" not in names_in(tmp_path)
    files.require_all_written()
    assert (value_of(tmp_path / "new.ckpt"), value_of(tmp_path / "newer.ckpt")) == (0, 1)


def written(files, checkpoint, path):
    files.save_checkpoint(checkpoint, path)
    files.teardown()


def test_a_disk_that_fills_up_leaves_the_previous_checkpoints_and_one_line(files, tmp_path, limited_file_size):
    path = tmp_path / "last.ckpt"
    written(files, OLD, path)

    with pytest.warns(UserWarning, match=r"last.ckpt could not be written \(.*\): .* is unharmed") as told:
        written(files, NEW, path)

    assert len(told) == 1
    files.remove_checkpoint(path)  # which would be the last whole one
    with pytest.raises(InputError, match=r"last\.ckpt.*resume=auto"):
        files.require_all_written()
    assert value_of(path) == 0
    assert names_in(tmp_path) == ["last.ckpt"]


def test_a_later_checkpoint_that_succeeds_makes_up_for_one_that_failed(files, tmp_path, monkeypatch):
    path, full = tmp_path / "last.ckpt", OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(full))
        with pytest.warns(UserWarning, match=r"No space left.*there is none of this name"):
            written(files, NEW, path)
    assert not path.exists()

    written(files, NEW, path)
    files.require_all_written()
    assert value_of(path) == 1


@pytest.mark.parametrize("next_call", ["save_checkpoint", "load_checkpoint", "teardown", "require_all_written"])
def test_an_error_of_ours_in_the_thread_is_raised_by_whatever_comes_next(files, tmp_path, next_call):
    path = tmp_path / "last.ckpt"
    write_checkpoint(OLD, path)
    files.save_checkpoint({"weights": lambda: 0}, path)

    with pytest.raises(Exception, match="pickle"):
        {
            "save_checkpoint": lambda: files.save_checkpoint(NEW, path),
            "load_checkpoint": lambda: files.load_checkpoint(path),
        }.get(next_call, lambda: getattr(files, next_call)())()
    assert value_of(path) == 0
    assert names_in(tmp_path) == ["last.ckpt"]


def test_a_process_killed_while_its_thread_writes_leaves_the_previous_checkpoint(tmp_path):
    write_checkpoint(OLD, tmp_path / "last.ckpt")
    writer = os.fork()
    if writer == 0:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        checkpoints = DurableCheckpoints()
        checkpoints.save_checkpoint(NEW, tmp_path / "last.ckpt")
        checkpoints.teardown()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]) == -signal.SIGKILL
    assert names_in(tmp_path) == [".last.ckpt.partial", "last.ckpt"]
    assert value_of(tmp_path / "last.ckpt") == 0

    write_checkpoint(NEW, tmp_path / "last.ckpt")
    assert names_in(tmp_path) == ["last.ckpt"]
    assert value_of(tmp_path / "last.ckpt") == 1


def test_an_object_store_is_refused_instead_of_a_local_folder_of_that_name(files):
    with pytest.raises(InputError, match=r"s3://bucket/last\.ckpt: .*folder"):
        files.save_checkpoint(OLD, "s3://bucket/last.ckpt")
