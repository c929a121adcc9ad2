"""Pictures for small foreign datasets, and the way from one of those to training crops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from uniformer_pose.data.conversion.dataset_writer import ConversionSummary, write_dataset
from uniformer_pose.data.conversion.source import SourceDataset

CODEC = {"height": 64, "width": 64, "sigma": 1.5}


def save_picture(path: Path, height: int, width: int, orientation: int | None = None) -> Path:
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


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., ConversionSummary]:
    """Writes a source to tmp_path/converted, unless told otherwise."""

    def run(dataset: SourceDataset, **settings: Any) -> ConversionSummary:
        arguments: dict[str, Any] = {
            "to": tmp_path / "converted",
            "name": "converted",
            "codec": CODEC,
            "area_of_box": 0.5,
            "made_from": {},
        }
        return write_dataset(dataset, **(arguments | settings))

    return run


@pytest.fixture
def fields_of_three(tmp_path: Path) -> Path:
    """The YAML file of a skeleton of nose, left_ear and right_ear."""
    keypoints = {name: {"sigma": 0.05, "colour": [1, 2, 3]} for name in ("nose", "left_ear", "right_ear")}
    pairs = [["left_ear", "right_ear"]]
    fields = {"name": "cat", "keypoints": keypoints, "left_right_pairs": pairs}
    path = tmp_path / "three.yaml"
    path.write_text(yaml.safe_dump({**fields, "upper_body": [], "lower_body": [], "limbs": []}, sort_keys=False))
    return path
