"""Checkpoints on disk: written whole or not at all, and read only after every byte of them has been checked.

What checks a file is the CRC-32 of each member of the zip archive that ``torch.save`` writes. It travels inside the
file, so that nothing beside it can be lost; torch itself never looks at it (``weights.file_contents`` does).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from uniformer_pose.errors import InputError
from uniformer_pose.files import write_whole
from uniformer_pose.weights.file_contents import read_weight_file
from uniformer_pose.weights.loading import require_resumable


class DurableCheckpoints(TorchCheckpointIO):
    """How the trainer writes and reads its checkpoints.

    A file that cannot be written (disk full, no permission) costs one line, and the training goes on: the checkpoint
    before it is still there. Object stores (s3://...) are Lightning's affair.
    """

    def __init__(self) -> None:
        self._failures: dict[Path, str] = {}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path``, or leave what is there."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        try:
            write_checkpoint(checkpoint, path)
        except OSError as error:
            self._failures[path] = error.strerror or str(error)
            left = "the one before it is unharmed" if path.exists() else "there is none of this name"
            # Only the first process writes: raising here would leave the others waiting for it.
            rank_zero_warn(f"{path} could not be written ({self._failures[path]}): {left}, and training goes on")
        else:
            self._failures.pop(path, None)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = None,
        weights_only: bool | None = None,  # noqa: ARG002  # always true
    ) -> dict[str, Any]:
        """The contents of a whole checkpoint, tensors on the CPU; InputError for one that is damaged.

        Nothing is ever executed from a file, whatever ``weights_only`` says.
        """
        if "://" in str(path):
            loaded: dict[str, Any] = super().load_checkpoint(path, map_location, weights_only=True)
            return loaded
        return read_weight_file(path).contents

    def require_all_written(self) -> None:
        """InputError if a file is older than it should be because its last writing failed."""
        if self._failures:
            failed = "; ".join(f"{path} ({reason})" for path, reason in self._failures.items())
            raise InputError(
                f"the training is complete, but not all of it is on the disk: {failed}; free some space, then the "
                "same command with resume=auto repeats what is missing"
            )


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Put a checkpoint at ``path`` so that, whenever the machine stops, the file there is the old or the new one.

    Raises OSError, and leaves what was there, when it cannot be written.
    """
    content = io.BytesIO()
    torch.save(checkpoint, content)  # not into the file: a full disk would end torch's writer, and with it the process
    part = path.with_name(f".{path.name}.partial")  # one name: a kill leaves at most one, which is reused
    with write_whole(path, part=part) as file:
        file.write_bytes(content.getbuffer())


class Position(NamedTuple):
    """How far the training of a checkpoint had come: a longer way is a larger tuple."""

    epochs: int
    steps: int
    batches: int
    """Of the epoch."""
    evaluated: int
    """Evaluation batches since."""


def position_of(path: Path) -> Position:
    """Where a checkpoint stands, from the file's index, not its tensors; InputError where that cannot be read."""
    try:
        contents = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        loops = contents["loops"]["fit_loop"]
        return Position(
            int(loops["epoch_progress"]["current"]["processed"]),
            int(contents["global_step"]),
            int(loops["epoch_loop.batch_progress"]["current"]["processed"]),
            int(loops["epoch_loop.val_loop.batch_progress"]["current"]["completed"]),
        )
    except Exception as error:  # torch raises nearly anything on a damaged file
        raise InputError(
            f"{path}: damaged, or no checkpoint of a training ({type(error).__name__}); remove it or copy it again"
        ) from error


def newest_whole_checkpoint(folder: Path, announce: Callable[[str], object] = rank_zero_warn) -> Path | None:
    """The checkpoint in ``folder`` from which the most training is left behind; None if there is none.

    The training's own progress decides, not the files' times, which copying changes. ``best.ckpt`` comes after others
    of its step: a kill between the two saves at an epoch's end leaves it complete and ``last.ckpt`` out of date, and
    only from the checkpoint before the evaluation are both written again. ``announce`` is told of damaged files.
    """
    found: list[tuple[int, bool, Position, Path]] = []
    for path in sorted(folder.glob("*.ckpt")):
        try:
            position = position_of(path)
            found.append((position.steps, path.name != "best.ckpt", position, path))
        except InputError as error:
            announce(f"skipped: {error}")
    for *_order, path in sorted(found, reverse=True):
        try:
            require_resumable(path)
        except InputError as error:
            announce(f"skipped: {error}")
        else:
            return path
    return None
