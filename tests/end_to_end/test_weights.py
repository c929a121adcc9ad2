"""Weight files from everywhere into every entry point, and out again."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from programs import made_once
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.weights.zoo import read_zoo
from weights_by_name import weights_by_name

ZOO = Path(__file__).resolve().parents[2] / "src/uniformer_pose/weights/zoo.yaml"
DEPTHS = {"uniformer_s": [3, 4, 8, 3], "uniformer_b": [5, 8, 20, 7]}
SMALL = {"depths": [1, 1, 1, 1], "embed_dims": [16, 16, 64, 64], "deconv_channels": [16, 16, 16]}

# -- files that do not load, anywhere ---------------------------------------------------------------------------------


class _RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def with_code(entries: dict[str, torch.Tensor], folder: Path) -> dict[str, Any]:
    return {"state_dict": entries, "meta": _RunsCode(folder / "marker")}


def one_missing(entries: dict[str, torch.Tensor], _: Path) -> dict[str, Any]:
    return {"state_dict": {name: entry for name, entry in entries.items() if name != "backbone.norm4.bias"}}


def of_a_detector(*_: object) -> dict[str, Any]:
    return {"state_dict": {"bbox_head.fc_cls.weight": torch.ones(81, 4)}}


MODEL = [f"model.{name}={value}".replace(" ", "") for name, value in SMALL.items()]
ROUTES: dict[str, list[str]] = {
    "eval": ["ckpt_path={path}", "data=coco_256x192", "trainer=cpu"],
    "export": ["ckpt_path={path}", "data=coco_256x192", "output={path}.out"],
    "train": ["model.pretrained={path}", "data=coco_256x192", "trainer=cpu", *MODEL],
}


@pytest.mark.parametrize("script", ROUTES)
@pytest.mark.parametrize(
    ("made", "told"),
    [
        (with_code, "refused, because it holds posix.mkdir"),
        (one_missing, "1 missing (backbone.norm4.bias)"),
        (of_a_detector, "not a whole UniFormer"),
    ],
)
def test_a_file_that_does_not_fit_stops_every_entry_point_with_one_line_and_status_2(
    tmp_path: Path, run_script: Any, script: str, made: Callable[..., Any], told: str
) -> None:
    torch.manual_seed(0)
    path = tmp_path / "weights.pth"
    torch.save(made(PoseNetwork(17, **SMALL).state_dict(), tmp_path), path)
    finished = run_script(f"{script}.py", [argument.format(path=path) for argument in ROUTES[script]], tmp_path)
    assert finished.returncode == 2, finished.stderr
    errors = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, finished.stderr
    assert told in errors[0]
    assert str(path) in errors[0]
    assert not (tmp_path / "marker").exists()


# -- out, and back again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["mmpose", "original", "safetensors"])
def test_an_exported_model_evaluates_to_the_last_digit_as_before(
    trained_run: Path, run_script: Any, tmp_path: Path, layout: str
) -> None:
    checkpoint = trained_run / "checkpoints" / "best.ckpt"
    exported = tmp_path / "exported"
    finished = run_script("export.py", [f"ckpt_path={checkpoint}", f"format={layout}", f"output={exported}"], tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert f"wrote {exported}" in finished.stdout
    finished = run_script(
        "eval.py", [f"ckpt_path={exported}", "trainer=cpu", f"hydra.run.dir={tmp_path / 'eval'}"], tmp_path
    )
    assert finished.returncode == 0, finished.stderr
    for file in ("metrics.json", "predictions.json", "keypoint_errors.json"):
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
    assert "data.root: an export reads no data" in finished.stderr
    assert run_script("export.py", [*arguments, "overwrite=true", "data.skeleton=coco_17"], tmp_path).returncode == 0


# -- the released models, from loopback -------------------------------------------------------------------------------


def write_zoo(folder: Path) -> None:
    """The table ``zoo.yaml`` of stand-ins for the released files, and these, in their layout and with known weights."""
    content = yaml.safe_load(ZOO.read_text())
    written: dict[str, tuple[Path, str]] = {}
    for name, model in read_zoo().pose_models.items():
        if model.network not in written:
            with torch.device("meta"):
                shapes = {n: tuple(t.shape) for n, t in PoseNetwork(17, DEPTHS[model.network]).state_dict().items()}
            unused = {
                f"backbone.norm{i}.{p}": (d,) for i, d in ((1, 64), (2, 128), (3, 320)) for p in ("weight", "bias")
            }
            path = folder / f"{model.network}.pth"
            entries = weights_by_name({**shapes, **unused})
            torch.save({"state_dict": entries, "meta": {}}, path, _use_new_zipfile_serialization=False)
            written[model.network] = path, hashlib.sha256(path.read_bytes()).hexdigest()
        path, sha256 = written[model.network]
        file_name = model.file_name.replace(str(model.sha256), sha256[:8])
        os.link(path, folder / file_name)
        content["pose_models"]["files"][name]["file"] = file_name
    (folder / "zoo.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A table of stand-ins for the released files, served from loopback; beside it there is room for a cache."""
    folder = made_once(tmp_path_factory, "released", write_zoo)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    content = yaml.safe_load((folder / "zoo.yaml").read_text())
    content["pose_models"]["source"] = f"http://127.0.0.1:{server.server_port}/"
    table = tmp_path_factory.mktemp("zoo") / "zoo.yaml"
    table.write_text(yaml.safe_dump(content))
    yield table
    server.shutdown()
    server.server_close()


def with_zoo(run: Any, script: str, zoo: Path, folder: Path, *arguments: str) -> Any:
    cache = str(zoo.parent / "cache")
    return run(script, [*arguments], folder, UNIFORMER_POSE_ZOO=str(zoo), UNIFORMER_POSE_CACHE=cache)


SHORT = ["data.max_images=1", "data.num_workers=0", "trainer=cpu"]


def test_a_released_model_is_fetched_evaluated_and_set_beside_its_published_numbers(
    run_script: Any, zoo: Path, rendered_coco: Path, tmp_path: Path
) -> None:
    name, run = "uniformer_s_coco_256x192", tmp_path / "run"
    arguments = [f"models={name}", f"data.root={rendered_coco}", "data.val_boxes=gt", f"hydra.run.dir={run}", *SHORT]
    finished = with_zoo(run_script, "reproduce.py", zoo, tmp_path, *arguments)
    assert finished.returncode == 0, finished.stderr
    content = json.loads((run / "reproduction.json").read_text())
    row = content["models"][name]
    assert row["published"] == {"AP": 74.0, "AP50": 90.2, "AP75": 82.1, "AR": 79.5, "AR50": 94.1}
    assert 0 <= row["measured"]["AP"] < 20  # weights that were never trained
    assert "Only 1 of " in content["conditions"]
    for part in (
        f"| {name} | **74.0 / ",
        "UniFormer-S, MMPose pose model (old torch file, checked by the digest in its name): 346 of 346 tensors",
        "head_dim 64 as released",
        "crops of 256x192",
    ):
        assert part in finished.stdout
    assert f"| {name} | **74.0 / " in (run / "reproduction.md").read_text()


def test_all_that_is_missing_is_said_before_anything_starts(run_program: Any, zoo: Path, tmp_path: Path) -> None:
    finished = with_zoo(run_program, "reproduce.py", zoo, tmp_path, f"data.root={tmp_path / 'none'}")
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    for part in (
        "none/annotations/person_keypoints_val2017.json (annotations_trainval2017.zip of cocodataset.org",
        "none/val2017 (val2017.zip",
        "COCO_val2017_detections_AP_H_56_person.json (detector boxes",
        "data.root=<folder> says where COCO is",
    ):
        assert part in finished.stderr


def test_a_zoo_name_is_evaluated_like_a_file(run_script: Any, zoo: Path, rendered_coco: Path, tmp_path: Path) -> None:
    arguments = ["ckpt_path=zoo:uniformer_s_coco_256x192", "data=coco_256x192", f"data.root={rendered_coco}"]
    arguments += ["boxes=gt", "evaluation.flip_test=false", f"hydra.run.dir={tmp_path / 'run'}", *SHORT]
    finished = with_zoo(run_script, "eval.py", zoo, tmp_path, *arguments)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "run" / "metrics.json").is_file()
