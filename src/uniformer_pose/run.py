"""Where a run keeps its files, and what it was: config, command, versions of libraries and code.

Everything about folders is known before torch is imported, since Hydra makes the folder first. Environment variables
are never written; ``refuse_secrets`` keeps secrets out of configs and commands.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from omegaconf import OmegaConf

from uniformer_pose.errors import InputError
from uniformer_pose.files import write_json, write_text

RUNS = Path("runs")
CHECKPOINTS = "checkpoints"
_HYDRA_FOLDER = "hydra.run.dir="
_DISTRIBUTIONS = (
    *("uniformer-pose", "torch", "torchvision", "lightning", "hydra-core", "omegaconf", "opencv-python-headless"),
    *("numpy", "pycocotools", "albumentations", "timm"),
)
_ADVICE = "give a run directory that can be written to and has space left"


def run_folder(name: str, run_id: str | int | None, resume: str | None, now: str) -> str:
    """The folder of a run called ``name``; in configs ``${run_folder:<name>,<run_id>,<resume>,<time>}``.

    ``run_id`` names it; so does, with ``resume="auto"``, the number of a SLURM job, which a requeued job keeps. Else
    ``resume="auto"`` means the run of this name whose checkpoints are the newest, and without one, or without
    ``resume``, the folder is new and called after the time, ``now``.
    """
    runs, job = RUNS / name, os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID")
    if run_id is None and resume == "auto" and job is not None:
        task = os.environ.get("SLURM_ARRAY_TASK_ID")
        run_id = f"slurm_{job}" if task is None else f"slurm_{job}_{task}"
    if run_id is not None:
        return (runs / re.sub(r"[^\w.-]|^\.+", "_", str(run_id))).as_posix()
    checkpoints = runs.glob(f"*/{CHECKPOINTS}/*.ckpt") if resume == "auto" else ()
    newest = max(checkpoints, key=lambda path: path.stat().st_mtime_ns, default=None)
    return (newest.parents[1] if newest else runs / now).as_posix()


OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)


def folder_of_first_process(config: Mapping[str, object]) -> Path:
    """The run's folder, also on a process that torchrun or SLURM started beside the first one.

    Such a process is given no folder of its own (``entry_point.command_line``): it reads the command line as
    the first one does.
    """
    if int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) == 0:
        return Path(str(config["run_dir"]))
    given = [text.removeprefix(_HYDRA_FOLDER).strip("'\"") for text in sys.argv if text.startswith(_HYDRA_FOLDER)]
    if given := [text for text in given if text != "."]:
        return Path(given[-1])
    run_id, resume = (None if config[name] is None else str(config[name]) for name in ("run_id", "resume"))
    return Path(run_folder(str(config["name"]), run_id, resume, now="."))


def is_first_process() -> bool:
    """Whether this is the process that writes the run's files; of the others some know only their rank on a node."""
    return all(int(os.environ.get(name) or 0) == 0 for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


@contextmanager
def only_training_in(folder: Path) -> Iterator[None]:
    """Keep a second training out of a folder meanwhile; a kill ends this too.

    The first process of a training does it for all of them. Raises InputError if another training is there, or the
    folder cannot be written to; where the file system has no locks, a line says so.
    """
    if not is_first_process():
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "running.lock").open("w")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to ({error.strerror}); {_ADVICE}") from error
    with file:
        try:
            # Of the process, not of the open file: data workers that outlive a kill by seconds do not hold it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise InputError(f"{folder}: another process is training there; wait, or give run_id=<another>") from None
        except OSError:
            sys.stderr.write(f"{folder}: its file system has no locks; train there with one command only\n")
        yield


def record_run(run_directory: str | Path, *, config_yaml: str, command: Sequence[str]) -> None:
    """Write ``config.yaml``, ``versions.json`` and ``command.txt`` into the directory of a run.

    ``config_yaml`` is the resolved configuration. ``command`` is the program and its arguments; each start adds a
    line to ``command.txt``, so that a resumed run keeps its history. Raises ``InputError`` where the directory
    cannot be written to.
    """
    directory = Path(run_directory)
    commands = directory / "command.txt"
    before = commands.read_text(encoding="utf-8") if commands.is_file() else ""
    write_text(directory / "config.yaml", config_yaml, advice=_ADVICE)
    write_json(directory / "versions.json", {"code": git_revision(), **library_versions()}, advice=_ADVICE)
    write_text(commands, before + shlex.join(command) + "\n", advice=_ADVICE)


def library_versions() -> dict[str, str]:
    """Version of Python, of each library that the numbers depend on, and of CUDA, with the count of CPU cores."""
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version(name) for name in _DISTRIBUTIONS},
        # The version that torch was built for; asking for the device would start CUDA before workers are forked.
        "cuda": torch.version.cuda or "none",
        "cpu_count": str(os.cpu_count() or "unknown"),
    }


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def git_revision(folder: str | Path = Path(__file__).parent) -> str:
    """The commit that a folder is checked out from, with ``-dirty`` where files of the checkout differ.

    'unknown' without git, and where the folder is in a checkout but no part of it, as a package in a virtual
    environment is.
    """
    git = [shutil.which("git") or "git", "--no-optional-locks", "-C", str(folder)]
    try:
        for command in ("ls-files --error-unmatch .", "describe --always --dirty --abbrev=40 --exclude=*"):
            done = subprocess.run(  # noqa: S603  # our words
                [*git, *command.split()], capture_output=True, text=True, timeout=10, check=True
            )
    except (OSError, subprocess.SubprocessError):  # absent, fails, or takes long on a slow disk
        return "unknown"
    return done.stdout.strip()
