"""What is installed is what was locked: every file by its digest, from no other index, and no release known as bad."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = Path(__file__).resolve().parents[1]
LOCK = (PROJECT / "requirements.lock").read_text(encoding="utf-8")
KNOWN_AS_BAD = {
    "lightning": ["2.6.2", "2.6.3"],  # credential stealers, GHSA-w37p-236h-pfx3
    "pytorch-lightning": ["2.6.2", "2.6.3"],
    "ultralytics": ["8.3.41", "8.3.42", "8.3.45", "8.3.46"],  # a miner; and it is AGPL
    "opencv-python-headless": ["4.13.0.90", "4.13.0.92"],  # translates by the wrong sign
}
FLOORS = {
    "torch": "2.11",  # weights_only was got round before 2.6 (CVE-2025-32434) and before 2.10 (GHSA-63cw-57p8-fm3p)
    "lightning": "2.6.4",
    "hydra-core": "1.3.8",  # its list of targets that are never called (GHSA-37p2-j732-x8pj)
    "pillow": "11",
    "requests": "2.32.4",  # .netrc credentials to other hosts, CVE-2024-47081
    "urllib3": "2.5",
}


def locked() -> dict[str, tuple[Version, str]]:
    """Version and digests of every locked distribution."""
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", LOCK, flags=re.M))
    found = {}
    for entry in filter(str.strip, entries):
        pinned = re.match(r"(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>[^\s;\\]+)", entry)
        assert pinned, f"not pinned to one version: {entry.splitlines()[0]}"
        found[canonicalize_name(pinned["name"])] = (Version(pinned["version"]), entry)
    return found


def declared() -> list[Requirement]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    return [Requirement(text) for text in texts]


def test_every_locked_distribution_is_held_to_digests_and_names_no_place_to_install_from() -> None:
    entries = locked()
    assert len(entries) > 100
    for name, (version, entry) in entries.items():
        digests = re.findall(r"--hash=(\S+)", entry)
        assert digests, name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in digests), name
        assert not version.local, name
    for option in ("--index-url", "--extra-index-url", "--find-links", "--trusted-host", "-e ", "git+"):
        assert option not in LOCK
    assert "://" not in re.sub(r"#.*", "", LOCK)


@pytest.mark.parametrize("name", KNOWN_AS_BAD)
def test_a_release_known_as_bad_is_neither_locked_nor_allowed(name: str) -> None:
    wanted = [requirement for requirement in declared() if canonicalize_name(requirement.name) == name]
    for version in KNOWN_AS_BAD[name]:
        assert locked().get(name, (None,))[0] != Version(version)
        assert not any(requirement.specifier.contains(version) for requirement in wanted)


@pytest.mark.parametrize("name", FLOORS)
def test_versions_with_known_holes_are_below_what_is_locked(name: str) -> None:
    assert locked()[name][0] >= Version(FLOORS[name])


def test_every_declared_dependency_is_locked_within_its_bounds_and_has_an_upper_one() -> None:
    entries = locked()
    for requirement in declared():
        if canonicalize_name(requirement.name) == "uniformer-pose":
            continue
        version, _ = entries.get(canonicalize_name(requirement.name), (None, ""))
        if version is not None:  # extras that no developer needs are not locked
            assert requirement.specifier.contains(version, prereleases=True), requirement
        assert any(specifier.operator in ("<", "==") for specifier in requirement.specifier), requirement


def test_installing_checks_the_digests() -> None:
    assert "--require-hashes -r requirements.lock" in (PROJECT / "Makefile").read_text(encoding="utf-8")


def imported() -> set[str]:
    """The distributions that the code imports, in functions too; of the standard library and our own, none."""
    files = [path for folder in ("src", "notebooks") for path in (PROJECT / folder).rglob("*.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    own = {path.stem for path in (PROJECT / "src").glob("*")}
    modules = {name.partition(".")[0] for name in names} - own - set(sys.stdlib_module_names)
    of_module = importlib.metadata.packages_distributions()
    return {canonicalize_name(name) for module in modules for name in of_module.get(module, [module])}


def test_what_is_declared_is_imported_and_what_is_imported_is_declared() -> None:
    every = {canonicalize_name(requirement.name) for requirement in declared()}
    named_in_configs = {"tensorboard", "hydra-optuna-sweeper", "hydra-submitit-launcher", "wandb"}
    comes_with_another = {"ipython", "starlette", "pydantic-core", "lightning-utilities", "aiohttp"}
    assert imported() - every <= comes_with_another
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    assert needed - imported() <= named_in_configs
