from functools import partial

import lightning.pytorch as pl
import pytest
import torch

from uniformer_pose.errors import DivergedError
from uniformer_pose.training.non_finite import gradients_not_finite

FUSED, UNFUSED = torch.optim.AdamW, partial(torch.optim.AdamW, fused=False)


class Spoil(pl.Callback):
    """Makes one optimizer step bad; keeps the weights and the people of each step."""

    def __init__(self, step, what="gradient", value=float("nan"), batch_index=None):
        self.step, self.what, self.value, self.batch_index = step, what, value, batch_index
        self.before, self.people, self.sound_mean = {}, {}, None

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        step = trainer.global_step
        self.before.setdefault(step, {name: weight.clone() for name, weight in module.network.named_parameters()})
        self.people.setdefault(step, []).append(batch["instance_index"].tolist())
        bad = step == self.step and self.what == "input" and self.batch_index in (None, batch_index)
        self.sound_mean = module.normalize.mean.clone() if self.sound_mean is None else self.sound_mean
        module.normalize.mean.copy_(torch.full_like(self.sound_mean, self.value) if bad else self.sound_mean)

    def on_after_backward(self, trainer, module):
        if trainer.global_step == self.step and self.what == "gradient":
            module.network.head.final_layer.bias.grad[3] = self.value


def stopped(tiny, spoil, optimizer=torch.optim.AdamW, **settings):
    """The module of a training that ends with DivergedError, and its message."""
    module = tiny.module(optimizer=optimizer, warmup_steps=0)
    trainer = tiny.trainer(limit_val_batches=0, callbacks=[spoil], max_epochs=2, **settings)
    with pytest.raises(DivergedError) as raised:
        trainer.fit(module, datamodule=tiny.data())
    return module, str(raised.value)


def same(module, before):
    return all(torch.equal(weight, before[name]) for name, weight in module.network.named_parameters())


@pytest.mark.parametrize(
    ("what", "value", "optimizer"),  # a fused optimizer is told on the device, and the host a step later
    [("input", float("nan"), torch.optim.SGD), ("gradient", float("nan"), FUSED), ("gradient", -torch.inf, UNFUSED)],
)
def test_a_bad_step_stops_before_the_update_and_names_step_files_and_annotations(tiny, what, value, optimizer):
    spoil = Spoil(4, what, value)
    module, message = stopped(tiny, spoil, optimizer)

    assert "in epoch 1 at step 4" in message
    assert "trainer.detect_anomaly=true" in message
    data = tiny.data()
    data.setup("fit")
    people = data.train_people
    for index in spoil.people[4][0]:
        file = people.file_names[people.image_of_instance[index]]
        assert f"{file} (annotation {people.instance_ids[index]})" in message
    assert same(module, spoil.before[4])
    assert not same(module, spoil.before[3])


def test_no_checkpoint_counts_a_step_that_was_left_out(tiny):
    saved = pl.callbacks.ModelCheckpoint(tiny.folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = tiny.trainer(limit_val_batches=0, callbacks=[Spoil(1), saved])
    with pytest.raises(DivergedError, match="at step 1"):
        trainer.fit(tiny.module(optimizer=FUSED, warmup_steps=0), datamodule=tiny.data())
    assert [file.name for file in tiny.folder.glob("*.ckpt")] == ["step=1.ckpt"]


def test_of_accumulated_batches_the_bad_one_is_named(tiny):
    spoil = Spoil(0, "input", batch_index=1)
    _, message = stopped(tiny, spoil, accumulate_grad_batches=3)

    assert message.count("(annotation") == 2  # a batch of two
    assert all(f"(annotation {index + 1})" in message for index in spoil.people[0][1])


def test_an_infinite_loss_with_finite_gradients_is_noticed(tiny, monkeypatch):
    class Infinite(Spoil):
        def on_before_backward(self, trainer, module, loss):
            if trainer.global_step == 1:
                loss.data.fill_(torch.inf)

    assert "at step 1" in stopped(tiny, Infinite(step=None))[1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_number_among_many_gradients_is_found(value):
    gradients = [torch.zeros(3, 5), None, torch.ones(7)]
    gradients[2][4] = value

    assert gradients_not_finite(gradients) == 1


def test_finite_gradients_are_no_reason_to_stop():
    assert gradients_not_finite([torch.full((9,), 1e15), torch.zeros(2)]) == 0
    assert gradients_not_finite([None, None]) == 0


def test_fp16_ends_only_once_the_loss_scale_has_fallen_below_one(tiny):
    class Scaler:
        """Stands in for a loss scaler, which needs a GPU."""

        def get_scale(self):
            return self.scale

    class UsesScaler(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_index):
            trainer.precision_plugin.scaler = scaler
            scaler.scale = 0.5 if trainer.global_step == 4 else 32768.0

    class Skipped(torch.optim.SGD):
        def step(self, closure):
            return closure()

    scaler = Scaler()
    module = tiny.module(optimizer=Skipped, warmup_steps=0)
    with pytest.raises(DivergedError, match=r"fp16: .* in epoch 1 at step 4"):
        tiny.trainer(limit_val_batches=0, callbacks=[Spoil(1), UsesScaler()], max_epochs=2).fit(
            module, datamodule=tiny.data()
        )
