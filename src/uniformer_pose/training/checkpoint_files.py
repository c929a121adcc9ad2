"""Checkpoints on disk: written whole or not at all, and read only after every byte of them has been checked.

What checks a file is the CRC-32 of each member of the zip archive that ``torch.save`` writes. It travels inside the
file, so that nothing beside it can be lost; torch itself never looks at it (``weights.file_contents`` does).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from uniformer_pose.errors import InputError
from uniformer_pose.saved_model import RECORD_KEY
from uniformer_pose.weights.file_contents import read_weight_file
from uniformer_pose.weights.loading import require_resumable

_FILES_OF_A_RUN = 4  # best, last, periodic, interrupted
_BYTES_PER_NUMBER = 4


class DurableCheckpoints(TorchCheckpointIO):
    """How the trainer writes and reads its checkpoints.

    A file that cannot be written (disk full, no permission) costs one line, and the training goes on: the checkpoint
    before it is still there. ``failures`` says which files are older than they should be, and why.
    """

    def __init__(self) -> None:
        self.failures: dict[Path, str] = {}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path``, or leave what is there; object stores (s3://...) are Lightning's affair."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        try:
            write_checkpoint(checkpoint, path)
        except OSError as error:
            self.failures[path] = error.strerror or str(error)
            left = "the one before it is unharmed" if path.exists() else "there is none of this name"
            # Only the first process writes: raising here would leave the others waiting for it.
            rank_zero_warn(
                f"{path} could not be written ({self.failures[path]}): {left}, and training goes on; "
                "free some space or correct the permissions before the next checkpoint"
            )
        else:
            self.failures.pop(path, None)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The contents of a whole checkpoint, tensors on the CPU; InputError for one that is damaged.

        ``map_location`` is accepted for Lightning's sake, and so is ``weights_only``, which can only be true:
        nothing is ever executed from a file.
        """
        if weights_only is False:
            raise InputError(f"{path}: is read with weights_only=True only, since a checkpoint must not run code")
        if "://" in str(path):
            loaded: dict[str, Any] = super().load_checkpoint(path, map_location, weights_only=True)
            return loaded
        return read_weight_file(path).contents


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Put a checkpoint at ``path`` so that, whenever the machine stops, the file there is the old or the new one.

    Written beside it (``.<name>.partial``), flushed to the disk, then renamed. Raises OSError, and leaves what was
    there, when anything of this fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.partial"  # one name per file: a kill leaves at most one, which is reused
    try:
        with partial.open("wb") as file:
            target = _DelayedFailure(file)
            torch.save(checkpoint, cast(IO[bytes], target))
            target.raise_failure()
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the new name, too, must survive a power cut
    finally:
        os.close(directory)


class _DelayedFailure:
    """A file that keeps the first error of writing to itself until it is asked for.

    Raised from inside, it would leave torch's archive writer unfinished, whose destructor then writes once more; a
    second error there ends the process.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._failure: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        if self._failure is None:
            try:
                self._file.write(data)
            except OSError as error:
                self._failure = error
        return len(data)

    def flush(self) -> None:
        """Nothing yet: the caller flushes when the archive is complete."""

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def newest_whole_checkpoint(folder: Path, announce: Callable[[str], object] = rank_zero_warn) -> Path | None:
    """The checkpoint in ``folder`` from which the most training is left behind; None if there is none.

    The training's own progress decides, not the files' times, which copying changes. ``best.ckpt`` comes after others
    of its step: a kill between the two saves at an epoch's end leaves it complete and ``last.ckpt`` out of date, and
    only from the checkpoint before the evaluation are both written again. Files that are damaged are passed over, and
    ``announce`` is told of each.
    """

    def preference(entry: tuple[tuple[int, ...], Path]) -> tuple[object, ...]:
        progress, path = entry
        return (progress[1], path.name != "best.ckpt", progress)

    standing: list[tuple[tuple[int, ...], Path]] = []
    for path in sorted(folder.glob("*.ckpt")):
        try:
            standing.append((progress_of(path), path))
        except InputError as error:
            announce(f"passed over: {error}")
    for _progress, path in sorted(standing, key=preference, reverse=True):
        try:
            require_resumable(path)
        except InputError as error:
            announce(f"passed over: {error}")
        else:
            return path
    return None


def progress_of(path: Path) -> tuple[int, ...]:
    """How far the training of a checkpoint had come: a longer way is a larger tuple.

    Epochs ended, steps, batches of the epoch, evaluation batches since. Reads the file's index, not its tensors.
    Raises InputError where that cannot be done.
    """
    try:
        contents = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        loops = contents["loops"]["fit_loop"]
        return (
            int(loops["epoch_progress"]["current"]["processed"]),
            int(contents["global_step"]),
            int(loops["epoch_loop.batch_progress"]["current"]["processed"]),
            int(loops["epoch_loop.val_loop.batch_progress"]["current"]["completed"]),
        )
    except Exception as error:  # torch raises nearly anything on a damaged file
        raise InputError(
            f"{path}: damaged, or no checkpoint of a training ({type(error).__name__}); remove it or copy it again"
        ) from error


def recorded_config(path: Path) -> dict[str, Any]:
    """The configuration of the training that wrote a checkpoint; empty where it was not composed from one."""
    record = torch.load(path, map_location="cpu", mmap=True, weights_only=True).get(RECORD_KEY, {})
    return dict(record.get("config", {}))


def logged_step(checkpoint: Path) -> tuple[int, bool]:
    """The step under which the loggers know a checkpoint's last batch, and whether an evaluation of it is to come."""
    contents = torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)
    loops = contents["loops"]["fit_loop"]
    batches, evaluation = loops["epoch_loop.batch_progress"], loops["epoch_loop.val_loop.batch_progress"]
    step = int(loops["epoch_loop.state_dict"]["_batches_that_stepped"])
    pending = evaluation["current"]["ready"] > evaluation["current"]["completed"]
    # Written in the middle of a batch's end, or of an evaluation, that batch is not counted yet; else it is.
    epoch = loops["epoch_progress"]["current"]
    counted = (
        batches["current"]["completed"] == batches["current"]["processed"] and epoch["processed"] == epoch["ready"]
    )
    return (step - 1 if counted else step), bool(pending)


def require_space(folder: Path, num_parameters: int, *, averaged: bool = False) -> None:
    """Raise InputError if not even one checkpoint fits on the disk, and warn if not all of a run's do.

    A checkpoint holds each weight, the two moments of Adam, and with ``averaged`` their mean. Files of the run that
    are already there are replaced, so they count as space; each new one is written before the old one goes.
    """
    one = num_parameters * _BYTES_PER_NUMBER * (4 if averaged else 3)
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    there = sum(path.stat().st_size for path in folder.glob("*.ckpt"))
    if free < one:
        raise InputError(
            f"{folder}: {free / 1e6:.0f} MB are free, and one checkpoint takes {one / 1e6:.0f} MB; "
            "free some space or give another run directory"
        )
    if free + there < (_FILES_OF_A_RUN + 1) * one:
        rank_zero_warn(
            f"{folder}: {free / 1e6:.0f} MB are free, and the checkpoints of this run can take "
            f"{(_FILES_OF_A_RUN + 1) * one / 1e6:.0f} MB; those that do not fit will not be written"
        )
