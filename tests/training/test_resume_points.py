import multiprocessing
import os
import signal
import subprocess
import time

import lightning.pytorch as pl
import pytest
from resumable_training import PEOPLE_PER_IMAGE, differences, log_of, train

from uniformer_pose.data.coco import read_ground_truth
from uniformer_pose.data.prepared import prepare_images


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
def people(make_tiny, tmp_path_factory):
    setup = make_tiny(tmp_path_factory.mktemp("people"))
    setup.write_people(PEOPLE_PER_IMAGE)
    return setup


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
        pytest.param({"evaluation": 2}, id="last evaluation", marks=pytest.mark.slow),
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


def test_nothing_differs_with_images_read_from_prepared_shards(people, straight, tmp_path):
    instances = read_ground_truth(people.folder / "people.json", people.folder / "images", people.skeleton)
    shards, run = tmp_path / "prepared", tmp_path / "run"
    prepare_images(instances, shards)
    assert stopped(people, run, Disturb(signal.SIGTERM, step=7), prepared=shards) == 143
    train(people, run, prepared=shards)
    require_same_as(straight, run)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_differs_with_two_data_workers_that_get_the_signal_too(people, straight, tmp_path, number):
    assert stopped(people, tmp_path, DisturbEverybody(number, step=7), workers=2) in (143, 130)
    train(people, tmp_path, workers=2)

    require_same_as(straight, tmp_path)


@pytest.mark.slow
def test_an_error_is_resumed_from_the_last_periodic_checkpoint(people, straight, tmp_path):
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


def test_a_stop_that_cannot_wait_any_longer_leaves_what_was_saved_before(people, tmp_path, caplog):
    with caplog.at_level("INFO"):
        status = stopped(
            people,
            tmp_path,
            Disturb(signal.SIGTERM, step=4, batch=2),
            accumulate=2,
            averaged=False,
            grace_seconds=0.0,
        )

    assert status == 143
    assert not (tmp_path / "checkpoints" / "interrupted.ckpt").exists()
    assert (tmp_path / "checkpoints" / "periodic.ckpt").exists()
    assert "before the gradients were complete" in caplog.text


def test_ctrl_c_ends_with_a_persons_status_and_the_path_to_go_on_from(people, tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert stopped(people, tmp_path, Disturb(signal.SIGINT, step=1), epochs=1) == 130

    assert f"ckpt_path={tmp_path / 'checkpoints' / 'interrupted.ckpt'}" in caplog.text


def test_a_signal_in_the_very_last_step_still_ends_with_its_status(people, tmp_path):
    before = signal.getsignal(signal.SIGTERM)

    class InTheEnd(Disturb):
        def on_train_epoch_end(self, trainer, pl_module):
            self.strike()

    assert stopped(people, tmp_path, InTheEnd(signal.SIGTERM), epochs=1) == 143
    assert signal.getsignal(signal.SIGTERM) is before
