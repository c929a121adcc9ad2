"""Crops in COCO's layout and a small network, to be measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.saved_model import SavedModel
from uniformer_pose.skeleton import load_skeleton
from uniformer_pose.training.pose_module import PoseModule

ANNOTATIONS = "annotations/person_keypoints_train2017.json"
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def coco_arguments(root: Path) -> dict[str, Any]:
    return {
        "root": str(root),
        "train_annotations": ANNOTATIONS,
        "train_images": "train2017",
        "val_annotations": ANNOTATIONS,
        "val_images": "train2017",
        "val_boxes": "gt",
        "skeleton": "coco_17",
        "codec": HeatmapCodec(64, 64, sigma=1.5),
        "mean": MEAN,
        "std": STD,
        "batch_size": 4,
        "num_workers": 0,
        "max_images": 4,
        "geometric": GeometricAugmentation(),
    }


def small_model() -> SavedModel:
    skeleton = load_skeleton("coco_17")
    network = PoseNetwork(
        skeleton.num_keypoints,
        depths=[1, 1, 1, 1],
        embed_dims=[16, 16, 32, 32],
        head_dim=16,
        deconv_channels=[16, 16, 16],
    )
    return SavedModel(network, HeatmapCodec(64, 64, sigma=1.5), skeleton, MEAN, STD, 1.25, {}, {})


def small_module() -> PoseModule:
    return PoseModule(small_model(), EvaluationProtocol(flip_test=False))
