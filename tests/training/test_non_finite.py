import subprocess
import sys
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from uniformer_pose.errors import DivergedError, InputError
from uniformer_pose.training.non_finite import NonFiniteGuard, batch_file, gradients_not_finite
from uniformer_pose.training.replay import replay_dump
from uniformer_pose.weights.loading import load_model


class Spoil(pl.Callback):
    """Makes the gradients or the loss of some optimizer steps bad; keeps what the model was before each step."""

    def __init__(self, steps, what="gradient", value=float("nan"), batch_index=None):
        self.steps, self.what, self.value, self.batch_index = set(steps), what, value, batch_index
        self.before, self.people, self.sound_mean = {}, {}, None

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        step = trainer.global_step
        self.before.setdefault(step, {name: t.clone() for name, t in module.network.state_dict().items()})
        self.people.setdefault(step, []).append(batch["instance_index"].tolist())
        bad = step in self.steps and self.what == "input" and self.batch_index in (None, batch_index)
        self.sound_mean = module.normalize.mean.clone() if self.sound_mean is None else self.sound_mean
        module.normalize.mean.copy_(torch.full_like(self.sound_mean, self.value) if bad else self.sound_mean)

    def on_after_backward(self, trainer, module):
        if trainer.global_step in self.steps and self.what == "gradient":
            module.network.head.final_layer.bias.grad[3] = self.value


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first if not name.endswith("num_batches_tracked"))


def fit(tiny, spoil, optimizer=torch.optim.AdamW, trainer=None, **settings):
    module = tiny.module(optimizer=optimizer, warmup_steps=0, **settings)
    trainer = tiny.trainer(limit_val_batches=0, callbacks=[spoil], max_epochs=2, **(trainer or {}))
    trainer.fit(module, datamodule=tiny.data())
    return module, trainer


# ------------------------------------------------------------------------------------------------------- stopping


FUSED = partial(torch.optim.AdamW, fused=True)


@pytest.mark.parametrize(("what", "optimizer"), [("input", torch.optim.AdamW), ("gradient", FUSED)])
def test_a_bad_step_stops_before_the_update_with_weights_and_averages_of_the_step_before(tiny, what, optimizer):
    spoil = Spoil([4], what)
    module = tiny.module(optimizer=optimizer, warmup_steps=0)

    with pytest.raises(
        DivergedError, match=r"became NaN or infinite in epoch 1 at step 4; the weights are those before"
    ):
        tiny.trainer(limit_val_batches=0, callbacks=[spoil], max_epochs=2).fit(module, datamodule=tiny.data())

    assert same(module.network.state_dict(), spoil.before[4])
    assert not same(module.network.state_dict(), spoil.before[3])


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_where_the_host_hears_of_a_step_one_later_the_model_is_spared_all_the_same(tiny, monkeypatch, policy):
    monkeypatch.setattr("uniformer_pose.training.non_finite._known_at_once", lambda bad: False)
    spoil = Spoil([2], "input")
    module = tiny.module(optimizer=FUSED, warmup_steps=0, on_non_finite=policy)
    trainer = tiny.trainer(limit_val_batches=0, callbacks=[spoil], max_epochs=2)

    if policy == "stop":
        with pytest.raises(DivergedError, match="in epoch 0 at step 2"):
            trainer.fit(module, datamodule=tiny.data())
        assert same(module.network.state_dict(), spoil.before[2])
    else:
        trainer.fit(module, datamodule=tiny.data())
        assert same(spoil.before[3], spoil.before[2])
        assert not same(spoil.before[4], spoil.before[3])
        assert module.guard.skipped == 1


def test_the_dump_holds_the_batch_its_people_and_the_weights_as_plain_data(tiny):
    spoil = Spoil([1])
    with pytest.raises(DivergedError, match=r"python src/replay.py dump=.*step_1 shows where"):
        fit(tiny, spoil)

    folder = tiny.folder / "non_finite" / "step_1"
    dumped = torch.load(folder / batch_file(0), weights_only=True)
    assert (dumped["epoch"], dumped["step"], dumped["processes"]) == (0, 1, 1)
    assert dumped["batches"][0]["instance_index"].tolist() == spoil.people[1][0]
    people = tiny.data()
    people.setup("fit")
    assert [entry["annotation"] for entry in dumped["people"][0]] == [
        int(people.train_people.instance_ids[index]) for index in spoil.people[1][0]
    ]
    assert all(entry["file"].endswith(".png") for entry in dumped["people"][0])
    assert dumped["finite_losses"] == [True]
    assert same(load_model(folder / "model.ckpt")[0].network.state_dict(), spoil.before[1])


def test_a_bad_batch_among_accumulated_ones_is_told_from_the_good_ones(tiny):
    with pytest.raises(DivergedError, match="at step 0"):
        fit(tiny, Spoil([0], "input", batch_index=1), trainer={"accumulate_grad_batches": 3})

    dumped = torch.load(tiny.folder / "non_finite" / "step_0" / batch_file(0), weights_only=True)
    assert dumped["finite_losses"] == [True, False, True]


def test_a_dump_that_does_not_fit_on_the_disk_does_not_hide_what_happened(tiny):
    (tiny.folder / "non_finite").write_text("in the way")

    with pytest.raises(DivergedError, match=r"its batch could not be written to .*; try precision=fp32"):
        fit(tiny, Spoil([1]))


# ------------------------------------------------------------------------------------------------------- skipping


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, FUSED])
def test_a_skipped_step_changes_nothing_and_training_goes_on(tiny, optimizer):
    spoil = Spoil([1, 3], "input")
    with pytest.warns(UserWarning, match="step 3; the weights are those before it; skipped, 2 of at most 5"):
        module, trainer = fit(tiny, spoil, optimizer, on_non_finite="skip", most_skipped_steps=5)

    assert trainer.global_step == 6
    assert same(spoil.before[2], spoil.before[1])
    assert same(spoil.before[4], spoil.before[3])
    assert not same(spoil.before[3], spoil.before[2])
    assert all(tensor.isfinite().all() for tensor in module.network.state_dict().values())
    moments = module.trainer.optimizers[0].state_dict()["state"][0]
    assert float(moments["step"]) == 4


def test_one_skipped_step_too_many_ends_the_training(tiny):
    with pytest.raises(DivergedError, match=r"at step 2; .* \(skipped 2 before, training.most_skipped_steps=2\)"):
        fit(tiny, Spoil([0, 1, 2, 3]), on_non_finite="skip", most_skipped_steps=2)


def test_a_resumed_training_goes_on_counting(tiny):
    _module, trainer = fit(tiny, Spoil([1, 2]), on_non_finite="skip")
    trainer.save_checkpoint(tiny.folder / "half.ckpt")
    module = tiny.module(on_non_finite="skip", most_skipped_steps=2)

    with pytest.raises(DivergedError, match="skipped 2 before"):
        tiny.trainer(limit_val_batches=0, callbacks=[Spoil([7])], max_epochs=3).fit(
            module, datamodule=tiny.data(), ckpt_path=tiny.folder / "half.ckpt", weights_only=True
        )


@pytest.mark.parametrize("settings", [("retry", 1), ("skip", -1)])
def test_other_policies_and_limits_are_refused(settings):
    with pytest.raises(InputError, match=r"training.(on_non_finite|most_skipped_steps)="):
        NonFiniteGuard(*settings)


# ----------------------------------------------------------------------------------------------------- finding out


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_number_among_many_gradients_is_found(value):
    gradients = [torch.zeros(3, 5), None, torch.ones(7)]
    gradients[2][4] = value

    assert gradients_not_finite(gradients) == 1


def test_finite_gradients_whose_squares_are_infinite_are_no_reason_to_stop():
    assert gradients_not_finite([torch.full((9,), 3e38), torch.zeros(2)]) == 0


def test_without_gradients_nothing_is_wrong():
    assert gradients_not_finite([None, None]) == 0


def test_an_infinite_loss_with_finite_gradients_is_noticed():
    guard = NonFiniteGuard("stop", 0)
    weight = torch.ones((), requires_grad=True)

    guard.guarded(weight + torch.inf).backward()

    assert gradients_not_finite([weight.grad]) == 1


def test_a_finite_loss_and_its_gradients_are_left_as_they_are_to_the_last_bit():
    guard = NonFiniteGuard("stop", 0)
    weight = torch.tensor(0.1234567, requires_grad=True)
    loss = weight.square()

    guarded = guard.guarded(loss)
    guarded.backward()

    assert torch.equal(guarded, loss)
    assert torch.equal(weight.grad, 2 * weight.detach())


# ------------------------------------------------------------------------------------------------------ fp16 scale


class Scaler:
    """Stands in for a loss scaler, which needs a GPU."""

    def __init__(self, scale):
        self.scale = scale

    def get_scale(self):
        return self.scale


def test_fp16_steps_that_the_loss_scaler_skips_are_counted_and_a_scale_below_one_ends_the_training(tiny, monkeypatch):
    told = []
    monkeypatch.setattr("uniformer_pose.training.non_finite.rank_zero_info", told.append)
    scaler = Scaler(32768.0)

    class UsesScaler(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_index):
            trainer.precision_plugin.scaler = scaler
            scaler.scale = 0.5 if trainer.global_step == 4 else 32768.0

    class Skipped(torch.optim.SGD):
        def step(self, closure):
            return closure()

    module = tiny.module(optimizer=Skipped, warmup_steps=0)
    with pytest.raises(
        DivergedError, match=r"loss scale 0.5: gradients that are not finite at any scale; python src/re"
    ):
        tiny.trainer(limit_val_batches=0, callbacks=[Spoil([1, 4]), UsesScaler()], max_epochs=2).fit(
            module, datamodule=tiny.data()
        )

    assert told == ["fp16: 1 of the last steps overflowed and were skipped (1 so far), loss scale 32768"]


# --------------------------------------------------------------------------------------------------------- replay


def test_a_replay_names_the_layer_where_a_weight_overflows_and_the_people_of_the_batch(tiny):
    model = tiny.model()
    block = dict(model.network.named_modules())["backbone.blocks3.0.attn.qkv"]
    with torch.no_grad():
        block.weight.fill_(3e38)
    spoil = Spoil([])
    with pytest.raises(DivergedError, match="at step 0"):
        fit(tiny, spoil, model=model)

    lines = list(replay_dump(tiny.folder / "non_finite" / "step_0"))

    assert lines[0] == "epoch 0, step 0: 2 people"
    assert lines[1] == "in fp32: loss nan"
    assert lines[2].startswith("first not finite, forward: the output of backbone.blocks3.0.attn.qkv (Linear), ")
    assert lines[3].startswith("  person 0: annotation ")
    assert any(line.endswith("backbone.blocks3.0.norm1 (LayerNorm)") for line in lines)


def test_a_step_that_went_bad_in_fp16_alone_is_said_to_be_sound_in_fp32(tiny):
    model = tiny.model()
    with torch.no_grad():  # beyond fp16's 65504, nothing to fp32
        model.network.head.final_layer.weight.fill_(6e4)
    with pytest.raises(DivergedError):
        fit(tiny, Spoil([0]), model=model)
    file = tiny.folder / "non_finite" / "step_0" / batch_file(0)
    step = torch.load(file, weights_only=True)
    torch.save({**step, "precision": "16-mixed"}, file)

    lines = list(replay_dump(file.parent))

    assert lines[2].startswith("first not finite, forward: the output of head.final_layer (Conv2d)")
    assert lines[-1].startswith("in fp32: loss ")
    assert lines[-1].endswith(
        "all finite: the range of the reduced precision was exceeded; train with precision=bf16 or fp32"
    )


def test_a_replay_of_a_batch_that_is_sound_says_so(tiny):
    with pytest.raises(DivergedError):
        fit(tiny, Spoil([2]))

    lines = list(replay_dump(tiny.folder / "non_finite" / "step_2"))

    assert lines[-1].startswith("all outputs and gradients are finite this time")


def test_a_replay_draws_the_random_numbers_of_the_step(tiny):
    model = tiny.model(drop_path_rate=0.5)

    losses = []

    class KeepLoss(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
            losses.append(float(outputs["loss"]))

    spoil = Spoil([3])
    module = tiny.module(model=model, warmup_steps=0, on_non_finite="skip")
    tiny.trainer(limit_val_batches=0, callbacks=[spoil, KeepLoss()], max_epochs=2).fit(module, datamodule=tiny.data())

    lines = list(replay_dump(tiny.folder / "non_finite" / "step_3"))

    assert lines[1] == f"in fp32: loss {losses[3]:.4g}"


def test_a_folder_without_a_dump_and_a_process_that_was_not_there_are_refused(tiny):
    with pytest.raises(InputError, match="no dump of a step; give the folder"):
        list(replay_dump(tiny.folder))
    with pytest.raises(DivergedError):
        fit(tiny, Spoil([0]))
    with pytest.raises(InputError, match="process=3: there are 0"):
        list(replay_dump(tiny.folder / "non_finite" / "step_0", process=3))


# ------------------------------------------------------------------------------------------------- two processes


@pytest.mark.slow
def test_a_bad_batch_on_one_process_is_kept_from_the_weights_of_both(tiny):
    script = Path(__file__).with_name("diverging_training.py")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    finished = subprocess.run(
        [*launcher, str(script), str(tiny.folder)], capture_output=True, text=True, timeout=200, check=False
    )
    assert finished.returncode == 0, finished.stderr

    for policy in ("skip", "stop"):
        first, second = (torch.load(tiny.folder / f"{policy}_{rank}.pt", weights_only=True) for rank in range(2))
        assert torch.equal(first["weights"], second["weights"])
        assert first["weights"].isfinite().all()
        assert (first["skipped"], second["skipped"]) == (1, 1)
        finished_all = [outcome["outcome"] == "finished" for outcome in (first, second)]
        assert finished_all == [policy == "skip"] * 2
        dump = tiny.folder / policy / "non_finite" / "step_1"
        dumped = [torch.load(dump / batch_file(rank), weights_only=True) for rank in range(2)]
        assert [entry["finite_losses"] for entry in dumped] == [[True], [False]]
