"""Averaged weights: evaluated and saved as the model, while the weights behind them go on being trained."""

from __future__ import annotations

from itertools import chain
from math import expm1
from typing import Annotated, Any

import lightning.pytorch as pl
from annotated_types import Ge, Lt
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from uniformer_pose.ranges import Positive


class AveragedWeights(WeightAveraging):
    """Exponential moving average of the model, updated after every optimizer step by one operation.

    Averaged are floating parameters and buffers; BatchNorm's statistics are, since those of today's weights lead the
    averaged weights by as many steps as the average spans. Whole numbers (counters, indices) are shared with the model:
    between two of them there is nothing. ``decay`` is approached: after n updates it is (1 + n) / (10 + n) at most, so
    that the average spans a ninth of the steps taken, and a short training is not averaged with its random beginning.
    With ``gamma`` it is decay (1 - exp(-(1 + n) / gamma)), as in RTMPose (MMEngine's ``ExpMomentumEMA``).
    """

    def __init__(self, decay: Annotated[float, Ge(0), Lt(1)] = 0.9998, gamma: Positive | None = None) -> None:
        super().__init__()
        self.decay, self.gamma = decay, gamma
        self._updates = 0  # a number of the host's: Lightning's is read from the device at every step
        self._averages: list[Tensor] = []
        self._current: list[Tensor] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin an average of its own for each training."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._latest_update_step = self._updates = 0

    def on_train_start(self, _trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Pair the averages with what they follow."""
        average: Any = self._average_model
        self._averages, self._current = [], []
        for averaged, current in zip(_tensors(average.module), _tensors(pl_module), strict=True):
            if current.is_floating_point():
                self._averages.append(averaged.detach())
                self._current.append(current.detach())
            else:
                averaged.data = current.data

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Follow the weights, if the batch ended with a step."""
        if trainer.global_step <= self._latest_update_step:
            return
        self._latest_update_step = trainer.global_step
        get_ema_multi_avg_fn(self._decay_now())(self._averages, self._current, self._updates)  # type: ignore[no-untyped-call]
        self._updates += 1

    def _decay_now(self) -> float:
        n = self._updates
        if n == 0:
            return 0.0
        return min(self.decay, (1 + n) / (10 + n)) if self.gamma is None else -self.decay * expm1(-(1 + n) / self.gamma)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """The averages as the model, and what continues them."""
        if self._average_model is not None:
            self._average_model.n_averaged.fill_(self._updates)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with averages that a training has left."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        self._updates = int(checkpoint.get("averaging_state", {}).get("n_averaged", 0))


def _tensors(module: nn.Module) -> chain[Tensor]:
    return chain(module.parameters(), module.buffers())
