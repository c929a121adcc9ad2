"""Sixteen pictures are learnt by heart with every codec and head, behind a UniFormer and a backbone of timm."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from programs import RunProgram
from uniformer_pose.synthetic.dataset import write_synthetic_dataset

CODECS = {
    # The place of a cell is all that it knows: its two pixels at most are too much of a smaller crop.
    "msra": ["codec=msra", "data.codec.height=256", "data.codec.width=192"],
    "dark": ["codec=dark"],
    "udp": ["codec=udp"],
    "simcc": ["codec=simcc"],
    # Of twelve cells: slower to learn.
    "simcc without deconvolutions": [
        "codec=simcc",
        "head.deconvolutions=false",
        "trainer.max_epochs=200",
        "scheduler.per_epoch.drops.milestones=[160,190]",
    ],
    "rtmcc": ["codec=simcc", "head=rtmcc"],
}
IN_CI = {("simcc", "uniformer"), ("rtmcc", "uniformer"), ("udp", "timm")}
BACKBONES = {"uniformer": ["model=uniformer_xxs"], "timm": ["model=timm", "model.backbone=test_resnet"]}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen pictures of rendered people, upright and facing the camera."""
    root, size = tmp_path_factory.mktemp("overfit"), {"image_height": 192, "image_width": 240}
    people = {"people_per_image": (1, 2), "person_height": (0.5, 0.9), "close_up_share": 0.0, "poses": "frontal"}
    write_synthetic_dataset(root, num_train_images=16, num_val_images=1, **size, **people)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codec", "backbone"),
    [
        pytest.param(*pair, marks=[] if pair in IN_CI else pytest.mark.long)
        for pair in itertools.product(CODECS, BACKBONES)
    ],
)
def test_sixteen_pictures_are_learnt_by_heart(
    codec: str, backbone: str, pictures: Path, run_script: RunProgram, tmp_path: Path
) -> None:
    chosen = [*BACKBONES[backbone], *CODECS[codec], "data=synthetic_128x96", f"data.root={pictures}", "trainer=cpu"]
    length = ["trainer.check_val_every_n_epoch=100", f"hydra.run.dir={tmp_path / 'run'}"]
    finished = run_script("train.py", ["debug=overfit", *chosen, *length], tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["AP"] >= 0.95
