"""The smallest pose model, random but always the same, for tests of what is done with poses."""

from __future__ import annotations

from typing import Any

import torch

from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.saved_model import SavedModel
from uniformer_pose.skeleton import load_skeleton


def small_model(
    *, method: Any = "msra", height: int = 64, width: int = 64, skeleton_name: str = "coco_17"
) -> SavedModel:
    """A model whose heatmaps have peaks: its last layers are scaled up, so that keypoints differ between people."""
    skeleton = load_skeleton(skeleton_name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PoseNetwork(
            num_keypoints=skeleton.num_keypoints,
            depths=[1, 1, 1, 1],
            embed_dims=[16, 16, 32, 32],
            head_dim=16,
            deconv_channels=[16, 16, 16],
        )
        for parameter in network.head.parameters():
            if parameter.ndim == 4:
                torch.nn.init.normal_(parameter, std=0.3)
    return SavedModel(
        network=network.eval(),
        codec=HeatmapCodec(height, width, sigma=1.5, method=method),
        skeleton=skeleton,
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        box_padding=1.25,
        config={},
        versions={},
    )
