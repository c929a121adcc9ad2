from __future__ import annotations

import pytest
import torch
from torch import nn

from uniformer_pose.errors import InputError
from uniformer_pose.model.heatmap_head import HeatmapHead


def test_heatmaps_have_eight_times_the_features_height_and_width() -> None:
    assert HeatmapHead(12, 5, [8, 6, 4])(torch.randn(2, 12, 3, 2)).shape == (2, 5, 24, 16)


def test_every_parameter_receives_a_gradient() -> None:
    torch.manual_seed(0)
    head = HeatmapHead(12, 5, [8, 6, 4])
    head(torch.randn(4, 12, 3, 2)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_convolutions_start_at_a_thousandth_and_norms_at_the_identity() -> None:
    torch.manual_seed(0)
    head = HeatmapHead(64, 17, [32, 32, 32])
    for module in head.modules():
        if isinstance(module, (nn.ConvTranspose2d, nn.Conv2d)):
            assert float(module.weight.detach().std()) == pytest.approx(0.001, rel=0.1)
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones(32))
            assert not module.bias.any()
    assert not head.final_layer.bias.any()


@pytest.mark.parametrize("deconv_channels", [[64, 64], [64, 64, 64, 64], [64, 0, 64]])
def test_other_than_three_deconvolutions_are_refused(deconv_channels: list[int]) -> None:
    with pytest.raises(InputError, match=r"deconv_channels=.*give 3 whole numbers, each at least 1"):
        HeatmapHead(64, 17, deconv_channels)


def test_no_keypoints_are_refused() -> None:
    with pytest.raises(InputError, match="num_keypoints=0: must be at least 1"):
        HeatmapHead(64, 0)
