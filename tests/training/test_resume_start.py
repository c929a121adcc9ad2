"""Which checkpoint a training continues from, and whether its settings let it."""

import json
import os

import pytest
import torch

from uniformer_pose.errors import InputError
from uniformer_pose.training.resume.settings import changed_settings, finished_as_asked, write_finished
from uniformer_pose.training.resume.start import checkpoint_to_resume, newest_whole_checkpoint

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
    """CONFIG with some settings changed: section__name=value; and what says where to start."""
    changed = {name: dict(value) if isinstance(value, dict) else value for name, value in CONFIG.items()}
    changed |= {"ckpt_path": None, "resume": "auto", "run_id": None}
    for name, value in settings.items():
        section, _, key = name.partition("__")
        if key:
            changed[section][key] = value
        else:
            changed[section] = value
    return changed


def standing(path, epoch=1, step=9, **more):
    """As much of a checkpoint as says how far its training came, and what it was."""
    fit = {"epoch_progress": {"current": {"processed": epoch}}}
    contents = {"loops": {"fit_loop": fit}, "global_step": step, "state_dict": {"a": torch.ones(5000)}, "callbacks": {}}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**contents, "uniformer_pose": {"format": 1, "config": CONFIG}, **more}, path)


# --------------------------------------------------------------------------------------------- the newest checkpoint


def test_the_newest_checkpoint_is_the_one_with_the_most_training_whatever_the_files_times(tmp_path):
    assert newest_whole_checkpoint(tmp_path / "absent") is None
    standing(tmp_path / "interrupted.ckpt", step=9)
    standing(tmp_path / "periodic.ckpt", step=10)
    standing(tmp_path / "best.ckpt", step=10)
    assert newest_whole_checkpoint(tmp_path) == tmp_path / "periodic.ckpt"  # which writes the best and the last again

    standing(tmp_path / "last.ckpt", epoch=2, step=10)
    os.utime(tmp_path / "last.ckpt", (0, 0))
    assert newest_whole_checkpoint(tmp_path) == tmp_path / "last.ckpt"


@pytest.mark.parametrize("damage", ["one byte", "half of it", "empty", "something else"])
def test_a_damaged_checkpoint_is_skipped_with_a_line_for_the_one_before_it(tmp_path, damage):
    standing(tmp_path / "periodic.ckpt", step=8)
    standing(tmp_path / "last.ckpt", step=10)
    content = bytearray((tmp_path / "last.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"one byte": bytes(content), "half of it": content[: len(content) // 2], "empty": b""}
    (tmp_path / "last.ckpt").write_bytes(damaged.get(damage, b"x"))

    with pytest.warns(UserWarning, match=r"skipped: .*last\.ckpt") as told:
        assert newest_whole_checkpoint(tmp_path) == tmp_path / "periodic.ckpt"
    assert len(told) == 1


# ------------------------------------------------------------------------------------------------- changed settings


def test_settings_that_change_the_training_are_named_and_others_are_not():
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


def test_what_may_change_of_one_set_may_change_of_each_of_several():
    before = {"data": {"sets": {"aic": {"root": "a", "prepared": None, "val_boxes": "gt"}}}}
    now = {"data": {"sets": {"aic": {"root": "b", "prepared": "c", "val_boxes": "d"}}}}
    changes = changed_settings(before, now)
    assert [change.name for change in changes] == ["data.sets.aic.root", "data.sets.aic.val_boxes"]
    assert [change.is_another_experiment for change in changes] == [False, True]


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"model__depths": [2, 2]}, "another experiment .*model.depths"),
        ({"model__pretrained": "zoo:a"}, "another experiment .*model.pretrained"),
        ({"seed": 1}, "another experiment .*seed"),
        ({"data__max_images": 4}, "another experiment .*data.max_images"),
        ({"optimizer___target_": "torch.optim.SGD"}, "another experiment .*optimizer._target_"),
        ({"optimizer__amsgrad": True}, "another experiment .*optimizer.amsgrad"),
        ({"optimizer__layer_decay": 0.75}, "another experiment .*optimizer.layer_decay"),
        ({"optimizer__head_lr_scale": 2.0}, "another experiment .*optimizer.head_lr_scale"),
        ({"trainer__max_epochs": 0}, r"trainer.max_epochs=0: .*last\.ckpt"),
        ({"ckpt_path": "a.ckpt"}, "give one of them"),
        ({"resume": None, "run_id": "a"}, "run_id=a: .*resume=auto"),
        ({"data__root": "b", "data__batch_size": 16, "optimizer__weight_decay": 0.1}, None),
        ({"optimizer__betas": [0.9, 0.99], "trainer__accelerator": "gpu", "trainer__max_epochs": 20}, None),
    ],
)
def test_another_experiment_and_contradictions_are_refused_by_name(tmp_path, settings, refused):
    assert checkpoint_to_resume(config_with(), tmp_path) is None
    last = tmp_path / "checkpoints" / "last.ckpt"
    standing(last)
    if refused is None:
        assert checkpoint_to_resume(config_with(**settings), tmp_path) == last
    else:
        with pytest.raises(InputError, match=refused):
            checkpoint_to_resume(config_with(**settings), tmp_path)


def test_a_training_of_an_earlier_version_is_refused_in_one_line(tmp_path):
    standing(tmp_path / "last.ckpt", callbacks={"RandomState": {}})
    with pytest.raises(InputError, match=r"earlier version.*model\.pretrained="):
        checkpoint_to_resume(config_with(resume=None, ckpt_path=str(tmp_path / "last.ckpt")), tmp_path)


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({}, "finished"),
        ({"data__num_workers": 0, "name": "b"}, "finished"),
        ({"trainer__max_epochs": 11}, "more"),
        ({"trainer__max_epochs": -1}, "more"),
        ({"trainer__max_epochs": 11, "optimizer__weight_decay": 0.1}, "more"),
        ({"data__root": "b"}, "refused"),
        ({"seed": 1}, "refused"),
    ],
)
def test_a_finished_training_is_the_answer_to_its_own_configuration_only(tmp_path, settings, answer):
    assert finished_as_asked(tmp_path, CONFIG) is None
    write_finished(tmp_path, CONFIG, float("nan"))
    assert str(finished_as_asked(tmp_path, CONFIG)) == "nan"
    write_finished(tmp_path, CONFIG, 0.5)
    if answer == "refused":
        with pytest.raises(InputError, match="name=<another> or run_id=<another>"):
            finished_as_asked(tmp_path, config_with(**settings))
    else:
        assert finished_as_asked(tmp_path, config_with(**settings)) == (None if answer == "more" else 0.5)


def test_a_training_that_an_earlier_version_finished_is_finished(tmp_path):
    before = CONFIG | {"evaluation": {"flip_test": True}}
    (tmp_path / "finished.json").write_text(json.dumps({"average_precision": 0.5, "config": before}))
    now = config_with(evaluation={"flip_test": True, "monitor": "val/AP"})
    assert finished_as_asked(tmp_path, now) == 0.5


@pytest.mark.parametrize("noted", ["{", '{"max_epochs": 10, "val/AP": null}'])
def test_a_note_that_is_damaged_or_of_an_earlier_version_finishes_nothing(tmp_path, noted):
    (tmp_path / "finished.json").write_text(noted)
    assert finished_as_asked(tmp_path, CONFIG) is None
