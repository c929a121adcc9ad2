"""Fixtures of the whole test suite."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder with reference numbers and real COCO images that lies beside a developer's checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}: reference numbers and images are kept beside the project, not in it")
    return SHARED
