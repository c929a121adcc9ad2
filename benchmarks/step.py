"""Training images a second: with the loader, and from one batch that is on the device already.

python benchmarks/step.py model=uniformer_s data=coco_256x192 trainer=gpu precision=bf16 training.compile_step=true
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import hydra
import lightning.pytorch as pl
import torch

from paired import data_module, quartiles, random_model, training_config
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.training.optimization import Optimization
from uniformer_pose.training.pose_module import PoseModule
from uniformer_pose.training.trainer import make_trainer

STEPS, ROUNDS = 40, 3


class ResidentBatch:
    """The first batch of a loader, on the device, again and again."""

    def __init__(self, loader: Any, steps: int, device: torch.device) -> None:
        self.batch = {name: values.to(device) for name, values in next(iter(loader)).items()}
        self.steps = steps

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return iter([self.batch] * self.steps)

    def __len__(self) -> int:
        return self.steps


class Pace(pl.Callback):
    """Seconds of the second half of the steps, by the device's own end."""

    start = seconds = 0.0

    def on_train_batch_end(self, _trainer: Any, _module: Any, _outputs: Any, _batch: Any, index: int) -> None:
        """Look at the clock after the first half, and at the end."""
        if index + 1 in (STEPS // 2, STEPS):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.start, self.seconds = time.perf_counter(), time.perf_counter() - self.start


def main(overrides: list[str]) -> None:
    """Train twice a round, in turn."""
    config = training_config([*overrides, f"++trainer.limit_train_batches={STEPS}"])
    rates: dict[str, list[float]] = {"with the loader": [], "one batch, on the device": []}
    for number in range(ROUNDS):
        for name in list(rates)[:: 1 if number % 2 == 0 else -1]:
            rates[name].append(images_a_second(config, resident=name.startswith("one batch")))
    print(f"\n{'images a second':28} {'median':>9} {'quartiles':>19}")
    for name, values in rates.items():
        low, median, high = quartiles(values)
        print(f"{name:28} {median:9.4g} {f'{low:.4g} - {high:.4g}':>19}")


def images_a_second(config: Any, *, resident: bool, channels_last: bool = False) -> float:
    """The pace of one short training."""
    pace = Pace()
    batch = train(config, [pace], resident=resident, channels_last=channels_last, max_epochs=1).data.batch_size
    return (STEPS - STEPS // 2) * batch / pace.seconds


def train(
    config: Any, callbacks: list[pl.Callback], *, resident: bool, channels_last: bool = False, **settings: Any
) -> PoseModule:
    """A training that writes and evaluates nothing; ``channels_last`` is the memory order of the weights."""
    module, data = pose_module(config)
    if channels_last:
        module.network.to(memory_format=torch.channels_last)
    trainer = quiet_trainer(config, callbacks, limit_val_batches=0, **settings)
    if resident:
        data.setup("fit")
        batches = ResidentBatch(data.train_dataloader(), STEPS, trainer.strategy.root_device)
        data.train_dataloader = lambda: batches  # type: ignore[method-assign,assignment,return-value]
    trainer.fit(module, datamodule=data)
    return module


def pose_module(config: Any) -> tuple[PoseModule, PersonCrops]:
    """What is trained, with random weights, and its data."""
    data: PersonCrops = data_module(config)
    make: type[PoseModule] = hydra.utils.instantiate(config.training, _partial_=True, _convert_="all")
    module = make(
        model=random_model(config, data),
        protocol=hydra.utils.instantiate(config.evaluation),
        optimization=Optimization.of_config(config.optimizer, config.scheduler),
        loss=hydra.utils.instantiate(config.loss),
    )
    return module, data


def quiet_trainer(config: Any, callbacks: list[pl.Callback], **settings: Any) -> pl.Trainer:
    """The config's trainer, which writes nothing."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, **settings}
    return make_trainer(
        {**config.trainer, **quiet},
        precision=config.precision,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
