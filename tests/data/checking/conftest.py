"""A rendered dataset without a defect, to be spoilt by the tests."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from uniformer_pose.data.checking.dataset_check import DatasetReport, SplitFiles, check_dataset
from uniformer_pose.skeleton import Skeleton, load_skeleton
from uniformer_pose.synthetic import write_synthetic_dataset


@dataclass
class SpoilableDataset:
    """Change ``contents``, ``detections`` or the image files, then ``check``."""

    root: Path
    skeleton: Skeleton
    contents: dict[str, dict[str, Any]] = field(default_factory=dict)
    detections: list[Any] = field(default_factory=list)

    @property
    def train(self) -> dict[str, Any]:
        return self.contents["train"]

    @property
    def val(self) -> dict[str, Any]:
        return self.contents["val"]

    def image_path(self, number: int, split: str = "train") -> Path:
        return self.root / "images" / split / self.contents[split]["images"][number]["file_name"]

    def files(self) -> list[SplitFiles]:
        for split, content in self.contents.items():
            (self.root / f"annotations/person_keypoints_{split}.json").write_text(json.dumps(content))
        boxes = self.root / "person_detection_results/val_detections.json"
        boxes.write_text(json.dumps(self.detections))
        return [
            SplitFiles("train", self.root / "annotations/person_keypoints_train.json", self.root / "images/train"),
            SplitFiles("val", self.root / "annotations/person_keypoints_val.json", self.root / "images/val", boxes),
        ]

    def check(self, **settings: Any) -> DatasetReport:
        return check_dataset(self.files(), self.skeleton, **settings)

    def found(self, **settings: Any) -> dict[str, int]:
        """How often each kind of defect was found, in both splits together."""
        counts: dict[str, int] = {}
        for split in self.check(**settings).splits:
            for found in split.findings.found:
                counts[found.kind] = counts.get(found.kind, 0) + found.count
        return counts


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 training and 8 validation images of 192x200, one large upright person in each."""
    root = tmp_path_factory.mktemp("rendered")
    write_synthetic_dataset(
        root,
        num_train_images=60,
        num_val_images=8,
        image_height=192,
        image_width=200,
        people_per_image=(1, 1),
        person_height=(0.8, 0.9),
        close_up_share=0.0,
        crowd_share=0.0,
        poses="frontal",
        seed=1,  # nobody crosses their legs, which is a suspicion about left and right
    )
    return root


@pytest.fixture
def dataset(rendered: Path, tmp_path: Path) -> SpoilableDataset:
    """A copy whose detections are the annotated boxes."""
    root = tmp_path / "dataset"
    shutil.copytree(rendered, root)
    contents = {
        split: json.loads((root / f"annotations/person_keypoints_{split}.json").read_text())
        for split in ("train", "val")
    }
    detections = [
        {"image_id": person["image_id"], "category_id": 1, "bbox": list(person["bbox"]), "score": 0.9}
        for person in contents["val"]["annotations"]
    ]
    return SpoilableDataset(root, load_skeleton("coco_17"), contents, detections)
