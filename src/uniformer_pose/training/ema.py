"""Averaged weights: evaluated and saved as the model, while the weights behind them go on being trained."""

from __future__ import annotations

from typing import Annotated, Any

import lightning.pytorch as pl
import torch
from annotated_types import Ge, Lt
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class AveragedWeights(WeightAveraging):
    """Exponential moving average of the model, updated after every optimizer step.

    Averaged are floating parameters and buffers; BatchNorm's statistics are, since those of today's weights lead the
    averaged weights by as many steps as the average spans. Whole numbers (counters, indices) are copied: between two
    of them there is nothing. ``decay`` is approached: after n updates it is (1 + n) / (10 + n) at most, so that the
    average spans a ninth of the steps taken, and a short training is not averaged with its random beginning.
    """

    def __init__(self, decay: Annotated[float, Ge(0), Lt(1)] = 0.9998) -> None:
        super().__init__(use_buffers=True, multi_avg_fn=self._average)
        self.decay = decay

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin an average of its own for each training."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and self._average_model is not None:
            self._latest_update_step = 0
            # Read at every step: on a GPU each reading would wait for it.
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    @torch.no_grad()
    def _average(self, averages: Any, current: Any, _num_averaged: Tensor | int) -> None:
        """One update of tensors of one kind, in place."""
        if not averages[0].is_floating_point():
            torch._foreach_copy_(averages, current)
            return
        updates = int(self._average_model.n_averaged)  # type: ignore[union-attr]
        decay = min(self.decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(averages, current, 1 - decay)
