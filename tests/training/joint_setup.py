"""A tiny joint training: rendered people of three sets, with COCO's, CrowdPose's and MPII's keypoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_setup import MEAN, STD, TinySetup

from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.joint import JointCrops
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.skeleton import load_skeleton
from uniformer_pose.synthetic import write_synthetic_dataset

SKELETONS = {"coco": "coco_17", "crowdpose": "crowdpose_14", "mpii": "mpii_16"}
METRICS = {
    "crowdpose": {"metric": "crowd_levels", "area": "box"},
    "mpii": {"metric": "pckh", "headbox_file": "annotations/mpii_gt_val.mat"},
}
IMAGES = {"coco": 4, "crowdpose": 3, "mpii": 3}  # for training


def write_sets(folder: Path) -> None:
    """A person or two in a picture; ten in all to train on."""
    for name, skeleton in SKELETONS.items():
        write_synthetic_dataset(
            folder / name,
            num_train_images=IMAGES[name],
            num_val_images=2,
            image_height=64,
            image_width=96,
            people_per_image=(1, 2),
            person_height=(0.5, 0.8),
            close_up_share=0.0,
            crowd_share=0.0,
            skeleton=load_skeleton(skeleton),
        )


@dataclass
class JointSetup(TinySetup):
    """A tiny training of all three sets, in COCO's keypoints; ``settings`` of its data."""

    settings: dict[str, Any] = field(default_factory=dict)

    def data(self, **settings: Any) -> JointCrops:  # type: ignore[override]
        given = {name: value for name, value in settings.items() if value is not None}
        arguments: dict[str, Any] = {"sets": self.sets, "codec": self.codec, "mean": MEAN, "std": STD}
        arguments |= {"eval_batch_size": 3, "num_workers": 0, "batch_size": 2, "geometric": GeometricAugmentation()}
        return JointCrops(**(arguments | self.settings | given))

    @property
    def sets(self) -> dict[str, dict[str, Any]]:
        return {
            name: {
                "root": str(self.folder / name),
                "skeleton": skeleton,
                "train_annotations": "annotations/person_keypoints_train.json",
                "train_images": "images/train",
                "val_annotations": "annotations/person_keypoints_val.json",
                "val_images": "images/val",
                "val_boxes": "person_detection_results/val_detections.json" if name == "crowdpose" else "gt",
                **METRICS.get(name, {}),
            }
            for name, skeleton in SKELETONS.items()
        }


def joint_setup(folder: Path, **settings: Any) -> JointSetup:
    """For trainings on the sets that ``write_sets`` has put into ``folder``."""
    return JointSetup(folder, load_skeleton("coco_17"), HeatmapCodec(64, 64, sigma=1.5), settings)
