"""UniFormer beside backbones of timm under the same head: size, multiplications, and images a second on this processor.

python benchmarks/backbones.py resnet50 convnext_tiny hrnet_w32 caformer_s18 vit_small_patch16_224
"""

from __future__ import annotations

import sys
from typing import Any

import timm
import torch
from torch import nn

from paired import Work, take_turns
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.model.network_size import network_size
from uniformer_pose.model.timm_network import TimmPoseNetwork

HEIGHT, WIDTH, CROPS, ROUNDS = 256, 192, 4, 7


def main(backbones: list[str]) -> None:
    """Print a line for each network, then their paces, each in its turn."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    networks: dict[str, Any] = {"uniformer_s": PoseNetwork(17, depths=[3, 4, 8, 3])}
    for backbone in backbones:
        networks[backbone] = TimmPoseNetwork(17, backbone, HEIGHT, WIDTH)
        networks[backbone].freeze_unused((HEIGHT // 4, WIDTH // 4))
    for name, network in networks.items():
        published = timm.get_pretrained_cfg(name) if name in backbones else None
        weights = f"{name}.{published.tag}, {published.license}" if published else "released, Apache-2.0"
        print(f"{name}: {network_size(network, HEIGHT, WIDTH)}; {weights}", flush=True)
    images = torch.randn(CROPS, 3, HEIGHT, WIDTH)
    for name, kind in (("forward", forward), ("training step", training_step)):
        print(f"\n{name}", end="", flush=True)
        take_turns({model: kind(network, images) for model, network in networks.items()}, "images", rounds=ROUNDS)


def forward(network: nn.Module, images: torch.Tensor) -> Work:
    """Heatmaps of a batch, without gradients."""

    def once() -> int:
        with torch.inference_mode():
            network.eval()(images)
        return len(images)

    return once


def training_step(network: nn.Module, images: torch.Tensor) -> Work:
    """Forward, backward and AdamW's step on a batch."""
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-5, fused=True)

    def once() -> int:
        network.train()(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return len(images)

    return once


if __name__ == "__main__":
    main(sys.argv[1:])
