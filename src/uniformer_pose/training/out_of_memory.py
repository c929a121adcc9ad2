"""Memory that ran out: one line with what to turn, instead of an allocator's page of figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from uniformer_pose.errors import RunFailedError


@contextmanager
def explained_out_of_memory() -> Iterator[None]:
    """Turn an error of memory, of a GPU or of the machine, into RunFailedError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # What torch's allocator for processors raises has no class of its own.
        on_machine = isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
        if not on_machine and not isinstance(error, torch.OutOfMemoryError):
            raise
        raise RunFailedError(
            f"the {'machine' if on_machine else 'GPU'}'s memory ran out; in training halve data.batch_size and double "
            "trainer.accumulate_grad_batches, or give model.checkpointed_blocks=[0,0,8,0]; in evaluation lower "
            "data.eval_batch_size; precision=bf16 helps both"
        ) from error
