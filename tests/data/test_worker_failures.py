import os
import signal
import time
from types import SimpleNamespace

import psutil
import pytest
from torch.utils.data import Dataset

from uniformer_pose.data.worker_failures import (
    WatchedLoader,
    begin_reading,
    end_reading,
    explained_worker_failures,
    require_shared_memory,
)
from uniformer_pose.errors import InputError, RunFailedError


class Reads(Dataset):
    """Twelve people, of whom number 7 makes trouble of some kind."""

    def __init__(self, trouble):
        self.trouble = trouble

    def __len__(self):
        return 12

    def __getitem__(self, index):
        begin_reading(index)
        if index == 7:
            self.trouble()
        end_reading()
        return index


def kill_worker():
    os.kill(os.getpid(), signal.SIGKILL)


def hang():
    time.sleep(60)


def fail():
    raise MemoryError("no room for the pixels")


def bad_file():
    raise InputError("7.jpg: the image file is empty; fetch it again (annotation 70 of train.json)")


def nothing():
    pass


def loader(trouble, num_workers=2, timeout=30.0, **options):
    return WatchedLoader(
        Reads(trouble),
        describe=lambda index: f"{index}.jpg (annotation {10 * index} of train.json)",
        num_workers=num_workers,
        timeout=timeout,
        worker_init_fn=lambda worker_id: None,
        batch_size=2,
        **options,
    )


def test_a_killed_worker_is_reported_with_the_image_it_read():
    with pytest.raises(RunFailedError) as raised:
        list(loader(kill_worker))

    assert "was killed by SIGKILL; the last image it opened: 7.jpg (annotation 70 of train.json)" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_torch_raises_in_the_middle_of_a_step_is_explained_by_the_loader_whose_worker_it_was():
    batches = loader(nothing, persistent_workers=True)
    iterator = iter(batches)
    next(iterator)
    message = f"DataLoader worker (pid {iterator._workers[0].pid}) is killed by signal: Killed. "

    with (
        pytest.raises(RunFailedError, match=r"^data worker \d+ ended unexpectedly; the last image it opened: \d+.jpg"),
        explained_worker_failures([loader(nothing), batches]),
    ):
        raise RuntimeError(message)


def test_errors_that_no_worker_caused_pass():
    with pytest.raises(RuntimeError, match=r"^shapes do not match$"), explained_worker_failures([loader(nothing)]):
        raise RuntimeError("shapes do not match")


def test_a_worker_that_hangs_is_reported_with_the_image_within_the_timeout():
    start = time.monotonic()
    with pytest.raises(RunFailedError, match=r"no batch for 1 s, a worker has been reading 7.jpg \(annotation 70 of"):
        list(loader(hang, timeout=1.0))

    assert time.monotonic() - start < 15


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unforeseen_error_keeps_its_traceback_and_names_the_image(num_workers):
    with pytest.raises(MemoryError, match="no room for the pixels") as raised:
        list(loader(fail, num_workers, timeout=30.0 if num_workers else 0))

    assert raised.value.__notes__ == ["while reading 7.jpg (annotation 70 of train.json)"]


def test_an_error_that_names_its_file_is_left_as_it_is():
    with pytest.raises(InputError, match=r"7.jpg: the image file is empty") as raised:
        list(loader(bad_file))

    assert not hasattr(raised.value, "__notes__")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_without_trouble_the_batches_are_those_of_a_plain_loader(num_workers):
    batches = [batch.tolist() for batch in loader(nothing, num_workers)]

    assert batches == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]


def test_twenty_epochs_leave_the_memory_of_loop_and_workers_as_it_was():
    batches = loader(nothing, persistent_workers=True)
    process = psutil.Process()

    def memory():
        # With shared pages: which of them are still shared depends on what else happens in this process.
        return sum(worker.memory_info().rss for worker in [process, *process.children()])

    for _ in range(5):
        assert len(list(batches)) == 6
    before = memory()
    for _ in range(20):
        assert len(list(batches)) == 6
    assert memory() - before < 8e6


def test_noting_what_is_read_costs_microseconds():
    list(loader(nothing, 0))
    count = 20_000
    start = time.process_time()
    for index in range(count):
        begin_reading(index)
        end_reading()

    assert (time.process_time() - start) / count < 10e-6


# -------------------------------------------------------------------------------------------------- shared memory


def free(monkeypatch, megabytes):
    usage = SimpleNamespace(free=int(megabytes * 1e6))
    monkeypatch.setattr("uniformer_pose.data.worker_failures.shutil.disk_usage", lambda folder: usage)


def test_enough_shared_memory_is_nothing_to_talk_about(monkeypatch, tmp_path):
    free(monkeypatch, 64)
    assert require_shared_memory(8_000_000, num_workers=4, prefetched=2, processes=1, folder=tmp_path) is None


def test_batches_that_do_not_all_fit_into_shared_memory_are_told_with_the_figures(monkeypatch, tmp_path):
    free(monkeypatch, 64)
    line = require_shared_memory(9_437_184, num_workers=4, prefetched=2, processes=1, folder=tmp_path)

    assert "has 64 MB free, and data.num_workers=4 on 1 processes keep 75 MB of batches there" in line
    assert "--shm-size" in line


def test_shared_memory_without_room_for_a_batch_of_each_worker_is_refused(monkeypatch, tmp_path):
    free(monkeypatch, 64)
    with pytest.raises(InputError, match="keep 151 MB of batches there"):
        require_shared_memory(9_437_184, num_workers=4, prefetched=2, processes=2, folder=tmp_path)


def test_without_workers_or_without_shared_memory_nothing_is_needed(tmp_path):
    assert require_shared_memory(10**15, num_workers=0, prefetched=2, processes=1, folder=tmp_path) is None
    assert require_shared_memory(10**15, num_workers=4, prefetched=2, processes=1, folder=tmp_path / "none") is None
