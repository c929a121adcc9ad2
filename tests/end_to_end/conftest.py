"""Whole runs of the entry points on a dozen rendered images, with the smallest network that still has every part."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from uniformer_pose.synthetic import write_synthetic_dataset

PROJECT = Path(__file__).resolve().parents[2]

# One block a stage and narrow layers: a run is import time and little else.
TINY_NETWORK = [
    "model=uniformer_xxs",
    "model.depths=[1,1,1,1]",
    "model.embed_dims=[16,16,32,32]",
    "model.deconv_channels=[16,16,16]",
]
TINY_RUN = [
    *TINY_NETWORK,
    "data=synthetic_128x96",
    "data.batch_size=8",
    "data.num_workers=0",
    "data.codec.height=64",
    "data.codec.width=64",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.check_val_every_n_epoch=1",
    "trainer.log_every_n_steps=1",
]


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small rendered dataset: 12 training and 6 validation images."""
    root = tmp_path_factory.mktemp("synthetic")
    write_synthetic_dataset(root, num_train_images=12, num_val_images=6, image_height=128, image_width=160)
    return root


@pytest.fixture(scope="session")
def tiny_run() -> list[str]:
    """Overrides of src/train.py for a training of seconds, to which the data's root must be added."""
    return list(TINY_RUN)


RunScript = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def run_script() -> RunScript:
    """Runs ``python src/<script> <arguments>`` as a user would, in a folder of its own."""

    def run(
        script: str, arguments: Sequence[str], folder: Path, *, timeout: float = 240, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        folder.mkdir(parents=True, exist_ok=True)
        return subprocess.run(
            [sys.executable, str(PROJECT / "src" / script), *arguments],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def trained_run(synthetic_root: Path, run_script: RunScript, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of one finished training."""
    folder = tmp_path_factory.mktemp("trained")
    finished = run_script(
        "train.py", [*TINY_RUN, f"data.root={synthetic_root}", f"hydra.run.dir={folder / 'run'}"], folder
    )
    assert finished.returncode == 0, finished.stderr
    (folder / "run" / "stdout.txt").write_text(finished.stdout, encoding="utf-8")
    (folder / "run" / "stderr.txt").write_text(finished.stderr, encoding="utf-8")
    return folder / "run"
