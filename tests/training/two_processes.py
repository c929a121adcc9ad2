"""Trainings of two processes, each with its outcome: torchrun two_processes.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import lightning.pytorch as pl
import torch
from counted_operations import CountedSteps
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.strategies import DDPStrategy
from tiny_setup import TinySetup, tiny_setup

from uniformer_pose.errors import DivergedError
from uniformer_pose.training.ema import AveragedWeights
from uniformer_pose.training.progress import LineProgress
from uniformer_pose.training.resume.resume_checkpoints import ResumeCheckpoints


class BadOnSecond(pl.Callback):
    """In step 1 the second process has a NaN in what its network sees, or an infinite loss of finite gradients."""

    def __init__(self, what: str) -> None:
        self.what = what

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if self.what == "input" and trainer.global_step == 1 and trainer.global_rank == 1:
            # Not in a buffer: DDP would replace it by the first process's.
            pl_module.normalize.register_forward_hook(lambda _module, _inputs, images: images * torch.nan)

    def on_before_backward(self, trainer: pl.Trainer, _module: Any, loss: torch.Tensor) -> None:
        if self.what == "loss" and trainer.global_step == 1 and trainer.global_rank == 1:
            loss.data.fill_(torch.inf)


class Statistics(pl.Callback):
    """BatchNorm's running statistics that each evaluation uses."""

    def __init__(self) -> None:
        self.of_evaluations: list[torch.Tensor] = []

    def on_validation_batch_end(self, _trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        running = [tensor for name, tensor in pl_module.network.named_buffers() if "running" in name]
        self.of_evaluations.append(torch.cat(running).clone())


def strategy_of_config() -> DDPStrategy:
    with initialize_config_dir(str(Path(__file__).parents[2] / "conf"), version_base="1.3"):
        strategy: DDPStrategy = instantiate(compose("train", ["trainer=ddp"]).trainer.strategy)
        return strategy


def trained(
    tiny: TinySetup, strategy: Any, *callbacks: pl.Callback, teacher: str | None = None, **settings: Any
) -> dict[str, Any]:
    """What a training leaves on this process."""
    pl.seed_everything(0, verbose=False)
    module, message = tiny.module(warmup_steps=0, teacher=teacher), "finished"
    trainer = tiny.trainer(devices=2, strategy=strategy, callbacks=list(callbacks), **settings)
    try:
        trainer.fit(module, datamodule=tiny.data(batch_size=1))
    except DivergedError as error:
        message = str(error)
    weights = torch.cat([weight.detach().flatten() for weight in module.network.parameters()])
    return {"message": message, "weights": weights, "AP": float(trainer.callback_metrics.get("val/AP", -1))}


def evaluated(tiny: TinySetup, strategy: Any) -> dict[str, Any]:
    statistics = Statistics()
    outcome = trained(tiny, strategy, AveragedWeights(), statistics, max_epochs=2)
    return outcome | {"statistics": torch.stack(statistics.of_evaluations[:: len(statistics.of_evaluations) // 2])}


def counted(tiny: TinySetup, strategy: Any) -> dict[str, Any]:
    steps = CountedSteps()
    others = (AveragedWeights(), LineProgress(seconds=0), ResumeCheckpoints(str(tiny.folder)))
    with steps.mode:
        trained(tiny, strategy, steps, *others, max_epochs=-1, max_steps=101, limit_val_batches=0, log_every_n_steps=50)
    return {"steps": len(steps.totals), "reads": steps.steps_with_reads, "totals": steps.totals}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tiny = tiny_setup(folder)
    outcomes = {
        "input": trained(tiny, "ddp", BadOnSecond("input"), limit_val_batches=0),
        "loss": trained(tiny, "ddp", BadOnSecond("loss"), limit_val_batches=0),
        "config": evaluated(tiny, strategy_of_config()),
        "torch": evaluated(tiny, DDPStrategy()),
        "accumulated config": trained(tiny, strategy_of_config(), accumulate_grad_batches=2, limit_val_batches=0),
        "accumulated torch": trained(tiny, DDPStrategy(), accumulate_grad_batches=2, limit_val_batches=0),
    }
    teacher = str(folder / "teacher.ckpt")
    outcomes["taught"] = trained(tiny, strategy_of_config(), teacher=teacher, limit_val_batches=0)
    outcomes["plain"] = trained(tiny, strategy_of_config(), limit_val_batches=0)
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        tiny.write_people((2,) * 110)
    torch.distributed.barrier()
    outcomes["counted"] = counted(tiny, strategy_of_config())
    torch.save(outcomes, folder / f"outcomes_{torch.distributed.get_rank()}.pt")
