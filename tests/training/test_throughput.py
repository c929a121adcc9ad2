import time
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest

from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.training import throughput
from uniformer_pose.training.throughput import ThroughputVerdict, verdict


class SlowLoader(PersonCrops):
    """Crops that take their time."""

    def train_dataloader(self):
        loader = super().train_dataloader()
        read = loader.dataset.__class__.__getitems__

        class Slow(loader.dataset.__class__):
            def __getitems__(self, visits):
                time.sleep(0.2 * len(visits))
                return read(self, visits)

        loader.dataset.__class__ = Slow
        return loader


class Pause(pl.Callback):
    """A step, or the time between two epochs, that takes its time."""

    def __init__(self, hook, seconds):
        setattr(self, hook, lambda *_: time.sleep(seconds))


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(throughput, "rank_zero_info", lines.append)
    return lines


def train(tiny, *others, kind=PersonCrops, after_batches=300, epochs=4):
    """A training of six batches an epoch."""
    tiny.write_people((3, 3, 3, 3))
    data = tiny.data()
    data.__class__ = kind
    callbacks = [ThroughputVerdict(after_batches), *others]
    tiny.trainer(callbacks=callbacks, max_epochs=epochs).fit(tiny.module(), datamodule=data)


def test_a_slow_loader_is_the_bottleneck(tiny, said):
    train(tiny, kind=SlowLoader, epochs=3)
    assert len(said) == 1
    assert "the loader is the bottleneck" in said[0]
    assert int(said[0].partition("%")[0].split()[-1]) > 50


@pytest.mark.parametrize(
    ("others", "after_batches"), [([], 12), ([Pause("on_train_epoch_end", 1.0)], 300)], ids=["slow step", "slow change"]
)
def test_neither_a_slow_step_nor_a_slow_change_of_epochs_is_waiting(tiny, said, others, after_batches):
    train(tiny, Pause("on_before_zero_grad", 0.05), *others, after_batches=after_batches)
    assert len(said) == 1
    assert int(said[0].partition("%")[0].split()[-1]) < 50


def test_a_training_of_a_few_batches_gets_no_verdict(tiny, said):
    train(tiny, epochs=1)
    assert said == []


@pytest.mark.parametrize(
    ("waiting", "workers", "prepared", "words"),
    [
        (0.5, 0, None, ["raise data.num_workers", "src/prepare.py"]),
        (0.5, 10**6, None, ["src/prepare.py"]),
        (0.5, 10**6, "shards", ["more cores"]),
        (0.05, 0, None, ["5% of the time waiting for data: the device is the bottleneck"]),
    ],
)
def test_nothing_is_advised_that_is_already_so(waiting, workers, prepared, words):
    data = SimpleNamespace(num_workers=workers, prepared=prepared)
    line = verdict(100.0, waiting, SimpleNamespace(datamodule=data, num_devices=1))
    advice = line.partition("bottleneck; ")[2]
    assert all(word in line for word in words)
    assert ("num_workers" in advice) == (len(words) == 2)
