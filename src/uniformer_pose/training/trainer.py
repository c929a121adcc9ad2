"""Lightning's trainer as every entry point makes it: settings and callbacks in, or one line that says what is wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import lightning.pytorch as pl
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException

from uniformer_pose.config_parts import Precision
from uniformer_pose.entry_point import refuse_unlaunchable_sweep
from uniformer_pose.errors import InputError
from uniformer_pose.nearest_name import did_you_mean
from uniformer_pose.training.precision import lightning_precision
from uniformer_pose.training.progress import progress_callback

_OF_TRAINING = ("train/loss", "train/pck")
_OF_HARDWARE = ("accelerator", "devices", "num_nodes", "strategy")


def make_trainer(
    node: Mapping[str, Any],
    *,
    precision: Precision,
    callbacks: list[pl.Callback],
    plugins: list[Any] | None = None,
    evaluated: Collection[str] = ("val/AP",),
    **set_by_program: Any,
) -> pl.Trainer:
    """The trainer that a config node describes, with a progress bar unless ``enable_progress_bar`` is false.

    ``evaluated`` are the names of what evaluations log.

    Raises InputError where this machine has not what the node asks for, Lightning refuses its settings, or a callback
    monitors what nobody logs.
    """
    logged = (*_OF_TRAINING, *evaluated)
    for callback in callbacks:
        monitored = str(getattr(callback, "monitor", None))  # callbacks of the user's may log others, not under these
        if monitored.startswith(("train/", "val/")) and monitored not in logged:
            raise InputError(f"{type(callback).__name__}: monitor={monitored}: {did_you_mean(monitored, logged)}")
    settings = dict(node)
    if settings.get("overfit_batches"):  # it would replace the sampler that draws the augmentation
        raise InputError(
            f"trainer.overfit_batches={settings['overfit_batches']}: use debug=overfit or data.max_images=<n>"
        )
    own_plugins = instantiate(settings.pop("plugins", None) or [], _convert_="all")
    bars = [] if settings.get("enable_progress_bar") is False else [progress_callback()]
    try:
        trainer: pl.Trainer = instantiate(settings, _partial_=True, _convert_="all")(
            plugins=[*(plugins or []), *own_plugins],
            precision=lightning_precision(precision, settings.get("accelerator", "auto")),
            callbacks=[*callbacks, *bars],
            **set_by_program,
        )
    except (MisconfigurationException, ImportError, ValueError, TypeError) as error:
        given = {name: settings[name] for name in _OF_HARDWARE if isinstance(settings.get(name), str | int | list)}
        shown = ", ".join(f"trainer.{name}={value}" for name, value in given.items())
        advice = "" if settings.get("accelerator") == "cpu" else "; trainer=auto takes what this machine has"
        raise InputError(f"{shown}: {' '.join(str(error).split())}{advice}") from error
    refuse_unlaunchable_sweep(trainer)
    return trainer
