"""What any process wants, known to all of them at the same step, without waiting for a GPU."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed
from lightning.pytorch.callbacks import Callback

from uniformer_pose.errors import InputError


class Agreement:
    """The largest of all processes' numbers, one exchange late.

    The exchange runs in the background on CPU tensors while the next step is computed, so it costs neither a
    synchronisation of the device nor waiting for the slowest process. All processes must call the same methods in the
    same order. With a single process it is that process's own number, at once.
    """

    def __init__(self) -> None:
        self._group: Any = None
        self._running: tuple[Any, torch.Tensor] | None = None

    def start(self, world_size: int, timeout: timedelta | None = None) -> None:
        """Prepare for this many processes; every process calls it when training starts.

        ``timeout``: how long one waits for the others before an error; None is torch's half an hour.
        """
        self._running = None
        self._group = torch.distributed.new_group(backend="gloo", timeout=timeout) if world_size > 1 else None

    def exchange(self, mine: int) -> int:
        """Send ``mine``, and return the largest number of the exchange before; 0 at first."""
        if self._group is None:
            return mine
        largest = 0
        if self._running is not None:
            work, numbers = self._running
            work.wait()
            largest = int(numbers)
        numbers = torch.tensor(mine)
        work = torch.distributed.all_reduce(
            numbers, op=torch.distributed.ReduceOp.MAX, group=self._group, async_op=True
        )
        self._running = (work, numbers)
        return largest

    def smallest(self, mine: int) -> int:
        """The smallest of all processes' numbers; waits for them."""
        if self._group is None:
            return mine
        numbers = torch.tensor(mine)
        torch.distributed.all_reduce(numbers, op=torch.distributed.ReduceOp.MIN, group=self._group)
        return int(numbers)


class CheckpointOfFirstProcess(Callback):
    """Every process continues from the checkpoint that the first one chose, or from none if that is its choice.

    A process that looked for itself might find another one, where a shared disk shows a file late. ``chosen`` counts
    on the first process only; the others wait ``seconds`` for that file. Raises InputError on all of them where one
    does not see it.
    """

    def __init__(self, chosen: Path | None, seconds: float = 90.0) -> None:
        self.chosen, self.seconds = chosen, seconds

    def setup(self, trainer: pl.Trainer, _module: pl.LightningModule, stage: str) -> None:
        """Exchange the choice; Lightning reads the checkpoint after this, and not before processes can talk."""
        if stage != "fit" or trainer.world_size == 1:
            return
        size = self.chosen.stat().st_size if self.chosen is not None and trainer.is_global_zero else 0
        chosen, size = trainer.strategy.broadcast((self.chosen, size))
        seen = chosen is None or _appears(chosen, size, self.seconds)
        if not trainer.strategy.reduce_boolean_decision(seen, all=True):
            raise InputError(
                f"{chosen}: the first process continues from it, and not all others see it whole after "
                f"{self.seconds:.0f} s; give a run directory on a disk that all of them share"
            )
        connector: Any = trainer._checkpoint_connector

        def resume_start(*_own: Any, **_named: Any) -> None:
            del connector.resume_start  # what is read later is somebody else's choice
            connector.resume_start(chosen, weights_only=True)

        connector.resume_start = resume_start


def _appears(file: Path, size: int, seconds: float) -> bool:
    """Whether a file is there with all its bytes, or comes in time."""
    deadline = time.monotonic() + seconds
    while not (file.is_file() and file.stat().st_size == size):
        if time.monotonic() > deadline:
            return False
        time.sleep(1.0)
    return True
