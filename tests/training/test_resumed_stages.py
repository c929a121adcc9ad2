"""A training whose last epoch draws otherwise: stopped about the switch, on two processes, made longer."""

from __future__ import annotations

import pytest
from resumable_training import EPOCHS, StopAt, differences, journal, require_two_processes_to_be_as_one, train

SWITCH = 5 * (EPOCHS - 1)  # steps: five batches an epoch


@pytest.fixture(scope="module")
def straight(people, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    train(people, folder, staged=True)
    return folder


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
    require_two_processes_to_be_as_one(tmp_path / "runs", trials, batches=5)
