"""A COCO folder of a few pictures of random pixels, to be spoilt by the tests."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from uniformer_pose.data.coco import PersonInstances, read_detections, read_ground_truth
from uniformer_pose.skeleton import Skeleton, load_skeleton


@dataclass
class TinyCoco:
    """Three images of random pixels, four people; change ``content`` or ``detections``, then read."""

    folder: Path
    skeleton: Skeleton
    content: dict[str, Any]
    detections: Any = field(default_factory=list)

    @property
    def annotation_file(self) -> Path:
        return self.folder / "people.json"

    @property
    def detection_file(self) -> Path:
        return self.folder / "detections.json"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def annotation(self, annotation_id: int) -> dict[str, Any]:
        return next(entry for entry in self.content["annotations"] if entry["id"] == annotation_id)

    def write(self) -> None:
        self.annotation_file.write_text(json.dumps(self.content))
        self.detection_file.write_text(json.dumps(self.detections))

    def read(self, **arguments: Any) -> PersonInstances:
        self.write()
        return read_ground_truth(self.annotation_file, self.images, self.skeleton, **arguments)

    def read_detections(self, **arguments: Any) -> PersonInstances:
        self.write()
        return read_detections(self.detection_file, self.annotation_file, self.images, self.skeleton, **arguments)


@pytest.fixture
def skeleton() -> Skeleton:
    return load_skeleton("coco_17")


@pytest.fixture
def tiny_coco(tmp_path: Path, skeleton: Skeleton) -> TinyCoco:
    """People 11 and 12 in image 1 (60x80), 21 in image 2 (64x48), 31 in image 3 (50x50)."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    sizes = {1: (60, 80), 2: (64, 48), 3: (50, 50)}
    images = []
    for image_id, (height, width) in sizes.items():
        name = f"{image_id:012d}.jpg"
        cv2.imwrite(str(tmp_path / "images" / name), rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
    boxes = {
        11: [5.0, 6.0, 30.0, 40.0],
        12: [40.0, 10.0, 30.0, 45.0],
        21: [8.0, 4.0, 25.0, 50.0],
        31: [10.0, 5.0, 20.0, 40.0],
    }
    annotations = []
    for annotation_id, (x, y, box_width, box_height) in boxes.items():
        points = rng.uniform((x, y), (x + box_width, y + box_height), (skeleton.num_keypoints, 2)).round(1)
        keypoints = np.concatenate([points, np.full((skeleton.num_keypoints, 1), 2)], axis=1)
        annotations.append(
            {
                "id": annotation_id,
                "image_id": annotation_id // 10,
                "category_id": 1,
                "bbox": [x, y, box_width, box_height],
                "keypoints": keypoints.ravel().tolist(),
                "num_keypoints": skeleton.num_keypoints,
                "iscrowd": 0,
                "area": box_width * box_height * 0.6,
            }
        )
    categories = [{"id": 1, "name": "person", "keypoints": list(skeleton.keypoint_names)}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    detections = [
        {"image_id": entry["image_id"], "category_id": 1, "bbox": entry["bbox"], "score": 0.5} for entry in annotations
    ]
    return TinyCoco(tmp_path, skeleton, content, detections)


@pytest.fixture
def count_reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Names of the images that the data sets have read so far."""
    from uniformer_pose.data import images

    names: list[str] = []
    original = images.read_file

    def counted(path: Path) -> bytes:
        names.append(path.name)
        return original(path)

    monkeypatch.setattr(images, "read_file", counted)
    return lambda: list(names)
