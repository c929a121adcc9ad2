"""Threads of torch that wait for others sleep soon, unless a person has chosen otherwise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_how_long_they_spin_is_set_before_torch_is_there(chosen: dict[str, str], expected: str) -> None:
    command = "import os, sys, uniformer_pose; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    others = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    finished = subprocess.run(
        [sys.executable, "-c", command],
        env={**others, "PYTHONPATH": str(SOURCES), **chosen},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.split() == [expected, "False"]


@pytest.mark.parametrize("program", sorted(SOURCES.glob("*.py")), ids=lambda path: path.name)
def test_no_program_imports_torch_before_the_package(program: Path) -> None:
    imported = re.findall(r"^(?:import|from) (\w+)", program.read_text(), flags=re.M)
    assert {"torch", "torchvision", "lightning", "timm"}.isdisjoint(imported[: imported.index("uniformer_pose")])
