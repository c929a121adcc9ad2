from functools import partial
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint

from programs import composed
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.training.ema import AveragedWeights
from uniformer_pose.training.pose_module import PoseModule
from uniformer_pose.weights.loading import load_model

FLIP = EvaluationProtocol(flip_test=True, nms_mode="none")


class Journal(pl.Callback):
    """The weights after each step; a score that is best after the first epoch."""

    def __init__(self):
        self.weights = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.weights.append(pl_module.network.head.final_layer.weight.detach().clone().double())

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("val/score", float(-trainer.current_epoch))


@pytest.fixture
def trained(tiny):
    """Two epochs of three steps, the first of them the best."""
    torch.manual_seed(0)
    journal, folder = Journal(), tiny.folder / "checkpoints"
    best = ModelCheckpoint(folder, filename="best", monitor="val/score", mode="max")
    last = ModelCheckpoint(folder, filename="last", save_on_train_epoch_end=True)
    trainer = tiny.trainer(max_epochs=2, callbacks=[AveragedWeights(decay=0.9999), journal, best, last])
    trainer.fit(tiny.module(protocol=FLIP), datamodule=tiny.data())
    return trainer, journal


def evaluated_alone(tiny, file):
    """As ``src/eval.py`` does it: nothing but the file."""
    module = PoseModule(load_model(file)[0], FLIP)
    tiny.trainer().validate(module, datamodule=tiny.data(), verbose=False)
    return module.evaluation.predictions


def test_the_average_spans_a_ninth_of_the_steps_taken_whatever_the_decay(tiny, trained):
    _, journal = trained
    expected = journal.weights[0]
    for updates, weights in enumerate(journal.weights[1:], start=1):
        decay = (1 + updates) / (10 + updates)
        expected = decay * expected + (1 - decay) * weights

    contents = torch.load(tiny.folder / "checkpoints" / "last.ckpt", weights_only=True)
    averaged = contents["state_dict"]["network.head.final_layer.weight"].double()
    assert len(journal.weights) == 6
    assert (averaged - expected).abs().max() < 1e-6
    assert (averaged - journal.weights[-1]).abs().max() > 1e-4


class OneNumber(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.number = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))


def test_ema_rtmpose_begins_as_rtmposes():
    """The number is t + 1 at update t; expected is what MMEngine's average of it is."""
    module, average = OneNumber(), instantiate(composed("train", "callbacks=ema_rtmpose").callbacks.ema)
    average.setup(None, module, "fit")
    average.on_train_start(None, module)
    expected = {0: 1.0, 1: 1.99900070, 99: 99.94876660, 999: 999.35202623, 4999: 4988.91153631}
    for update in range(5000):
        module.number.data.fill_(update + 1)
        average.on_train_batch_end(SimpleNamespace(global_step=update + 1))
        if update in expected:
            averaged = average._average_model.module.number.item()
            assert averaged == pytest.approx(expected[update], abs=1e-8), update


def test_whole_numbers_are_not_averaged(tiny, trained):
    contents = torch.load(tiny.folder / "checkpoints" / "last.ckpt", weights_only=True)
    whole = {name: t for name, t in contents["state_dict"].items() if not t.is_floating_point()}
    assert whole
    assert all(torch.equal(tensor, contents["current_model_state"][name]) for name, tensor in whole.items())
    assert {int(tensor) for tensor in whole.values()} == {6}
    assert all(buffer.is_floating_point() or buffer.ndim == 0 for buffer in trained[0].lightning_module.buffers())


def test_training_and_a_separate_evaluation_of_its_file_agree_to_the_last_digit(tiny, trained):
    trainer, _ = trained
    module = trainer.lightning_module
    in_training = module.evaluation.predictions
    alone = evaluated_alone(tiny, tiny.folder / "checkpoints" / "last.ckpt")
    np.testing.assert_array_equal(in_training.keypoints_in_image, alone.keypoints_in_image)
    np.testing.assert_array_equal(in_training.keypoint_scores, alone.keypoint_scores)

    best = tiny.folder / "checkpoints" / "best.ckpt"
    trainer.validate(module, datamodule=trainer.datamodule, ckpt_path=best, weights_only=True, verbose=False)
    alone = evaluated_alone(tiny, best)
    np.testing.assert_array_equal(module.evaluation.predictions.keypoint_scores, alone.keypoint_scores)
    assert not np.array_equal(in_training.keypoint_scores, alone.keypoint_scores)


def test_a_second_training_with_the_same_callback_has_an_average_of_its_own(tiny):
    callback = AveragedWeights()
    for _ in range(2):
        module = tiny.module()
        tiny.trainer(callbacks=[callback], limit_val_batches=0).fit(module, datamodule=tiny.data())
        assert callback._latest_update_step == 3


def test_a_training_that_goes_on_without_averages_goes_on_with_the_weights_behind_them(tiny, trained):
    _, journal = trained
    unchanged = Journal()
    optimizer = partial(torch.optim.SGD, weight_decay=0.0)
    trainer = tiny.trainer(max_epochs=3, limit_val_batches=0, callbacks=[unchanged])
    checkpoint = torch.load(tiny.folder / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint["optimizer_states"][0]["state"] = {}
    torch.save(checkpoint, tiny.folder / "sgd.ckpt")
    module = tiny.module(optimizer=optimizer, learning_rate_per_256=1e-30)
    trainer.fit(module, datamodule=tiny.data(), ckpt_path=tiny.folder / "sgd.ckpt", weights_only=True)
    assert torch.equal(unchanged.weights[-1], journal.weights[-1])
