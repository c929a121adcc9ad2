# ruff: noqa: NPY002 (numpy's global generator is what is tested)
import io
import random

import numpy as np
import torch

from uniformer_pose.training.random_state import RandomState, random_state, seed_by_process, set_random_state


def draws():
    return [torch.rand(3).tolist(), np.random.rand(3).tolist(), np.random.randn(), random.random(), random.gauss(0, 1)]


def test_all_generators_go_on_where_they_stood_after_a_round_trip_through_a_plain_file():
    torch.manual_seed(1), np.random.seed(2), random.seed(3)
    np.random.randn(), random.gauss(0, 1)  # each keeps a second value for the next call
    file = io.BytesIO()
    torch.save(random_state(), file)
    expected = draws()
    torch.manual_seed(7), np.random.seed(8), random.seed(9)

    file.seek(0)
    set_random_state(torch.load(file, weights_only=True))

    assert draws() == expected


def test_the_state_is_taken_up_when_training_starts_and_only_for_the_same_number_of_processes(tiny):
    callback, trainer = RandomState(), tiny.trainer()
    torch.manual_seed(1)
    state = callback.state_dict()
    expected = torch.rand(3)

    callback.load_state_dict(state)
    torch.manual_seed(5)
    callback.on_train_start(trainer, None)
    assert torch.equal(torch.rand(3), expected)

    callback.load_state_dict({"processes": state["processes"] * 2})
    torch.manual_seed(5)
    other = torch.rand(3)
    torch.manual_seed(5)
    callback.on_train_start(trainer, None)
    assert torch.equal(torch.rand(3), other)


def test_every_process_draws_otherwise_and_the_first_as_if_it_were_alone():
    drawn = []
    for rank in (0, 1, 2, 1):
        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        seed_by_process(rank)
        drawn.append(draws())

    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    assert drawn[0] == draws()
    assert drawn[1] == drawn[3]
    for kind in range(len(drawn[0])):
        assert len({str(of_process[kind]) for of_process in drawn[:3]}) == 3
