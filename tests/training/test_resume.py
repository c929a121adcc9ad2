import pytest
import torch
import yaml

from uniformer_pose.errors import InputError
from uniformer_pose.run_directory import FinishedTraining, write_finished
from uniformer_pose.training.checkpoint_files import logged_step
from uniformer_pose.training.resume import (
    changed_settings,
    finished_as_asked,
    keep_replaced_config,
    require_same_experiment,
    same_logger_runs,
)

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


@pytest.fixture
def run(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def test_settings_that_change_the_training_are_named_and_others_are_not():
    assert changed_settings(CONFIG, CONFIG) == []
    now = config_with(
        data__batch_size=16,
        data__num_workers=1,
        data__prepared="shards",
        training={"milestones": [170, 200], "warmup_steps": 5},
        callbacks={"best_checkpoint": {"dirpath": "runs/b", "monitor": "val/AR"}, "early_stopping": {"patience": 3}},
        logger={},
        run_dir="runs/b",
    )

    assert [f"{change} ({change.outcome})" for change in changed_settings(CONFIG, now)] == [
        "callbacks.best_checkpoint.monitor val/AP is now val/AR (applied)",
        "callbacks.early_stopping.patience nothing is now 3 (applied)",
        "data.batch_size 8 is now 16 (applied)",
        "training.warmup_steps nothing is now 5 (applied)",
    ]


def test_what_a_checkpoint_restores_is_said_to_be_kept():
    patience = {"early_stopping": {"patience": 3}}, {"early_stopping": {"patience": 5}}
    (change,) = changed_settings(config_with(callbacks=patience[0]), config_with(callbacks=patience[1]))
    assert (change.name, change.outcome) == ("callbacks.early_stopping.patience", "kept from the checkpoint")


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"model__depths": [2, 2]}, "model.depths"),
        ({"model__pretrained": "zoo:a"}, "model.pretrained"),
        ({"seed": 1}, "seed"),
        ({"data__val_images": "other"}, "data.val_images"),
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
        {"data__root": "b"},
        {"data__batch_size": 16},
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
        ({"trainer__max_epochs": None}, "more"),
        ({"trainer__max_epochs": 11, "optimizer__weight_decay": 0.1}, "more"),
        ({"optimizer__weight_decay": 0.1}, "refused"),
        ({"data__root": "b"}, "refused"),
        ({"training__learning_rate_per_256": 1.0}, "refused"),
        ({"trainer__max_epochs": 5, "data__batch_size": 16}, "refused"),
    ],
)
def test_a_finished_training_is_the_answer_to_its_own_configuration_only(tmp_path, settings, answer):
    assert finished_as_asked(tmp_path, CONFIG) is None
    write_finished(tmp_path, FinishedTraining(10, 0.5, CONFIG))
    if answer == "refused":
        with pytest.raises(InputError, match="name=<another> or run_id=<another>"):
            finished_as_asked(tmp_path, config_with(**settings))
    else:
        finished = finished_as_asked(tmp_path, config_with(**settings))
        assert (finished is None) == (answer == "more")
        assert finished is None or finished.average_precision == 0.5


def test_a_finished_training_of_an_earlier_version_is_compared_with_its_config_file(run):
    (run / "finished.json").write_text('{"max_epochs": 10, "val/AP": null}')
    assert finished_as_asked(run, CONFIG) is not None
    with pytest.raises(InputError, match="seed 0 is now 1"):
        finished_as_asked(run, config_with(seed=1))
    (run / "config.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"config\.yaml: cannot be read"):
        finished_as_asked(run, CONFIG)


def test_what_was_not_recorded_is_not_compared():
    assert changed_settings({"data": CONFIG["data"]}, config_with(seed=5)) == []
    assert changed_settings({}, CONFIG) == []


def test_the_configs_of_earlier_starts_are_kept(run):
    keep_replaced_config(run)
    (run / "config.yaml").write_text("second")
    keep_replaced_config(run)

    assert sorted(path.name for path in run.iterdir()) == ["config_1.yaml", "config_2.yaml"]
    assert (run / "config_2.yaml").read_text() == "second"


def test_weights_and_biases_continues_the_same_run(tmp_path):
    loggers = {"csv": {"_target_": "x.CSVLogger"}, "wandb": {"_target_": "lightning.pytorch.loggers.WandbLogger"}}

    first = same_logger_runs(loggers, tmp_path)
    second = same_logger_runs(loggers, tmp_path)

    assert first["csv"] == second["csv"] == loggers["csv"]
    assert second["wandb"]["id"] == first["wandb"]["id"]
    assert "resume" not in first["wandb"]
    assert second["wandb"]["resume"] == "allow"


def progress(path, *, batch, completed, epoch_ready, epoch_processed, steps, evaluation=(0, 0)):
    loops = {
        "epoch_progress": {"current": {"ready": epoch_ready, "processed": epoch_processed}},
        "epoch_loop.batch_progress": {"current": {"processed": batch, "completed": completed}},
        "epoch_loop.val_loop.batch_progress": {"current": {"ready": evaluation[0], "completed": evaluation[1]}},
        "epoch_loop.state_dict": {"_batches_that_stepped": steps},
    }
    torch.save({"loops": {"fit_loop": loops}}, path)
    return logged_step(path)


def test_the_loggers_step_of_a_checkpoint_is_that_of_its_last_batch(tmp_path):
    file = tmp_path / "a.ckpt"
    after_a_batch = {"batch": 3, "completed": 2, "epoch_ready": 1, "epoch_processed": 0}
    assert progress(file, **after_a_batch, steps=2) == (2, False)
    before_evaluation = {"batch": 5, "completed": 5, "epoch_ready": 1, "epoch_processed": 0}
    assert progress(file, **before_evaluation, steps=4, evaluation=(1, 0)) == (4, True)
    end_of_epoch = {"batch": 5, "completed": 5, "epoch_ready": 1, "epoch_processed": 1}
    assert progress(file, **end_of_epoch, steps=5, evaluation=(3, 3)) == (4, False)
