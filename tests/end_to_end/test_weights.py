"""Weight files from everywhere into every entry point, and out again."""

from __future__ import annotations

import functools
import hashlib
import http.server
import importlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

from programs import made_once
from uniformer_pose.entry_point import accept_any_argument, checked_config, config_groups, report_input_errors
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.weights.published_models import published_models
from weights_by_name import weights_by_name

PROJECT = Path(__file__).resolve().parents[2]
CONF = PROJECT / "conf"
DEPTHS = {"uniformer_s": [3, 4, 8, 3], "uniformer_b": [5, 8, 20, 7]}
SMALL = {"depths": [1, 1, 1, 1], "embed_dims": [16, 16, 64, 64], "deconv_channels": [16, 16, 16]}

# ------------------------------------------------------------------------- files that do not load, anywhere


def small_entries() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return PoseNetwork(17, **SMALL).state_dict()


class _RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def changed(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        entries = small_entries()
        change(entries)
        torch.save({"state_dict": entries, "meta": {}}, path)

    return write


def misshapen(entries: dict[str, torch.Tensor]) -> None:
    entries["backbone.blocks4.0.attn.qkv.bias"] = torch.zeros(5)


def renamed(entries: dict[str, torch.Tensor]) -> None:
    entries["backbone.blocks4.0.attn.QKV.bias"] = entries.pop("backbone.blocks4.0.attn.qkv.bias")


def cut(path: Path) -> None:
    changed(lambda entries: None)(path)
    path.write_bytes(path.read_bytes()[:-3000])


def flipped(path: Path) -> None:
    changed(lambda entries: None)(path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])


def of_another_size(path: Path) -> None:
    with torch.device("meta"):
        entries = PoseNetwork(17, DEPTHS["uniformer_s"]).state_dict()
    torch.save({"state_dict": {name: torch.zeros_like(entry, device="cpu") for name, entry in entries.items()}}, path)


BAD_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "one tensor missing": (
        changed(lambda entries: entries.pop("backbone.blocks4.0.attn.qkv.bias")),
        "1 missing (backbone.blocks4.0.attn.qkv.bias)",
    ),
    "one renamed": (changed(renamed), "1 unknown to the network (backbone.blocks4.0.attn.QKV.bias)"),
    "one of another shape": (
        changed(misshapen),
        "1 of another shape (backbone.blocks4.0.attn.qkv.bias: file [5], network [192])",
    ),
    "a detector's checkpoint": (
        lambda path: torch.save({"state_dict": {"bbox_head.fc_cls.weight": torch.ones(81, 4)}}, path),
        "not a whole UniFormer",
    ),
    "a text file": (lambda path: path.write_text("learning_rate: 3\n"), "not a weight file but text"),
    "cut short": (cut, "not a whole weight file"),
    "one byte flipped": (flipped, "damaged"),
    "a pickle that runs code": (
        lambda path: torch.save({"state_dict": small_entries(), "meta": _RunsCode(path.parent / "marker")}, path),
        "refused, because it holds posix.mkdir",
    ),
}
ROUTES: dict[str, list[str]] = {
    "eval": ["ckpt_path={path}", "data=coco_256x192", "trainer=cpu"],
    "export": ["ckpt_path={path}", "data=coco_256x192", "output={path}.out"],
    "train": [
        "model.pretrained={path}",
        "data=coco_256x192",
        "trainer=cpu",
        *(f"model.{name}={value}".replace(" ", "") for name, value in SMALL.items()),
    ],
}


def run_in_process(script: str, arguments: list[str], folder: Path) -> None:
    """What ``python src/<script>.py <arguments>`` does behind Hydra's command line."""
    module = importlib.import_module(script)
    groups = config_groups(CONF)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [*accept_any_argument(arguments, groups), *([] if script == "export" else [f"++run_dir={folder}"])]
        config = compose(script, overrides)
    schema = {"eval": "EvalConfig", "export": "ExportConfig", "train": "TrainConfig"}[script]
    work = {"eval": "evaluate", "export": "export", "train": "train"}[script]
    with report_input_errors():
        getattr(module, work)(checked_config(config, getattr(module, schema)))


@pytest.mark.parametrize("script", ROUTES)
@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_does_not_fit_stops_every_entry_point_with_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], script: str, case: str
) -> None:
    write, message = BAD_FILES[case]
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(SystemExit) as stopped:
        run_in_process(script, [argument.format(path=path) for argument in ROUTES[script]], tmp_path)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, error
    assert message in lines[0]
    assert str(path) in lines[0]
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("model", ["uniformer_b", "uniformer_s"])
def test_a_file_of_s_in_a_network_of_b_stops_and_in_one_of_s_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    path = tmp_path / "weights.pth"
    of_another_size(path)
    arguments = [f"model={model}", f"model.pretrained={path}", "data=coco_256x192", f"data.root={tmp_path / 'none'}"]
    with pytest.raises(SystemExit) as stopped:  # that of S goes on to look for COCO
        run_in_process("train", [*arguments, "trainer=cpu"], tmp_path)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert ("holds UniFormer-S (depths [3, 4, 8, 3]), but the network is UniFormer-B" in error) == (model[-1] == "b")
    assert ("does not exist; put COCO 2017 there" in error) == (model[-1] == "s")


def test_a_pickle_that_runs_code_is_refused_by_the_real_commands(run_program: Any, tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {}, "meta": _RunsCode(tmp_path / "marker")}, path)
    for script, arguments in (("eval", [f"ckpt_path={path}"]), ("train", [f"ckpt_path={path}", "trainer=cpu"])):
        finished = run_program(f"{script}.py", arguments, tmp_path)
        assert finished.returncode == 2, finished.stderr
        assert finished.stderr.count("\n") == 1
        assert "refused, because it holds posix.mkdir" in finished.stderr
    assert not (tmp_path / "marker").exists()


# ------------------------------------------------------------------------------------------- out, and back again


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


def test_an_export_replaces_nothing_unless_told_to(
    trained_run: Path, run_program: Any, run_script: Any, tmp_path: Path
) -> None:
    arguments = [
        f"ckpt_path={trained_run / 'checkpoints' / 'best.ckpt'}",
        "format=mmpose",
        f"output={tmp_path / 'a.pth'}",
    ]
    (tmp_path / "a.pth").write_text("precious")
    finished = run_program("export.py", arguments, tmp_path)
    assert finished.returncode == 2
    assert "a.pth exists already" in finished.stderr
    assert (tmp_path / "a.pth").read_text() == "precious"
    assert run_script("export.py", [*arguments, "overwrite=true"], tmp_path).returncode == 0


# ----------------------------------------------------------------------------- the released models, from loopback


def write_zoo(folder: Path) -> None:
    """The table ``zoo.yaml`` of stand-ins for the released files, and these, in their layout and with known weights."""
    content = yaml.safe_load((PROJECT / "src/uniformer_pose/weights/published_models.yaml").read_text())
    written: dict[str, tuple[Path, str]] = {}
    for name, model in published_models().pose_models.items():
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


def reproduced(run_script: Any, zoo: Path, folder: Path, *arguments: str, timeout: float = 240) -> dict[str, Any]:
    finished = run_script(
        "reproduce.py",
        [*arguments, "trainer=cpu", "data.num_workers=0", f"hydra.run.dir={folder / 'run'}"],
        folder,
        timeout=timeout,
        UNIFORMER_POSE_ZOO=str(zoo),
        UNIFORMER_POSE_CACHE=str(zoo.parent / "cache"),
        OMP_NUM_THREADS="1",
    )
    assert finished.returncode == 0, finished.stderr
    (folder / "stdout.txt").write_text(finished.stdout)
    content: dict[str, Any] = json.loads((folder / "run" / "reproduction.json").read_text())
    return content


def test_a_released_model_is_fetched_evaluated_and_set_beside_its_published_numbers(
    run_script: Any, zoo: Path, rendered_coco: Path, tmp_path: Path
) -> None:
    content = reproduced(
        run_script,
        zoo,
        tmp_path,
        "models=uniformer_s_coco_256x192",
        f"data.root={rendered_coco}",
        "data.val_boxes=gt",
        "data.max_images=1",
    )
    row = content["models"]["uniformer_s_coco_256x192"]
    assert row["published"] == {"AP": 74.0, "AP50": 90.2, "AP75": 82.1, "AR": 79.5, "AR50": 94.1}
    assert 0 <= row["measured"]["AP"] < 20  # weights that were never trained
    assert "AP" in row["beyond_tolerance"]
    assert "Only 1 of " in content["conditions"]
    printed = (tmp_path / "stdout.txt").read_text()
    assert "uniformer_s_coco_256x192  published     74.0     90.2     82.1     79.5     94.1" in printed
    assert (
        "UniFormer-S, MMPose pose model (old torch file, checked by the digest in its name): 346 of 346 tensors"
        in printed
    )
    assert "head_dim 64 as released" in printed
    assert "crops of 256x192" in printed
    assert "| uniformer_s_coco_256x192 | **74.0 / " in (tmp_path / "run" / "reproduction.md").read_text()


@pytest.mark.slow
@pytest.mark.long
def test_the_table_of_both_sizes_is_made_on_images_in_cocos_layout_with_detector_boxes(
    run_script: Any, zoo: Path, rendered_coco: Path, tmp_path: Path
) -> None:
    content = reproduced(
        run_script,
        zoo,
        tmp_path,
        "models=[uniformer_s_coco_256x192,uniformer_b_coco_256x192]",
        f"data.root={rendered_coco}",
        "data.max_images=2",  # all four images and all six models took half an hour once, by hand
        timeout=280,
    )
    assert list(content["models"]) == ["uniformer_s_coco_256x192", "uniformer_b_coco_256x192"]
    assert "boxes: person_detection_results/" in content["conditions"]


def test_all_that_is_missing_is_said_before_anything_starts(run_program: Any, zoo: Path, tmp_path: Path) -> None:
    finished = run_program("reproduce.py", [f"data.root={tmp_path / 'none'}"], tmp_path, UNIFORMER_POSE_ZOO=str(zoo))
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    for part in (
        "none/annotations/person_keypoints_val2017.json (annotations_trainval2017.zip of cocodataset.org",
        "none/val2017 (val2017.zip",
        "COCO_val2017_detections_AP_H_56_person.json (the detector boxes",
        "data.root=<folder> says where COCO is",
    ):
        assert part in finished.stderr


def test_a_zoo_name_is_evaluated_like_a_file(run_script: Any, zoo: Path, rendered_coco: Path, tmp_path: Path) -> None:
    finished = run_script(
        "eval.py",
        [
            "ckpt_path=zoo:uniformer_s_coco_256x192",
            "data=coco_256x192",
            f"data.root={rendered_coco}",
            "boxes=gt",
            "data.max_images=1",
            "data.num_workers=0",
            "trainer=cpu",
            "evaluation.flip_test=false",
            f"hydra.run.dir={tmp_path / 'run'}",
        ],
        tmp_path,
        UNIFORMER_POSE_ZOO=str(zoo),
        UNIFORMER_POSE_CACHE=str(zoo.parent / "cache"),
        OMP_NUM_THREADS="1",
    )
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "run" / "metrics.json").is_file()
