"""What a training starts from: nothing, or a checkpoint that all processes read, with a line that says so."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info

from uniformer_pose.errors import InputError
from uniformer_pose.run import CHECKPOINTS
from uniformer_pose.saved_model import RECORD_KEY
from uniformer_pose.training.resume.checkpoint_files import newest_whole_checkpoint, position_of
from uniformer_pose.training.resume.settings import changed_settings, require_same_experiment
from uniformer_pose.weights.loading import require_resumable


def checkpoint_to_resume(config: Mapping[str, Any], run_dir: Path) -> Path | None:
    """The whole checkpoint to continue from, if any, with lines that say so and name what has changed since.

    Raises InputError where it is damaged, of another experiment, or the config contradicts itself.
    """
    given, auto = config["ckpt_path"], config["resume"] == "auto"
    if auto and given is not None:
        raise InputError(f"ckpt_path={given} and resume=auto: give one of them")
    if not auto and config["run_id"] is not None and any((run_dir / CHECKPOINTS).glob("*.ckpt")):
        raise InputError(
            f"run_id={config['run_id']}: {run_dir} holds a run already; continue it with resume=auto, or give "
            "another run_id"
        )
    if given is not None:
        require_resumable(given)  # whole and harmless, or one line says what is wrong
    checkpoint = Path(given) if given is not None else newest_whole_checkpoint(run_dir / CHECKPOINTS) if auto else None
    if checkpoint is not None:
        _require_fitting(checkpoint, config)
    elif auto:
        rank_zero_info(f"resume=auto: no checkpoint in {run_dir}, so this is a new run")
    return checkpoint


def _require_fitting(checkpoint: Path, config: Mapping[str, Any]) -> None:
    contents = torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)
    if "RandomState" in contents["callbacks"]:
        raise InputError(
            f"{checkpoint}: written by an earlier version, whose trainings this one cannot continue exactly; finish it "
            f"with that version, or start from its weights: model.pretrained={checkpoint}"
        )
    changes = changed_settings(contents[RECORD_KEY].get("config", {}), config)
    require_same_experiment(checkpoint, changes)
    epochs, max_epochs = position_of(checkpoint).epochs, config["trainer"].get("max_epochs")
    if max_epochs is not None and 0 <= max_epochs < epochs:
        raise InputError(f"trainer.max_epochs={max_epochs}: {checkpoint} stands after epoch {epochs}; give more")
    rank_zero_info(f"resuming from {checkpoint}")
    if changes:
        rank_zero_info(f"from here on with other settings than before: {', '.join(map(str, changes))}")


def share_start(trainer: pl.Trainer, chosen: Path | None, seconds: float = 90.0) -> None:
    """Have every process of ``trainer`` continue from what the first one chose, or from nothing if that is its choice.

    A process that looked for itself might find another checkpoint, where a shared disk shows a file late: the others
    wait ``seconds`` for it. InputError on all of them where one does not see it.
    """
    if trainer.world_size == 1:
        return
    # The only place after processes can talk and before they read: Lightning takes a path before that, or none.
    connector: Any = trainer._checkpoint_connector

    def resume_start(*_own: Any, **_named: Any) -> None:
        del connector.resume_start  # what is read later is somebody else's choice
        size = chosen.stat().st_size if chosen is not None and trainer.is_global_zero else 0
        path, size = trainer.strategy.broadcast((chosen, size))
        seen = path is None or _appears(path, size, seconds)
        if not trainer.strategy.reduce_boolean_decision(seen, all=True):
            raise InputError(
                f"{path}: the first process continues from it, and not all others see it whole after {seconds:.0f} s; "
                "give a run directory on a disk that all of them share"
            )
        connector.resume_start(path, weights_only=True)

    connector.resume_start = resume_start


def _appears(file: Path, size: int, seconds: float) -> bool:
    """Whether a file is there with all its bytes, or comes in time."""
    deadline = time.monotonic() + seconds
    while not (file.is_file() and file.stat().st_size == size):
        if time.monotonic() > deadline:
            return False
        time.sleep(1.0)
    return True
