"""The model that the notebooks look at where there is no better one: trained here, once, on rendered people."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import uniformer_pose
from uniformer_pose.synthetic import write_synthetic_dataset

_DATA = Path(__file__).resolve().parents[1] / "data" / "notebooks"
_TRAIN = Path(uniformer_pose.__file__).parents[1] / "train.py"
# Upright people who face the camera, one or two to a small image, so that a minute of training suffices.
_PEOPLE = {
    "image_height": 192,
    "image_width": 240,
    "people_per_image": (1, 2),
    "person_height": (0.5, 0.9),
    "close_up_share": 0.0,
    "crowd_share": 0.03,
    "poses": "frontal",
}


def easy_people() -> Path:
    """The folder of 1000 rendered training images and 120 to test on, in COCO's layout; written if it is not there."""
    folder = _DATA / "easy_people"
    write_synthetic_dataset(folder, num_train_images=1000, num_val_images=120, **_PEOPLE)
    return _from_here(folder)


def small_model() -> Path:
    """The checkpoint of a UniFormer-XXS for 128x96 crops, COCO's 17 keypoints, AP 0.4 on the images to test on.

    Trained with ``src/train.py`` if it is not there: about a minute on two cores. Delete it to train it again. Raises
    RuntimeError with the end of what the training wrote, should it fail.
    """
    checkpoint = _DATA / "small_model.ckpt"
    if not checkpoint.is_file():
        _train_into(checkpoint)
    return _from_here(checkpoint)


def _from_here(path: Path) -> Path:
    """The path as it is written from the working directory: what is printed of it is the same on every machine."""
    return Path(os.path.relpath(path))


def _train_into(checkpoint: Path) -> None:
    run = _DATA / "small_model_run"
    settings = [
        "experiment=demo",
        f"data.root={easy_people().resolve()}",
        "data.batch_size=16",
        "scheduler.per_epoch.drops.milestones=[5,6]",
        "trainer.max_epochs=7",
        "trainer.check_val_every_n_epoch=7",
        f"hydra.run.dir={run}",
    ]
    command = [sys.executable, str(_TRAIN), *settings]
    training = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own command)
    if training.returncode != 0:
        raise RuntimeError(f"the small model could not be trained:\n{training.stderr[-2000:]}")
    (run / "checkpoints" / "best.ckpt").replace(checkpoint)  # last: a file that is there is whole
