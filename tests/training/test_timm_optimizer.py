"""timm's optimizers: each that is there goes on bit for bit from its file, and what does not suit is refused."""

from __future__ import annotations

import io
from functools import partial
from typing import Any

import pytest
import torch
from timm.optim import get_optimizer_info, list_optimizers
from torch import nn

from uniformer_pose.errors import InputError
from uniformer_pose.training.optimization import Optimization
from uniformer_pose.training.parameter_groups import ParameterGroups
from uniformer_pose.training.timm_optimizer import timm_optimizer

SCHEDULER = {"per_step": None, "per_epoch": None}
OF_TORCH_OR_TIMM = [name for name in list_optimizers() if callable(get_optimizer_info(name).opt_class)]
USABLE = [name for name in OF_TORCH_OR_TIMM if name != "adahessian"]
RATE = 1e-2


def of_config(opt: str, **arguments: Any) -> Optimization:
    target = f"{timm_optimizer.__module__}.timm_optimizer"
    config = {"_target_": target, "opt": opt, "weight_decay": 0.05, "decay_norms_and_biases": False}
    return Optimization.of_config(config | arguments, SCHEDULER)


def small_network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten())
    return network.append(nn.Linear(16, 5))


def step(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    images = torch.randn(6, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    network(images).square().sum().backward()
    optimizer.step()


def resumed_equals_straight(name: str) -> bool:
    """Whether three steps, a file, and three steps in another state of torch's generator are six steps."""
    optimization, straight, resumed = of_config(name), small_network(), small_network()
    optimizer = optimization.make(straight, RATE)
    for number in range(3):
        step(straight, optimizer, number)
    file = io.BytesIO()
    torch.save({"network": straight.state_dict(), "optimizer": optimizer.state_dict()}, file)
    for number in range(3, 6):
        step(straight, optimizer, number)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = optimization.make(resumed, RATE)
    torch.manual_seed(99)
    resumed.load_state_dict(saved["network"])
    again.load_state_dict(saved["optimizer"])
    optimization.take_up(resumed, again, [], rate=RATE, epoch=0, step=3)
    for number in range(3, 6):
        step(resumed, again, number)
    same = [torch.equal(one, other) for one, other in zip(straight.parameters(), resumed.parameters(), strict=True)]
    moved = [not torch.equal(one, other) for one, other in zip(straight.parameters(), small_network().parameters())]  # noqa: B905
    return all(same) and all(moved) and all(bool(p.isfinite().all()) for p in straight.parameters())


@pytest.mark.parametrize("name", USABLE)
def test_every_one_is_resumed_bit_for_bit(name: str) -> None:
    with torch.compiler.set_stance("force_eager"):  # Kron compiles itself, which takes minutes
        assert resumed_equals_straight(name)


def test_its_groups_are_ours() -> None:
    optimization = of_config("lion", layer_decay=0.5)
    network = small_network()
    network.group_matcher = lambda coarse: {"stem": r"^0\.", "blocks": r"^[12]\."}
    optimizer = optimization.make(network, RATE)
    assert isinstance(optimizer, type(timm_optimizer([nn.Parameter(torch.zeros(1))], "lion", 1.0)))
    shares = [(round(group["lr"] / RATE, 12), group["weight_decay"]) for group in optimizer.param_groups]
    assert shares == [(0.25, 0.05), (0.25, 0.0), (0.5, 0.0), (0.5, 0.05), (1.0, 0.05), (1.0, 0.0)]


@pytest.mark.parametrize(
    ("opt", "arguments", "words"),
    [
        ("adahessian", {}, "optimizer.opt=adahessian: needs second derivatives"),
        ("lookahead_adamw", {}, "optimizer.opt=lookahead_adamw: .*cannot be resumed; give opt=adamw"),
        ("muoon", {}, "optimizer.opt=muoon: timm has no such optimizer; did you mean muon?"),
        ("lion", {"beta": [0.9, 0.9]}, r"optimizer\.beta: lion has no such argument; did you mean betas\?"),
        ("sgd", {"betas": [0.9, 0.9]}, r"optimizer\.betas: sgd has no such argument; "),
        ("adamw", {"filter_bias_and_bn": True}, r"optimizer\.filter_bias_and_bn: adamw has no such argument"),
        ("adamw", {"betas": [0.9, 1.5]}, "optimizer: ValueError: Invalid beta"),
        ("bnbadam8bit", {}, "optimizer: .*bitsandbytes"),
    ],
)
def test_what_does_not_suit_is_refused_before_any_work(opt: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        of_config(opt, **arguments)
    assert "\n" not in str(refused.value)


def test_what_torch_refuses_of_its_own_optimizers_is_named_too() -> None:
    with pytest.raises(InputError, match=r"^optimizer: RuntimeError: .fused. and .foreach. cannot be"):
        Optimization.of_config({"_target_": "torch.optim.AdamW", "fused": True, "foreach": True}, SCHEDULER)


def test_groups_of_ones_own_are_built_with_the_optimizers_own_decay() -> None:
    made = Optimization(partial(timm_optimizer, opt="lion"), groups=ParameterGroups(decay_norms_and_biases=False))
    assert {group["weight_decay"] for group in made.make(small_network(), RATE).param_groups} == {0.0}
