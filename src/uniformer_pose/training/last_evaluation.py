"""An evaluation after the last training step, whatever the interval between evaluations."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl


def evaluate_the_end(trainer: pl.Trainer) -> None:
    """Have ``trainer`` evaluate after the last step of its training too.

    Lightning evaluates at multiples of ``check_val_every_n_epoch`` or ``val_check_interval`` only, so a training could
    end without a score and without a best checkpoint. Trainings without evaluation (``limit_val_batches=0``) stay so.
    """
    loop: Any = trainer.fit_loop.epoch_loop
    due = type(loop)._should_check_val_fx

    def due_or_last(data_fetcher: Any) -> bool:
        return bool(due(loop, data_fetcher)) or (trainer.enable_validation and _is_last_step(trainer))

    loop._should_check_val_fx = due_or_last


def _is_last_step(trainer: pl.Trainer) -> bool:
    """Whether the training ends after the batch in hand: by its epochs, its steps, or a callback's word."""
    fit_loop, batches = trainer.fit_loop, trainer.fit_loop.epoch_loop.batch_progress
    if 0 <= trainer.max_steps <= trainer.global_step:
        return True
    if trainer.should_stop and fit_loop._can_stop_early:
        return True
    epochs = trainer.max_epochs
    return batches.is_last_batch and epochs is not None and 0 <= epochs <= trainer.current_epoch + 1
