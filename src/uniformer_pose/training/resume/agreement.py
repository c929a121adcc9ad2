"""What any process wants, known to all of them at the same step, without waiting for a GPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch.distributed import ReduceOp


class Agreement:
    """The largest of all processes' numbers, one exchange late; all processes call ``exchange`` equally often.

    The exchange runs in the background on CPU tensors while the next step is computed, so it costs neither a
    synchronisation of the device nor waiting for the slowest process. A single process has its own number at once.
    """

    def __init__(self, world_size: int) -> None:
        self._group: Any = torch.distributed.new_group(backend="gloo") if world_size > 1 else None
        self._running: tuple[Any, torch.Tensor] | None = None

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
        work = torch.distributed.all_reduce(numbers, op=ReduceOp.MAX, group=self._group, async_op=True)
        self._running = (work, numbers)
        return largest
