"""The fixtures of a training small enough for a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from resumable_training import PEOPLE_PER_IMAGE
from tiny_setup import TinySetup, tiny_setup


@pytest.fixture(scope="session")
def make_tiny() -> Callable[[Path], TinySetup]:
    """``tiny_setup``: a test cannot import it, since there is more than one conftest."""
    return tiny_setup


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> TinySetup:
    """Those of ``resumable_training``."""
    setup = tiny_setup(tmp_path_factory.mktemp("people"))
    setup.write_people(PEOPLE_PER_IMAGE)
    return setup


@pytest.fixture
def tiny(tmp_path: Path) -> TinySetup:
    """Four pictures with six people, not yet spoilt."""
    setup = tiny_setup(tmp_path)
    setup.write_people()
    return setup
