"""A training whose last epoch draws otherwise: stopped about the switch, on two processes, made longer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Callback
from resumable_training import EPOCHS, differences, train

SWITCH = 5 * (EPOCHS - 1)  # steps: five batches an epoch


class StopAt(Callback):
    """The scheduler's signal in the middle of a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def straight(people, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    train(people, folder, staged=True)
    return folder


def journal(folder, rank=0):
    """What was learnt from: by epoch and batch."""
    lines = map(json.loads, (folder / f"journal_{rank}.jsonl").read_text().splitlines())
    return {(entry["epoch"], entry["batch"]): (entry["people"], entry["pixels"]) for entry in lines}


def pixels(folder, epoch):
    return [seen[1] for (of, _batch), seen in sorted(journal(folder).items()) if of == epoch]


@pytest.mark.parametrize(
    ("step", "workers"),
    [
        pytest.param(SWITCH - 3, 0, id="before the switch", marks=pytest.mark.slow),
        pytest.param(SWITCH - 1, 2, id="last batch before it"),
        pytest.param(SWITCH, 0, id="first batch after it", marks=pytest.mark.slow),
        pytest.param(SWITCH + 2, 0, id="in the stage"),
    ],
)
def test_stopped_and_resumed_is_bit_for_bit_the_training_that_was_not(people, straight, tmp_path, step, workers):
    with pytest.raises(SystemExit):
        train(people, tmp_path, StopAt(step), staged=True, workers=workers)
    train(people, tmp_path, staged=True, workers=workers)
    assert differences(tmp_path, straight) == []


def test_a_training_that_is_made_longer_goes_back_to_the_first_draws_and_is_mild_in_its_new_last_epoch(
    people, straight, tmp_path
):
    longer, planned = tmp_path / "longer", tmp_path / "planned"
    train(people, planned, staged=True, epochs=EPOCHS + 2)
    train(people, longer, staged=True)
    train(people, longer, staged=True, epochs=EPOCHS + 2)
    last = EPOCHS - 1
    assert pixels(longer, last) == pixels(straight, last) != pixels(planned, last)
    for epoch in (*range(last), last + 1, last + 2):
        assert pixels(longer, epoch) == pixels(planned, epoch)


@pytest.mark.slow
def test_two_processes_stop_and_resume_alike_and_read_what_one_reads(tmp_path):
    """One after the other in the launcher's script, which leaves the folders of its undisturbed trainings."""
    trials = [
        {"signal": "SIGTERM", "to": 1, "moment": 0.6, "processes": 2, "staged": True},
        {"signal": "SIGKILL", "moment": 0.6, "every_n_steps": 2, "staged": True},
    ]
    script, runs = Path(__file__).parent / "killed_trainings.py", tmp_path / "runs"
    command = [sys.executable, str(script), str(runs), json.dumps(trials)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert finished.returncode == 0, finished.stderr
    outcomes = [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]
    assert [outcome["differences"] for outcome in outcomes] == [[], []]

    first, second, alone = (
        journal(runs / name, rank) for name, rank in (("straight_0", 0), ("straight_0", 1), ("straight_1", 0))
    )
    assert len(alone) == 5 * EPOCHS
    for visit, seen in alone.items():
        assert seen == tuple(mine + theirs for mine, theirs in zip(first[visit], second[visit], strict=True))
