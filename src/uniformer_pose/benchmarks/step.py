"""Training images a second on batches that are on the device already: the step as training runs it, and a plain one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from uniformer_pose.benchmarks.measurement import Clock, Measurement, Progress, Side, measure, no_progress
from uniformer_pose.benchmarks.report import BenchmarkResult, Comparison
from uniformer_pose.benchmarks.roofline import Work, count_work, device_peak
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.uniformer import ConvolutionMLP, LinearMLP
from uniformer_pose.training.optimization import fused_where_possible
from uniformer_pose.training.pose_module import PoseModule
from uniformer_pose.training.step_loss import CompileStep, StepLoss, keypoint_mse, loss_and_accuracy

NumberFormat = Literal["fp32", "bf16", "fp16"]
Batch = dict[str, Tensor]
Step = Callable[[Batch], Tensor]
"""One optimizer step on a batch; returns its loss without waiting for the device."""

_REDUCED = {"bf16": torch.bfloat16, "fp16": torch.float16}
_LEARNING_RATE = 5e-4


def random_batch(
    codec: HeatmapCodec, num_keypoints: int, batch_size: int, device: torch.device, seed: int = 0
) -> Batch:
    """A training batch of random pixels and keypoints on ``device``, with the fields that the loader gives."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch_size, codec.height, codec.width, 3)
    crops = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    reach = torch.tensor([codec.width, codec.height], dtype=torch.float32)
    batch = {
        "crops": crops,
        "keypoints_in_crop": torch.rand(batch_size, num_keypoints, 2, generator=generator) * reach,
        "visibility": torch.full((batch_size, num_keypoints), 2, dtype=torch.uint8),
        "instance_index": torch.arange(batch_size),
        "replaced": torch.zeros(batch_size, dtype=torch.uint8),
    }
    return {name: values.to(device) for name, values in batch.items()}


def plain_step(module: PoseModule, optimizer: Optimizer, number_format: NumberFormat) -> Step:
    """The step as PyTorch's tutorials write it: the same network op by op, in NCHW, fp16 with a scaled loss.

    The reference of every claim about speed, and of the loss curve. ``module`` must be on its device; its weights'
    memory order is changed to NCHW, and nothing is recomputed in the backward pass.
    """
    module.network.to(memory_format=torch.contiguous_format)
    for part in module.network.modules():
        if isinstance(part, ConvolutionMLP | LinearMLP):
            part.recompute_gelu = False
    device = module.device
    scaler = torch.amp.GradScaler(device.type, enabled=number_format == "fp16")

    def step(batch: Batch) -> Tensor:
        optimizer.zero_grad()
        with _autocast(device, number_format):
            images = module.normalize(batch["crops"]).contiguous()
            heatmaps = module.network(images)
            targets, weights = module.codec.encode(batch["keypoints_in_crop"], batch["visibility"])
            loss = keypoint_mse(heatmaps, targets, weights)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return step


def training_step(
    module: PoseModule, optimizer: Optimizer, number_format: NumberFormat, compile_step: CompileStep = "auto"
) -> Step:
    """The step as training runs it: ``StepLoss``, compiled or not, and the precision that Lightning would choose."""
    device = module.device
    compute = StepLoss(compile_step, device)
    scaler = torch.amp.GradScaler(device.type, enabled=number_format == "fp16")

    def step(batch: Batch) -> Tensor:
        optimizer.zero_grad()
        with _autocast(device, number_format):
            loss, _accuracy = compute(module.network, module.normalize, module.codec, *_fields(batch))
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return step


def loss_curve(step: Step, batches: Iterable[Batch]) -> list[float]:
    """The loss of each successive step."""
    return [float(step(batch)) for batch in batches]


def saved_bytes(forward: Callable[[], object], module: torch.nn.Module) -> int:
    """Bytes that a forward pass keeps for the backward pass, weights not counted: what limits the batch."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in weights:
            kept[pointer] = tensor  # held, so that no other tensor takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def benchmark_step(
    make_module: Callable[[], PoseModule],
    make_optimizer: Callable[..., Optimizer],
    *,
    device: torch.device,
    number_format: NumberFormat,
    batch_size: int,
    rounds: int,
    steps: int,
    clock: Clock,
    compile_step: CompileStep = "auto",
    on_progress: Progress = no_progress,
) -> BenchmarkResult:
    """Compare ``steps`` training steps a round: plain eager against what ``PoseModule`` runs.

    Each side has a module of its own. The plain one computes in fp16 on a GPU, in fp32 on a processor; the other in
    ``number_format``.
    """
    plain_format: NumberFormat = "fp16" if device.type == "cuda" else "fp32"
    plain_module, module = make_module().to(device).train(), make_module().to(device).train()
    plain = plain_step(
        plain_module, torch.optim.AdamW(plain_module.network.parameters(), lr=_LEARNING_RATE), plain_format
    )
    weights = list(module.network.parameters())
    optimizer = fused_where_possible(make_optimizer, weights, clipping_scaled_gradients=False)(
        weights, lr=_LEARNING_RATE
    )
    own = training_step(module, optimizer, number_format, compile_step)
    batch = random_batch(module.codec, module.model.skeleton.num_keypoints, batch_size, device)

    def run(step: Step) -> int:
        for _ in range(steps):
            step(batch)
        return steps * batch_size

    sides = [
        Side(f"plain eager, {plain_format}", lambda: run(plain)),
        Side(f"as training runs it, {number_format}", lambda: run(own)),
    ]
    measured = measure(sides, unit="images", rounds=rounds, clock=clock, warmup=2, on_progress=on_progress)
    result = BenchmarkResult("step", [Comparison(f"Training step, batch {batch_size}", measured)])
    result.facts["speedup_over_plain"] = measured[1].ratio_to(measured[0])
    if measured[0].peak_bytes and measured[1].peak_bytes:
        result.facts["peak_memory_over_plain"] = measured[1].peak_bytes / measured[0].peak_bytes
    else:
        kept_by_plain = _kept_bytes(plain_module, batch, plain_format, loss_and_accuracy)
        kept = _kept_bytes(module, batch, number_format, StepLoss(compile_step, device))
        result.facts["megabytes_kept_for_backward_plain"] = kept_by_plain / 2**20
        result.facts["kept_for_backward_over_plain"] = kept / kept_by_plain
    with torch.no_grad():
        forward = count_work(lambda: plain_module.network(plain_module.normalize(batch["crops"])))
    # Backward is twice forward, by the usual rule: the counter takes the weights' gradient of a depth-wise convolution
    # for that of a full one.
    work = Work(3 * forward.flops, count_work(lambda: plain(batch)).bytes_moved)
    result.facts.update(_roofline_facts(measured, work, batch_size, device, number_format))
    fraction = result.facts.get("compute_fraction_of_peak")
    reached = "" if fraction is None else f", {fraction:.1%} of the device's peak arithmetic"
    result.verdict.append(
        f"The training step reaches {measured[1].median_rate:.4g} images/s, "
        f"{result.facts['speedup_over_plain']:.2f}x the plain one{reached}."
    )
    result.verdict.append(_advice(device, number_format, fraction))
    return result


def _roofline_facts(
    measured: list[Measurement], work: Work, batch_size: int, device: torch.device, number_format: NumberFormat
) -> dict[str, float | str]:
    """Arithmetic and memory traffic of a step, and what share of the device's peaks each side reaches."""
    matrices = "tf32" if torch.get_float32_matmul_precision() != "highest" and device.type == "cuda" else "fp32"
    peak = device_peak(device, matrices if number_format == "fp32" else number_format)
    plain_seconds, seconds = (batch_size / side.median_rate for side in measured)
    facts: dict[str, float | str] = {
        "gigaflops_per_image": work.flops / batch_size / 1e9,
        "megabytes_moved_per_image_op_by_op": work.bytes_moved / batch_size / 2**20,
        "teraflops_per_second": work.flops / seconds / 1e12,
    }
    if peak is not None:
        facts["peak"] = peak.source
        facts["peak_teraflops_per_second"] = peak.flops_per_second / 1e12
        facts["peak_gigabytes_per_second"] = peak.bytes_per_second / 1e9
        facts["compute_fraction_of_peak"] = work.flops / seconds / peak.flops_per_second
        facts["bandwidth_fraction_of_peak_plain"] = work.bytes_moved / plain_seconds / peak.bytes_per_second
    return facts


def _advice(device: torch.device, number_format: NumberFormat, fraction: float | None) -> str:
    if device.type == "cpu":
        return "On a processor arithmetic is the limit: a smaller model or input, or a GPU."
    if number_format == "fp32":
        return "precision=bf16 halves the memory traffic and doubles the arithmetic."
    if fraction is not None and fraction < 0.25:
        return "Far from the arithmetic peak: memory traffic or launches are the limit; raise data.batch_size, compile."
    return "Near what the device can do: a smaller model or input is what is left."


def _kept_bytes(module: PoseModule, batch: Batch, number_format: NumberFormat, compute: Callable[..., object]) -> int:
    def forward() -> None:
        with _autocast(module.device, number_format):
            compute(module.network, module.normalize, module.codec, *_fields(batch))

    return saved_bytes(forward, module)


def _fields(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    return batch["crops"], batch["keypoints_in_crop"], batch["visibility"]


def _autocast(device: torch.device, number_format: NumberFormat) -> torch.autocast | nullcontext[None]:
    reduced = _REDUCED.get(number_format)
    return nullcontext() if reduced is None else torch.autocast(device.type, reduced)
