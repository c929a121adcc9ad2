"""What holds for every codec, whatever its outputs are."""

from __future__ import annotations

import pytest
import torch

from uniformer_pose.keypoints.codec import Codec
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.keypoints.simcc_codec import SimCCCodec

CODECS = {
    "msra": HeatmapCodec(128, 96, sigma=2, method="msra"),
    "dark": HeatmapCodec(128, 96, sigma=2, method="dark"),
    "udp": HeatmapCodec(128, 96, sigma=2, method="udp"),
    "simcc": SimCCCodec(128, 96),
    "simcc, dark": SimCCCodec(128, 96, dark=True),
}
every_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)


@every_codec
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types_decode_like_their_fp32_copy(codec: Codec, dtype: torch.dtype) -> None:
    output, _ = codec.encode(torch.tensor([[[41.3, 70.9]]]), torch.ones(1, 1))
    keypoints, scores = codec.decode(output.to(dtype))
    assert keypoints.dtype == scores.dtype == torch.float32
    expected_keypoints, expected_scores = codec.decode(output.to(dtype).float())
    assert torch.equal(keypoints, expected_keypoints)
    assert torch.equal(scores, expected_scores)


@every_codec
def test_autocast_changes_nothing(codec: Codec) -> None:
    keypoints = torch.tensor([[[41.3, 70.9], [20.2, 33.3]]])
    plain_targets, _ = codec.encode(keypoints, torch.ones(1, 2))
    plain_decoded, _ = codec.decode(plain_targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        targets, _ = codec.encode(keypoints, torch.ones(1, 2))
        decoded, _ = codec.decode(targets)
    assert torch.equal(targets, plain_targets)
    assert torch.equal(decoded, plain_decoded)
