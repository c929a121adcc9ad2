import time

import lightning.pytorch as pl
import pytest
import torch

from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.training import throughput
from uniformer_pose.training.throughput import Throughput, ThroughputVerdict, available_cores, verdict


class SlowLoader(PersonCrops):
    """Crops that take their time."""

    seconds = 0.2

    def train_dataloader(self):
        loader = super().train_dataloader()
        read = loader.dataset.__class__.__getitem__

        class Slow(loader.dataset.__class__):
            def __getitem__(self, key):
                time.sleep(SlowLoader.seconds)
                return read(self, key)

        loader.dataset.__class__ = Slow
        return loader


class SlowStep(pl.Callback):
    """A step that takes its time, by the processor's clock."""

    def on_before_zero_grad(self, *_):
        time.sleep(0.05)


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(throughput, "rank_zero_info", lines.append)
    return lines


def train(tiny, callback, *others, kind=PersonCrops, **settings):
    tiny.write_people((3, 3, 3, 3))
    data = tiny.data()
    data.__class__ = kind
    trainer = tiny.trainer(callbacks=[callback, *others], **{"max_epochs": 4} | settings)
    trainer.fit(tiny.module(), datamodule=data)
    return callback


FAST_LOADER = {"waiting_share": 0.0, "loader_images_per_second": None}


def measured(**settings):
    numbers = {"images_per_second": 100.0, "step_images_per_second": 150.0, "loader_images_per_second": 100.0}
    return Throughput(**{**numbers, "waiting_share": 0.33, "batches": 250, **settings})


def advice(outcome, **settings):
    usual = {"num_workers": 2, "cores": 8, "prepared": False, "on_gpu": True, "reduced_precision": True}
    return verdict(outcome, **usual | settings)


def test_a_slow_loader_is_the_bottleneck_at_the_rate_at_which_it_gives_images(tiny, said):
    pace = train(tiny, ThroughputVerdict(), kind=SlowLoader, max_epochs=2)

    assert pace.measured.loader_is_bottleneck
    assert pace.measured.loader_images_per_second == pytest.approx(1 / SlowLoader.seconds, rel=0.5)
    assert len(said) == 1
    assert "The loader is the bottleneck" in said[0]


def test_a_slow_step_is_the_bottleneck(tiny, said):
    pace = train(tiny, ThroughputVerdict(), SlowStep())

    assert pace.measured.step_images_per_second < 2 / 0.05
    assert pace.measured.loader_images_per_second > pace.measured.step_images_per_second
    assert "The step is the bottleneck" in said[0]


def test_the_verdict_is_spoken_once_as_soon_as_its_batches_are_there(tiny, said):
    pace = train(tiny, ThroughputVerdict(after_batches=12, warmup_batches=2))

    assert len(said) == 1
    assert pace.measured.batches == 10


def test_a_training_of_a_few_batches_gets_no_verdict(tiny, said):
    assert train(tiny, ThroughputVerdict(), max_epochs=1).measured is None
    assert said == []


class WaitAfterEpoch(pl.Callback):
    def on_train_epoch_end(self, *_):
        time.sleep(0.5)


def test_the_time_between_two_epochs_is_nobody_s_waiting(tiny, said):
    pace = train(tiny, ThroughputVerdict(), WaitAfterEpoch())

    assert pace.measured.waiting_share * pace.measured.batches * 2 / pace.measured.images_per_second < 0.5


def test_the_verdict_changes_no_weight(tiny, said):
    trained = []
    for callbacks in ([ThroughputVerdict(12)], []):
        module = tiny.module()
        tiny.trainer(callbacks=callbacks, max_epochs=4).fit(module, datamodule=tiny.data())
        trained.append(module.network.state_dict())

    assert all(torch.equal(weight, trained[1][name]) for name, weight in trained[0].items())


def test_a_loader_with_cores_to_spare_is_given_workers_or_prepared_crops():
    assert advice(measured()) == (
        "100 images/s per device; loader 100 images/s, step 150 images/s, 33% of the time waiting for data. The loader "
        "is the bottleneck: raise data.num_workers (2; the machine has 8 cores) or train on prepared crops (python "
        "src/prepare.py)"
    )


def test_nothing_is_advised_that_is_already_so():
    assert advice(measured(), num_workers=8, prepared=True).endswith("bottleneck: give the process more cores")
    line = advice(measured(**FAST_LOADER))
    assert "loader at least 100 images/s" in line
    assert line.endswith("more takes: raise data.batch_size while the memory lasts")
    assert "bf16" in advice(measured(**FAST_LOADER), reduced_precision=False)
    assert advice(measured(**FAST_LOADER), on_gpu=False).endswith("more takes: a GPU")


def test_a_loader_in_the_training_s_own_process_that_is_faster_than_the_step_is_no_bottleneck():
    line = advice(measured(loader_images_per_second=900.0, waiting_share=0.15), num_workers=0)

    assert "The step is the bottleneck; more takes: load in other processes (data.num_workers=1) or raise" in line


def test_there_is_at_least_one_core():
    assert available_cores() >= 1
