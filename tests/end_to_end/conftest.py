"""Whole runs of the entry points on a dozen rendered images, with the smallest network that still has every part."""

from __future__ import annotations

from pathlib import Path

import pytest

from programs import RunProgram, made_once, run_here, run_in_own_process
from uniformer_pose.synthetic import write_synthetic_dataset

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
    sizes = {"num_train_images": 12, "num_val_images": 6, "image_height": 128, "image_width": 160}
    return made_once(tmp_path_factory, "synthetic", lambda root: write_synthetic_dataset(root, **sizes))


@pytest.fixture(scope="session")
def tiny_run() -> list[str]:
    """Overrides of src/train.py for a training of seconds, to which the data's root must be added."""
    return list(TINY_RUN)


@pytest.fixture(scope="session")
def run_script() -> RunProgram:
    """Runs ``python src/<script> <arguments>`` in a folder of its own, but in this process."""
    return run_here


@pytest.fixture(scope="session")
def run_program() -> RunProgram:
    """The same in a process of its own, as a user would: for each program once, and where a process matters."""
    return run_in_own_process


@pytest.fixture(scope="session")
def trained_run(synthetic_root: Path, run_program: RunProgram, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of one finished training."""

    def train(folder: Path) -> None:
        run = folder / "run"
        finished = run_program("train.py", [*TINY_RUN, f"data.root={synthetic_root}", f"hydra.run.dir={run}"], folder)
        assert finished.returncode == 0, finished.stderr
        (run / "stdout.txt").write_text(finished.stdout, encoding="utf-8")
        (run / "stderr.txt").write_text(finished.stderr, encoding="utf-8")

    return made_once(tmp_path_factory, "trained", train) / "run"
