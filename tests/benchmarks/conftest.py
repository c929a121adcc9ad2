"""Data for the measurements."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_training import coco_arguments

from uniformer_pose.data.datamodule import PersonCrops


@pytest.fixture
def coco(shared_folder: Path) -> PersonCrops:
    """A few images of COCO, ready for training and evaluation."""
    data = PersonCrops(**coco_arguments(shared_folder / "coco_mini"))
    data.setup("fit")
    return data
