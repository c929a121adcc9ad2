import errno
import os
import resource
import signal

import pytest
import torch

from uniformer_pose.errors import InputError
from uniformer_pose.training.resume.checkpoint_files import (
    DurableCheckpoints,
    newest_whole_checkpoint,
    position_of,
    write_checkpoint,
)

OLD, NEW = {"weights": torch.zeros(1000)}, {"weights": torch.ones(100_000)}


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def value_of(path):
    return float(torch.load(path, weights_only=True)["weights"][0])


@pytest.fixture
def limited_file_size():
    """No file of this process may grow beyond 100 kB: a disk that fills up while a file is being written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_written_checkpoint_is_read_back_and_nothing_else_is_left(tmp_path):
    files = DurableCheckpoints()

    files.save_checkpoint(NEW, tmp_path / "sub" / "last.ckpt")

    assert torch.equal(files.load_checkpoint(tmp_path / "sub" / "last.ckpt")["weights"], NEW["weights"])
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["last.ckpt"]
    files.require_all_written()


def test_a_disk_that_fills_up_leaves_the_previous_checkpoint_and_one_line(tmp_path, limited_file_size):
    path, files = tmp_path / "last.ckpt", DurableCheckpoints()
    files.save_checkpoint(OLD, path)

    with pytest.warns(
        UserWarning, match=r"last.ckpt could not be written \(.*\): the one before it is unharmed"
    ) as told:
        files.save_checkpoint(NEW, path)

    assert len(told) == 1
    assert value_of(path) == 0
    assert names_in(tmp_path) == ["last.ckpt"]
    with pytest.raises(InputError, match=r"last\.ckpt.*resume=auto"):
        files.require_all_written()


def test_a_later_checkpoint_that_succeeds_makes_up_for_one_that_failed(tmp_path, monkeypatch):
    path, files = tmp_path / "last.ckpt", DurableCheckpoints()
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(full))
        with pytest.warns(UserWarning, match=r"No space left.*there is none of this name"):
            files.save_checkpoint(NEW, path)
    assert not path.exists()

    files.save_checkpoint(NEW, path)

    assert value_of(path) == 1
    files.require_all_written()


def test_an_error_of_ours_is_not_taken_for_a_full_disk(tmp_path):
    write_checkpoint(OLD, tmp_path / "last.ckpt")

    with pytest.raises(Exception, match="pickle"):
        DurableCheckpoints().save_checkpoint({"weights": lambda: 0}, tmp_path / "last.ckpt")

    assert value_of(tmp_path / "last.ckpt") == 0
    assert names_in(tmp_path) == ["last.ckpt"]


def test_a_process_killed_while_it_writes_leaves_the_previous_checkpoint(tmp_path):
    write_checkpoint(OLD, tmp_path / "last.ckpt")
    writer = os.fork()
    if writer == 0:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        write_checkpoint(NEW, tmp_path / "last.ckpt")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]) == -signal.SIGKILL
    assert names_in(tmp_path) == [".last.ckpt.partial", "last.ckpt"]
    assert value_of(tmp_path / "last.ckpt") == 0

    write_checkpoint(NEW, tmp_path / "last.ckpt")

    assert names_in(tmp_path) == ["last.ckpt"]
    assert value_of(tmp_path / "last.ckpt") == 1


def standing(path, epoch, step, batch=0, evaluated=0):
    """As much of a checkpoint as says how far its training came."""
    current = {"processed": batch}
    loops = {
        "epoch_progress": {"current": {"processed": epoch}},
        "epoch_loop.batch_progress": {"current": current},
        "epoch_loop.val_loop.batch_progress": {"current": {"completed": evaluated}},
    }
    contents = {"loops": {"fit_loop": loops}, "global_step": step, "uniformer_pose": {}, "weights": torch.ones(5000)}
    path.parent.mkdir(exist_ok=True)
    torch.save(contents, path)


def test_the_newest_checkpoint_is_the_one_with_the_most_training_whatever_the_files_times(tmp_path):
    standing(tmp_path / "interrupted.ckpt", epoch=1, step=9, batch=4)
    standing(tmp_path / "periodic.ckpt", epoch=1, step=10, batch=5)
    standing(tmp_path / "best.ckpt", epoch=1, step=10, batch=5, evaluated=3)
    assert newest_whole_checkpoint(tmp_path) == tmp_path / "periodic.ckpt"  # which writes the best and the last again

    standing(tmp_path / "last.ckpt", epoch=2, step=10, batch=5, evaluated=3)
    os.utime(tmp_path / "last.ckpt", (0, 0))

    assert position_of(tmp_path / "last.ckpt") == (2, 10, 5, 3)
    assert newest_whole_checkpoint(tmp_path) == tmp_path / "last.ckpt"


@pytest.mark.parametrize("damage", ["one byte", "half of it", "empty", "something else"])
def test_a_damaged_checkpoint_is_skipped_with_a_line_for_the_one_before_it(tmp_path, damage):
    standing(tmp_path / "periodic.ckpt", epoch=0, step=8)
    standing(tmp_path / "last.ckpt", epoch=1, step=10)
    content = bytearray((tmp_path / "last.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {
        "one byte": bytes(content),
        "half of it": content[: len(content) // 2],
        "empty": b"",
        "something else": b"x",
    }
    (tmp_path / "last.ckpt").write_bytes(damaged[damage])
    lines = []

    assert newest_whole_checkpoint(tmp_path, announce=lines.append) == tmp_path / "periodic.ckpt"

    assert len(lines) == 1
    assert lines[0].startswith(f"skipped: {tmp_path / 'last.ckpt'}")


def test_a_folder_without_checkpoints_has_no_newest(tmp_path):
    assert newest_whole_checkpoint(tmp_path / "absent") is None
