"""A scripted web server, and downloads that the machine's own settings have no say in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from loopback_server import Server, running_server


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder that downloads are kept in."""
    for name in ("UNIFORMER_POSE_OFFLINE", "HF_HUB_OFFLINE", "UNIFORMER_POSE_ZOO", "XDG_CACHE_HOME", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UNIFORMER_POSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
