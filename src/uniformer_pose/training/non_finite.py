"""A step whose loss or gradients are NaN or infinite ends the training before it reaches the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
import torch.distributed
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from uniformer_pose.errors import DivergedError
from uniformer_pose.training.progress import is_logged

_PEOPLE_SHOWN = 8
_ADVICE = (
    "trainer.detect_anomaly=true names the operation; try precision=fp32, a lower learning rate or "
    "trainer.gradient_clip_val=1"
)


class _Step(NamedTuple):
    """One optimizer step: who is in its batches (several where gradients are accumulated), and their losses."""

    epoch: int
    number: int
    people: list[Tensor]
    losses: list[Tensor]


class StopOnNonFinite(Callback):
    """Ends the training with DivergedError, naming step, image files and annotations, before the optimizer's update.

    A loss that is not finite is made to spoil its gradients, and DDP adds up those of all processes: so the gradients
    tell all of them the same, without another exchange, and all end at the same step. Nothing waits for a GPU: a fused
    optimizer is told on the device to leave the update out, and the host reads of it one step later; any other costs
    one synchronisation a step. With fp16 the loss scaler leaves out such steps by itself, as part of finding its
    scale: they end the training only once that has fallen below 1.
    """

    def __init__(self) -> None:
        self._people: list[Tensor] = []
        self._losses: list[Tensor] = []
        self._open: tuple[_Step, Tensor, torch.cuda.Event | None] | None = None

    def on_train_start(self, *_: Any) -> None:
        """Forget an earlier training."""
        self._people, self._losses, self._open = [], [], None

    def on_train_batch_start(self, _trainer: pl.Trainer, _module: pl.LightningModule, batch: Any, _index: int) -> None:
        """Remember who is in the batch."""
        self._people.append(batch["instance_index"])

    def on_before_backward(self, _trainer: pl.Trainer, _module: pl.LightningModule, loss: Tensor) -> None:
        """An infinite loss may have finite gradients; from here on it has not, and a finite one has its own."""
        value = loss.detach()
        self._losses.append(value)
        loss.register_hook(lambda gradient: gradient + 0 * value)  # type: ignore[no-untyped-call]

    def on_before_optimizer_step(self, trainer: pl.Trainer, _module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Judge the step whose gradients are complete, before they are clipped and used."""
        step = _Step(trainer.current_epoch, trainer.global_step, self._people, self._losses)
        self._people, self._losses = [], []
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            if is_logged(trainer, step.number) and scaler.get_scale() < 1:
                raise DivergedError(
                    f"fp16: gradients are not finite at any loss scale, in epoch {step.epoch} at step {step.number}, "
                    f"with {_people_of(step, trainer)}; the weights are those before; try precision=bf16 or fp32"
                )
            return
        bad = gradients_not_finite([weight.grad for group in optimizer.param_groups for weight in group["params"]])
        self._settle(trainer)
        self._open = (step, *_to_host(bad))
        if all(group.get("fused") for group in optimizer.param_groups):
            # How torch's GradScaler tells a fused optimizer to leave a step out.
            optimizer.found_inf = bad  # type: ignore[attr-defined]
        else:
            self._settle(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """The last step is known before the training ends."""
        self._settle(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, *_: Any) -> None:
        """No checkpoint counts a step that was left out."""
        self._settle(trainer)

    def _settle(self, trainer: pl.Trainer) -> None:
        if self._open is None:
            return
        step, bad, copied = self._open
        self._open = None
        if copied is not None:
            copied.synchronize()
        if bad.numpy():
            raise DivergedError(
                f"the loss or a gradient became NaN or infinite in epoch {step.epoch} at step {step.number}, with "
                f"{_people_of(step, trainer)}; the weights are those before it; {_ADVICE}"
            )


def gradients_not_finite(gradients: Sequence[Tensor | None]) -> Tensor:
    """1.0 if their total length is NaN or infinite, else 0.0, as a tensor on their device; waits for nothing.

    That is so where one of their numbers is, or where their squares exceed fp32: Adam would never move such a weight
    again.
    """
    length = torch.nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None])
    return (length < torch.inf).logical_not().float()  # NaN is not less


def _to_host(bad: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """The flag on the host, once the event has happened."""
    on_host = bad.to("cpu", non_blocking=True)  # into pinned memory
    return on_host, torch.cuda.current_stream(bad.device).record_event() if bad.is_cuda else None


def _people_of(step: _Step, trainer: pl.Trainer) -> str:
    """The people of the batches whose loss was not finite, on whichever process; of all, where only gradients were."""
    mine = [people for people, loss in zip(step.people, step.losses, strict=True) if not loss.isfinite()]
    gathered: list[Any] = [list(_names(mine, trainer))]
    if trainer.world_size > 1:
        gathered *= trainer.world_size
        torch.distributed.all_gather_object(gathered, list(gathered[0]))
    names = [name for of_process in gathered for name in of_process] or list(_names(step.people, trainer))
    more = f" and {len(names) - _PEOPLE_SHOWN} more" if len(names) > _PEOPLE_SHOWN else ""
    return ", ".join(names[:_PEOPLE_SHOWN]) + more


def _names(batches: Sequence[Tensor], trainer: pl.Trainer) -> Iterator[str]:
    data = trainer.datamodule  # type: ignore[attr-defined]
    return (data.describe_person(int(index)) for batch in batches for index in batch)
