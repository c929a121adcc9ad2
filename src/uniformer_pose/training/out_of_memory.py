"""Memory that ran out: what to turn, instead of an allocator's page of figures."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as pl
import torch

from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.errors import RunFailedError

# What torch's allocator for processors raises has no class of its own.
_PROCESSOR_ALLOCATOR = "DefaultCPUAllocator"


@contextmanager
def explained_out_of_memory(trainer: pl.Trainer, data: PersonCrops) -> Iterator[None]:
    """Turn an error of memory into RunFailedError: one line with the sizes in use, and what to change."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunFailedError(
            memory_advice(
                str(error),
                where="GPU" if isinstance(error, torch.OutOfMemoryError) else "machine",
                evaluating=_was_evaluating(error),
                batch_size=data.batch_size,
                accumulated=trainer.accumulate_grad_batches,
                eval_batch_size=data.eval_batch_size,
                height=data.codec.height,
                width=data.codec.width,
                precision=str(trainer.precision),
            )
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on the machine."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and _PROCESSOR_ALLOCATOR in str(error)
    )


def memory_advice(
    message: str,
    *,
    where: str,
    evaluating: bool,
    batch_size: int,
    accumulated: int,
    eval_batch_size: int,
    height: int,
    width: int,
    precision: str,
) -> str:
    """One line: what was in use, and the three knobs that help most, those that keep the result first.

    ``message`` is the allocator's, from which the size asked for is taken.
    """
    asked = re.search(r"[Tt]ried to allocate ([\d.]+ [KMGT]?i?B|\d+ bytes)", message)
    size = f" ({asked[1]} more were asked for)" if asked else ""
    crops = f"crops of {height}x{width} in {precision}"
    if evaluating:
        return (
            f"the {where}'s memory ran out{size} while evaluating {eval_batch_size} {crops}: lower "
            "data.eval_batch_size (the result stays), give precision=bf16, or evaluation.flip_test=false"
        )
    half = max(1, batch_size // 2)
    return (
        f"the {where}'s memory ran out{size} while training on {batch_size} {crops}: give data.batch_size={half} "
        f"trainer.accumulate_grad_batches={2 * accumulated}, model.checkpointed_blocks=[0,0,8,0] "
        "(computes them twice), or precision=bf16"
    )


def _was_evaluating(error: BaseException) -> bool:
    """Whether the error comes out of an evaluation; the trainer has forgotten by the time it is caught."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_filename.endswith("evaluation_loop.py") for frame, _line in frames)
