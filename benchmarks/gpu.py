"""What one GPU does: training steps beside a plain loop, kernels, the loader, evaluation, and the course of the loss.

bash benchmarks/gpu.sh [--toy]    (at most 8 minutes on one card; --toy: everything at its smallest, on any machine)
"""

from __future__ import annotations

import copy
import functools
import gc
import json
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import step
from paired import training_config
from uniformer_pose.synthetic.dataset import write_synthetic_dataset
from uniformer_pose.training.loss import KeypointMSE

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Values = dict[str, float | str]


@dataclass
class Plan:
    """How much is measured."""

    steps: int = 40
    course: int = 200  # steps of the loss curves
    train_images: int = 4000
    seconds: float = 300  # no row begins later, so that all ends in 8 minutes
    sizes: tuple[tuple[str, int, int, int], ...] = (  # model, height, width, batch; first what matters most
        ("uniformer_s", 256, 192, 256),
        ("uniformer_b", 384, 288, 64),
        ("uniformer_s", 256, 192, 128),
        ("uniformer_s", 256, 192, 512),
    )
    common: tuple[str, ...] = ("trainer=gpu", "precision=bf16")


VARIANTS: dict[str, dict[str, bool]] = {
    "eager": {},
    "compiled": {"compiled": True},
    "compiled, channels-last weights": {"compiled": True, "channels_last": True},
}
TOY = Plan(4, 4, 12, 400, (("uniformer_xxs", 64, 64, 4),), ("trainer=cpu", "precision=fp32"))


class Table:
    """Rows that are printed as they come, and written in the end; one that fails says so, and the next begins."""

    def __init__(self, seconds: float) -> None:
        self.rows: list[Values] = []
        self.ends = time.perf_counter() + seconds

    def add(self, name: str, measure: Callable[[], Values], beside: Values | None = None) -> Values:
        """Measure one row, and the memory that it takes, also as multiples of another row's."""
        row: Values = {"row": name}
        torch._dynamo.reset()
        gc.collect()
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            row |= {"note": "left out: no time"} if time.perf_counter() > self.ends else measure()
            if DEVICE.type == "cuda" and "images/s" in row:
                row["memory GiB"] = torch.cuda.max_memory_allocated() / 2**30
            row |= {
                f"x {key}": row[key] / value
                for key, value in (beside or {}).items()
                if _are_numbers(row.get(key), value)
            }
        except torch.OutOfMemoryError:
            row["note"] = "out of memory"
        except Exception as error:
            row["note"] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
        self.rows.append(row)
        values = (f"{key} {value:.4g}" if isinstance(value, float) else f"{value}" for key, value in row.items())
        print(f"{next(values):64} {', '.join(values)}", flush=True)
        return row

    def write(self, file: Path) -> None:
        """All rows as JSON, and on what they were measured."""
        on = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
        content = {"device": on, "torch": torch.__version__, "cores": os.cpu_count(), "rows": self.rows}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=1))
        print(f"written to {file}")


def main(output: str, *options: str) -> None:
    """All rows; the data are rendered below the output's folder."""
    plan = TOY if "--toy" in options else Plan()
    if plan is TOY:  # Inductor's kernels of C++ take minutes
        torch.compile = functools.partial(torch.compile, backend="eager")  # type: ignore[assignment]
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("always", message="the training step cannot be compiled")
    step.STEPS = plan.steps
    file = Path(output)
    root = file.parent / f"synthetic_{plan.train_images}"
    write_synthetic_dataset(
        root, workers=os.cpu_count() or 1, num_train_images=plan.train_images, num_val_images=plan.train_images // 4
    )
    torch.set_float32_matmul_precision("high")
    table = Table(plan.seconds)
    configs = [_config(plan, root, *size) for size in plan.sizes]
    for number, (size, config) in enumerate(zip(plan.sizes, configs, strict=True)):
        name = "{} {}x{}, batch {}".format(*size)
        plain = table.add(f"{name}: plain loop, eager, autocast", functools.partial(plain_loop, config))
        for variant, options in VARIANTS.items():
            table.add(f"{name}: {variant}", functools.partial(_pace, config, **options), beside=plain)
        if number == 0:
            _add_others(table, name, config, plan.course)
    table.write(file)


def _config(plan: Plan, root: Path, model: str, height: int, width: int, batch: int) -> Any:
    codec = [f"data.codec.height={height}", f"data.codec.width={width}", f"data.codec.sigma={2 + (height > 256)}"]
    data = ["data=synthetic_256x192", f"data.root={root}", f"data.batch_size={batch}"]
    workers = 0 if plan is TOY else os.cpu_count()
    steps = [f"++trainer.limit_train_batches={plan.steps}", f"data.num_workers={workers}"]
    return training_config([f"model={model}", *data, *codec, *steps, *plan.common])


def _add_others(table: Table, name: str, config: Any, course: int) -> None:
    table.add(f"{name}: compiled, with the loader", lambda: _pace(config, compiled=True, resident=False))
    table.add(f"{name}: evaluation with flip test", lambda: boxes_a_second(config))
    table.add(f"{name}: loss over {course} steps", lambda: course_of_loss(config, course))
    for compiled in (False, True):
        profiled = Profiled()
        title = f"{name}: kernels, {'compiled' if compiled else 'eager'}"
        table.add(title, functools.partial(_whole_step, config, profiled, compiled=compiled))
        for kernel, values in profiled.longest(10).items():
            table.add(f"  {kernel}"[:62], functools.partial(dict, values))


def _pace(config: Any, *, compiled: bool = False, resident: bool = True, channels_last: bool = False) -> Values:
    config.training.compile_step = compiled
    began = time.perf_counter()
    pace = step.images_a_second(config, resident=resident, channels_last=channels_last)
    return {"images/s": pace, "seconds in all": time.perf_counter() - began}


def plain_loop(config: Any) -> Values:
    """Autocast (fp16 on a GPU), loss scaling and AdamW as anybody would write them, from normalised images."""
    module, _ = step.pose_module(config)
    network, codec = module.network.to(DEVICE).train(), module.codec
    batch = config.data.batch_size
    images = torch.randn(batch, 3, codec.height, codec.width, device=DEVICE)
    targets = torch.rand(batch, 17, codec.heatmap_height, codec.heatmap_width, device=DEVICE)
    weights = torch.ones(batch, 17, device=DEVICE)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(DEVICE.type, enabled=DEVICE.type == "cuda")
    began = 0.0
    for number in range(step.STEPS):
        if number == step.STEPS // 2:
            _wait()
            began = time.perf_counter()
        with torch.autocast(DEVICE.type, torch.float16 if DEVICE.type == "cuda" else torch.bfloat16):
            heatmaps = network(images)
        scaler.scale(KeypointMSE()(codec, heatmaps, targets, weights)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    _wait()
    return {"images/s": (step.STEPS - step.STEPS // 2) * batch / (time.perf_counter() - began)}


def boxes_a_second(config: Any) -> Values:
    """Boxes of the second of two passes over the images to evaluate, scores included."""
    module, data = step.pose_module(config)
    trainer = step.quiet_trainer(config, [])
    for _ in range(2):
        began = time.perf_counter()
        trainer.validate(module, datamodule=data, verbose=False)
        seconds = time.perf_counter() - began
    return {"boxes/s": len(data.val_people or ()) / seconds, "boxes": float(len(data.val_people or ()))}


class Losses(pl.Callback):
    """The loss of every step, left on the device until the end."""

    def __init__(self) -> None:
        self.kept: list[torch.Tensor] = []

    def on_train_batch_end(self, _trainer: Any, _module: Any, outputs: Any, *_: Any) -> None:
        """Keep it."""
        self.kept.append(outputs["loss"].detach())


def course_of_loss(config: Any, steps: int) -> Values:
    """The same batches, weights and optimizer, in fp32 eager and as it is trained: how far the losses part."""
    courses = []
    for precision, compiled in (("fp32", False), (config.precision, True)):
        losses, own_config = Losses(), copy.deepcopy(config)
        own_config.precision, own_config.training.compile_step = precision, compiled
        torch.manual_seed(0)
        step.train(own_config, [losses], resident=False, max_steps=steps, max_epochs=-1)
        courses.append(torch.stack(losses.kept).cpu())
    plain, own = courses
    last = max(1, steps // 10)
    apart = float(((plain - own).abs() / plain).max())
    return {"fp32 eager": float(plain[-last:].mean()), "trained": float(own[-last:].mean()), "largest share": apart}


class Profiled(pl.Callback):
    """What three steps spend their time with."""

    def __init__(self) -> None:
        activity = ProfilerActivity.CUDA if DEVICE.type == "cuda" else ProfilerActivity.CPU
        self.profile = profile(activities={ProfilerActivity.CPU, activity}, record_shapes=True, acc_events=True)
        self.seconds = 0.0

    def on_train_batch_start(self, _trainer: Any, _module: Any, _batch: Any, index: int) -> None:
        """Begin before the last three steps."""
        if index == step.STEPS - 3:
            _wait()
            self.profile.start()
            self.seconds = time.perf_counter()

    def on_train_end(self, *_: Any) -> None:
        """All of them are over."""
        _wait()
        self.seconds = (time.perf_counter() - self.seconds) / 3
        self.profile.stop()

    def longest(self, count: int) -> dict[str, Values]:
        """Operations and compiled kernels by their time in a step, with the bytes of the tensors that they are given.

        What an operation returns is not recorded: its bytes are taken for those of its largest argument.
        """
        if not self.seconds:
            return {}
        found = []
        for event in self.profile.key_averages(group_by_input_shape=True):
            time_of = event.self_device_time_total if DEVICE.type == "cuda" else event.self_cpu_time_total
            if time_of > 0 and event.device_type == torch.autograd.DeviceType.CPU:
                sizes = [_numel(shape) for shape in event.input_shapes if shape]
                is_compiled = event.key.startswith(("triton", "cpp_fused"))
                found.append((time_of, event, sum(sizes) + (0 if is_compiled else max(sizes, default=0))))
        longest = sorted(found, key=lambda one: -one[0])[:count]
        bandwidth, _ = peaks()
        width = 2 if DEVICE.type == "cuda" else 4
        return {
            f"{place}. {event.key} {[shape for shape in event.input_shapes if shape][:2]}": {
                "ms a step": microseconds / 3000,
                "calls": event.count / 3,
                "MB a call": width * numbers / 1e6,
                "share of bandwidth": width * numbers * event.count / (microseconds * 1e-6) / bandwidth,
            }
            for place, (microseconds, event, numbers) in enumerate(longest, start=1)
        }


def _whole_step(config: Any, profiled: Profiled, *, compiled: bool) -> Values:
    """A profiled step as a whole, and its share of what this device multiplies at most."""
    config.training.compile_step = compiled
    module = step.train(config, [profiled], resident=True, max_epochs=1)
    codec, network = module.codec, module.network.to("meta")
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(config.data.batch_size, 3, codec.height, codec.width, device="meta")).sum().backward()
    share = counter.get_total_flops() / profiled.seconds / peaks()[1]
    return {"ms a step": 1000 * profiled.seconds, "share of compute": share}


@functools.cache
def peaks() -> tuple[float, float]:
    """Bytes a second that a copy reads and writes, and operations a second of a large product of matrices."""
    size = 2**14 if DEVICE.type == "cuda" else 2**9
    dtype = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
    one, other = (torch.randn(size, size, device=DEVICE, dtype=dtype) for _ in range(2))
    seconds = []
    for work in (lambda: other.copy_(one), lambda: one @ other):
        times = []
        for _ in range(5):
            _wait()
            began = time.perf_counter()
            work()
            _wait()
            times.append(time.perf_counter() - began)
        seconds.append(min(times))
    return 2 * one.nbytes / seconds[0], 2 * size**3 / seconds[1]


def _numel(shape: Any) -> int:
    return math.prod(shape) if all(isinstance(length, int) for length in shape) else sum(map(_numel, shape))


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, float) for value in values)


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main(*sys.argv[1:])
