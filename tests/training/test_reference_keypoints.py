"""From picture and box to keypoints in the picture: the numbers of MMPose through the whole path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.prediction.pose_pipeline import PosePipeline
from uniformer_pose.saved_model import SavedModel
from uniformer_pose.skeleton import load_skeleton
from weights_by_name import weights_by_name

SKELETON = load_skeleton("coco_17")
CODEC = HeatmapCodec(height=256, width=192, sigma=2.0)
# The reference weights give flat heatmaps, where OpenCV's version can move an arg-max: 5 % may.
REQUIRED_SHARE = 0.95


@pytest.fixture(scope="module")
def model() -> SavedModel:
    network = PoseNetwork(SKELETON.num_keypoints, [3, 4, 8, 3])
    network.load_state_dict(weights_by_name({name: tuple(entry.shape) for name, entry in network.state_dict().items()}))
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    return SavedModel(network.eval(), CODEC, SKELETON, mean, std, 1.25, {}, {})


@pytest.mark.parametrize("mode", ["plain", "flip_test"])
def test_keypoints_in_images_are_those_of_mmpose(
    model: SavedModel, mode: str, numbers_folder: Path, pictures_folder: Path
) -> None:
    reference = json.loads((numbers_folder / "image_keypoints_uniformer_s_256x192.json").read_text())
    pipeline = PosePipeline(model, model.network)
    people: list[dict[str, Any]] = reference["people"]
    geometries = model.crop_spec.around([person["bbox_xywh"] for person in people])
    crops = []
    for index, person in enumerate(people):
        picture = cv2.imread(str(pictures_folder / person["file_name"]), cv2.IMREAD_COLOR_RGB)
        crops.append(geometries[index].crop(picture))
    with torch.inference_mode():
        keypoints_in_crop, scores, _ = pipeline(torch.from_numpy(np.stack(crops)), with_flip_test=mode == "flip_test")
    keypoints_in_image = geometries.to_image(keypoints_in_crop.numpy())
    expected = np.array([person[mode]["keypoints_xy"] for person in people])
    near = np.linalg.norm(keypoints_in_image - expected, axis=-1) < 0.01
    assert near.mean() >= REQUIRED_SHARE
    expected_scores = np.array([person[mode]["scores"] for person in people])
    assert np.abs(scores.numpy() - expected_scores)[near].max() < 5e-3
