"""The notebooks: what is kept in them is clean and in order, and they still run and say the same."""

from __future__ import annotations

import ast
import getpass
import importlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import nbformat
import numpy as np
import pytest
from nbformat import NotebookNode

from programs import made_once
from test_readme import accepted_by_train
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
FILES = sorted(NOTEBOOKS.glob("*.ipynb"))
LARGEST = 400_000  # bytes; larger ones load slowly on the web
LONGEST_CELL = 40  # lines
# Nothing in it depends on a trained model, whose numbers differ a little from one processor to the next.
THE_SAME_TO_THE_LAST_DIGIT = "1_look_at_the_data"

every_notebook = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(output: NotebookNode) -> str:
    """What an output says in words; nothing for a picture, whose stand-in text is not shown."""
    if output.output_type == "stream":
        return str(output.text)
    data = output.get("data", {})
    if any(kind.startswith("image/") for kind in data):
        return ""
    return "\n".join(str(data[kind]) for kind in ("text/markdown", "text/plain") if kind in data)


def absolute_paths(text: str) -> list[str]:
    """Paths from the root of a Unix or a Windows machine; not those of an address on the web."""
    return re.findall(r"(?<![\w.:/~*)-])/(?:[\w.+-]+/)+[\w.+-]*|\b[A-Za-z]:\\[\w\\.]+", text)


def test_there_are_the_four_notebooks() -> None:
    assert [path.stem for path in FILES] == [
        "1_look_at_the_data",
        "2_from_picture_to_pose",
        "3_understand_a_model",
        "4_your_own_keypoints",
    ]


@every_notebook
def test_it_is_a_valid_notebook_that_names_no_machine_and_no_versions(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert all(cell.metadata == {} for cell in notebook.cells)


@every_notebook
def test_all_cells_were_executed_once_from_top_to_bottom(path: Path) -> None:
    counts = [cell.execution_count for cell in code_cells(read(path))]
    assert counts == list(range(1, len(counts) + 1))


@every_notebook
def test_the_kept_outputs_hold_no_error_and_no_warning(path: Path) -> None:
    outputs = [output for cell in code_cells(read(path)) for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


@every_notebook
def test_nothing_in_it_tells_where_it_was_executed(path: Path) -> None:
    notebook = read(path)
    said = [text_of(output) for cell in code_cells(notebook) for output in cell.outputs]
    for text in [*said, *(cell.source for cell in notebook.cells)]:
        assert absolute_paths(text) == []
    private = [socket.gethostname(), *([getpass.getuser()] if getpass.getuser() != "root" else [])]
    for name in private:
        assert not re.search(rf"\b{re.escape(name)}\b", "\n".join(said))


def test_the_search_for_absolute_paths_finds_them_and_nothing_else() -> None:
    assert absolute_paths("saved to /home/somebody/data/x.ckpt.") == ["/home/somebody/data/x.ckpt."]
    assert absolute_paths(r"'C:\Users\somebody'") == [r"C:\Users\somebody"]
    assert absolute_paths("../data/notebooks/x, a/b/c, left/right, https://x.org/a/b, (2 sigma)² / 2") == []


@every_notebook
def test_it_is_small_enough_for_the_web(path: Path) -> None:
    assert path.stat().st_size < LARGEST


@every_notebook
def test_pictures_are_kept_in_one_format_each(path: Path) -> None:
    pictures = [
        [kind for kind in output.data if kind.startswith("image/")]
        for cell in code_cells(read(path))
        for output in cell.outputs
        if output.output_type == "display_data"
    ]
    assert len(pictures) >= 3
    assert all(kinds in (["image/png"], ["image/jpeg"]) for kinds in pictures)


@every_notebook
def test_cells_are_short(path: Path) -> None:
    assert max(len(cell.source.splitlines()) for cell in code_cells(read(path))) <= LONGEST_CELL


@every_notebook
def test_it_uses_public_names_of_the_package_only(path: Path) -> None:
    for cell in code_cells(read(path)):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("uniformer_pose"):
                module = importlib.import_module(str(node.module))
                for name in node.names:
                    assert not name.name.startswith("_")
                    assert hasattr(module, name.name)
            if isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_"), ast.unparse(node)


def test_training_commands_in_the_text_are_accepted() -> None:
    text = "\n".join(cell.source for path in FILES for cell in read(path).cells if cell.cell_type == "markdown")
    commands = re.findall(r"python src/train\.py([^`\n]*)", text.replace("\\\n", " "))
    assert commands
    for arguments in commands:
        accepted_by_train(shlex.split(arguments))


def test_the_first_three_say_how_to_look_at_coco_or_a_released_model() -> None:
    for path in FILES[:3]:
        opening = read(path).cells[0].source
        assert "COCO" in opening or "zoo:uniformer_s_coco_256x192" in opening


# ------------------------------------------------------------------------------------------------------ the helpers


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    import matplotlib.pyplot as plt

    monkeypatch.syspath_prepend(NOTEBOOKS)
    plt.switch_backend("agg")
    with plt.rc_context():
        yield importlib.import_module("figures")
    plt.close("all")


@pytest.mark.parametrize("method", ["msra", "dark", "udp"])
def test_a_heatmap_lies_where_its_peak_is_decoded(figures: ModuleType, method: str) -> None:
    import torch

    codec = HeatmapCodec(96, 64, sigma=1.5, method=method)  # type: ignore[arg-type]
    heatmap = torch.zeros(1, 1, 24, 16)
    heatmap[0, 0, 10, 5] = 1.0
    (axis,) = figures.show([np.zeros((96, 64, 3), np.uint8)])
    figures.lay_over(axis, heatmap[0, 0], codec)
    left, right, bottom, top = axis.images[-1].get_extent()
    center = left + (5 + 0.5) * (right - left) / 16, top + (10 + 0.5) * (bottom - top) / 24
    decoded, _ = codec.decode(heatmap)
    np.testing.assert_allclose(center, decoded[0, 0], atol=1e-4)


def test_what_is_drawn_on_a_picture_does_not_change_its_frame(figures: ModuleType) -> None:
    (axis,) = figures.show([np.zeros((96, 64, 3), np.uint8)])
    axis.plot([-100, 100], [-100, 300])
    assert axis.get_xlim() == (-0.5, 63.5)
    assert axis.get_ylim() == (95.5, -0.5)


def test_pictures_in_a_row_are_of_one_height_and_keep_their_shape(figures: ModuleType) -> None:
    axes = figures.show([np.zeros((96, 64, 3)), np.zeros((100, 200, 3))], ["tall", "wide"], height=2.0)
    axes[0].figure.draw_without_rendering()
    boxes = [axis.get_window_extent() for axis in axes]
    assert boxes[0].height == pytest.approx(boxes[1].height, abs=1)
    assert [box.width / box.height for box in boxes] == pytest.approx([64 / 96, 2.0], rel=0.02)
    assert [axis.get_title() for axis in axes] == ["tall", "wide"]


def test_photographs_are_kept_as_jpeg_and_plots_as_png(figures: ModuleType) -> None:
    import matplotlib.pyplot as plt

    (axis,) = figures.show([np.zeros((8, 8, 3), np.uint8)])
    photograph, plot = axis.figure, plt.figure()
    plot.add_subplot().plot([1, 2])
    assert [figures._photograph(photograph)[:4], figures._plot(photograph)] == ["/9j/", None]
    assert [figures._photograph(plot), figures._plot(plot)[:8]] == [None, "iVBORw0K"]


@pytest.fixture
def small_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The module, with an empty data folder of its own and nothing to render."""
    monkeypatch.syspath_prepend(NOTEBOOKS)
    module = importlib.import_module("small_model")
    monkeypatch.setattr(module, "_DATA", tmp_path)
    monkeypatch.setattr(module, "write_synthetic_dataset", lambda *_, **__: True)
    return module


def test_a_training_that_fails_is_told_and_leaves_no_model(
    small_model: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text("import sys; sys.exit('the disk is full')")
    monkeypatch.setattr(small_model, "_TRAIN", script)
    with pytest.raises(RuntimeError, match="could not be trained:\nthe disk is full"):
        small_model.small_model()
    assert not (tmp_path / "small_model.ckpt").exists()


def test_the_small_model_is_trained_once_and_named_from_the_working_directory(
    small_model: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import pathlib, sys\n"
        "run = pathlib.Path(sys.argv[-1].partition('=')[2]) / 'checkpoints'\n"
        "run.mkdir(parents=True)\n"  # fails if it runs twice
        "(run / 'best.ckpt').write_text('weights')\n"
    )
    monkeypatch.setattr(small_model, "_TRAIN", script)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert [small_model.small_model(), small_model.small_model()] == [Path("../small_model.ckpt")] * 2
    assert (tmp_path / "small_model.ckpt").read_text() == "weights"


# ------------------------------------------------------------------------------------------------------- execution


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


def said_by(notebook: NotebookNode, *, with_numbers: bool) -> list[tuple[str, list[str]]]:
    """For each code cell its name and what its outputs say, pictures by their format; stderr is not compared."""
    said = []
    for cell in code_cells(notebook):
        kept = [output for output in cell.outputs if output.get("name") != "stderr"]
        texts = [text_of(output) or "/".join(sorted(output.get("data", {}))) for output in kept]
        if not with_numbers:
            texts = [re.sub(r"\s+", " ", re.sub(r"[-+]?\d+(\.\d+)?|(?<=\| )-(?= \|)", "#", text)) for text in texts]
        said.append((cell.id, texts))
    return said


@pytest.mark.slow
@pytest.mark.timeout(900)  # on a busy machine; alone on two cores the first to need the small model takes two minutes
@every_notebook
def test_it_runs_and_says_what_is_kept_in_it(path: Path, copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(NOTEBOOKS)
    monkeypatch.setenv("IPYTHONDIR", str(copies / "ipython"))  # no start-up files, no history
    executed = importlib.import_module("refresh").executed(copies / path.name)
    exactly = path.stem == THE_SAME_TO_THE_LAST_DIGIT
    assert said_by(executed, with_numbers=exactly) == said_by(read(path), with_numbers=exactly)
