"""A dumped training step, computed once more: where did the first number that is not finite come from?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.hooks import RemovableHandle

from uniformer_pose.data.tensors import CropNormalization
from uniformer_pose.errors import InputError
from uniformer_pose.saved_model import SavedModel
from uniformer_pose.training.non_finite import DUMP_FORMAT, WEIGHTS_FILE
from uniformer_pose.training.step_loss import loss_and_accuracy
from uniformer_pose.weights.file_contents import read_weight_file
from uniformer_pose.weights.loading import load_model

_LAYERS_SHOWN = 6
_PEOPLE_SHOWN = 5


@dataclass(frozen=True)
class Layer:
    """What one module put out in the forward pass, or the gradient that reached this output.

    ``largest`` is the largest magnitude of the finite numbers, ``bad`` how many are not. ``bad_rows``: the people of
    the batch whose part holds one, where the first axis is that of the batch.
    """

    name: str
    kind: str
    numbers: int
    largest: float
    bad: int
    bad_rows: list[int]


@dataclass
class Outcome:
    """One batch computed again. ``loss`` as a number; ``forward`` and ``backward`` in the order of the computation.

    ``bad_gradients`` are names of weights whose gradient is not finite.
    """

    precision: str
    loss: float
    forward: list[Layer] = field(default_factory=list)
    backward: list[Layer] = field(default_factory=list)
    bad_gradients: list[str] = field(default_factory=list)

    @property
    def first(self) -> tuple[str, int] | None:
        """ "forward" or "backward", and the position of the first layer there that is not finite."""
        for direction, layers in (("forward", self.forward), ("backward", self.backward)):
            for position, layer in enumerate(layers):
                if layer.bad:
                    return direction, position
        return None

    @property
    def is_finite(self) -> bool:
        """Whether nothing went wrong this time."""
        return self.first is None and not self.bad_gradients and abs(self.loss) < float("inf")


def replay_dump(folder: Path, *, process: int | None = None, device: str | None = None) -> Iterator[str]:
    """Lines that say what happened in the step of ``folder``; each batch takes a forward and a backward pass.

    Each process's batches, or those of ``process`` alone, in the precision of the training and, where that was a
    reduced one and the batch is bad in it, in fp32 as well. ``device`` None: a GPU if the training had one and there is
    one here. Raises InputError where ``folder`` is not such a dump.
    """
    files = sorted(folder.glob("batches_of_process_*.pt"), key=_process_of)
    if not files:
        raise InputError(f"{folder}: no dump of a step; give the folder that the training's last message named")
    chosen = [file for file in files if process is None or _process_of(file) == process]
    if not chosen:
        raise InputError(f"process={process}: there are {', '.join(str(_process_of(file)) for file in files)}")
    model, _report = load_model(folder / WEIGHTS_FILE)
    bad_weights = [name for name, weight in model.network.state_dict().items() if not weight.isfinite().all()]
    if bad_weights:
        yield f"{len(bad_weights)} weights were not finite before this step: {bad_weights[0]}, ..."
    for file in chosen:
        step = _read_step(file)
        on = torch.device(device or ("cuda" if step["device"] == "cuda" and torch.cuda.is_available() else "cpu"))
        for number, batch in enumerate(step["batches"]):
            where = f"process {step['process']}, " if len(files) > 1 else ""
            which = f", batch {number + 1} of {len(step['batches'])}" if len(step["batches"]) > 1 else ""
            yield f"{where}epoch {step['epoch']}, step {step['step']}{which}: {len(batch['crops'])} people"
            outcome = replay_batch(model, batch, step["random_states"][number], step["precision"], step, on)
            people = step["people"][number] if step["people"] else []
            yield from _description(outcome, people)
            if not outcome.is_finite and outcome.precision != "fp32":
                again = replay_batch(model, batch, step["random_states"][number], "32-true", step, on)
                yield f"in fp32: loss {again.loss:.4g}" + (
                    ", all finite: the range of the reduced precision was exceeded; train with precision=bf16 or fp32"
                    if again.is_finite
                    else ", not finite either"
                )


def replay_batch(
    model: SavedModel,
    batch: dict[str, Tensor],
    random_state: dict[str, Any],
    precision: str,
    step: dict[str, Any],
    device: torch.device,
) -> Outcome:
    """One training step's loss and gradients, every layer's output looked at. ``precision`` as Lightning writes it."""
    network = model.network.to(device).train()
    network.zero_grad(set_to_none=True)
    buffers = [buffer.clone() for buffer in network.buffers()]
    batch = {name: values.to(device) for name, values in batch.items()}
    normalize = CropNormalization(model.mean, model.std).to(device)
    reduced = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    outcome = Outcome({"bf16-mixed": "bf16", "16-mixed": "fp16"}.get(precision, "fp32"), float("nan"))
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        torch.set_rng_state(random_state["torch"])
        if random_state["cuda"] is not None and device.type == "cuda":
            torch.cuda.set_rng_state(random_state["cuda"], device)
        stack.enter_context(_watched(network, outcome, len(batch["crops"])))
        with torch.autocast(device.type, dtype=reduced, enabled=reduced is not None, cache_enabled=False):
            loss, _accuracy = loss_and_accuracy(
                network, normalize, model.codec, batch["crops"], batch["keypoints_in_crop"], batch["visibility"]
            )
        outcome.loss = float(loss.detach())
        scale = step["loss_scale"] or 1.0 if reduced == torch.float16 else 1.0
        torch.autograd.backward(loss * scale)
    outcome.bad_gradients = [
        name
        for name, weight in network.named_parameters()
        if weight.grad is not None and not weight.grad.isfinite().all()
    ]
    for buffer, before in zip(network.buffers(), buffers, strict=True):  # as it was, for the next batch
        buffer.copy_(before)
    return outcome


@contextmanager
def _watched(network: Module, outcome: Outcome, batch_size: int) -> Iterator[None]:
    """Look at what each module without children puts out, and at the gradients that come back to it."""
    handles: list[RemovableHandle] = []
    recomputing = False  # checkpointed blocks run forward again in the backward pass

    def watch(name: str, module: Module) -> None:
        def look(_module: Module, _inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or recomputing:
                return
            outcome.forward.append(_looked_at(name, module, output, batch_size))
            if output.requires_grad:
                output.register_hook(look_back)  # type: ignore[no-untyped-call]

        def look_back(gradient: Tensor) -> None:
            nonlocal recomputing
            recomputing = True
            outcome.backward.append(_looked_at(name, module, gradient, batch_size))

        handles.append(module.register_forward_hook(look))

    for name, module in network.named_modules():
        if not any(module.children()):
            watch(name, module)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _looked_at(name: str, module: Module, tensor: Tensor, batch_size: int) -> Layer:
    numbers = tensor.detach().float()
    finite = numbers.isfinite()
    largest = float(torch.where(finite, numbers.abs(), 0.0).amax()) if numbers.numel() else 0.0
    rows: list[int] = []
    if numbers.ndim > 1 and len(numbers) == batch_size:
        rows = torch.nonzero(~finite.flatten(1).all(dim=1)).flatten().tolist()
    return Layer(name, type(module).__name__, numbers.numel(), largest, int((~finite).sum()), rows)


def _description(outcome: Outcome, people: list[dict[str, Any]]) -> Iterator[str]:
    yield f"in {outcome.precision}: loss {outcome.loss:.4g}"
    if outcome.is_finite:
        yield "all outputs and gradients are finite this time: another device or library version, or another process"
        return
    if outcome.first is None:
        where = f"the gradient of {outcome.bad_gradients[0]}" if outcome.bad_gradients else "the loss itself"
        yield f"first not finite: {where}, with finite outputs of all layers"
        return
    direction, position = outcome.first
    layers = outcome.forward if direction == "forward" else outcome.backward
    layer = layers[position]
    subject = "the output" if direction == "forward" else "the gradient at the output"
    yield (
        f"first not finite, {direction}: {subject} of {layer.name} ({layer.kind}), {layer.bad} of {layer.numbers} "
        f"numbers, of {len(layer.bad_rows) or 'an unknown number of'} people"
    )
    for row in layer.bad_rows[:_PEOPLE_SHOWN]:
        if row < len(people):
            yield f"  person {row}: annotation {people[row]['annotation']}, {people[row]['file']}"
    if len(layer.bad_rows) > _PEOPLE_SHOWN:
        yield f"  and {len(layer.bad_rows) - _PEOPLE_SHOWN} more"
    yield "largest finite magnitude on the way there:"
    for earlier in layers[max(0, position - _LAYERS_SHOWN + 1) : position + 1]:
        yield f"  {earlier.largest:10.4g}  {earlier.name} ({earlier.kind})"


def _process_of(file: Path) -> int:
    found = re.fullmatch(r"batches_of_process_(\d+)", file.stem)
    return int(found[1]) if found else -1


def _read_step(file: Path) -> dict[str, Any]:
    step = read_weight_file(file).contents
    if step.get("format") != DUMP_FORMAT:
        raise InputError(f"{file}: format {step.get('format')!r}, this version reads {DUMP_FORMAT}")
    return step
