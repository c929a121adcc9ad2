"""Pictures for small foreign datasets, and the way from one of those to what training reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from uniformer_pose.data.coco import PersonInstances, read_ground_truth
from uniformer_pose.data.conversion.dataset_writer import write_dataset
from uniformer_pose.data.conversion.source import Log, Settings, Source
from uniformer_pose.skeleton import Skeleton, load_skeleton

Reader = Callable[[Path, Settings, Log], Source]


def save_picture(path: Path, height: int = 40, width: int = 80, orientation: int | None = None) -> Path:
    """Random pixels, the same for the same name; with an EXIF orientation if one is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(path.name.encode()))
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path, exif=exif)
    return path


@pytest.fixture
def picture() -> Callable[..., Path]:
    return save_picture


@dataclass(eq=False)
class Converted:
    """A written dataset, and what was said about it."""

    folder: Path
    log: Log
    lines: list[str]

    def content(self, split: str = "train") -> dict[str, Any]:
        """The annotation file."""
        return json.loads((self.folder / f"annotations/{split}.json").read_text())

    @property
    def skeleton(self) -> Skeleton:
        return load_skeleton(self.folder / "skeleton.yaml")

    def people(self, split: str = "train") -> PersonInstances:
        """What training reads."""
        files = self.folder / f"annotations/{split}.json", self.folder / f"images/{split}"
        return read_ground_truth(*files, self.skeleton)

    def people_in(self, name: str) -> list[dict[str, Any]]:
        """The annotations of an image, of whichever split it is; keypoints as rows."""
        for split in ("train", "val"):
            content = self.content(split)
            for image in content["images"]:
                if image["file_name"] == name:
                    found = [entry for entry in content["annotations"] if entry["image_id"] == image["id"]]
                    return [{**entry, "keypoints": rows_of(entry["keypoints"])} for entry in found]
        raise AssertionError(f"{name} is in no split")

    def keypoints(self, name: str) -> list[list[list[float]]]:
        """x, y, visibility of everybody in an image."""
        return [entry["keypoints"] for entry in self.people_in(name)]


def rows_of(keypoints: list[float]) -> list[list[float]]:
    return np.array(keypoints).reshape(-1, 3).tolist()


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., Converted]:
    """Converts a source to tmp_path/converted, anew each time; ``skip``: problems are listed."""

    def run(read: Reader, source: Path, *, skip: bool = False, name: str = "mine", **settings: Any) -> Converted:
        log, asked, to = Log(skip=skip), Settings(**settings), tmp_path / "converted"
        shutil.rmtree(to, ignore_errors=True)
        lines = write_dataset(read(source, asked, log), to, name, asked, log, made_from={})
        return Converted(to, log, lines)

    return run


@pytest.fixture
def skeleton_of_three(tmp_path: Path) -> Skeleton:
    """A skeleton of nose, left_ear and right_ear."""
    keypoints = {name: {"sigma": 0.05, "colour": [1, 2, 3]} for name in ("nose", "left_ear", "right_ear")}
    pairs = [["left_ear", "right_ear"]]
    fields = {"name": "cat", "keypoints": keypoints, "left_right_pairs": pairs}
    path = tmp_path / "three.yaml"
    path.write_text(yaml.safe_dump({**fields, "upper_body": [], "lower_body": [], "limbs": []}, sort_keys=False))
    return load_skeleton(path)
