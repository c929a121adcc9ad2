from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from uniformer_pose import run_record
from uniformer_pose.errors import InputError
from uniformer_pose.run_record import git_revision, library_versions, record_run

COMMAND = ["src/train.py", "seed=0", "tags=[a, b]"]

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "module.py").write_text("x = 1\n")
    (folder / ".gitignore").write_text("ignored/\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "First")
    return folder


def recorded(directory: Path, config: dict[str, Any], command: list[str] = COMMAND) -> tuple[Any, str]:
    record_run(directory, config_yaml=yaml.safe_dump(config), command=command)
    return yaml.safe_load((directory / "config.yaml").read_text()), (directory / "command.txt").read_text()


def test_a_configuration_is_written_as_it_came(tmp_path: Path) -> None:
    text = "# a comment\nlr: '1e-4'\nnum_tokens: 7\npassword_rounds: 2\nmonkey: yes\n"
    record_run(tmp_path / "new" / "run", config_yaml=text, command=COMMAND)
    assert (tmp_path / "new" / "run" / "config.yaml").read_text() == text


def test_the_command_can_be_pasted_into_a_shell_and_a_resumed_run_adds_a_line(tmp_path: Path) -> None:
    recorded(tmp_path, {})
    _, command = recorded(tmp_path, {}, ["src/train.py", "seed=1"])
    assert command == "src/train.py seed=0 'tags=[a, b]'\nsrc/train.py seed=1\n"


def test_versions_and_code_are_written(tmp_path: Path) -> None:
    recorded(tmp_path, {})
    versions = json.loads((tmp_path / "versions.json").read_text())
    assert versions == {"code": git_revision(), **library_versions()}


def test_the_versions_are_those_that_run() -> None:
    versions = library_versions()
    assert versions["python"] == platform.python_version()
    assert versions["numpy"] == np.__version__
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert versions["cuda"] == (torch.version.cuda or "none")
    assert versions["cpu_count"] == str(os.cpu_count())
    expected = {"lightning", "hydra-core", "opencv-python-headless", "pycocotools", "albumentations", "timm"}
    assert expected <= versions.keys()


def test_a_library_that_is_absent_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_record, "_DISTRIBUTIONS", ("a-package-that-is-absent",))
    assert library_versions()["a-package-that-is-absent"] == "not installed"


def test_environment_variables_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARMLESS_NAME", "hunter2")
    recorded(tmp_path, {"seed": 1})
    assert not [path for path in tmp_path.iterdir() if "hunter2" in path.read_text()]


def test_a_run_directory_that_cannot_be_made_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^cannot write the record of the run into .*file.run \([^\n]*\); give .*$"):
        recorded(tmp_path / "file" / "run", {})


@needs_git
def test_a_clean_checkout_is_named_by_its_commit(checkout: Path) -> None:
    assert git_revision(checkout / "package") == git(checkout, "rev-parse", "HEAD")


@needs_git
@pytest.mark.parametrize("changed", ["package/module.py", "package/new.py"])
def test_a_changed_or_new_file_is_told(checkout: Path, changed: str) -> None:
    (checkout / changed).write_text("x = 2\n")
    assert git_revision(checkout / "package") == f"{git(checkout, 'rev-parse', 'HEAD')} with uncommitted changes"


@needs_git
def test_a_folder_that_is_no_part_of_the_checkout_around_it_has_no_revision(checkout: Path) -> None:
    (checkout / "ignored").mkdir()
    (checkout / "ignored" / "module.py").write_text("x = 1\n")
    assert git_revision(checkout / "ignored") == "unknown"


def test_outside_a_checkout_the_revision_is_unknown(tmp_path: Path) -> None:
    assert git_revision(tmp_path) == "unknown"
    assert git_revision(tmp_path / "absent") == "unknown"


def test_without_git_the_revision_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert git_revision() == "unknown"
