"""A training that is resumed with other settings: what is used is what is said."""

from functools import partial

import lightning.pytorch as pl
import pytest
import torch

from uniformer_pose.errors import InputError


class Used(pl.Callback):
    """What the optimizer computes each step with."""

    def __init__(self):
        self.rates, self.decays = [], []

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.decays.append(optimizer.param_groups[0]["weight_decay"])


def train(tiny, epochs, source=None, *, decay=0.1, rate=0.256, batch_size=2, milestones=(), stop_at=None, **settings):
    used = Used()
    module = tiny.module(
        optimizer=partial(torch.optim.AdamW, weight_decay=decay),
        learning_rate_per_256=rate,
        warmup_steps=0,
        milestones=milestones,
    )
    trainer = tiny.trainer(
        max_epochs=epochs, max_steps=stop_at or -1, limit_val_batches=0, callbacks=[used], **settings
    )
    trainer.fit(module, datamodule=tiny.data(batch_size=batch_size), ckpt_path=source, weights_only=True)
    trainer.save_checkpoint(tiny.folder / "saved.ckpt")
    return used, tiny.folder / "saved.ckpt"


@pytest.mark.parametrize(
    ("changed", "rate", "decay", "said"),
    [
        ({}, 2e-3, 0.1, "learning rate 0.002 = 0.256 x 2 / 256 (2 crops x 1 devices x 1 accumulated)"),
        ({"rate": 2.56}, 2e-2, 0.1, "learning rate 0.02 = 2.56 x 2 / 256"),
        ({"batch_size": 3}, 3e-3, 0.1, "learning rate 0.003 = 0.256 x 3 / 256"),
        ({"accumulate_grad_batches": 3}, 6e-3, 0.1, "learning rate 0.006 = 0.256 x 6 / 256"),
        ({"decay": 0.5}, 2e-3, 0.5, "learning rate 0.002 "),
    ],
)
def test_the_rate_and_decay_that_are_stated_are_used(tiny, caplog, changed, rate, decay, said):
    first, saved = train(tiny, 1)
    assert (first.rates, first.decays) == ([pytest.approx(2e-3)] * 3, [0.1] * 3)
    caplog.clear()

    with caplog.at_level("INFO"):
        resumed, _ = train(tiny, 2, saved, **changed)

    assert resumed.rates == pytest.approx([rate] * len(resumed.rates), rel=1e-12)
    assert set(resumed.decays) == {decay}
    (line,) = [record.message for record in caplog.records if record.message.startswith("learning rate")]
    assert line.startswith(said)
    assert line.endswith(f"{rate:.3g} at step 3")


def test_milestones_stay_with_their_epoch_when_the_epochs_get_shorter(tiny):
    _, saved = train(tiny, 2, milestones=(3,))  # three steps an epoch, then two

    resumed, saved = train(tiny, 4, saved, batch_size=3, milestones=(3,))
    assert resumed.rates == pytest.approx([3e-3, 3e-3, 3e-4, 3e-4])

    once_more, _ = train(tiny, 6, saved, milestones=(3, 5))
    assert once_more.rates == pytest.approx([2e-4] * 3 + [2e-5] * 3)


def test_a_milestone_that_has_moved_counts_from_the_first_step_on(tiny):
    _, saved = train(tiny, 2, milestones=(1,))
    resumed, _ = train(tiny, 3, saved, milestones=(10,))
    assert resumed.rates == pytest.approx([2e-3] * 3)


@pytest.mark.parametrize("changed", [{"batch_size": 3}, {"accumulate_grad_batches": 2}])
def test_other_batches_in_mid_epoch_are_refused(tiny, changed):
    _, saved = train(tiny, 2, stop_at=4)
    with pytest.raises(InputError, match="after batch 1 of an epoch"):
        train(tiny, 2, saved, **changed)
