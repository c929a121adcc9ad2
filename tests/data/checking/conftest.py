"""A rendered dataset without a defect, to be spoilt by the tests."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from uniformer_pose.data.checking.dataset import check_dataset
from uniformer_pose.data.checking.report import Found, Split
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

    def splits(self) -> list[Split]:
        files = {split: self.root / f"annotations/person_keypoints_{split}.json" for split in ("train", "val")}
        for split, file in files.items():
            file.write_text(json.dumps(self.contents[split]))
        boxes = self.root / "person_detection_results/val_detections.json"
        boxes.write_text(json.dumps(self.detections))
        train = Split("train", files["train"], self.root / "images/train")
        return [train, Split("val", files["val"], self.root / "images/val", boxes)]

    def check(self, **settings: Any) -> list[Split]:
        splits = self.splits()
        check_dataset(splits, self.skeleton, **settings)
        return splits

    def found(self, **settings: Any) -> dict[str, Found]:
        """What was found, in both splits together."""
        kinds = [found for split in self.check(**settings) for found in split.found]
        assert len({found.kind for found in kinds}) == len(kinds)
        return {found.kind: found for found in kinds}


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
