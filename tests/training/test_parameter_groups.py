"""Rates and weight decay of each parameter, held against the reference and as a training uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from resumable_training import EPOCHS
from tiny_setup import TinySetup
from torch import nn

from uniformer_pose.errors import InputError
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.training.optimization import Optimization
from uniformer_pose.training.parameter_groups import ParameterGroups, table_of_rates

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "param_groups.json").read_text())
RATE, DECAY = 2e-3, 0.05
TINY: dict[str, Any] = {"depths": [1, 1, 2, 1], "embed_dims": [8, 8, 16, 16], "head_dim": 8}


def optimizer_of(network: nn.Module, **groups: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(ParameterGroups(**groups).of(network, RATE, DECAY), lr=RATE, weight_decay=0.3)


def found(network: nn.Module, optimizer: torch.optim.Optimizer, what: str) -> dict[str, float]:
    of_parameter = {id(p): group[what] for group in optimizer.param_groups for p in group["params"]}
    return {name: of_parameter[id(p)] for name, p in network.named_parameters() if id(p) in of_parameter}


@pytest.mark.parametrize("size", REFERENCE)
def test_every_parameter_of_uniformer_has_the_references_rate_and_decay(size: str) -> None:
    expected = REFERENCE[size]
    with torch.device("meta"):
        network = PoseNetwork(17, expected["depths"])
    optimizer = optimizer_of(network, decay_norms_and_biases=False, layer_decay=expected["layer_decay"])
    layers, scale = expected["layers"], expected["layer_decay"]
    scales, decays = found(network, optimizer, "lr_scale"), found(network, optimizer, "weight_decay")
    wanted = {name: scale ** (layers - 1 - layer) for name, (layer, _) in expected["per_parameter"].items()}
    assert scales == pytest.approx(wanted, rel=1e-12)
    assert found(network, optimizer, "lr") == pytest.approx({n: RATE * s for n, s in wanted.items()}, rel=1e-12)
    assert decays == {name: DECAY * is_decayed for name, (_, is_decayed) in expected["per_parameter"].items()}
    assert len(optimizer.param_groups) == expected["groups"]
    rows = [line.split(maxsplit=2) for line in table_of_rates(network, optimizer, RATE).splitlines()[1:]]
    table = sorted(expected["layer_table"], key=lambda row: row["id"])
    modules = [sorted(row["modules"]) for row in table]
    assert [sorted(names.split(", ")) for _, _, names in rows] == modules
    assert [float(share) for share, _, _ in rows] == pytest.approx([row["lr_scale"] for row in table], rel=1e-3)
    assert [float(rate) for _, rate, _ in rows] == pytest.approx([RATE * row["lr_scale"] for row in table], rel=1e-2)


@pytest.mark.parametrize(
    "relative", [{}, {"stem": "convolution"}, {"layer_scale": 1e-6}, {"layer_scale": 1e-6, "layer_scale_blocks": "all"}]
)
def test_no_part_of_any_backbone_counts_as_head_and_layer_scales_are_not_decayed(relative: dict[str, Any]) -> None:
    network = PoseNetwork(5, **TINY, **relative)
    optimizer = optimizer_of(network, decay_norms_and_biases=False, layer_decay=0.5)
    for name, scale in found(network, optimizer, "lr_scale").items():
        assert (scale == 1) == name.startswith("head."), name
    of_decay_alone = found(network, optimizer_of(network, decay_norms_and_biases=False), "weight_decay")
    assert found(network, optimizer, "weight_decay") == of_decay_alone
    undecayed = {name for name, decay in of_decay_alone.items() if decay == 0}
    assert undecayed == {n for n, p in network.named_parameters() if p.ndim == 1 or "gamma" in n}


def test_rates_by_layer_leave_the_decay_of_norms_and_biases_as_it_is() -> None:
    network = PoseNetwork(5, **TINY)
    assert set(found(network, optimizer_of(network, layer_decay=0.5), "weight_decay").values()) == {DECAY}


def test_what_is_frozen_is_in_no_group() -> None:
    network = PoseNetwork(5, **TINY, frozen_batchnorm=True)
    trainable = {name for name, p in network.named_parameters() if p.requires_grad}
    scales = found(network, optimizer_of(network, layer_decay=0.5, head_lr_scale=3.0), "lr_scale")
    assert scales.keys() == trainable != dict(network.named_parameters()).keys()


@pytest.mark.parametrize("layer_decay", [None, 0.5])
def test_the_head_has_a_rate_of_its_own_and_comes_last(layer_decay: float | None) -> None:
    network = PoseNetwork(5, **TINY)
    without = optimizer_of(network, layer_decay=layer_decay or 1.0)
    optimizer = optimizer_of(network, layer_decay=layer_decay, head_lr_scale=10.0)
    for name, scale in found(network, without, "lr_scale").items():
        factor = 10.0 if name.startswith("head.") else 1.0
        assert found(network, optimizer, "lr")[name] == pytest.approx(RATE * scale * factor, rel=1e-12), name
    assert {id(p) for p in optimizer.param_groups[-1]["params"]} <= {id(p) for p in network.head.parameters()}


class OneLayer(nn.Linear):
    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        return {"stem": "^backbone"}


@pytest.mark.parametrize(
    ("network", "groups", "words"),
    [
        (nn.Linear(1, 1), {"layer_decay": 0.75}, r"optimizer.layer_decay=0.75: Linear .*group_matcher\(coarse=False\)"),
        (OneLayer(1, 1), {"layer_decay": 0.75}, "optimizer.layer_decay=0.75: the group_matcher of OneLayer finds one"),
        (nn.Linear(1, 1), {"head_lr_scale": 2.0}, "optimizer.head_lr_scale=2.0: Linear has no part named head; "),
    ],
)
def test_a_network_that_does_not_say_its_parts_is_refused(
    network: nn.Module, groups: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words) as refused:
        optimizer_of(network, **groups)
    assert "\n" not in str(refused.value)


class Rates(pl.Callback):
    """Those of all groups at each step."""

    def __init__(self) -> None:
        self.of_steps: list[list[float]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.of_steps.append([group["lr"] for group in trainer.optimizers[0].param_groups])


def test_a_training_keeps_the_ratios_logs_three_rates_and_prints_the_table_once(
    tiny: TinySetup, caplog: pytest.LogCaptureFixture
) -> None:
    module, rates = tiny.module(learning_rate_per_256=0.256), Rates()
    plain = module.optimization
    assert plain is not None
    groups = ParameterGroups(layer_decay=0.5, head_lr_scale=2.0)
    module.optimization = Optimization(plain.optimizer, plain.lr_per_256, groups, plain.per_step, plain.per_epoch)
    trainer = tiny.trainer(max_epochs=EPOCHS, limit_val_batches=0, callbacks=[rates])
    with caplog.at_level("INFO"):
        trainer.fit(module, datamodule=tiny.data())
    layers = 4  # blocks, and before them the stem
    for of_step in rates.of_steps:
        assert [rate / of_step[-1] for rate in of_step[:-1]] == pytest.approx(
            [found_scale / 2 for found_scale in sorted(2.0 ** -(layers + 1 - n) for n in range(layers + 1))], rel=1e-12
        )
    assert rates.of_steps[0][-1] < rates.of_steps[-1][-1] == pytest.approx(0.002 * 2, rel=1e-12)  # a warm-up
    logged = {name: float(rate) for name, rate in trainer.callback_metrics.items() if "rate" in name}
    assert logged == pytest.approx(
        {
            "train/learning_rate": 0.002,
            "train/learning_rate_first_layer": 0.002 * 0.5**5,
            "train/learning_rate_head": 0.004,
        }
    )
    (table,) = [record.message for record in caplog.records if "share" in record.message]
    assert [line.split()[1:] for line in table.splitlines()][:3] == [
        ["rate", "modules"],
        ["6.25e-05", "backbone.patch_embed1"],
        ["0.000125", "backbone.blocks1"],
    ]
    assert table.splitlines()[-1].split() == ["2", "0.004", "head"]
