"""``resume=auto``: what a run directory says about the run in it, and what has changed since."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from uniformer_pose.errors import InputError
from uniformer_pose.redaction import without_secrets

_MISSING = "nothing"
# They say where a run's files are, how it is started and how fast it reads, none of which changes what is learnt.
_WITHOUT_EFFECT = (
    "ckpt_path",
    "data.if_missing",
    "data.num_workers",
    "data.root",
    "logger",
    "callbacks.pictures",
    "callbacks.resume_points",
    "name",
    "resume",
    "run_dir",
    "run_id",
    "trainer.default_root_dir",
    "trainer.log_every_n_steps",
)
_WANDB_ID = "wandb_run_id.txt"


def changed_settings(run_dir: Path, config: Mapping[str, Any]) -> list[str]:
    """The settings of the run in ``run_dir`` that have an effect on training and differ now, each as one phrase.

    Reads the ``config.yaml`` that the run left; empty where there is none. Raises InputError where the network itself
    has changed: its checkpoints do not fit any more.
    """
    file = run_dir / "config.yaml"
    if not file.is_file():
        return []
    try:
        before = dict(_leaves(yaml.safe_load(file.read_text(encoding="utf-8"))))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{file}: cannot be read ({type(error).__name__}); restore it or delete it") from error
    now = dict(_leaves(without_secrets(config)))  # as it was recorded
    changes = [
        f"{name} {before.get(name, _MISSING)} is now {now.get(name, _MISSING)}"
        for name in sorted(before.keys() | now.keys())
        if not _is_same(before.get(name, _MISSING), now.get(name, _MISSING)) and not _is_without_effect(name)
    ]
    of_the_network = [change for change in changes if change.startswith(("model.", "data.skeleton"))]
    if of_the_network:
        raise InputError(
            f"{run_dir}: was trained with another network ({', '.join(of_the_network)}); resume with its settings, or "
            "start another run: name=<another> or run_id=<another>"
        )
    return changes


def keep_replaced_config(run_dir: Path) -> None:
    """Rename the ``config.yaml`` of an earlier start to ``config_1.yaml``, ``config_2.yaml``, ..."""
    file = run_dir / "config.yaml"
    if file.is_file():
        number = 1
        while (run_dir / f"config_{number}.yaml").exists():
            number += 1
        file.rename(run_dir / f"config_{number}.yaml")


def same_logger_runs(loggers: Mapping[str, Any], run_dir: Path) -> dict[str, Any]:
    """The logger settings with Weights & Biases told which of its runs this directory is; a new one gets an id."""
    told = dict(loggers)
    for name, node in told.items():
        if isinstance(node, Mapping) and str(node.get("_target_", "")).endswith("WandbLogger") and not node.get("id"):
            file = run_dir / _WANDB_ID
            if file.is_file():
                told[name] = {**node, "id": file.read_text(encoding="utf-8").strip(), "resume": "allow"}
            else:
                told[name] = {**node, "id": secrets.token_hex(4)}
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(told[name]["id"] + "\n", encoding="utf-8")
    return told


def logged_step(checkpoint: Path) -> tuple[int, bool]:
    """The step under which the loggers know a checkpoint's last batch, and whether an evaluation of it is to come."""
    contents = torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)
    loops = contents["loops"]["fit_loop"]
    batches, evaluation = loops["epoch_loop.batch_progress"], loops["epoch_loop.val_loop.batch_progress"]
    step = int(loops["epoch_loop.state_dict"]["_batches_that_stepped"])
    pending = evaluation["current"]["ready"] > evaluation["current"]["completed"]
    # Written in the middle of a batch's end, or of an evaluation, that batch is not counted yet; else it is.
    epoch = loops["epoch_progress"]["current"]
    counted = (
        batches["current"]["completed"] == batches["current"]["processed"] and epoch["processed"] == epoch["ready"]
    )
    return (step - 1 if counted else step), bool(pending)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, child in value.items():
            yield from _leaves(child, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _is_same(before: Any, now: Any) -> bool:
    return bool(before == now) or before == "<redacted>"


def _is_without_effect(name: str) -> bool:
    own = name.removeprefix("callbacks.")
    if own != name and own.partition(".")[2] in ("dirpath", "folder"):
        return True
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in _WITHOUT_EFFECT)
