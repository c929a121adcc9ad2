"""Evaluation: crops a second from images with many boxes, and poses a second from predictions to AP.

python benchmarks/evaluation.py data=coco_256x192
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from paired import Work, data_module, take_turns, training_config
from uniformer_pose.evaluation import coco_keypoint_metrics
from uniformer_pose.skeleton import load_skeleton

ROUNDS, IMAGES, POSES_PER_IMAGE = 5, 1000, 10


def main(overrides: list[str]) -> None:
    """Measure both; the crops are those of the data that the overrides of ``src/train.py`` name."""
    cv2.setNumThreads(0)
    data = data_module(training_config([*overrides, "data.num_workers=0"]))
    data.setup("validate")
    take_turns({"decoded once an image": evaluation_crops(data)}, "crops, one core", rounds=ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        truth, predictions = made_up(Path(folder))
        sides: dict[str, Work] = {
            "coco_keypoint_metrics": lambda: coco_keypoint_metrics(truth, predictions) and len(predictions),
            "pycocotools": lambda: with_pycocotools(truth, predictions),
        }
        take_turns(sides, "poses, one core", rounds=ROUNDS)


def evaluation_crops(data: Any) -> Work:
    """One pass over the images to evaluate, in this process."""
    loader = data.val_dataloader()
    return lambda: sum(len(batch["crops"]) for batch in loader)


def made_up(folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A ground-truth file of random people, two an image, and predictions around them."""
    rng = np.random.default_rng(0)
    images = [{"id": i + 1, "file_name": f"{i + 1}.jpg", "height": 480, "width": 640} for i in range(IMAGES)]
    people, predictions = [], []
    for image in images:
        for _ in range(2):
            x, y, width, height = rng.uniform([0, 0, 40, 80], [400, 200, 200, 260])
            points = rng.uniform([x, y], [x + width, y + height], (17, 2))
            people.append(
                {
                    "id": len(people) + 1,
                    "image_id": image["id"],
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": [x, y, width, height],
                    "area": 0.6 * width * height,
                    "num_keypoints": 17,
                    "keypoints": np.column_stack([points, np.full(17, 2)]).ravel().tolist(),
                }
            )
            for _ in range(POSES_PER_IMAGE // 2):
                moved = points + rng.normal(0, 0.05 * height, points.shape)
                predictions.append(
                    {
                        "image_id": image["id"],
                        "category_id": 1,
                        "score": float(rng.random()),
                        "keypoints": np.column_stack([moved, np.ones(17)]).ravel().tolist(),
                    }
                )
    file = folder / "people.json"
    category = {"id": 1, "name": "person", "keypoints": list(load_skeleton("coco_17").keypoint_names)}
    file.write_text(json.dumps({"images": images, "annotations": people, "categories": [category]}))
    return file, predictions


def with_pycocotools(truth: Path, predictions: list[dict[str, Any]]) -> int:
    """The same evaluation by the reference implementation."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(str(truth))
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(predictions), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return len(predictions)


if __name__ == "__main__":
    main(sys.argv[1:])
