"""What a training starts from: nothing, or a checkpoint, with a line that says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from uniformer_pose.errors import InputError
from uniformer_pose.run import CHECKPOINTS
from uniformer_pose.saved_model import RECORD_KEY
from uniformer_pose.training.resume.settings import changed_settings
from uniformer_pose.weights.loading import require_resumable


def checkpoint_to_resume(config: Mapping[str, Any], run_dir: Path) -> Path | None:
    """The whole checkpoint to continue from, if any, with lines that say so and name what has changed since.

    Raises InputError where it is damaged, of another experiment, or the config contradicts itself.
    """
    given, auto, folder = config["ckpt_path"], config["resume"] == "auto", run_dir / CHECKPOINTS
    if auto and given is not None:
        raise InputError(f"ckpt_path={given} and resume=auto: give one of them")
    if not auto and config["run_id"] is not None and any(folder.glob("*.ckpt")):
        raise InputError(
            f"run_id={config['run_id']}: {run_dir} holds a run already; continue it with resume=auto, or give "
            "another run_id"
        )
    if given is not None:
        require_resumable(given)  # whole and harmless, or one line says what is wrong
    checkpoint = Path(given) if given is not None else newest_whole_checkpoint(folder) if auto else None
    if checkpoint is not None:
        _require_fitting(checkpoint, config)
    elif auto:
        rank_zero_info(f"resume=auto: no checkpoint in {run_dir}, so this is a new run")
    return checkpoint


def newest_whole_checkpoint(folder: Path) -> Path | None:
    """The checkpoint in ``folder`` from which the most training is left behind; None if there is none.

    The training's own progress decides, not the files' times, which copying changes. ``best.ckpt`` comes after others
    of its step: a kill between the two saves at an epoch's end leaves it complete and ``last.ckpt`` out of date, and
    only from the checkpoint before the evaluation are both written again. A line names each damaged file.
    """
    found: list[tuple[int, bool, int, Path]] = []
    for path in folder.glob("*.ckpt"):
        try:
            steps, epochs, _contents = _peek(path)
            found.append((steps, path.name != "best.ckpt", epochs, path))
        except InputError as error:
            rank_zero_warn(f"skipped: {error}")
    for *_order, path in sorted(found, reverse=True):
        try:
            require_resumable(path)
        except InputError as error:
            rank_zero_warn(f"skipped: {error}")
        else:
            return path
    return None


def _peek(path: Path) -> tuple[int, int, dict[str, Any]]:
    """Steps and epochs behind a checkpoint, and its contents, of which no tensor is read.

    InputError where it is damaged or no training's.
    """
    try:
        contents = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        epochs = contents["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        return int(contents["global_step"]), int(epochs), contents
    except Exception as error:  # torch raises nearly anything on a damaged file
        raise InputError(
            f"{path}: damaged, or no checkpoint of a training ({type(error).__name__}); remove it or copy it again"
        ) from error


def _require_fitting(checkpoint: Path, config: Mapping[str, Any]) -> None:
    _steps, epochs, contents = _peek(checkpoint)
    if "RandomState" in contents["callbacks"]:
        raise InputError(f"{checkpoint}: of an earlier version; start from its weights: model.pretrained={checkpoint}")
    changes = changed_settings(contents[RECORD_KEY].get("config", {}), config)
    if others := [str(change) for change in changes if change.is_another_experiment]:
        raise InputError(
            f"{checkpoint}: is of another experiment ({', '.join(others)}); resume it with its settings, or start a "
            "run of its own: name=<another> or run_id=<another>, model.pretrained=<file> for the weights only"
        )
    max_epochs = config["trainer"].get("max_epochs")
    if max_epochs is not None and 0 <= max_epochs < epochs:
        raise InputError(f"trainer.max_epochs={max_epochs}: {checkpoint} stands after epoch {epochs}; give more")
    rank_zero_info(f"resuming from {checkpoint}")
    if changes:
        rank_zero_info(f"from here on with other settings than before: {', '.join(map(str, changes))}")
