"""What a data worker was reading when it was killed, hung or failed; and whether its batches fit into shared memory."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from uniformer_pose.errors import InputError, RunFailedError

SHARED_MEMORY = Path("/dev") / "shm"

# Columns of a row: the worker's process, the person whose image it opened last, since when, whether it is still at it;
# and one more than the person at whom reading first ended with an error, after which a worker goes on with others.
_PROCESS, _PERSON, _SINCE, _IS_READING, _FAILED = range(5)
_Row = npt.NDArray[np.int64]

# Of this process, as torch's get_worker_info is; None outside the loaders below.
_own_row: _Row | None = None


def begin_reading(instance_index: int) -> None:
    """Note that this process opens the image of a person, for the process that waits for the batch."""
    if _own_row is not None:
        if _own_row[_IS_READING] and not _own_row[_FAILED]:
            _own_row[_FAILED] = _own_row[_PERSON] + 1
        _own_row[_PERSON:_FAILED] = instance_index, time.monotonic_ns(), 1


def end_reading() -> None:
    """Note that the crop is there, or that the image is given up."""
    if _own_row is not None:
        _own_row[_IS_READING] = 0


class WatchedLoader(DataLoader[Any]):
    """A DataLoader whose errors say which file was being read: ``describe`` turns a person's index into words.

    A worker that was killed, and one that hangs (no batch for ``timeout`` seconds), end in RunFailedError, in the place
    of torch's RuntimeError; to any other error but InputError, which names its file, a note is added.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        describe: Callable[[int], str],
        num_workers: int,
        timeout: float,
        worker_init_fn: Callable[[int], None],
        **options: Any,
    ) -> None:
        self.describe = describe
        table = torch.zeros((max(num_workers, 1), 5), dtype=torch.int64)
        self._table: torch.Tensor = table.share_memory_()  # type: ignore[no-untyped-call]
        if num_workers > 0:
            options |= {"worker_init_fn": partial(_start_worker, self._table, worker_init_fn), "timeout": timeout}
        super().__init__(dataset, num_workers=num_workers, **options)

    def __iter__(self) -> Any:
        """The batches."""
        return _Explained(super().__iter__(), self)

    def explanation(self, message: str, workers: Sequence[Any]) -> str | None:
        """What to say in the place of torch's ``message`` about ``workers``; None if it is about something else."""
        if "DataLoader timed out" in message:
            reading = [row for row in self._rows() if row[_IS_READING]]
            longest = min(reading, key=lambda row: int(row[_SINCE]), default=None)
            return (
                f"no batch for {self.timeout:g} s{self._words(', a worker has been reading', longest)}; is its disk or "
                "network there? data.worker_timeout=<seconds> allows more"
            )
        processes = _processes_in(message)
        if not processes:
            return None
        row = next((row for row in self._rows() if int(row[_PROCESS]) in processes and row[_SINCE]), None)
        opened = self._words("; the last image it opened:", row)
        return (
            f"data worker {', '.join(map(str, sorted(processes)))} {_end_of(workers, processes)}{opened}; if memory "
            "ran out: lower data.num_workers or data.batch_size (in a container look at /dev/shm, too)"
        )

    def is_own(self, message: str) -> bool:
        """Whether ``message`` is about a process that is or was a worker of this loader."""
        return any(int(row[_PROCESS]) in _processes_in(message) for row in self._rows())

    def note(self, message: str) -> str | None:
        """What to add to an error of reading: the person that the worker which ``message`` names had in hand."""
        worker = re.match(r"Caught \w+ in DataLoader worker process (\d+)", message)
        row = self._rows()[int(worker[1]) if worker and self.num_workers else 0]
        if row[_FAILED]:
            return f"while reading {self.describe(int(row[_FAILED]) - 1)}"
        return self._words("while reading", row) or None

    def _rows(self) -> list[_Row]:
        return list(self._table.numpy())

    def _words(self, introduction: str, row: _Row | None) -> str:
        return f"{introduction} {self.describe(int(row[_PERSON]))}" if row is not None and row[_SINCE] else ""


@contextmanager
def explained_worker_failures(loaders: Sequence[WatchedLoader]) -> Iterator[None]:
    """Explain the death of a worker also where torch reports it outside the loader.

    Its signal handler raises wherever the main thread happens to be, in the middle of a step more often than not.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, RunFailedError):
            raise
        for loader in loaders:
            line = loader.explanation(str(error), getattr(loader._iterator, "_workers", []))
            if line is not None and loader.is_own(str(error)):
                raise RunFailedError(line) from error
        raise


class _Explained:
    """The iterator of a ``WatchedLoader``."""

    def __init__(self, batches: Any, loader: WatchedLoader) -> None:
        self._batches, self._loader = batches, loader

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._loader.num_workers == 0:
            _use_row(self._loader._table, 0)
        try:
            return next(self._batches)
        except (InputError, StopIteration):
            raise
        except Exception as error:
            line = (
                self._loader.explanation(str(error), getattr(self._batches, "_workers", []))
                if isinstance(error, RuntimeError)
                else None
            )
            if line is not None:
                # Else torch's signal handler raises once more for the dead one, whenever another process ends.
                self._batches._shutdown_workers()
                raise RunFailedError(line) from error
            note = self._loader.note(str(error))
            if note is not None:
                error.add_note(note)
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)


def require_shared_memory(
    bytes_per_batch: int,
    *,
    num_workers: int,
    prefetched: int,
    processes: int,
    batch_option: str = "data.batch_size",
    folder: Path = SHARED_MEMORY,
) -> str | None:
    """A line if the batches that workers keep ready do not fit into shared memory, else None.

    ``prefetched`` batches per worker, on ``processes`` processes of this machine. Raises InputError where not even one
    batch per worker fits: writing it would end the worker with a bus error.
    """
    if num_workers == 0 or not folder.is_dir():
        return None
    free = shutil.disk_usage(folder).free
    least = bytes_per_batch * num_workers * processes
    if free >= least * prefetched:
        return None
    text = (
        f"{folder} has {free / 1e6:.0f} MB free, and data.num_workers={num_workers} on {processes} processes keep "
        f"{least * prefetched / 1e6:.0f} MB of batches there; lower it or {batch_option}, or enlarge {folder} "
        "(docker run --shm-size=8g; on Kubernetes an emptyDir with medium: Memory)"
    )
    if free < least:
        raise InputError(text)
    return f"{text}, or workers may end with a bus error"


def _start_worker(table: torch.Tensor, worker_init_fn: Callable[[int], None], worker_id: int) -> None:
    _use_row(table, worker_id)
    worker_init_fn(worker_id)


def _use_row(table: torch.Tensor, number: int) -> None:
    global _own_row
    _own_row = table.numpy()[number]
    _own_row[_PROCESS] = os.getpid()


def _processes_in(message: str) -> set[int]:
    """The numbers of the workers whose end ``message`` of torch reports."""
    gone = re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)", message)
    return {int(number) for number in gone[1].split(",")} if gone else set()


def _end_of(workers: Sequence[Any], processes: set[int]) -> str:
    """How the workers of these process numbers ended, which torch says only sometimes."""
    for worker in workers:
        if worker.pid in processes and worker.exitcode:
            return f"was killed by {signal.Signals(-worker.exitcode).name}" if worker.exitcode < 0 else "broke off"
    return "ended unexpectedly"
