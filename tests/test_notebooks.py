"""The notebooks run, say what is kept in them, and keep nothing of the machine that executed them."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import numpy as np
import pytest
from nbformat import NotebookNode

from programs import made_once
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
FILES = sorted(NOTEBOOKS.glob("[1-4]_*.ipynb"))
LARGEST = 400_000  # bytes; larger ones load slowly on the web
# Nothing in it depends on a trained model, whose numbers differ a little from one processor to the next.
THE_SAME_TO_THE_LAST_DIGIT = "1_look_at_the_data"

every_notebook = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def text_of(output: NotebookNode) -> str:
    """What an output says in words; nothing for a picture, whose stand-in text is not shown."""
    if output.output_type == "stream":
        return str(output.text)
    data = output.get("data", {})
    if any(kind.startswith("image/") for kind in data):
        return ""
    return "\n".join(str(data[kind]) for kind in ("text/markdown", "text/plain") if kind in data)


def said_by(path: Path, *, with_numbers: bool) -> list[tuple[str, list[str]]]:
    """For each code cell its name and what its outputs say, pictures by their format; stderr is not compared."""
    said = []
    for cell in code_cells(path):
        kept = [output for output in cell.outputs if output.get("name") != "stderr"]
        texts = [text_of(output) or "/".join(sorted(output.get("data", {}))) for output in kept]
        if not with_numbers:
            texts = [re.sub(r"\s+", " ", re.sub(r"[-+]?\d+(\.\d+)?|(?<=\| )-(?= \|)", "#", text)) for text in texts]
        said.append((cell.id, texts))
    return said


@every_notebook
def test_what_is_kept_was_executed_in_order_without_an_error_and_names_no_folder(path: Path) -> None:
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    said = "\n".join(map(text_of, outputs))
    assert not re.search(r"(?<![\w.:/~*)-])/(?:[\w.+-]+/)+[\w.+-]*", said)
    assert path.stat().st_size < LARGEST


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebooks in a folder beside which their pictures and their model are made, once for all test processes."""

    def copy(folder: Path) -> None:
        shutil.copytree(NOTEBOOKS, folder / "notebooks", ignore=shutil.ignore_patterns("__pycache__", ".*"))
        module = folder / "notebooks" / "small_model.py"  # two epochs say the same but for numbers, which are left out
        module.write_text(module.read_text().replace("epochs=7", "epochs=2").replace("epoch=7", "epoch=2"))
        command = [sys.executable, "-c", "import small_model; small_model.small_model()"]
        subprocess.run(command, cwd=module.parent, check=True)

    return made_once(tmp_path_factory, "fresh", copy) / "notebooks"


@pytest.mark.slow
@pytest.mark.timeout(900)  # on a busy machine; alone on two cores the first to need the small model takes two minutes
@every_notebook
def test_it_runs_and_says_what_is_kept_in_it(path: Path, copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(copies / "ipython"))  # no start-up files, no history
    command = [sys.executable, "-m", "jupyter", "execute", "--inplace", "--startup_timeout=300", path.name]
    subprocess.run(command, cwd=copies, check=True)
    exactly = path.stem == THE_SAME_TO_THE_LAST_DIGIT
    assert said_by(copies / path.name, with_numbers=exactly) == said_by(path, with_numbers=exactly)


# ------------------------------------------------------------------------------------------------------ the helpers


@pytest.mark.parametrize("method", ["msra", "dark", "udp"])
def test_a_heatmap_lies_where_its_peak_is_decoded(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt
    import torch

    monkeypatch.syspath_prepend(NOTEBOOKS)
    plt.switch_backend("agg")
    figures: ModuleType = importlib.import_module("figures")
    codec = HeatmapCodec(96, 64, sigma=1.5, method=method)  # type: ignore[arg-type]
    heatmap = torch.zeros(1, 1, 24, 16)
    heatmap[0, 0, 10, 5] = 1.0
    (axis,) = figures.show([np.zeros((96, 64, 3), np.uint8)])
    figures.lay_over(axis, heatmap[0, 0], codec)
    left, right, bottom, top = axis.images[-1].get_extent()
    center = left + (5 + 0.5) * (right - left) / 16, top + (10 + 0.5) * (bottom - top) / 24
    decoded, _ = codec.decode(heatmap)
    np.testing.assert_allclose(center, decoded[0, 0], atol=1e-4)
    plt.close("all")


def test_a_training_that_fails_is_told_and_leaves_no_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(NOTEBOOKS)
    small_model = importlib.import_module("small_model")
    script = tmp_path / "train.py"
    script.write_text("import sys; sys.exit('the disk is full')")
    monkeypatch.setattr(small_model, "_DATA", tmp_path)
    monkeypatch.setattr(small_model, "_TRAIN", script)
    monkeypatch.setattr(small_model, "write_synthetic_dataset", lambda *_, **__: True)
    with pytest.raises(RuntimeError, match="could not be trained:\nthe disk is full"):
        small_model.small_model()
    assert not (tmp_path / "small_model.ckpt").exists()
