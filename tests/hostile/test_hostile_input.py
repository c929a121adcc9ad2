"""Hundreds of broken and malicious inputs, each of which ends in a sound result or in one line that names it."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from pathlib import Path

import hostile_data
import hostile_programs
import pytest
from watching import Attempt, complaint

SEED = 0
TRIALS = {
    hostile_data.annotations: 110,
    hostile_data.detections: 70,
    hostile_data.listed_boxes: 60,
    hostile_data.whole_dataset: 40,
    hostile_data.pictures: 80,
    hostile_data.skeletons: 60,
    hostile_data.yolo_labels: 40,
    hostile_data.points_tables: 40,
    hostile_data.videos: 12,
    hostile_programs.weight_files: 60,
    hostile_programs.command_lines: 10,
}
"""How many inputs of each kind; for a longer run by hand raise them and change ``SEED``."""


@pytest.mark.parametrize("make", TRIALS, ids=lambda make: make.__name__)
def test_every_input_ends_in_a_sound_result_or_in_one_line_that_names_it(
    make: Callable[[random.Random, Path], Attempt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    complaints, num_refused = [], 0
    for number in range(TRIALS[make]):
        key = f"{make.__name__} {SEED} {number}"
        problem, refused = complaint(make(random.Random(zlib.crc32(key.encode())), tmp_path), tmp_path)
        num_refused += refused
        complaints += [f"{key}: {problem}"] if problem else []
        assert not list(tmp_path.rglob("MARKER")), f"{key}: ran what the input holds"
    assert complaints == []
    assert num_refused >= TRIALS[make] // 10, "the inputs are hardly broken"
