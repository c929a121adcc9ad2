"""What comes out of a network beside its heatmaps goes through the flip test too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from small_models import small_model
from uniformer_pose.prediction.engines import OpenVinoNetwork
from uniformer_pose.prediction.pose_pipeline import CropPoses, PosePipeline

CROPS = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class WithVisibility(nn.Module):
    """A network, and logits of the brightness of the left half for even keypoints, of the right half for odd ones."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("is_even", (torch.arange(17) % 2 == 0).float()[:, None])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        left, right = (half.mean((1, 2, 3))[:, None, None] for half in images.split(32, dim=3))
        logits = left * self.is_even + right * (1 - self.is_even)
        return self.network(images), torch.cat([logits, 2 * logits], dim=-1)


@pytest.mark.parametrize("with_flip_test", [False, True])
def test_visibility_is_the_mean_of_both_crops_with_left_and_right_exchanged(with_flip_test: bool) -> None:
    model = small_model()
    network = WithVisibility(model.network)
    pipeline = PosePipeline(model, network)
    with torch.inference_mode():
        poses = pipeline(CROPS, with_flip_test=with_flip_test)
        images = pipeline.normalize(CROPS)
        expected = network(images)[1].sigmoid()
        if with_flip_test:
            mirrored = network(images.flip(-1))[1].sigmoid()
            expected = (expected + mirrored[:, model.skeleton.mirror_permutation]) / 2
        without = PosePipeline(model, model.network)(CROPS, with_flip_test=with_flip_test)
    assert poses.visibility is not None
    torch.testing.assert_close(poses.visibility, expected)
    assert expected[:, 0].sub(expected[:, 1]).abs().min() > 1e-4  # the halves differ
    # What it says of visibility moves no keypoint.
    assert torch.equal(poses.keypoints_in_crop, without.keypoints_in_crop)
    assert torch.equal(poses.scores, without.scores)
    assert without.visibility is None


def test_poses_are_joined_with_and_without_visibility() -> None:
    poses = CropPoses(torch.rand(2, 17, 2), torch.rand(2, 17), torch.rand(2, 17, 2))
    parts = [CropPoses(*(each[:1] for each in poses)), CropPoses(*(each[1:] for each in poses))]
    for joined, each in zip(CropPoses.joined(parts), poses, strict=True):
        assert torch.equal(joined, each)
    assert CropPoses.joined([poses._replace(visibility=None)] * 2).visibility is None


@pytest.mark.skipif("not __import__('importlib.util').util.find_spec('openvino')", reason="an extra")
def test_openvino_gives_both_of_what_the_network_gives() -> None:
    network = WithVisibility(small_model().network).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(images)
        for answer, ours in zip(OpenVinoNetwork(network, height=64, width=64)(images), expected, strict=True):
            torch.testing.assert_close(answer, ours, atol=2e-5 * float(ours.abs().max()), rtol=0)
