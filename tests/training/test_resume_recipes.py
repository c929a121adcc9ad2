"""A stopped training comes to the same weights with each recipe that has a state of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from resumable_training import PEOPLE_PER_IMAGE, StopAt, differences, log_of, train
from tiny_setup import TinySetup
from torch.optim.lr_scheduler import LinearLR

from uniformer_pose.training.cosine import FlatCosine
from uniformer_pose.training.ema import AveragedWeights
from uniformer_pose.training.optimization import Optimization
from uniformer_pose.training.parameter_groups import ParameterGroups
from uniformer_pose.training.timm_optimizer import timm_optimizer

WARMUP = partial(LinearLR, start_factor=0.001, total_iters=3)
COSINE = {"warmup": WARMUP, "cosine": FlatCosine}
FLAT_COSINE = {"warmup": WARMUP, "cosine": partial(FlatCosine, flat=0.5, final=0.05)}
LAYERS = ParameterGroups(decay_norms_and_biases=False, layer_decay=0.7, head_lr_scale=2.0)
RECIPES = {
    "layer decay, cosine": Optimization(torch.optim.AdamW, 0.1, LAYERS, COSINE),
    "muon, layer decay, flat cosine": Optimization(partial(timm_optimizer, opt="muon"), 0.1, LAYERS, FLAT_COSINE),
    "lion, flat cosine": Optimization(partial(timm_optimizer, opt="lion"), 0.02, per_step=FLAT_COSINE),
}


@pytest.mark.parametrize(
    "recipe", [next(iter(RECIPES)), *(pytest.param(name, marks=pytest.mark.slow) for name in [*RECIPES][1:])]
)
def test_stopped_and_resumed_is_the_training_that_was_not(tiny: TinySetup, tmp_path: Path, recipe: str) -> None:
    tiny.write_people(PEOPLE_PER_IMAGE)
    settings: dict[str, Any] = {"optimization": RECIPES[recipe]}
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    for folder in (straight, stopped):
        folder.mkdir()

    def average() -> AveragedWeights:
        return AveragedWeights(decay=0.9, gamma=5.0)

    train(tiny, straight, average(), averaged=False, **settings)
    for step in (3, 8):  # in the warm-up, and where the rate falls
        with pytest.raises(SystemExit):
            train(tiny, stopped, average(), StopAt(step), averaged=False, **settings)
    train(tiny, stopped, average(), averaged=False, **settings)
    assert differences(stopped, straight) == []
    assert log_of(stopped) == log_of(straight)
