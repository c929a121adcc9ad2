"""A heatmap lies over its picture where the decoder takes it to be."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.pictures.heatmap import lay_heatmaps_over

WHITE = (255, 255, 255)


def over_black(heatmap: np.ndarray, cells_to_picture: list[list[float]], size: tuple[int, int]) -> np.ndarray:
    picture = np.zeros((*size, 3), np.uint8)
    return lay_heatmaps_over(picture, heatmap[None], [WHITE], cells_to_picture)[..., 0]


@pytest.mark.parametrize("method", ["msra", "dark", "udp"])
@settings(max_examples=10, deadline=None)
@given(x=st.floats(40, 88), y=st.floats(48, 144), left=st.floats(-20, 300), top=st.floats(-20, 100))
def test_its_middle_is_where_the_decoder_finds_the_keypoint(
    method: Literal["msra", "dark", "udp"], x: float, y: float, left: float, top: float
) -> None:
    codec = HeatmapCodec(192, 128, sigma=2.0, method=method)
    heatmaps, _ = codec.encode(torch.tensor([[[x, y]]]), torch.ones(1, 1))
    wide, tall = codec.cell_size
    laid = over_black(heatmaps[0, 0].numpy(), [[wide, 0, left], [0, tall, top]], (300, 450)).astype(float)
    rows, columns = np.indices(laid.shape)
    middle = (laid * columns).sum() / laid.sum() - left, (laid * rows).sum() / laid.sum() - top
    # msra puts the Gaussian on the nearest cell, up to half a cell of 4 pixels from the keypoint; udp cuts its tails.
    assert middle == pytest.approx((x, y), abs={"msra": 2.05, "dark": 0.1, "udp": 0.2}[method])


def test_it_fades_out_within_one_cell_outside_and_leaves_the_rest_as_it_was() -> None:
    laid = over_black(np.ones((2, 3), np.float32), [[4, 0, 8], [0, 4, 8]], (24, 32))
    full = round(0.7 * 255)
    assert (laid[8:13, 8:17] == full).all()
    assert laid[8, 4:9].tolist() == pytest.approx([0, full / 4, full / 2, 3 * full / 4, full], abs=1)
    assert laid[13:17, 8].tolist() == pytest.approx([3 * full / 4, full / 2, full / 4, 0], abs=1)
    laid[4:17, 4:21] = 0
    assert not laid.any()
