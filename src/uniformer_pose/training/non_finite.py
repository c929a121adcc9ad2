"""Steps whose loss or gradients are NaN or infinite: kept from the weights, dumped for replay, counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from uniformer_pose.data.coco import PersonInstances
from uniformer_pose.errors import DivergedError, InputError
from uniformer_pose.overrides import shell_command
from uniformer_pose.saved_model import RECORD_KEY, saved_record
from uniformer_pose.training.checkpoint_files import write_checkpoint

if TYPE_CHECKING:
    from uniformer_pose.training.pose_module import PoseModule

NonFinitePolicy = Literal["stop", "skip"]

DUMP_FORMAT = 1
WEIGHTS_FILE = "model.ckpt"
_ADVICE = "try precision=fp32, a lower training.learning_rate_per_256 or trainer.gradient_clip_val=1"


def batch_file(rank: int) -> str:
    """Name of the file in a dump that holds the batches of one process."""
    return f"batches_of_process_{rank}.pt"


@dataclass
class _Window:
    """The batches of one optimizer step, several where gradients are accumulated."""

    epoch: int
    step: int
    batches: list[dict[str, Tensor]] = field(default_factory=list)
    random_states: list[dict[str, Any]] = field(default_factory=list)
    finite_losses: list[Tensor] = field(default_factory=list)


@dataclass
class _Pending:
    """A step that was guarded on the device, of which the host does not know yet whether it was skipped."""

    window: _Window
    bad: Tensor
    copied: torch.cuda.Event | None


class NonFiniteGuard:
    """Keeps a step whose loss or gradients are not finite from changing the model.

    Weights, moments and BatchNorm's averages stay as they were before the step, on all processes: gradients are
    summed over them, and with them what is not finite. ``policy`` "stop" then ends the training, "skip" goes on until
    more than ``limit`` steps were skipped since the training began. The first bad step, and the one that ends the
    training, are dumped (``dump_step``).

    What it costs on a GPU: the largest gradient (one pass over the gradients), one number summed over processes, and
    four kernels for BatchNorm's buffers. An optimizer that takes ``found_inf`` (torch's fused ones) is told on the
    device, and the host reads a step's outcome one step later, when the GPU has the next one to compute; any other
    optimizer costs one synchronisation a step. On a CPU the outcome is known at once.

    With fp16 the loss scaler skips such steps by itself, as part of finding its scale: they are counted and reported,
    and end the training only once the scale has fallen below 1.
    """

    def __init__(self, policy: NonFinitePolicy, limit: int) -> None:
        if policy not in ("stop", "skip"):
            raise InputError(f"training.on_non_finite={policy}: choose stop or skip")
        if limit < 0:
            raise InputError(f"training.most_skipped_steps={limit}: give 0 or more")
        self.policy, self.limit = policy, limit
        self.skipped = 0
        self._dumped = False
        self._window: _Window | None = None
        self._pending: _Pending | None = None
        self._buffers: list[Tensor] = []
        self._good_buffers: Tensor | None = None
        self._scaler_skips: Tensor | None = None
        self._last_of_scaler: _Window | None = None

    def start(self, network: Module) -> None:
        """Begin a training: what the buffers hold now is good."""
        self._dumped = False
        self._window = self._pending = self._scaler_skips = self._last_of_scaler = None
        self._buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        self._good_buffers = _joined(self._buffers)

    def batch_begins(self, module: PoseModule, batch: dict[str, Tensor]) -> None:
        """Remember a batch, and the random numbers that its step is about to draw."""
        if self._window is None:
            self._window = _Window(int(module.current_epoch), int(module.global_step))
        self._window.batches.append(batch)
        self._window.random_states.append(step_random_state(module.device))

    def guarded(self, loss: Tensor) -> Tensor:
        """The loss, NaN where it is infinite: an infinite one may have finite gradients, and nobody would notice."""
        finite = torch.isfinite(loss.detach())
        if self._window is not None:
            self._window.finite_losses.append(finite)
        return loss * torch.where(finite, 1.0, torch.nan)

    def before_update(self, module: PoseModule, optimizer: Optimizer) -> None:
        """Decide on the step whose gradients are complete, before they are clipped and used."""
        window, self._window = self._window, None
        if window is None:  # a step that is not of our training_step
            return
        bad = gradients_not_finite(
            [parameter.grad for group in optimizer.param_groups for parameter in group["params"]]
        )
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(bad, op=torch.distributed.ReduceOp.MAX)
        self._keep_buffers(bad)
        if _scaler(module) is not None:
            self._scaler_skips = bad if self._scaler_skips is None else self._scaler_skips + bad
            self._last_of_scaler = window
            return
        on_device = getattr(optimizer, "_step_supports_amp_scaling", False)
        if on_device:
            optimizer.found_inf = bad  # type: ignore[attr-defined]
        elif bool(bad):
            # Without gradients an optimizer does nothing: no decay, no moments.
            optimizer.zero_grad(set_to_none=True)
        self.settle(module)
        self._pending = _Pending(window, *_to_host(bad))
        if not on_device or _known_at_once(bad):
            self.settle(module)

    def settle(self, module: PoseModule) -> None:
        """Find out about the last step, if that is still open; DivergedError where it ends the training."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if pending.copied is not None:
            pending.copied.synchronize()
        if not bool(pending.bad):
            return
        self.skipped += 1
        stops = self.policy == "stop" or self.skipped > self.limit
        where = ""
        if stops or not self._dumped:
            self._restore_buffers()
            where = self._dump(module, pending.window)
        what = (
            f"the loss or a gradient became NaN or infinite in epoch {pending.window.epoch} at step "
            f"{pending.window.step}; the weights are those before it"
        )
        if not stops:
            rank_zero_warn(f"{what}; skipped, {self.skipped} of at most {self.limit}{where}")
            return
        counted = f" (skipped {self.skipped - 1} before, training.most_skipped_steps={self.limit})"
        raise DivergedError(f"{what}{counted if self.policy == 'skip' else ''}{where}; {_ADVICE}")

    def report_scaler(self, module: PoseModule) -> None:
        """With fp16: say how many steps the loss scaler skipped; DivergedError when its scale has fallen below 1.

        Waits for the device, so it is called as often as anything is logged.
        """
        scaler = _scaler(module)
        if scaler is None or self._scaler_skips is None or self._last_of_scaler is None:
            return
        skips, self._scaler_skips = int(self._scaler_skips), None
        self.skipped += skips
        if not skips:
            return
        scale = float(scaler.get_scale())
        text = (
            f"fp16: {skips} of the last steps overflowed and were skipped ({self.skipped} so far), loss scale {scale:g}"
        )
        if scale >= 1:
            rank_zero_info(text)
            return
        self._restore_buffers()
        where = self._dump(module, self._last_of_scaler)
        raise DivergedError(f"{text}: gradients that are not finite at any scale{where}; try precision=bf16 or fp32")

    def _keep_buffers(self, bad: Tensor) -> None:
        if self._good_buffers is None:
            return
        now = _joined(self._buffers)
        if now is None or now.shape != self._good_buffers.shape:
            raise RuntimeError("the network's buffers have changed since the training began")
        self._good_buffers = torch.where(bad > 0, self._good_buffers.to(now.device), now)
        self._restore_buffers()

    def _restore_buffers(self) -> None:
        if self._good_buffers is None:
            return
        parts = torch.split(self._good_buffers, [buffer.numel() for buffer in self._buffers])
        shaped = [part.view_as(buffer) for part, buffer in zip(parts, self._buffers, strict=True)]
        with torch.no_grad():
            torch._foreach_copy_(self._buffers, shaped)

    def _dump(self, module: PoseModule, window: _Window) -> str:
        """Half a sentence that says where the step went; a disk that is full does not hide what happened."""
        self._dumped = True
        folder = Path(module.trainer.default_root_dir) / "non_finite" / f"step_{window.step}"
        state = module.trainer.strategy.lightning_module_state_dict()  # every process takes part, where it is sharded
        try:
            dump_step(folder, module, state, window)
        except OSError as error:
            return f"; its batch could not be written to {folder} ({error.strerror})"
        return f"; {shell_command('python', 'src/replay.py', dump=folder)} shows where it began"


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


def step_random_state(device: torch.device) -> dict[str, Any]:
    """State of torch's generators, from which a step draws, as plain data."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def dump_step(folder: Path, module: PoseModule, state: dict[str, Tensor], window: _Window) -> None:
    """Write what ``src/replay.py`` needs to repeat a step: this process's batches, and the weights it began with.

    Only tensors and plain data (``weights_only=True`` loads them). Raises OSError when the disk is full.
    """
    trainer = module.trainer
    people = module.data.train_people
    scaler = _scaler(module)
    write_checkpoint(
        {
            "format": DUMP_FORMAT,
            "epoch": window.epoch,
            "step": window.step,
            "process": trainer.global_rank,
            "processes": trainer.world_size,
            "precision": str(trainer.precision),
            "device": module.device.type,
            "loss_scale": None if scaler is None else float(scaler.get_scale()),
            "batches": [{name: values.cpu() for name, values in batch.items()} for batch in window.batches],
            "random_states": window.random_states,
            "finite_losses": [bool(finite) for finite in window.finite_losses],
            "annotation_file": str(people.source_file) if people else "",
            "people": [_names(batch["instance_index"], people) for batch in window.batches],
        },
        folder / batch_file(trainer.global_rank),
    )
    if trainer.is_global_zero:
        weights = {name: tensor.cpu() for name, tensor in state.items()}
        write_checkpoint({"state_dict": weights, RECORD_KEY: saved_record(module.model)}, folder / WEIGHTS_FILE)


def _names(indices: Tensor, people: PersonInstances | None) -> list[dict[str, Any]]:
    if people is None:
        return []
    return [
        {
            "annotation": int(people.instance_ids[index]),
            "file": str(people.file_names[people.image_of_instance[index]]),
        }
        for index in indices.tolist()
    ]


def _joined(tensors: Sequence[Tensor]) -> Tensor | None:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors]) if tensors else None


def _known_at_once(bad: Tensor) -> bool:
    return not bad.is_cuda


def _to_host(bad: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """The flag on the host, once the event has happened."""
    if not bad.is_cuda:
        return bad, None
    host = torch.empty((), pin_memory=True).copy_(bad, non_blocking=True)
    return host, torch.cuda.current_stream(bad.device).record_event()


def _scaler(module: PoseModule) -> torch.amp.GradScaler | None:
    plugin = module.trainer.precision_plugin
    return getattr(plugin, "scaler", None)
