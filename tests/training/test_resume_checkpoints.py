# ruff: noqa: NPY002 (numpy's global generator is what is tested)
import io
import multiprocessing
import os
import random
import signal
import subprocess
import time
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from resumable_training import differences, log_of, train

from loopback_server import Page, running_server
from uniformer_pose.data.prepared import prepare_images
from uniformer_pose.errors import InputError
from uniformer_pose.training.resume.random_state import random_state, seed_by_process, set_random_state
from uniformer_pose.training.resume.resume_checkpoints import ResumeCheckpoints
from uniformer_pose.training.resume.stop_signals import StopSignals


class Disturb(pl.Callback):
    """A signal to this process, or an error, at one moment of the training."""

    def __init__(self, what, *, step=None, batch=None, evaluation=None):
        self.what, self.step, self.batch, self.evaluation = what, step, batch, evaluation
        self.happened = False

    def strike(self):
        if not self.happened:
            self.happened = True
            if isinstance(self.what, BaseException):
                raise self.what
            os.kill(os.getpid(), self.what)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.step is not None and trainer.global_step == self.step and self.batch in (None, batch_idx):
            self.strike()

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if self.evaluation is not None and trainer.current_epoch == self.evaluation:
            self.strike()


@pytest.fixture(scope="module")
def straight(people, tmp_path_factory):
    """The run that nothing disturbed; every other one is held against it."""
    folder = tmp_path_factory.mktemp("straight")
    train(people, folder)
    return folder


def stopped(people, folder, disturbance, **settings):
    with pytest.raises(SystemExit) as left:
        train(people, folder, disturbance, **settings)
    assert disturbance.happened
    return left.value.code


def require_same_as(straight, folder):
    assert differences(folder, straight) == []
    assert log_of(folder) == log_of(straight)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param({"step": 7}, id="mid-epoch"),
        pytest.param({"step": 9}, id="last batch of an epoch", marks=pytest.mark.slow),
        pytest.param({"evaluation": 1}, id="evaluation"),
        pytest.param({"step": 5}, id="first batch of an epoch", marks=pytest.mark.slow),
    ],
)
def test_stopped_by_sigterm_and_resumed_is_bit_for_bit_the_training_that_was_not(people, straight, tmp_path, moment):
    assert stopped(people, tmp_path, Disturb(signal.SIGTERM, **moment)) == 143
    train(people, tmp_path)

    require_same_as(straight, tmp_path)


def test_an_interrupted_evaluation_that_the_interval_alone_would_not_ask_for_is_made_up_for(people, tmp_path):
    (tmp_path / "straight").mkdir()
    train(people, tmp_path / "straight", check_val_every_n_epoch=2)
    assert log_of(tmp_path / "straight").count("val/score") == 1

    disturbance = Disturb(signal.SIGTERM, evaluation=2)
    assert stopped(people, tmp_path / "run", disturbance, check_val_every_n_epoch=2) == 143
    train(people, tmp_path / "run", check_val_every_n_epoch=2)
    require_same_as(tmp_path / "straight", tmp_path / "run")


class DisturbEverybody(Disturb):
    """As a terminal and some schedulers do: the data workers get the signal too."""

    def strike(self):
        if not self.happened:
            for worker in multiprocessing.active_children():
                subprocess.run(["kill", f"-{self.what}", str(worker.pid)], check=True)
            time.sleep(0.2)
            super().strike()


@pytest.mark.slow
def test_nothing_differs_with_two_data_workers_that_get_the_signal_too(people, straight, tmp_path):
    assert stopped(people, tmp_path, DisturbEverybody(signal.SIGINT, step=7), workers=2) == 130
    train(people, tmp_path, workers=2)

    require_same_as(straight, tmp_path)


def test_nothing_differs_where_the_pixels_come_from_a_store(people, straight, tmp_path, monkeypatch):
    monkeypatch.setenv("UNIFORMER_POSE_CACHE", str(tmp_path / "cache"))
    prepare_images(people.data().read_train_people(), tmp_path / "prepared")
    with running_server() as server:
        for name in ("index.json", "pixels"):
            server.serve(f"/{name}", Page((tmp_path / "prepared" / name).read_bytes(), has_ranges=True))
        disturbance = Disturb(signal.SIGTERM, step=7)
        assert stopped(people, tmp_path / "run", disturbance, prepared=server.origin) == 143
        train(people, tmp_path / "run", prepared=server.origin)
        assert ("GET", "/pixels") in server.requests

    require_same_as(straight, tmp_path / "run")


def test_an_error_is_resumed_from_the_checkpoint_before_it(people, straight, tmp_path):
    with pytest.raises(ValueError, match="a bug"):
        train(people, tmp_path, Disturb(ValueError("a bug"), step=8), every_n_steps=3)
    assert not (tmp_path / "checkpoints" / "interrupted.ckpt").exists()
    train(people, tmp_path, every_n_steps=3)

    require_same_as(straight, tmp_path)


def test_a_stop_amid_accumulated_gradients_waits_for_the_optimizers_step(people, tmp_path):
    """Five batches an epoch, two a step: the signal comes in the first batch of a step."""
    (tmp_path / "straight").mkdir()
    folder = tmp_path / "stopped"
    train(people, tmp_path / "straight", accumulate=2, averaged=False)

    assert stopped(people, folder, Disturb(signal.SIGUSR1, step=4, batch=2), accumulate=2, averaged=False) == 143
    train(people, folder, accumulate=2, averaged=False)

    require_same_as(tmp_path / "straight", folder)


def test_ctrl_c_ends_with_a_persons_status_and_the_path_of_a_file_that_is_there(people, tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert stopped(people, tmp_path, Disturb(signal.SIGINT, step=1), epochs=1) == 130

    assert f"ckpt_path={tmp_path / 'checkpoints' / 'interrupted.ckpt'}" in caplog.text
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["interrupted.ckpt"]


def test_an_error_in_the_thread_that_writes_ends_the_training(people, tmp_path):
    class Unwritable(pl.Callback):
        def on_save_checkpoint(self, trainer, pl_module, checkpoint):
            checkpoint["unwritable"] = lambda: None

    with pytest.raises(Exception, match="pickle"):
        train(people, tmp_path, Unwritable(), every_n_steps=2)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_processes_that_found_different_checkpoints_do_not_train_together(tmp_path):
    strategy = SimpleNamespace(root_device="cpu", reduce=lambda mine, reduce_op: int(mine) - (reduce_op == "min"))
    with pytest.raises(InputError, match=r"steps, 6 to 7: .*share"):
        ResumeCheckpoints(str(tmp_path)).on_train_start(SimpleNamespace(strategy=strategy, global_step=7), None)


def test_a_signal_in_the_very_last_step_still_ends_with_its_status(people, tmp_path):
    before = signal.getsignal(signal.SIGTERM)

    class InTheEnd(Disturb):
        def on_train_epoch_end(self, trainer, pl_module):
            self.strike()

    assert stopped(people, tmp_path, InTheEnd(signal.SIGTERM), epochs=1) == 143
    assert signal.getsignal(signal.SIGTERM) is before


# -------------------------------------------------------------------------------------------- the last evaluation


class Evaluations(pl.Callback):
    """The epochs after which there was one."""

    def __init__(self):
        self.epochs = []

    def on_validation_start(self, trainer, pl_module):
        self.epochs.append(trainer.current_epoch)


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({"max_epochs": 5, "check_val_every_n_epoch": 2}, [1, 3, 4]),
        ({"max_epochs": 4, "check_val_every_n_epoch": 2}, [1, 3]),
        ({"max_epochs": 2, "limit_val_batches": 0}, []),
    ],
)
def test_the_last_epoch_is_always_evaluated(tiny, settings, epochs):
    seen = Evaluations()
    best = pl.callbacks.ModelCheckpoint(tiny.folder / "ckpt", filename="{epoch}", monitor="val/AP", save_top_k=-1)
    trainer = tiny.trainer(callbacks=[seen, best, ResumeCheckpoints(str(tiny.folder))], **settings)
    trainer.fit(tiny.module(), datamodule=tiny.data())
    assert seen.epochs == epochs
    assert {path.name for path in (tiny.folder / "ckpt").glob("*")} == {f"epoch={epoch}.ckpt" for epoch in epochs}


# ---------------------------------------------------------------------------------------------- signals, generators


def test_what_of_lightning_is_replaced_is_there(tiny):
    trainer = tiny.trainer()
    assert callable(trainer._signal_connector.register_signal_handlers)
    assert callable(trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor)


@pytest.fixture
def signals():
    listening = StopSignals()
    listening.listen()
    yield listening
    listening.restore()


def test_the_first_signal_counts_and_a_second_ctrl_c_interrupts_unless_it_is_the_terminals_echo(signals):
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGINT):
        os.kill(os.getpid(), number)
    assert signals.received == signal.SIGINT
    time.sleep(0.6)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_earlier_handlers_come_back_and_ignored_signals_stay_ignored(signals):
    signals.restore()
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        interrupt = signal.getsignal(signal.SIGINT)
        signals.listen()
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is not interrupt
        signals.restore()
        assert signal.getsignal(signal.SIGINT) is interrupt
    finally:
        signal.signal(signal.SIGUSR1, before)


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


def test_every_process_draws_otherwise_and_the_first_as_if_it_were_alone():
    drawn = []
    for rank in (None, 0, 1, 2, 1):
        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        seed_by_process(rank or 0)
        drawn.append(draws())

    assert drawn[0] == drawn[1]
    assert drawn[2] == drawn[4]
    for kind in range(len(drawn[0])):
        assert len({str(of_process[kind]) for of_process in drawn[1:4]}) == 3
