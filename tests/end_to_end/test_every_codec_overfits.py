"""Sixteen pictures are learnt by heart with every codec and head, behind a UniFormer and a backbone of timm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from programs import RunProgram
from uniformer_pose.synthetic.dataset import write_synthetic_dataset

CODECS = {
    # Half a cell of two pixels is too much of the smaller crop.
    "msra": ["codec=msra", "data.codec.height=192", "data.codec.width=128"],
    "dark": ["codec=dark"],
    "udp": ["codec=udp"],
    "simcc": ["codec=simcc"],
    "simcc without deconvolutions": ["codec=simcc", "head.deconvolutions=false"],
    "rtmcc": ["codec=simcc", "head=rtmcc"],
}
BACKBONES = {"uniformer": ["model=uniformer_xxs"], "timm": ["model=timm", "model.backbone=test_resnet"]}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen pictures of rendered people, upright and facing the camera."""
    root, size = tmp_path_factory.mktemp("overfit"), {"image_height": 192, "image_width": 240}
    people = {"people_per_image": (1, 2), "person_height": (0.5, 0.9), "close_up_share": 0.0, "poses": "frontal"}
    write_synthetic_dataset(root, num_train_images=16, num_val_images=1, **size, **people)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("codec", CODECS)
def test_sixteen_pictures_are_learnt_by_heart(
    codec: str, backbone: str, pictures: Path, run_script: RunProgram, tmp_path: Path
) -> None:
    chosen = [*BACKBONES[backbone], *CODECS[codec], "data=synthetic_128x96", f"data.root={pictures}", "trainer=cpu"]
    length = ["trainer.check_val_every_n_epoch=100", f"hydra.run.dir={tmp_path / 'run'}"]
    finished = run_script("train.py", ["debug=overfit", *chosen, *length], tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["AP"] >= 0.95
