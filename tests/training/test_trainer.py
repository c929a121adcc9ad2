from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, ProgressBar

from uniformer_pose.errors import InputError
from uniformer_pose.training.trainer import make_trainer

NODE = {"_target_": "lightning.pytorch.Trainer", "accelerator": "cpu", "devices": 1}


def made(**settings: Any) -> Any:
    return make_trainer({**NODE, **settings}, precision="fp32", callbacks=[], logger=False, enable_checkpointing=False)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"accelerator": "gpu"}, ["trainer.accelerator=gpu", "trainer=auto"]),
        ({"accelerator": "gpv"}, ["accelerator=gpv"]),
        ({"strategy": "dpp"}, ["strategy=dpp", "ddp"]),
        ({"devices": [0, 1]}, ["devices=[0, 1]"]),
        ({"devices": "two"}, ["devices=two"]),
        ({"profiler": "quick"}, ["profiler"]),
        ({"precision": None, "plugins": [3]}, ["plugin"]),
        ({"fast_dev_run": -1}, ["fast_dev_run"]),
        ({"val_check_interval": 1.5}, ["val_check_interval"]),
        ({"max_time": "soon"}, ["soon"]),
    ],
)
def test_what_this_machine_or_lightning_does_not_do_is_one_line(settings: dict[str, Any], words: list[str]) -> None:
    if settings.get("accelerator") == "gpu" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError) as caught:
        made(**settings)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    "callback",
    [ModelCheckpoint(monitor="val/APP"), EarlyStopping(monitor="val/ap"), ModelCheckpoint(monitor="train/x")],
)
def test_a_metric_that_nobody_logs_is_refused_before_the_training(callback: Callback) -> None:
    with pytest.raises(InputError, match="monitor="):
        make_trainer(NODE, precision="fp32", callbacks=[callback], logger=False)


@pytest.mark.parametrize("monitor", ["val/AP", "train/loss", "my/metric", None])
def test_a_metric_that_is_logged_or_may_be_can_be_monitored(monitor: str | None) -> None:
    make_trainer(NODE, precision="fp32", callbacks=[ModelCheckpoint(monitor=monitor)], logger=False)


def test_the_progress_bar_can_be_switched_off() -> None:
    assert any(isinstance(callback, ProgressBar) for callback in made().callbacks)
    assert not any(isinstance(callback, ProgressBar) for callback in made(enable_progress_bar=False).callbacks)
