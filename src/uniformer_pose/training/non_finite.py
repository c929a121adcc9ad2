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

_PEOPLE_SHOWN = 8
_ADVICE = (
    "trainer.detect_anomaly=true names the operation; try precision=fp32, a lower learning rate or "
    "trainer.gradient_clip_val=1"
)


class _Step(NamedTuple):
    """One optimizer step: who is in its batches (several where gradients are accumulated), and were losses finite."""

    epoch: int
    number: int
    people: list[Tensor]
    finite_losses: list[Tensor]


class StopOnNonFinite(Callback):
    """Ends the training with DivergedError, naming step, image files and annotations, before the optimizer's update.

    All processes end at the same step. On a GPU nothing waits: an optimizer that is fused there is told on the device
    to leave the update out, and the host reads of it one step later; any other optimizer costs one synchronisation a
    step. With fp16 the loss scaler leaves out such steps by itself, as part of finding its scale: they end the training
    only once that has fallen below 1.
    """

    def __init__(self) -> None:
        self._people: list[Tensor] = []
        self._finite_losses: list[Tensor] = []
        self._open: tuple[_Step, Tensor, torch.cuda.Event | None] | None = None

    def on_train_start(self, *_: Any) -> None:
        """Forget an earlier training."""
        self._people, self._finite_losses, self._open = [], [], None

    def on_train_batch_start(self, _trainer: pl.Trainer, _module: pl.LightningModule, batch: Any, _index: int) -> None:
        """Remember who is in the batch."""
        self._people.append(batch["instance_index"])

    def on_before_backward(self, _trainer: pl.Trainer, _module: pl.LightningModule, loss: Tensor) -> None:
        """An infinite loss may have finite gradients."""
        self._finite_losses.append(torch.isfinite(loss.detach()))

    def on_before_optimizer_step(self, trainer: pl.Trainer, _module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Judge the step whose gradients are complete, before they are clipped and used."""
        step = _Step(trainer.current_epoch, trainer.global_step, self._people, self._finite_losses)
        self._people, self._finite_losses = [], []
        if _scaler(trainer) is not None:
            _require_scale(trainer, step)
            return
        bad = _is_bad(step, [weight.grad for group in optimizer.param_groups for weight in group["params"]])
        if trainer.world_size > 1:
            torch.distributed.all_reduce(bad, op=torch.distributed.ReduceOp.MAX)
        self._settle(trainer)
        self._open = (step, *_to_host(bad))
        if _knows_on_device(optimizer, bad):
            # How torch's GradScaler tells a fused optimizer to leave a step out.
            optimizer.found_inf = bad  # type: ignore[attr-defined]
        else:
            self._settle(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """The last step of the epoch is known before anything is saved of it."""
        self._settle(trainer)

    def _settle(self, trainer: pl.Trainer) -> None:
        if self._open is None:
            return
        step, bad, copied = self._open
        self._open = None
        if copied is not None:
            copied.synchronize()
        if bool(bad):
            raise DivergedError(
                f"the loss or a gradient became NaN or infinite in epoch {step.epoch} at step {step.number}, with "
                f"{_people_of(step, trainer)}; the weights are those before it; {_ADVICE}"
            )


def gradients_not_finite(gradients: Sequence[Tensor | None]) -> Tensor:
    """1.0 if any gradient holds NaN or an infinity, else 0.0, as a tensor on their device; waits for nothing."""
    present = [gradient for gradient in gradients if gradient is not None]
    if not present:
        return torch.zeros(())
    # The extremes rather than the length: squares of finite numbers may be infinite. Both ways let NaN through.
    if present[0].is_cuda:  # few kernels for all of them
        extremes = [norm.float() for norm in torch._foreach_norm(present, float("inf"))]
    else:  # seven times as fast there
        extremes = [extreme.float() for gradient in present for extreme in torch.aminmax(gradient)]
    return 1.0 - torch.isfinite(torch.stack(extremes)).all().float()


def _is_bad(step: _Step, gradients: Sequence[Tensor | None]) -> Tensor:
    bad = gradients_not_finite(gradients)
    for finite in step.finite_losses:
        bad = torch.maximum(bad, 1.0 - finite.to(bad))
    return bad


def _knows_on_device(optimizer: Optimizer, bad: Tensor) -> bool:
    return bad.is_cuda and all(group.get("fused") for group in optimizer.param_groups)


def _to_host(bad: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """The flag on the host, once the event has happened."""
    if not bad.is_cuda:
        return bad, None
    host = torch.empty((), pin_memory=True).copy_(bad, non_blocking=True)
    return host, torch.cuda.current_stream(bad.device).record_event()


def _people_of(step: _Step, trainer: pl.Trainer) -> str:
    """The people of the batches whose loss was not finite, on whichever process; of all, where only gradients were."""
    losses = [bool(finite) for finite in step.finite_losses]
    mine = [people for people, finite in zip(step.people, losses, strict=True) if not finite]
    gathered: list[Any] = [list(_names(mine, trainer))]
    if trainer.world_size > 1:
        gathered *= trainer.world_size
        torch.distributed.all_gather_object(gathered, list(gathered[0]))
    names = [name for of_process in gathered for name in of_process] or list(_names(step.people, trainer))
    more = f" and {len(names) - _PEOPLE_SHOWN} more" if len(names) > _PEOPLE_SHOWN else ""
    return ", ".join(names[:_PEOPLE_SHOWN]) + more


def _names(batches: Sequence[Tensor], trainer: pl.Trainer) -> Iterator[str]:
    people = trainer.datamodule.train_people  # type: ignore[attr-defined]
    for index in (int(index) for batch in batches for index in batch):
        yield f"{people.file_names[people.image_of_instance[index]]} (annotation {people.instance_ids[index]})"


def _scaler(trainer: pl.Trainer) -> torch.amp.GradScaler | None:
    return getattr(trainer.precision_plugin, "scaler", None)


def _require_scale(trainer: pl.Trainer, step: _Step) -> None:
    """With fp16, as often as anything is logged: the loss scale must not have fallen below 1."""
    scaler = _scaler(trainer)
    if scaler is None or step.number % trainer.log_every_n_steps:  # type: ignore[attr-defined]
        return
    if scaler.get_scale() < 1:
        raise DivergedError(
            f"fp16: gradients are not finite at any loss scale, in epoch {step.epoch} at step {step.number}, with "
            f"{_people_of(step, trainer)}; the weights are those before; try precision=bf16 or fp32"
        )
