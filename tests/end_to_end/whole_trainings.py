"""One epoch of a tiny network from the command line: left alone, or stopped in its middle and continued."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from programs import run_here
from uniformer_pose.training.pose_module import PoseModule

TINY = [
    "model=uniformer_xxs",
    "model.depths=[1,1,1,1]",
    "model.embed_dims=[16,16,32,32]",
    "model.deconv_channels=[16,16,16]",
    "model.drop_path_rate=0.3",
    "data.num_workers=0",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.check_val_every_n_epoch=1",
    "trainer.log_every_n_steps=1",
]


def trained(folder: Path, *arguments: str, stop_in_step: int | None = None) -> Path:
    """The run directory of one epoch with the published augmentation and protocol; stopped and continued if asked."""
    given = [*arguments, *TINY, f"run_dir={folder / 'run'}", "resume=auto"]
    if stop_in_step is not None:
        with pytest.MonkeyPatch.context() as patch:

            def stop(module: PoseModule, *_: Any) -> None:
                if module.trainer.global_step == stop_in_step:
                    signal.raise_signal(signal.SIGTERM)

            patch.setattr(PoseModule, "on_train_batch_start", stop, raising=False)
            stopped = run_here("train.py", given, folder)
        assert stopped.returncode == 143, stopped.stderr
        assert f"after step {stop_in_step + 1};" in stopped.stdout + stopped.stderr
        assert not (folder / "run" / "metrics.json").exists()
    finished = run_here("train.py", given, folder)
    assert finished.returncode == 0, finished.stderr
    assert ("interrupted.ckpt" in finished.stdout + finished.stderr) is (stop_in_step is not None)
    return folder / "run"


def evaluated(folder: Path, run: Path, *arguments: str) -> dict[str, float]:
    """What src/eval.py says of a run's checkpoint."""
    checkpoint = f"ckpt_path={run / 'checkpoints' / 'best.ckpt'}"
    finished = run_here("eval.py", [checkpoint, "trainer=cpu", f"run_dir={folder / 'eval'}", *arguments], folder)
    assert finished.returncode == 0, finished.stderr
    return numbers(folder / "eval")


def numbers(run: Path) -> dict[str, float]:
    metrics: dict[str, float] = json.loads((run / "metrics.json").read_text())
    return metrics


def require_same(run: Path, straight: Path) -> None:
    """Weights, optimizer and metrics are equal to the last bit."""
    one, other = (torch.load(each / "checkpoints" / "last.ckpt", weights_only=True) for each in (run, straight))
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        found, expected = leaves(one[part]), leaves(other[part])
        assert found.keys() == expected.keys()
        for name, value in found.items():
            same = torch.equal(value, expected[name]) if isinstance(value, torch.Tensor) else value == expected[name]
            assert same, f"{part}{name}"
    assert numbers(run) == numbers(straight)


def leaves(tree: Any, name: str = "") -> dict[str, Any]:
    if isinstance(tree, dict):
        items: list[tuple[Any, Any]] = [*tree.items()]
    elif isinstance(tree, (list, tuple)):
        items = [*enumerate(tree)]
    else:
        return {name: tree}
    return {path: leaf for key, value in items for path, leaf in leaves(value, f"{name}/{key}").items()}
