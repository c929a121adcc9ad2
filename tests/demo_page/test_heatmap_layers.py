"""The coloured layers lie where the decoder takes the heatmap to be."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformer_pose.demo_page.heatmap_layers import heatmap_layer
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec


@pytest.mark.parametrize("method", ["msra", "dark", "udp"])
@settings(max_examples=20, deadline=None)
@given(x=st.floats(40, 88), y=st.floats(48, 144))
def test_the_middle_of_a_layer_is_where_the_decoder_finds_the_keypoint(
    method: Literal["msra", "dark", "udp"], x: float, y: float
) -> None:
    codec = HeatmapCodec(192, 128, sigma=2.0, method=method)
    heatmaps, _ = codec.encode(torch.tensor([[[x, y]]]), torch.ones(1, 1))
    opacity = heatmap_layer(heatmaps[0, 0].double().numpy(), codec)[..., 3].astype(float)
    rows, columns = np.indices(opacity.shape)
    middle = (opacity * columns).sum() / opacity.sum(), (opacity * rows).sum() / opacity.sum()
    # msra puts the Gaussian on the nearest cell, up to half a cell of 4 pixels from the keypoint; udp cuts its tails.
    assert middle == pytest.approx((x, y), abs={"msra": 2.01, "dark": 0.05, "udp": 0.15}[method])


def test_colour_and_opacity_are_relative_to_the_heatmaps_own_peak() -> None:
    codec = HeatmapCodec(128, 96, sigma=2.0)
    heatmap = codec.encode(torch.tensor([[[40.0, 60.0]]]), torch.ones(1, 1))[0][0, 0].double().numpy()
    assert np.array_equal(heatmap_layer(heatmap, codec), heatmap_layer(0.01 * heatmap, codec))
    assert heatmap_layer(heatmap, codec)[60, 40, 3] == 255


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_heatmap_without_a_positive_value_is_transparent(value: float) -> None:
    layer = heatmap_layer(np.full((32, 24), value), HeatmapCodec(128, 96, sigma=2.0))
    assert layer.shape == (128, 96, 4)
    assert not layer[..., 3].any()


def test_a_plain_heatmap_fades_out_behind_its_last_cell() -> None:
    opacity = heatmap_layer(np.ones((32, 24)), HeatmapCodec(128, 96, sigma=2.0))[..., 3]
    assert (opacity[:125, :93] == 255).all()
    assert opacity[125:, 0].tolist() == [191, 128, 64]
    assert opacity[0, 93:].tolist() == [191, 128, 64]
