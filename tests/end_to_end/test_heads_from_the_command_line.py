"""Another head from training to pictures and files, by its name alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from programs import require_one_line
from uniformer_pose.weights.loading import load_model


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(
            ["codec=simcc", "head.deconvolutions=false", "loss=kl_simcc", "data.codec.normalized=true"],
            marks=pytest.mark.slow,
        ),
        ["codec=simcc", "head=rtmcc", "head.visibility=true"],
    ],
    ids=["simcc", "rtmcc"],
)
def test_a_head_is_trained_evaluated_used_and_exported(
    synthetic_root: Path, tiny_run: list[str], run_script: Any, tmp_path: Path, head: list[str]
) -> None:
    run = tmp_path / "run"

    def program(name: str, *arguments: str) -> str:
        finished = run_script(name, list(arguments), tmp_path)
        assert finished.returncode == 0, finished.stderr
        return str(finished.stdout)

    program("train.py", *tiny_run, *head, f"data.root={synthetic_root}", f"hydra.run.dir={run}")
    best = run / "checkpoints" / "best.ckpt"
    program("eval.py", f"ckpt_path={best}", "trainer=cpu", f"hydra.run.dir={tmp_path / 'eval'}")
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (run, tmp_path / "eval")]
    assert metrics[0] == metrics[1]
    program("export.py", f"ckpt_path={best}", f"output={tmp_path / 'exported'}")
    weights = tmp_path / "exported" / "model.safetensors"
    (picture,) = list((synthetic_root / "images" / "val").glob("*.*"))[:1]
    for source, output in ((best, "from_checkpoint"), (weights, "from_export")):
        program("predict.py", f"ckpt_path={source}", f"source={picture}", "boxes=full", f"output={tmp_path / output}")
    poses = [json.loads((tmp_path / name / "poses.json").read_text()) for name in ("from_checkpoint", "from_export")]
    assert poses[0] == poses[1]
    assert len(poses[0]) == 1
    # Its backbone starts the next training, which has a heatmap head.
    log = program(
        "train.py",
        *[*tiny_run, f"data.root={synthetic_root}", f"hydra.run.dir={tmp_path / 'next'}"],
        *[f"model.pretrained={best}", "model.pretrained_head=false"],
    )
    assert "left out as asked" in log
    assert load_model(tmp_path / "next" / "checkpoints" / "best.ckpt")[0].codec.kind == "heatmap"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["head=simcc"], "head=simcc with data.codec.method=msra"),
        (["codec=simcc", "loss=mse"], "loss=KeypointMSE is for heatmap"),
        (["codec=simcc", "loss=kl_simcc"], "loss.target_softmax=false with data.codec.normalized=false"),
        (["head=rtmcc", "codec=udp"], "head=rtmcc with data.codec.method=udp"),
        (["head.deconvolutions=false", "codec=simcc", "head=rtmcc"], "head.deconvolutions=false"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_one_line(
    synthetic_root: Path, tiny_run: list[str], run_script: Any, tmp_path: Path, arguments: list[str], message: str
) -> None:
    refused = run_script("train.py", [*tiny_run, f"data.root={synthetic_root}", *arguments], tmp_path)
    require_one_line(refused, message)
