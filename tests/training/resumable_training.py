"""A tiny training with everything that has a state: stochastic depth, averaged weights, accumulation, a schedule.

``train`` is called with the folder of a run, as often as it takes; ``differences`` compares what two runs came to.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.rtmpose_photometric import RTMPosePhotometric
from uniformer_pose.data.stages import Stage
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.training.ema import AveragedWeights
from uniformer_pose.training.loggers import MetricsLog
from uniformer_pose.training.optimization import Optimization
from uniformer_pose.training.resume.checkpoint_files import DurableCheckpoints
from uniformer_pose.training.resume.resume_checkpoints import ResumeCheckpoints
from uniformer_pose.training.resume.start import newest_whole_checkpoint

EPOCHS = 3
PEOPLE_PER_IMAGE = (1, 2, 1, 2, 3, 1)  # ten people: five batches of two an epoch


class Journal(pl.Callback):
    """Appends what each step learns from, and how fast, to a file of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        entry = {
            "epoch": trainer.current_epoch,
            "batch": batch_idx,
            "people": batch["instance_index"].tolist(),
            "pixels": [hashlib.sha256(crop.tobytes()).hexdigest()[:16] for crop in batch["crops"].numpy()],
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
        }
        with (self.folder / f"journal_{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")


class StopAt(pl.Callback):
    """The scheduler's signal in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            signal.raise_signal(signal.SIGTERM)


class Score(pl.Callback):
    """A number to be best in: so small a training has AP 0 all along."""

    def on_validation_epoch_end(self, trainer, pl_module):
        weight = next(pl_module.network.head.parameters())
        pl_module.log("val/score", weight.detach().sum(), sync_dist=trainer.world_size > 1)


def train(
    tiny,
    folder: Path,
    *extra: pl.Callback,
    workers: int = 0,
    accumulate: int = 1,
    averaged: bool = True,
    every_n_steps: int | None = None,
    processes: int = 1,
    check_val_every_n_epoch: int = 1,
    epochs: int = EPOCHS,
    optimization: Optimization | None = None,
    prepared: str | None = None,
    staged: bool = False,
    teacher: str | None = None,
) -> pl.Trainer:
    """Train in ``folder`` to the end, from the newest whole checkpoint that is there."""
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    start = newest_whole_checkpoint(checkpoints)
    resumes = any(checkpoints.glob("*.ckpt"))
    pl.seed_everything(int(resumes), verbose=False)  # whoever resumes starts in another state
    callbacks: list[pl.Callback] = [
        ModelCheckpoint(checkpoints, filename="best", monitor="val/score", mode="max", enable_version_counter=False),
        ModelCheckpoint(checkpoints, filename="last", save_on_train_epoch_end=True, enable_version_counter=False),
        ResumeCheckpoints(str(checkpoints), every_minutes=None, every_n_steps=every_n_steps),
        Journal(folder),
        Score(),
        *extra,
    ]
    if averaged:
        callbacks.append(AveragedWeights(decay=0.9))
    module = tiny.module(
        model=tiny.model(drop_path_rate=0.5),
        protocol=EvaluationProtocol(flip_test=False),
        milestones=(2,),
        teacher=teacher,
    )
    module.optimization = optimization or module.optimization
    trainer = tiny.trainer(
        max_epochs=epochs,
        callbacks=callbacks,
        plugins=[DurableCheckpoints()],
        logger=MetricsLog(str(folder)),
        accumulate_grad_batches=accumulate,
        check_val_every_n_epoch=check_val_every_n_epoch,
        **({"strategy": "ddp", "devices": processes} if processes > 1 else {}),
    )
    augmentation = staged_augmentation(epochs) if staged else {}
    data = tiny.data(num_workers=workers, batch_size=2 // processes, prepared=prepared, **augmentation)
    trainer.fit(module, datamodule=data, ckpt_path=start, weights_only=True)
    return trainer


def staged_augmentation(epochs: int) -> dict[str, Any]:
    """RTMPose's, milder in the last epoch."""
    weak = Stage(1, epochs, geometric={"shift_factor": 0.0}, photometric={"dropout_probability": 0.5})
    return {"geometric": GeometricAugmentation(), "photometric": RTMPosePhotometric(), "stages": {"weak": weak}}


def differences(folder: Path, straight: Path, *, processes: int = 1) -> list[str]:
    """What a run that was interrupted left otherwise than one that was not: empty where nothing is."""
    found = _unequal(_state(folder), _state(straight), "last.ckpt")
    for rank in range(processes):
        resumed, expected = _journal(folder, rank), _journal(straight, rank)
        for entry in resumed:  # steps that a kill undid are there twice, and must have been the same
            if entry not in expected:
                found.append(f"process {rank}, {entry}")
        last = {(entry["epoch"], entry["batch"]) for entry in resumed}
        if last != {(entry["epoch"], entry["batch"]) for entry in expected}:
            found.append(f"process {rank}: steps left out")
    return found


def log_of(folder: Path) -> str:
    return (folder / "csv" / "metrics.csv").read_text()


def journal(folder: Path, rank: int = 0) -> dict[tuple[int, int], tuple[list[int], list[str]]]:
    """What was learnt from: people and pixels by epoch and batch."""
    entries = map(json.loads, (folder / f"journal_{rank}.jsonl").read_text().splitlines())
    return {(entry["epoch"], entry["batch"]): (entry["people"], entry["pixels"]) for entry in entries}


def require_two_processes_to_be_as_one(runs: Path, trials: list[dict[str, Any]], *words: str, batches: int) -> None:
    """That two trials on two processes resume alike, and that both together read what one reads, whole.

    They run in the launcher's script, which leaves the folders of its undisturbed trainings. ``batches`` of an epoch.
    """
    script = Path(__file__).parent / "killed_trainings.py"
    command = [sys.executable, str(script), str(runs), json.dumps(trials), *words]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert finished.returncode == 0, finished.stderr
    outcomes = [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]
    assert [outcome["differences"] for outcome in outcomes] == [[], []]

    first, second, alone = (
        journal(runs / name, rank) for name, rank in (("straight_0", 0), ("straight_0", 1), ("straight_1", 0))
    )
    assert len(alone) == batches * EPOCHS
    for visit, seen in alone.items():
        assert seen == tuple(mine + theirs for mine, theirs in zip(first[visit], second[visit], strict=True))


def _journal(folder: Path, rank: int) -> list[dict[str, Any]]:
    lines = (folder / f"journal_{rank}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def _state(folder: Path) -> dict[str, Any]:
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    kept = (
        "best_model_score",
        "latest_update_step",
        "processes",
        "log_rows",
    )  # the rest are paths, and what is of the moment
    callbacks = {}
    for name, values in state["callbacks"].items():
        callbacks[name] = {key: value for key, value in values.items() if key in kept}
    names = ["epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers"]
    names += ["JointCrops" if "JointCrops" in state else "PersonCrops"]
    names += [name for name in ("current_model_state", "averaging_state") if name in state]
    loops = {name: state["loops"]["fit_loop"][name] for name in ("epoch_progress", "epoch_loop.state_dict")}
    return {name: state[name] for name in names} | {"callbacks": callbacks, "loops": loops}


def _unequal(one: Any, other: Any, name: str) -> list[str]:
    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and torch.equal(one, other)
        return [] if same else [name]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{name}: {sorted(map(str, one.keys() ^ other.keys()))}"]
        return [text for key in one for text in _unequal(one[key], other[key], f"{name}/{key}")]
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [f"{name}: length"]
        return [t for i, (a, b) in enumerate(zip(one, other, strict=True)) for t in _unequal(a, b, f"{name}/{i}")]
    return [] if one == other else [f"{name}: {one} and {other}"]
