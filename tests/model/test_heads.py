"""Heads: their shapes for every backbone, and the numbers of MMPose's."""

from __future__ import annotations

import pytest
import torch

from uniformer_pose.errors import InputError
from uniformer_pose.model.arguments import NetworkArguments
from uniformer_pose.model.head import pose_head

SMALL = NetworkArguments(num_keypoints=5, depths=[1, 1, 1, 1], deconv_channels=[12, 8, 6])


@pytest.mark.parametrize(("stride", "channels"), [(32, [12, 8, 6]), (16, [8, 6]), (8, [6]), (4, [])])
def test_a_heatmap_head_doubles_the_features_of_any_stride_to_a_quarter_of_the_crop(
    stride: int, channels: list[int]
) -> None:
    head = pose_head(SMALL, 10, stride)
    assert head(torch.randn(2, 10, 64 // stride, 96 // stride)).shape == (2, 5, 16, 24)
    shapes = [tuple(entry.shape) for name, entry in head.named_parameters() if entry.ndim == 4]
    pairs = zip([10, *channels], channels, strict=False)
    assert shapes == [*((before, after, 4, 4) for before, after in pairs), (5, [10, *channels][-1], 1, 1)]


@pytest.mark.parametrize("stride", [2, 12, 64])
def test_a_stride_that_no_deconvolutions_bridge_is_refused(stride: int) -> None:
    with pytest.raises(InputError, match=f"stride {stride}"):
        pose_head(SMALL, 10, stride)
