"""Every head behind UniFormer-S: training steps and poses a second, in turns.

python benchmarks/heads.py [height width]    (256 192)
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch

from paired import Work, take_turns
from uniformer_pose.data.tensors import CropNormalization
from uniformer_pose.keypoints.codec import Codec, parts_of
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.keypoints.simcc_codec import SimCCCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.training.loss import KeypointKL, KeypointMSE, Loss
from uniformer_pose.training.step import loss_and_output

ROUNDS, BATCH_SIZE, DEPTHS = 15, 4, (3, 4, 8, 3)
HEADS: dict[str, dict[str, Any]] = {
    "heatmap": {},
    "heatmap with visibility": {"visibility": True},
    "simcc": {"kind": "simcc"},
    "simcc without deconvolutions": {"kind": "simcc", "deconvolutions": False},
    "rtmcc": {"kind": "rtmcc"},
}


@dataclass
class Side:
    """A network with random weights, and a batch of noise."""

    network: PoseNetwork
    codec: Codec
    loss: Loss
    crops: torch.Tensor

    def step(self) -> int:
        """Targets, forward and backward pass."""
        normalize = CropNormalization((120.0,) * 3, (60.0,) * 3)
        points, visibility = 100 * torch.rand(BATCH_SIZE, 17, 2), torch.full((BATCH_SIZE, 17), 2.0)
        parts = (self.network.train(), normalize, self.codec, self.loss, self.crops, points, visibility)
        loss_and_output(*parts)[0].backward()
        self.network.zero_grad()
        return BATCH_SIZE

    def poses(self) -> int:
        """Forward pass and decoding."""
        with torch.inference_mode():
            output, _ = parts_of(self.network.eval()(self.crops.permute(0, 3, 1, 2) / 255))
            self.codec.decode(output)
        return BATCH_SIZE


def main(height: int = 256, width: int = 192) -> None:
    """Compare the heads, step by step and pose by pose."""
    sides = {name: side(head, height, width) for name, head in HEADS.items()}
    for name, each in sides.items():
        parameters = sum(weight.numel() for weight in each.network.head.parameters())
        print(f"{name:44} {parameters / 1e6:9.3f} M parameters")
    steps: dict[str, Work] = {name: each.step for name, each in sides.items()}
    take_turns(steps, f"images of training steps at {height}x{width}", rounds=ROUNDS)
    take_turns({name: each.poses for name, each in sides.items()}, "poses", rounds=ROUNDS)


def side(head: dict[str, Any], height: int, width: int) -> Side:
    """The parts that go with a head."""
    torch.manual_seed(0)
    network = PoseNetwork(17, DEPTHS, head=head, crop_height=height, crop_width=width)
    crops = torch.randint(0, 256, (BATCH_SIZE, height, width, 3), dtype=torch.uint8)
    if network.arguments["head"]["kind"] == "heatmap":
        return Side(network, HeatmapCodec(height, width, sigma=2.0), KeypointMSE(), crops)
    return Side(network, SimCCCodec(height, width), KeypointKL(beta=10.0, target_softmax=True), crops)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
