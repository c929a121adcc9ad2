"""Data for the measurements."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_training import coco_arguments

from uniformer_pose.data.datamodule import PersonCrops


@pytest.fixture
def coco(rendered_coco: Path) -> PersonCrops:
    """A few images in COCO's layout, ready for training and evaluation."""
    data = PersonCrops(**coco_arguments(rendered_coco))
    data.setup("fit")
    return data
