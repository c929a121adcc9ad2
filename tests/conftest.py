"""Fixtures of the whole test suite."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

# Beside other test processes, a process with a thread per core spends its time waiting for its own threads.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")

# Whoever starts the tests in the background hands down an ignored Ctrl-C, which what is tested would rightly respect.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder with reference numbers and real COCO images that lies beside a developer's checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}: reference numbers and images are kept beside the project, not in it")
    return SHARED


@pytest.fixture(autouse=True)
def lightnings_log_level() -> Iterator[None]:
    """Entry points that run in this process make Lightning quieter, or louder, than the next test expects."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    yield
    logger.setLevel(before)
