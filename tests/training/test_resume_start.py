"""Which checkpoint a training continues from, and whether its settings let it."""

import threading
from types import SimpleNamespace

import pytest
import torch

from uniformer_pose.errors import InputError
from uniformer_pose.training.resume.settings import (
    FinishedTraining,
    changed_settings,
    finished_as_asked,
    require_same_experiment,
    write_finished,
)
from uniformer_pose.training.resume.start import checkpoint_to_resume, share_start

CONFIG = {
    "model": {"depths": [1, 1]},
    "data": {"batch_size": 8, "num_workers": 4, "root": "a", "val_images": "val"},
    "optimizer": {"_target_": "torch.optim.AdamW", "weight_decay": 0.01},
    "training": {"milestones": [170, 200]},
    "callbacks": {"best_checkpoint": {"dirpath": "runs/a", "monitor": "val/AP"}},
    "trainer": {"max_epochs": 10, "accelerator": "cpu"},
    "logger": {"csv": {"save_dir": "runs/a"}},
    "run_dir": "runs/a",
    "seed": 0,
}


def config_with(**settings):
    """CONFIG with some settings changed: section__name=value."""
    changed = {name: dict(value) if isinstance(value, dict) else value for name, value in CONFIG.items()}
    for name, value in settings.items():
        section, _, key = name.partition("__")
        if key:
            changed[section][key] = value
        else:
            changed[section] = value
    return changed


def test_settings_that_change_the_training_are_named_and_others_are_not():
    assert changed_settings(CONFIG, CONFIG) == []
    now = config_with(
        data__batch_size=16,
        data__num_workers=1,
        data__prepared="shards",
        training={"milestones": [170, 200], "warmup_steps": 5},
        callbacks={"best_checkpoint": {"dirpath": "runs/b", "monitor": "val/AR"}},
        logger={},
        run_dir="runs/b",
    )

    assert [str(change) for change in changed_settings(CONFIG, now)] == [
        "callbacks.best_checkpoint.monitor val/AP is now val/AR",
        "data.batch_size 8 is now 16",
        "training.warmup_steps nothing is now 5",
    ]
    assert changed_settings({"data": CONFIG["data"]}, config_with(seed=5)) == []  # was not recorded


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"model__depths": [2, 2]}, "model.depths"),
        ({"model__pretrained": "zoo:a"}, "model.pretrained"),
        ({"seed": 1}, "seed"),
        ({"data__max_images": 4}, "data.max_images"),
        ({"optimizer___target_": "torch.optim.SGD"}, "optimizer._target_"),
        ({"optimizer__amsgrad": True}, "optimizer.amsgrad"),
    ],
)
def test_another_experiment_is_refused_by_name_whether_the_first_is_finished_or_not(tmp_path, settings, name):
    now = config_with(**settings)
    with pytest.raises(InputError, match=rf"another experiment .*{name}"):
        require_same_experiment(tmp_path, changed_settings(CONFIG, now))

    write_finished(tmp_path, FinishedTraining(10, 0.5, CONFIG))
    with pytest.raises(InputError, match=rf"finished.*{name}"):
        finished_as_asked(tmp_path, now)


@pytest.mark.parametrize(
    "settings",
    [
        {"data__root": "b", "data__batch_size": 16},
        {"optimizer__weight_decay": 0.1},
        {"optimizer__betas": [0.9, 0.99]},
        {"trainer__accelerator": "gpu"},
        {"trainer__max_epochs": 20},
    ],
)
def test_what_may_change_on_the_way_is_no_other_experiment(tmp_path, settings):
    require_same_experiment(tmp_path, changed_settings(CONFIG, config_with(**settings)))


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({}, "finished"),
        ({"trainer__max_epochs": 5, "data__num_workers": 0, "name": "b"}, "finished"),
        ({"trainer__max_epochs": 11}, "more"),
        ({"trainer__max_epochs": -1}, "more"),
        ({"trainer__max_epochs": 11, "optimizer__weight_decay": 0.1}, "more"),
        ({"data__root": "b"}, "refused"),
        ({"trainer__max_epochs": 5, "data__batch_size": 16}, "refused"),
    ],
)
def test_a_finished_training_is_the_answer_to_its_own_configuration_only(tmp_path, settings, answer):
    assert finished_as_asked(tmp_path, CONFIG) is None
    write_finished(tmp_path, FinishedTraining(10, float("nan"), CONFIG))
    assert str(finished_as_asked(tmp_path, CONFIG).average_precision) == "nan"
    write_finished(tmp_path, FinishedTraining(10, 0.5, CONFIG))
    if answer == "refused":
        with pytest.raises(InputError, match="name=<another> or run_id=<another>"):
            finished_as_asked(tmp_path, config_with(**settings))
    else:
        finished = finished_as_asked(tmp_path, config_with(**settings))
        assert finished == (None if answer == "more" else (10, 0.5, CONFIG))


@pytest.mark.parametrize("noted", ["{", '{"max_epochs": 10, "val/AP": null}'])
def test_a_note_that_is_damaged_or_of_an_earlier_version_finishes_nothing(tmp_path, noted):
    (tmp_path / "finished.json").write_text(noted)
    assert finished_as_asked(tmp_path, CONFIG) is None


def start(**settings):
    return {**CONFIG, "ckpt_path": None, "resume": "auto", "run_id": None, **settings}


def test_questions_that_contradict_each_other_are_one_line(tmp_path):
    assert checkpoint_to_resume(start(), tmp_path) is None
    with pytest.raises(InputError, match="give one of them"):
        checkpoint_to_resume(start(ckpt_path="a.ckpt"), tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(InputError, match=r"run_id=a: .*resume=auto"):
        checkpoint_to_resume(start(resume=None, run_id="a"), tmp_path)


def test_a_training_of_an_earlier_version_is_refused_in_one_line(tmp_path):
    file = tmp_path / "last.ckpt"
    contents = {"state_dict": {"a": torch.zeros(1)}, "uniformer_pose": {"format": 1, "config": CONFIG}, "loops": {}}
    torch.save({**contents, "callbacks": {"RandomState": {}}}, file)
    with pytest.raises(InputError, match=r"earlier version.*model\.pretrained="):
        checkpoint_to_resume(start(resume=None, ckpt_path=str(file)), tmp_path)


# ------------------------------------------------------------------------------------------- several processes


class Strategy:
    """Two processes, of which the first has this word."""

    def __init__(self, word):
        self.word = word

    def broadcast(self, mine):
        return self.word

    def reduce_boolean_decision(self, seen, **_how):
        return seen


class Connector:
    def __init__(self):
        self.started = []

    def resume_start(self, path=None, weights_only=None):
        self.started.append((path, weights_only))


def on_second_process(word, chosen=None, **settings):
    """What the second process of two reads, first where Lightning continues, then at an evaluation of best.ckpt."""
    connector = Connector()
    trainer = SimpleNamespace(
        world_size=2, is_global_zero=False, strategy=Strategy(word), _checkpoint_connector=connector
    )
    share_start(trainer, chosen, **settings)
    connector.resume_start(chosen, weights_only=None)
    connector.resume_start("best.ckpt", weights_only=True)
    return connector.started


def test_the_second_process_reads_what_the_first_one_chose_whatever_it_would_have_found(tmp_path):
    file = tmp_path / "last.ckpt"
    file.write_bytes(b"whole")
    for own in (None, tmp_path / "periodic.ckpt"):
        assert on_second_process((file, 5), own) == [(file, True), ("best.ckpt", True)]
    assert on_second_process((None, 0), file) == [(None, True), ("best.ckpt", True)]


def test_a_file_that_a_shared_disk_shows_late_is_waited_for(tmp_path):
    file = tmp_path / "last.ckpt"
    file.write_bytes(b"who")
    late = threading.Timer(0.3, file.write_bytes, [b"whole"])
    late.start()
    assert on_second_process((file, 5), seconds=30.0)[0] == (file, True)
    late.join()
    file.unlink()
    with pytest.raises(InputError, match=r"last\.ckpt.*disk that all of them share"):
        on_second_process((file, 5), seconds=0.0)
