import pytest
import torch
import yaml

from uniformer_pose.errors import InputError
from uniformer_pose.training.resume import (
    changed_settings,
    keep_replaced_config,
    logged_step,
    same_logger_runs,
)

CONFIG = {
    "model": {"depths": [1, 1]},
    "data": {"batch_size": 8, "num_workers": 4},
    "training": {"milestones": [170, 200]},
    "callbacks": {"best_checkpoint": {"dirpath": "runs/a", "monitor": "val/AP"}},
    "logger": {"csv": {"save_dir": "runs/a"}},
    "run_dir": "runs/a",
    "seed": 0,
}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def test_settings_that_change_the_training_are_named_and_others_are_not(run):
    assert changed_settings(run, CONFIG) == []
    now = CONFIG | {
        "data": {"batch_size": 16, "num_workers": 1},
        "training": {"milestones": [170, 200], "warmup_steps": 5},
        "callbacks": {"best_checkpoint": {"dirpath": "runs/b", "monitor": "val/AR"}},
        "logger": {},
        "run_dir": "runs/b",
    }

    assert changed_settings(run, now) == [
        "callbacks.best_checkpoint.monitor val/AP is now val/AR",
        "data.batch_size 8 is now 16",
        "training.warmup_steps nothing is now 5",
    ]


def test_another_network_is_refused_by_name(run):
    with pytest.raises(InputError, match=r"another network \(model.depths \[1, 1\] is now \[2, 2\]\)"):
        changed_settings(run, CONFIG | {"model": {"depths": [2, 2]}})


def test_without_a_saved_config_nothing_has_changed_and_a_broken_one_is_named(tmp_path):
    assert changed_settings(tmp_path, CONFIG) == []
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"config\.yaml: cannot be read"):
        changed_settings(tmp_path, CONFIG)


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
