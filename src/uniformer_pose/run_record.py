"""What a run was: its configuration, its command, the versions and the code it ran on, as files beside it.

Environment variables are never read; ``refuse_secrets`` keeps secrets out of configurations and commands.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch

from uniformer_pose.errors import InputError

_DISTRIBUTIONS = (
    "uniformer-pose",
    "torch",
    "torchvision",
    "lightning",
    "hydra-core",
    "omegaconf",
    "opencv-python-headless",
    "numpy",
    "pycocotools",
    "albumentations",
    "timm",
)
_GIT_SECONDS = 10.0  # a checkout on a slow network disk must not hold up the run


def record_run(run_directory: str | Path, *, config_yaml: str, command: Sequence[str]) -> None:
    """Write ``config.yaml``, ``versions.json`` and ``command.txt`` into the directory of a run.

    ``config_yaml`` is the resolved configuration. ``command`` is the program and its arguments; each start adds a
    line to ``command.txt``, so that a resumed run keeps its history. Raises ``InputError`` where the directory
    cannot be written to.
    """
    directory = Path(run_directory)
    versions = {"code": git_revision(), **library_versions()}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.yaml").write_text(config_yaml, encoding="utf-8")
        (directory / "versions.json").write_text(json.dumps(versions, indent=2) + "\n", encoding="utf-8")
        with (directory / "command.txt").open("a", encoding="utf-8") as file:
            file.write(shlex.join(command) + "\n")
    except OSError as error:
        raise InputError(
            f"cannot write the record of the run into {directory} ({error.strerror or error}); "
            "give a run directory that can be written to and has space left"
        ) from error


def library_versions() -> dict[str, str]:
    """Version of Python, of each library that the numbers depend on, and of CUDA, with the count of CPU cores."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    # The version that torch was built for; asking for the device would start CUDA before workers are forked.
    versions["cuda"] = torch.version.cuda or "none"
    versions["cpu_count"] = str(os.cpu_count() or "unknown")
    return versions


def git_revision(folder: str | Path = Path(__file__).parent) -> str:
    """The commit that a folder is checked out from, and whether its checkout differs from it; else 'unknown'.

    Unknown too where git is absent, or where the folder is in a checkout but not part of it, as an installed
    package in a virtual environment is.
    """
    git = shutil.which("git")
    if git is None:
        return "unknown"
    tracked = _git(git, folder, "ls-files", "--error-unmatch", ".")
    revision = _git(git, folder, "rev-parse", "HEAD")
    changes = _git(git, folder, "status", "--porcelain")
    if tracked is None or revision is None or changes is None:
        return "unknown"
    return f"{revision} with uncommitted changes" if changes else revision


def _git(git: str, folder: str | Path, *arguments: str) -> str | None:
    """What git prints, or None where it fails."""
    command = [git, "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        finished = subprocess.run(  # noqa: S603  # arguments are our own, and there is no shell
            command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return finished.stdout.strip()
