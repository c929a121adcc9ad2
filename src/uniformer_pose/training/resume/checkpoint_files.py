"""Checkpoints on disk: written whole or not at all beside the training, read only after every byte was checked.

What checks a file is the CRC-32 of each member of the zip archive that ``torch.save`` writes. It travels inside the
file, so that nothing beside it can be lost; torch itself never looks at it (``weights.file_contents`` does).
"""

from __future__ import annotations

import io
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from uniformer_pose.errors import InputError
from uniformer_pose.files import write_whole
from uniformer_pose.weights.file_contents import read_weight_file


class DurableCheckpoints(TorchCheckpointIO):
    """How the trainer writes and reads its checkpoints.

    Saving copies the state and returns; a thread writes it. One file is written at a time: saving another waits for it,
    and so do reading, stopping and the end of the training (``teardown``). A file that cannot be written (disk full, no
    permission) costs one line, and the training goes on: the checkpoint before it is still there. Any other error of
    the thread is raised by whatever waits for it next.

    Lightning's ``AsyncCheckpointIO`` does not hold this: any number of copies may wait, those of a GPU stay in its
    memory, an error is raised by the save after the next, and files are removed and read while others are written.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoints")  # Python ends only when its work is done
        self._pending: list[Future[None]] = []
        self._failures: dict[Path, str] = {}
        self._copies: list[Tensor] = []  # of the last save, whose memory the next one takes: fresh memory is slow

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:  # noqa: ARG002
        """Have ``checkpoint``, as it is now, written to ``path``."""
        if "://" in str(path):
            raise InputError(f"{path}: checkpoints are written to a disk; give a folder")
        self.teardown()
        before, self._copies, threads = iter(self._copies), [], torch.get_num_threads()
        torch.set_num_threads(1)  # else they wait for each other at every tensor: 3 s instead of 0.3 on a busy machine
        try:
            copy = apply_to_collection(checkpoint, Tensor, lambda tensor: self._copy(tensor, next(before, None)))
        finally:
            torch.set_num_threads(threads)
        # On a GPU the copy is made in its turn, between the step before and the next one; the thread waits for it.
        copied = torch.cuda.current_stream().record_event() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
        self._pending.append(self._thread.submit(self._write, copy, Path(path), copied))

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = None,  # noqa: ARG002  # always the CPU
        weights_only: bool | None = None,  # noqa: ARG002  # always true
    ) -> dict[str, Any]:
        """The contents of a whole checkpoint, tensors on the CPU; InputError for one that is damaged.

        Nothing is ever executed from a file, whatever ``weights_only`` says.
        """
        self.teardown()
        return read_weight_file(path).contents

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a file after what was saved before it, and only if that is on the disk."""
        self._pending.append(self._thread.submit(self._remove, path))

    def teardown(self) -> None:
        """Wait for the thread, and raise its error."""
        while self._pending:
            self._pending.pop(0).result()

    def require_all_written(self) -> None:
        """InputError if a file is older than it should be because its last writing failed."""
        self.teardown()
        if self._failures:
            failed = "; ".join(f"{path} ({reason})" for path, reason in self._failures.items())
            raise InputError(
                f"the training is complete, but not all of it is on the disk: {failed}; free some space, then the "
                "same command with resume=auto repeats what is missing"
            )

    def _copy(self, tensor: Tensor, host: Tensor | None) -> Tensor:
        """A copy on the host, in the memory of ``host`` if that fits; a GPU's is there when its turn has come."""
        if host is None or (host.dtype, host.shape, host.stride()) != (tensor.dtype, tensor.shape, tensor.stride()):
            host = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda, requires_grad=False)
        self._copies.append(host.copy_(tensor.detach(), non_blocking=tensor.is_cuda))
        return host

    def _write(self, checkpoint: dict[str, Any], path: Path, copied: torch.cuda.Event | None) -> None:
        if copied is not None:
            copied.synchronize()
        try:
            write_checkpoint(checkpoint, path)
        except OSError as error:
            self._failures[path] = error.strerror or str(error)
            left = "the one before it is unharmed" if path.exists() else "there is none of this name"
            # Only the first process writes: raising here would leave the others waiting for it.
            rank_zero_warn(f"{path} could not be written ({self._failures[path]}): {left}, and training goes on")
        else:
            self._failures.pop(path, None)

    def _remove(self, path: str | Path) -> None:
        if not self._failures:
            super().remove_checkpoint(path)


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Put a checkpoint at ``path`` so that, whenever the machine stops, the file there is the old or the new one.

    Raises OSError, and leaves what was there, when it cannot be written.
    """
    content = io.BytesIO()
    torch.save(checkpoint, content)  # not into the file: a full disk would end torch's writer, and with it the process
    part = path.with_name(f".{path.name}.partial")  # one name: a kill leaves at most one, which is reused
    with write_whole(path, part=part) as file:
        file.write_bytes(content.getbuffer())
