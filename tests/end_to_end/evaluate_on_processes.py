"""Scores 1, 4, 5 and 7 people on one and on two CPU processes: python evaluate_on_processes.py CHECKPOINT FOLDER.

A script rather than a test function because it forks, which only a fresh process with one thread does safely. The
network's heatmaps are replaced by the true ones, slightly displaced from person to person: an untrained network would
score 0 for any number of processes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import lightning.pytorch as pl
import numpy as np
import torch

from uniformer_pose.data.crop_geometry import CropGeometry
from uniformer_pose.data.crop_loaders import CropLoaders
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.data.joint import JointCrops
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.prediction.pose_pipeline import CropPoses
from uniformer_pose.saved_model import SavedModel, data_arguments
from uniformer_pose.training.pose_module import PoseModule
from uniformer_pose.weights.loading import load_model


class KnowsTheAnswer(PoseModule):
    """Predicts the annotated keypoints of each crop, moved by a pixel or two that depend on the person."""

    def validation_step(self, batch: dict[str, torch.Tensor], batch_index: int, dataloader_idx: int = 0) -> None:
        """Of people of the set whose turn it is."""
        self.people = self.data.val_sets[dataloader_idx].val_people
        super().validation_step(batch, batch_index, dataloader_idx)

    def predict_batch(self, batch: dict[str, torch.Tensor]) -> CropPoses:
        """The poses of a batch, the network's replaced by the truth."""
        index, people = batch["instance_index"].numpy(), self.people
        crops = CropGeometry(self.model.crop_spec, batch["centers_in_image"].numpy(), batch["extents_in_image"].numpy())
        in_crop = crops.to_crop(people.keypoints_in_image[index]) + (index % 3)[:, None, None]
        # Probabilities that differ from person to person, of v, which is 1 for every third keypoint.
        likely = 0.6 + 0.05 * (index % 5)[:, None] - 0.2 * (people.visibility[index] == 1)
        visibility = torch.from_numpy(np.stack([likely, likely], axis=-1)).float()
        return CropPoses(torch.from_numpy(in_crop).float(), torch.ones(in_crop.shape[:2]), visibility)


def write_people(root: Path, count: int) -> None:
    """``count`` people in COCO's format, one or two to a grey image."""
    rng = np.random.default_rng(count)
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for person in range(count):
        image_id = person // 2 + 1
        if person % 2 == 0:
            cv2.imwrite(str(root / "images" / f"{image_id}.jpg"), np.full((160, 200, 3), 128, np.uint8))
            images.append({"id": image_id, "file_name": f"{image_id}.jpg", "height": 160, "width": 200})
        keypoints = np.column_stack(
            [rng.uniform(20, 180, 17), rng.uniform(10, 150, 17), np.where(np.arange(17) % 3, 2, 1)]
        )
        annotations.append(
            {
                "id": person + 1,
                "image_id": image_id,
                "category_id": 1,
                "bbox": [20.0, 10.0, 160.0, 140.0],
                "area": 15000.0,
                "iscrowd": 0,
                "num_keypoints": 17,
                "keypoints": keypoints.round(2).ravel().tolist(),
            }
        )
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    (root / "people.json").write_text(json.dumps(content))


FILES = {"val_annotations": "people.json", "val_images": "images", "val_boxes": "gt"}


def score(model: SavedModel, root: Path, processes: int) -> dict[str, float]:
    """All metrics of one evaluation, those of visibility included."""
    data = PersonCrops(**data_arguments(model, FILES | {"root": str(root), "eval_batch_size": 2}))
    return logged(model, data, processes)


def score_together(model: SavedModel, roots: list[Path], processes: int) -> dict[str, float]:
    """The same of several sets in one pass."""
    own = FILES | {"train_annotations": "people.json", "train_images": "images"}
    sets = {root.name: own | {"root": str(root)} for root in roots}
    how = {"mean": model.mean, "std": model.std, "box_padding": model.box_padding, "eval_batch_size": 2}
    return logged(model, JointCrops(sets=sets, codec=model.codec, num_workers=0, **how), processes)


def logged(model: SavedModel, data: CropLoaders, processes: int) -> dict[str, float]:
    """What an evaluation on so many processes logs."""
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp_fork" if processes > 1 else "auto",
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.validate(KnowsTheAnswer(model, EvaluationProtocol(flip_test=False)), datamodule=data, verbose=False)
    return {name: None if value.isnan() else float(value) for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    model, folder = load_model(sys.argv[1])[0], Path(sys.argv[2])
    outcome: dict[int | str, dict[int, dict[str, float]]] = {}
    for count in (1, 4, 5, 7):
        write_people(folder / str(count), count)
        outcome[count] = {processes: score(model, folder / str(count), processes) for processes in (1, 2)}
    roots = [folder / str(count) for count in (5, 1, 4)]
    outcome["5, 1, 4"] = {processes: score_together(model, roots, processes) for processes in (1, 2)}
    (folder / "outcome.json").write_text(json.dumps(outcome))
