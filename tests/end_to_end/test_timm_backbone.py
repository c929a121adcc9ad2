"""A backbone of timm from training to safetensors, and a training of it continued to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from programs import RunProgram

NORMALISED = ["data.mean=[127.5,127.5,127.5]", "data.std=[127.5,127.5,127.5]"]  # as timm's test_vit


@pytest.fixture(scope="module")
def training(tiny_run: list[str], synthetic_root: Path) -> list[str]:
    """Arguments of a short training, without its length."""
    of_uniformer = ("model.", "model=", "trainer.max_epochs")
    rest = [argument for argument in tiny_run if not argument.startswith(of_uniformer)]
    ours = ["model=timm", "model.backbone=test_vit", "model.drop_path_rate=0.2", "model.deconv_channels=[8,8,8]"]
    return [*ours, *rest, f"data.root={synthetic_root}"]


@pytest.fixture(scope="module")
def run(training: list[str], run_script: RunProgram, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of one epoch, from a classifier that timm wrote."""
    folder = tmp_path_factory.mktemp("timm")
    torch.manual_seed(3)
    save_file(timm.create_model("test_vit").state_dict(), folder / "classifier.safetensors")
    start = [f"model.pretrained={folder / 'classifier.safetensors'}", *NORMALISED, "trainer.max_epochs=1"]
    finished = run_script("train.py", [*training, *start, f"hydra.run.dir={folder / 'run'}"], folder)
    assert finished.returncode == 0, finished.stderr
    said = finished.stdout + finished.stderr
    assert "timm classifier, 78 of" in said
    assert "1 resized by timm (pos_embed)" in said
    assert ", images normalised as there\n" in said
    return folder / "run"


@pytest.mark.slow
def test_it_is_trained_evaluated_used_and_exported_from_its_checkpoint_alone(
    run: Path, synthetic_root: Path, run_script: RunProgram, tmp_path: Path
) -> None:
    checkpoint = f"ckpt_path={run / 'checkpoints' / 'best.ckpt'}"
    evaluated = run_script("eval.py", [checkpoint, "trainer=cpu", "hydra.run.dir=evaluated"], tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    before, after = (json.loads((folder / "predictions.json").read_text()) for folder in (run, tmp_path / "evaluated"))
    assert [person["keypoints"] for person in after] == [pytest.approx(p["keypoints"], abs=1e-2) for p in before]
    pictures = f"source={synthetic_root / 'images' / 'val'}"
    predicted = run_script("predict.py", [checkpoint, pictures, "boxes=full", "output=poses"], tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    exported = run_script("export.py", [checkpoint, "output=exported"], tmp_path)
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "exported" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_training_continued_equals_one_in_one_piece_to_the_last_bit(
    run: Path, training: list[str], run_script: RunProgram, tmp_path: Path
) -> None:
    start = [f"model.pretrained={run.parent / 'classifier.safetensors'}", *NORMALISED, "trainer.max_epochs=2"]
    rest = {"straight": [], "continued": [f"ckpt_path={run / 'checkpoints' / 'last.ckpt'}"]}
    weights = []
    for name, arguments in rest.items():
        finished = run_script("train.py", [*training, *start, *arguments, f"hydra.run.dir={name}"], tmp_path)
        assert finished.returncode == 0, finished.stderr
        contents = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        weights.append((contents["state_dict"], contents["optimizer_states"][0]["state"]))
    assert all(torch.equal(value, weights[1][0][name]) for name, value in weights[0][0].items())
    for number, state in weights[0][1].items():
        assert all(torch.equal(value, weights[1][1][number][name]) for name, value in state.items())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model.backbone=test_vitt"], "did you mean test_vit"),
        (["model.backbone=test_byobnet", "model.checkpointed=1"], "model.checkpointed=1: must be true or false"),
        (["model.depths=[1,1,1,1]"], "model.depths"),
        (["model.crop_height=64"], "data.codec.height"),
    ],
)
def test_a_mistake_is_one_line(
    training: list[str], run_script: RunProgram, tmp_path: Path, arguments: list[str], words: str
) -> None:
    finished = run_script("train.py", [*training, *arguments], tmp_path)
    assert (finished.returncode, "Traceback" in finished.stderr) == (2, False), finished.stderr
    assert words in finished.stderr.splitlines()[-1]


@pytest.mark.slow
def test_layers_have_their_own_rates(training: list[str], run_script: RunProgram, tmp_path: Path) -> None:
    arguments = ["optimizer.layer_decay=0.5", "trainer.max_epochs=1", "hydra.run.dir=run", "name=layers"]
    finished = run_script("train.py", [*training, *arguments], tmp_path)
    assert finished.returncode == 0, finished.stderr
    # timm's test_vit: the stem, six blocks (the last norm with the last one), the head.
    shares = [
        float(line.split()[0])
        for line in (finished.stdout + finished.stderr).splitlines()
        if "backbone.blocks." in line
    ]
    assert shares == pytest.approx([0.5**number for number in range(6, 0, -1)], rel=1e-3)
