"""Weight files from everywhere into every entry point, and out again."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from loopback_server import Page, running_server
from uniformer_pose.model.network import PoseNetwork
from weights_by_name import weights_by_name

ZOO = Path(__file__).resolve().parents[2] / "src/uniformer_pose/weights/zoo.yaml"
SMALL = {"depths": [1, 1, 1, 1], "embed_dims": [16, 16, 64, 64], "deconv_channels": [16, 16, 16]}
MODEL = [f"model.{name}={value}".replace(" ", "") for name, value in SMALL.items()]
ROUTES: dict[str, list[str]] = {
    "eval": ["ckpt_path={path}", "data=coco_256x192", "trainer=cpu"],
    "export": ["ckpt_path={path}", "data=coco_256x192", "output={path}.out"],
    "train": ["model.pretrained={path}", "data=coco_256x192", "trainer=cpu", *MODEL],
}


class _RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("script", ROUTES)
@pytest.mark.parametrize("told", ["refused, because it holds posix.mkdir", "1 missing (backbone.norm4.bias)"])
def test_a_file_that_does_not_fit_stops_every_entry_point_with_one_line_and_status_2(
    tmp_path: Path, run_script: Any, script: str, told: str
) -> None:
    torch.manual_seed(0)
    path, entries = tmp_path / "weights.pth", PoseNetwork(17, **SMALL).state_dict()
    if "missing" in told:
        del entries["backbone.norm4.bias"]
    meta = _RunsCode(tmp_path / "marker") if "refused" in told else {}
    torch.save({"state_dict": entries, "meta": meta}, path)
    finished = run_script(f"{script}.py", [argument.format(path=path) for argument in ROUTES[script]], tmp_path)
    assert finished.returncode == 2, finished.stderr
    errors = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, finished.stderr
    assert told in errors[0]
    assert str(path) in errors[0]
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("layout", ["mmpose", "original", "safetensors"])
def test_an_exported_model_evaluates_to_the_last_digit_as_before(
    trained_run: Path, run_script: Any, tmp_path: Path, layout: str
) -> None:
    checkpoint, exported = trained_run / "checkpoints" / "best.ckpt", tmp_path / "exported"
    finished = run_script("export.py", [f"ckpt_path={checkpoint}", f"format={layout}", f"output={exported}"], tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert f"wrote {exported}" in finished.stdout
    finished = run_script(
        "eval.py", [f"ckpt_path={exported}", "trainer=cpu", f"hydra.run.dir={tmp_path / 'eval'}"], tmp_path
    )
    assert finished.returncode == 0, finished.stderr
    for file in ("metrics.json", "predictions.json", "error_types.json"):
        assert (tmp_path / "eval" / file).read_text() == (trained_run / file).read_text(), file


def test_an_export_replaces_nothing_unless_told_to_and_refuses_data_that_it_does_not_read(
    trained_run: Path, run_program: Any, run_script: Any, tmp_path: Path
) -> None:
    checkpoint = f"ckpt_path={trained_run / 'checkpoints' / 'best.ckpt'}"
    arguments = [checkpoint, "format=mmpose", f"output={tmp_path / 'a.pth'}"]
    (tmp_path / "a.pth").write_text("precious")
    finished = run_program("export.py", arguments, tmp_path)
    assert finished.returncode == 2
    assert "a.pth exists already" in finished.stderr
    assert (tmp_path / "a.pth").read_text() == "precious"
    finished = run_script("export.py", [*arguments, "overwrite=true", "data.root=/data"], tmp_path)
    assert finished.returncode == 2
    assert "data.root: not read here" in finished.stderr
    assert run_script("export.py", [*arguments, "overwrite=true", "data.skeleton=coco_17"], tmp_path).returncode == 0


# -- the released models, from loopback -------------------------------------------------------------------------------

NAME = "uniformer_s_coco_256x192"
SHORT = ["data.max_images=1", "data.num_workers=0", "trainer=cpu"]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a table whose smallest model is a stand-in with known weights, served from loopback."""
    with torch.device("meta"):
        shapes = {name: tuple(entry.shape) for name, entry in PoseNetwork(17, [3, 4, 8, 3]).state_dict().items()}
    unused = {f"backbone.norm{i}.{p}": (d,) for i, d in ((1, 64), (2, 128), (3, 320)) for p in ("weight", "bias")}
    buffer, folder = io.BytesIO(), tmp_path_factory.mktemp("zoo")
    entries = {"state_dict": weights_by_name({**shapes, **unused}), "meta": {}}
    torch.save(entries, buffer, _use_new_zipfile_serialization=False)
    file_name = f"top_down_256x192_global_small-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}_20230724.pth"
    with running_server() as server:
        server.serve(f"/{file_name}", Page(buffer.getvalue()))
        table = yaml.safe_load(ZOO.read_text())
        table["pose_models"][NAME]["url"] = f"{server.origin}/{file_name}"
        (folder / "zoo.yaml").write_text(yaml.safe_dump(table))
        yield {"UNIFORMER_POSE_ZOO": str(folder / "zoo.yaml"), "UNIFORMER_POSE_CACHE": str(folder / "cache")}


def test_a_released_model_is_fetched_evaluated_and_set_beside_its_published_numbers(
    run_script: Any, zoo: dict[str, str], rendered_coco: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = [f"models={NAME}", f"data.root={rendered_coco}", "data.val_boxes=gt", f"hydra.run.dir={run}", *SHORT]
    finished = run_script("reproduce.py", arguments, tmp_path, **zoo)
    assert finished.returncode == 0, finished.stderr
    content = json.loads((run / "reproduction.json").read_text())
    row = content["models"][NAME]
    assert row["published"] == {"AP": 74.0, "AP50": 90.2, "AP75": 82.1, "AR": 79.5, "AR50": 94.1}
    assert 0 <= row["measured"]["AP"] < 20  # weights that were never trained
    assert "Only 1 of " in content["conditions"]
    for part in (
        f"| {NAME} | **74.0 / ",
        "MMPose pose model, 346 of 346 tensors",
        "head_dim 64 as released",
        "crops of 256x192",
    ):
        assert part in finished.stdout
    assert f"| {NAME} | **74.0 / " in (run / "reproduction.md").read_text()


def test_data_that_are_missing_are_said_before_anything_starts(run_program: Any, tmp_path: Path) -> None:
    finished = run_program("reproduce.py", [f"data.root={tmp_path / 'none'}"], tmp_path)
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    for part in ("none/annotations/person_keypoints_val2017.json does not exist", "data.root="):
        assert part in finished.stderr


def test_a_zoo_name_is_evaluated_like_a_file(
    run_script: Any, zoo: dict[str, str], rendered_coco: Path, tmp_path: Path
) -> None:
    arguments = [f"ckpt_path=zoo:{NAME}", "data=coco_256x192", f"data.root={rendered_coco}", "boxes=gt"]
    arguments += ["evaluation.flip_test=false", f"hydra.run.dir={tmp_path / 'run'}", *SHORT]
    finished = run_script("eval.py", arguments, tmp_path, **zoo)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "run" / "metrics.json").is_file()
