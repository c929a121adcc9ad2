"""The loss of a step."""

from __future__ import annotations

import pytest
import torch

from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.training.loss import KeypointMSE

CODEC = HeatmapCodec(32, 32, sigma=2.0)


def test_the_loss_is_the_mean_square_over_all_cells_where_unlabelled_keypoints_count_as_zero() -> None:
    heatmaps = torch.tensor([[[[1.0, 0.0], [0.5, 0.0]], [[7.0, 2.0], [3.0, 0.0]]]], requires_grad=True)
    loss = KeypointMSE()(CODEC, heatmaps, torch.full((1, 2, 2, 2), 0.5), torch.tensor([[1.0, 0.0]]))
    loss.backward()
    assert loss.item() == pytest.approx((0.25 + 0.25 + 0.0 + 0.25) / 8)
    assert heatmaps.grad is not None
    assert heatmaps.grad[0, 1].abs().max() == 0


def test_the_loss_of_half_precision_heatmaps_is_computed_in_single_precision() -> None:
    heatmaps = torch.full((1, 1, 4, 4), 0.001, dtype=torch.float16)  # its square is below fp16's smallest number
    loss = KeypointMSE()(CODEC, heatmaps, torch.zeros(1, 1, 4, 4), torch.ones(1, 1))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(float(heatmaps[0, 0, 0, 0]) ** 2, rel=1e-6)
