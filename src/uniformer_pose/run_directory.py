"""Where a run keeps its files: a new folder, or that of the run which ``resume=auto`` continues.

Everything here is known before torch is imported, since Hydra makes the folder first.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from uniformer_pose.errors import InputError

RUNS = Path("runs")
CHECKPOINTS = "checkpoints"
_FINISHED = "finished.json"
_HYDRA_FOLDER = "hydra.run.dir="


def register_run_folder() -> None:
    """Make ``${run_folder:<name>,<run_id>,<resume>,<time>}`` known to the configuration."""
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)


def _run_folder(name: str, run_id: str | int | None, resume: str | None, now: str) -> str:
    return run_folder(name, run_id=run_id, resume=resume, now=now, environment=os.environ).as_posix()


def run_folder(
    name: str, *, run_id: str | int | None, resume: str | None, now: str, environment: Mapping[str, str]
) -> Path:
    """The folder of a run called ``name``.

    ``run_id`` names it; so does, with ``resume="auto"``, the number of a SLURM job, which a requeued job keeps. Else
    ``resume="auto"`` means the run of this name whose checkpoints are the newest, and without one, or without
    ``resume``, the folder is new and called after the time, ``now``.
    """
    runs = RUNS / name
    if run_id is None and resume == "auto":
        run_id = _slurm_job(environment)
    if run_id is not None:
        return runs / re.sub(r"[^\w.-]|^\.+", "_", str(run_id))
    earlier = newest_run(runs) if resume == "auto" else None
    return earlier or runs / now


def newest_run(runs: Path) -> Path | None:
    """The folder directly in ``runs`` that has a checkpoint, and of several the one with the newest; else None."""
    newest: tuple[int, Path] | None = None
    for folder in sorted(runs.glob("*")):
        times = [path.stat().st_mtime_ns for path in (folder / CHECKPOINTS).glob("*.ckpt")]
        if times and (newest is None or max(times) >= newest[0]):
            newest = (max(times), folder)
    return newest[1] if newest else None


def folder_of_first_process(
    own: Path, config: Mapping[str, object], arguments: Sequence[str], environment: Mapping[str, str]
) -> Path:
    """The run's folder, also on a process that torchrun or SLURM started beside the first one.

    Such a process is given no folder of its own (``entry_point.command_line``): it reads the command line as
    the first one does. ``own`` is what Hydra gave this process.
    """
    if int(environment.get("RANK") or environment.get("SLURM_PROCID") or 0) == 0:
        return own
    given = [text.removeprefix(_HYDRA_FOLDER) for text in arguments if text.startswith(_HYDRA_FOLDER)]
    given = [text.strip("'\"") for text in given if text != "."]
    if given:
        return Path(given[-1])
    run_id, resume = config["run_id"], config["resume"]
    return run_folder(
        str(config["name"]),
        run_id=None if run_id is None else str(run_id),
        resume=None if resume is None else str(resume),
        now=".",
        environment=environment,
    )


def is_first_process(environment: Mapping[str, str]) -> bool:
    """Whether this is the process that writes the run's files; of the others some know only their rank on a node."""
    return all(int(environment.get(name) or 0) == 0 for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


@contextmanager
def only_training_in(folder: Path, *, is_first_process: bool) -> Iterator[None]:
    """Keep a second training out of a folder meanwhile; a kill ends this too.

    The first process of a training does it for all of them. Raises InputError if another training is there, or the
    folder cannot be written to; where the file system has no locks, a line says so.
    """
    if not is_first_process:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "running.lock").open("w")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to ({error.strerror}); give another run directory") from error
    with file:
        try:
            # Of the process, not of the open file: data workers that outlive a kill by seconds do not hold it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise InputError(
                f"{folder}: another process is training there; wait for it, or give run_id=<another>"
            ) from None
        except OSError:
            sys.stderr.write(f"{folder}: its file system has no locks; train there with one command only\n")
        yield


class FinishedTraining(NamedTuple):
    """What a training that came to its end, early or not, was asked for and reached; ``average_precision`` may be NaN.

    ``config`` is that of the start which came to the end; empty in folders of earlier versions.
    """

    max_epochs: int
    average_precision: float
    config: Mapping[str, Any]


def write_finished(run_dir: Path, finished: FinishedTraining) -> None:
    """Note that the training of ``run_dir`` came to its end."""
    value = finished.average_precision
    noted = {"max_epochs": finished.max_epochs, "val/AP": value if value == value else None, "config": finished.config}
    (run_dir / _FINISHED).write_text(json.dumps(noted) + "\n", encoding="utf-8")


def finished_training(run_dir: Path) -> FinishedTraining | None:
    """The finished training in ``run_dir``; None if it is not finished."""
    try:
        noted = json.loads((run_dir / _FINISHED).read_text(encoding="utf-8"))
        value = noted["val/AP"]
        precision = float("nan") if value is None else float(value)
        return FinishedTraining(int(noted["max_epochs"]), precision, dict(noted.get("config", {})))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _slurm_job(environment: Mapping[str, str]) -> str | None:
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"slurm_{environment['SLURM_ARRAY_JOB_ID']}_{environment.get('SLURM_ARRAY_TASK_ID', 0)}"
    return f"slurm_{environment['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in environment else None
