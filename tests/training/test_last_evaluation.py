import lightning.pytorch as pl
import pytest


class Evaluations(pl.Callback):
    """The epochs and steps after which there was one."""

    def __init__(self):
        self.epochs, self.steps = [], []

    def on_validation_start(self, trainer, pl_module):
        self.epochs.append(trainer.current_epoch)
        self.steps.append(trainer.global_step)


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        # An epoch has three steps.
        ({"max_epochs": 5, "check_val_every_n_epoch": 2}, [1, 3, 4]),
        ({"max_epochs": 4, "check_val_every_n_epoch": 2}, [1, 3]),
        ({"max_epochs": 2, "check_val_every_n_epoch": 10}, [1]),
        ({"max_epochs": 9, "max_steps": 4, "check_val_every_n_epoch": 10}, [1]),
        ({"max_epochs": 2, "val_check_interval": 2}, [0, 1, 1]),
        ({"max_epochs": 2, "check_val_every_n_epoch": None, "val_check_interval": 4}, [1, 1]),
        ({"max_epochs": 3, "accumulate_grad_batches": 2, "check_val_every_n_epoch": 2}, [1, 2]),
        ({"max_epochs": 2, "limit_val_batches": 0}, []),
    ],
)
def test_the_end_of_a_training_is_always_evaluated(tiny, settings, epochs):
    seen = Evaluations()
    best = pl.callbacks.ModelCheckpoint(tiny.folder / "ckpt", filename="best", monitor="val/AP", mode="max")
    trainer = tiny.trainer(callbacks=[seen, best], **settings)
    trainer.fit(tiny.module(), datamodule=tiny.data())

    assert seen.epochs == epochs
    assert not epochs or seen.steps[-1] == trainer.global_step
    assert (tiny.folder / "ckpt" / "best.ckpt").exists() == bool(epochs)


class StopAfter(pl.Callback):
    """As a time limit stops it (``trainer.max_time``)."""

    def __init__(self, steps):
        self.steps = steps

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.global_step >= self.steps


@pytest.mark.parametrize("steps", [2, 3])
def test_so_is_that_of_a_training_that_a_callback_stops(tiny, steps):
    seen = Evaluations()
    trainer = tiny.trainer(max_epochs=9, check_val_every_n_epoch=10, callbacks=[seen, StopAfter(steps)], min_epochs=0)
    trainer.fit(tiny.module(), datamodule=tiny.data())

    assert (trainer.global_step, seen.steps) == (steps, [steps])
