"""Sixteen pictures are learnt by heart with every codec and head, behind a UniFormer and a backbone of timm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from uniformer_pose.synthetic.dataset import write_synthetic_dataset

CODECS = {
    "msra": ["codec=msra"],
    "dark": ["codec=dark"],
    "udp": ["codec=udp"],
    "simcc": ["codec=simcc"],
    "simcc without deconvolutions": ["codec=simcc", "head.deconvolutions=false"],
    "rtmcc": ["codec=simcc", "head=rtmcc"],
}
BACKBONES = {"uniformer": ["model=uniformer_xxs"], "timm": ["model=timm", "model.backbone=test_resnet"]}
