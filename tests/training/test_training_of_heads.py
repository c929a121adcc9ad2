"""Every head is trained by Lightning's trainer: evaluated with its flip test, resumed bit for bit, compiled whole."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compiled_training import trained as trained_twice
from resumable_training import differences, train
from tiny_setup import TinySetup

from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.keypoints.simcc_codec import SimCCCodec
from uniformer_pose.saved_model import SavedModel
from uniformer_pose.training.loss import AdaptiveWing, KeypointKL, KeypointOHKM, Loss

HEADS: dict[str, tuple[dict[str, Any], Loss]] = {
    "heatmap, hard keypoints": ({"visibility": True}, KeypointOHKM()),
    "heatmap, adaptive wing": ({}, AdaptiveWing()),
    "simcc": ({"kind": "simcc"}, KeypointKL(beta=10.0, target_softmax=True)),
    "simcc without deconvolutions": ({"kind": "simcc", "deconvolutions": False}, KeypointKL()),
    "rtmcc": ({"kind": "rtmcc", "visibility": True}, KeypointKL(beta=10.0, target_softmax=True)),
}


class HeadSetup(TinySetup):
    """A tiny setup with another head and what goes with it."""

    head: dict[str, Any]
    loss: Loss

    @classmethod
    def of(cls, tiny: TinySetup, name: str) -> HeadSetup:
        head, loss = HEADS[name]
        normalized = isinstance(loss, KeypointKL) and not loss.target_softmax
        codec = SimCCCodec(64, 64, normalized=normalized) if "kind" in head else HeatmapCodec(64, 64, sigma=1.5)
        made = cls(tiny.folder, tiny.skeleton, codec)  # type: ignore[arg-type]
        made.head, made.loss = head, loss
        return made

    def model(self, seed: int = 0, **network_settings: Any) -> SavedModel:
        return super().model(seed, head=self.head, crop_height=64, crop_width=64, **network_settings)

    def module(self, **settings: Any) -> Any:
        return super().module(**({"loss": self.loss} | settings))


@pytest.mark.parametrize("name", HEADS)
def test_a_training_stopped_and_resumed_is_bit_for_bit_the_one_that_was_not(
    tiny: TinySetup, tmp_path: Path, name: str
) -> None:
    setup = HeadSetup.of(tiny, name)
    setup.write_people((1, 2, 1))
    train(setup, tmp_path / "straight", epochs=2)
    train(setup, tmp_path / "run", epochs=1)
    train(setup, tmp_path / "run", epochs=2)
    assert differences(tmp_path / "run", tmp_path / "straight") == []


@pytest.mark.parametrize("name", HEADS)
def test_a_few_steps_on_the_same_people_make_the_loss_smaller_and_the_flip_test_scores_them(
    tiny: TinySetup, name: str
) -> None:
    setup = HeadSetup.of(tiny, name)
    setup.write_people((1, 2, 1))
    module = setup.module(
        protocol=EvaluationProtocol(flip_test=True), optimizer=torch.optim.Adam, learning_rate_per_256=0.05
    )
    trainer = setup.trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(module, datamodule=setup.data())
    before = float(trainer.callback_metrics["train/loss"])
    trainer = setup.trainer(max_epochs=12)
    trainer.fit(module, datamodule=setup.data())
    assert float(trainer.callback_metrics["train/loss"]) < before
    assert 0 <= float(trainer.callback_metrics["val/AP"]) <= 1
    assert np.isfinite(module.metric.predictions.keypoints_in_image).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_the_compiled_step_is_one_graph_with_the_plain_numbers(
    tiny: TinySetup, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    setup = HeadSetup.of(tiny, name)
    setup.write_people([1] * 4)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    plain, compiled = (trained_twice(setup, compiled=choice, network={}) for choice in (False, True))
    assert (compiled["graphs"], compiled["breaks"]) == (1, 0)
    assert compiled["losses"] == pytest.approx(plain["losses"], rel=1e-4)
    torch._dynamo.reset()
