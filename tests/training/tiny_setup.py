"""A training small enough for a test: a network of a few thousand weights, and people on pictures of random pixels."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import cv2
import lightning.pytorch as pl
import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR, MultiStepLR

from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.saved_model import RECORD_KEY, SavedModel, saved_record
from uniformer_pose.skeleton import Skeleton, load_skeleton
from uniformer_pose.training.optimization import Optimization
from uniformer_pose.training.pose_module import PoseModule

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def optimization(
    optimizer: Callable[..., Optimizer] = torch.optim.AdamW,
    learning_rate_per_256: float = 0.1,
    warmup_steps: int = 3,
    milestones: Sequence[int] = (),
) -> Optimization:
    warmup = partial(LinearLR, start_factor=0.001, total_iters=warmup_steps)
    return Optimization(
        optimizer,
        learning_rate_per_256,
        per_step={"warmup": warmup} if warmup_steps else {},
        per_epoch={"drops": partial(MultiStepLR, milestones=list(milestones))},
    )


@dataclass
class TinySetup:
    """Everything a training is made of, at its smallest; keyword arguments replace single settings."""

    folder: Path
    skeleton: Skeleton
    codec: HeatmapCodec

    def write_people(self, people_per_image: Sequence[int] = (1, 2, 1, 2), name: str = "people.json") -> Path:
        """A COCO file and its pictures; image ids fall, as COCO's own files are not sorted either.

        A person's box is 40 to 48 pixels high; the keypoints lie in its middle, away from the crop's border.
        """
        rng = np.random.default_rng(0)
        (self.folder / "images").mkdir(exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, people in enumerate(people_per_image):
            image_id, height, width = 100 - number, 64, 60 * max(people, 1)
            picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            cv2.imwrite(str(self.folder / "images" / f"{image_id}.png"), picture)
            images.append({"id": image_id, "file_name": f"{image_id}.png", "height": height, "width": width})
            for person in range(people):
                x, y = 60.0 * person + rng.uniform(4, 10), rng.uniform(4, 10)
                box_width, box_height = rng.uniform(30, 40), rng.uniform(40, 48)
                points = rng.uniform(0.2, 0.8, (self.skeleton.num_keypoints, 2)) * (box_width, box_height) + (x, y)
                visibility = np.full((self.skeleton.num_keypoints, 1), 2)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": 1,
                        "bbox": [x, y, box_width, box_height],
                        "area": 0.6 * box_width * box_height,
                        "keypoints": np.concatenate([points, visibility], axis=1).ravel().tolist(),
                        "num_keypoints": self.skeleton.num_keypoints,
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": 1, "name": "person", "keypoints": list(self.skeleton.keypoint_names)}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (self.folder / name).write_text(json.dumps(content))
        return self.folder / name

    def data(self, **settings: Any) -> PersonCrops:
        arguments: dict[str, Any] = {
            "root": str(self.folder),
            "train_annotations": "people.json",
            "train_images": "images",
            "val_annotations": "people.json",
            "val_images": "images",
            "val_boxes": "gt",
            "skeleton": self.skeleton,
            "codec": self.codec,
            "mean": MEAN,
            "std": STD,
            "batch_size": 2,
            "eval_batch_size": 3,
            "num_workers": 0,
        }
        return PersonCrops(**(arguments | settings))

    def model(self, seed: int = 0, **network_settings: Any) -> SavedModel:
        arguments: dict[str, Any] = {
            "num_keypoints": self.skeleton.num_keypoints,
            "depths": [1, 1, 1, 1],
            "embed_dims": [16, 16, 32, 32],
            "head_dim": 16,
            "deconv_channels": [16, 16, 16],
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = PoseNetwork(**(arguments | network_settings))
        config = {"data": {"root": str(self.folder)}}
        return SavedModel(network, self.codec, self.skeleton, MEAN, STD, 1.25, config, {"torch": torch.__version__})

    def write_model(self, model: SavedModel, name: str = "teacher.ckpt") -> str:
        """A checkpoint of the model; returns its path."""
        weights = {f"network.{key}": tensor for key, tensor in model.network.state_dict().items()}
        torch.save({"state_dict": weights, RECORD_KEY: saved_record(model)}, self.folder / name)
        return str(self.folder / name)

    def module(self, **settings: Any) -> PoseModule:
        arguments: dict[str, Any] = {"protocol": EvaluationProtocol(flip_test=False)}
        optimized = {name: settings.pop(name) for name in signature(optimization).parameters if name in settings}
        arguments["optimization"] = optimization(**optimized)
        return PoseModule(settings.pop("model", None) or self.model(), **(arguments | settings))

    def trainer(self, **settings: Any) -> pl.Trainer:
        arguments: dict[str, Any] = {
            "default_root_dir": self.folder,
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 1,
            "logger": False,
            "enable_checkpointing": any(isinstance(c, pl.callbacks.Checkpoint) for c in settings.get("callbacks", [])),
            "enable_progress_bar": any(isinstance(c, pl.callbacks.ProgressBar) for c in settings.get("callbacks", [])),
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            "log_every_n_steps": 1,
        }
        return pl.Trainer(**(arguments | settings))


def tiny_setup(folder: Path) -> TinySetup:
    """For trainings in ``folder``, where no people are yet."""
    return TinySetup(folder, load_skeleton("coco_17"), HeatmapCodec(64, 64, sigma=1.5, method="dark"))
