"""A folded network gives the heatmaps of the one it was made of, which stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from uniformer_pose.model.folding import folded
from uniformer_pose.model.network import PoseNetwork

TINY: dict[str, Any] = {
    "num_keypoints": 5,
    "depths": [1, 1, 2, 1],
    "embed_dims": [8, 8, 16, 16],
    "head_dim": 8,
    "deconv_channels": [8, 8, 8],
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "convolution stem": {"stem": "convolution"},
    "layer scale": {"layer_scale": 0.5, "layer_scale_blocks": "all"},
    "windows": {"stage3_attention": "hybrid", "window_size": 3},
    "checkpointed blocks": {"checkpointed_blocks": [1, 1, 2, 1]},
}


def trained_like(**arguments: Any) -> PoseNetwork:
    """A network whose norms and scales are far from their initial values, as after training."""
    torch.manual_seed(0)
    network = PoseNetwork(**(TINY | arguments)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1 or min(parameter.shape) == 1:
                parameter.uniform_(0.5, 1.5)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.2, 3.0)
        for parameter in network.head.parameters():
            if parameter.ndim == 4:
                nn.init.normal_(parameter, std=0.3)
    return network


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_heatmaps_are_those_of_the_network(variant: str) -> None:
    network = trained_like(**VARIANTS[variant])
    images = torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        expected = network(images)
        found = folded(network)(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=2e-5 * float(expected.abs().max()), rtol=0)


def test_no_batchnorm_and_no_layer_scale_is_left() -> None:
    network = folded(trained_like(layer_scale=0.5, layer_scale_blocks="all", stem="convolution"))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert not any("gamma" in name for name, _ in network.named_parameters())


def test_the_network_itself_is_not_touched() -> None:
    network = trained_like(layer_scale=0.5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trainable = [parameter.requires_grad for parameter in network.parameters()]
    folded(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [parameter.requires_grad for parameter in network.parameters()] == trainable


def test_a_batchnorm_without_running_statistics_is_refused() -> None:
    network = trained_like()
    norm = network.backbone.blocks1[0].norm1
    norm.running_mean = norm.running_var = None
    with pytest.raises(ValueError, match="cannot be folded"):
        folded(network)
