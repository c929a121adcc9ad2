"""docs/your_model.md, run as it stands: a class from outside this package from training to safetensors."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from programs import composed
from uniformer_pose import PoseEstimator, from_pretrained, load_network
from uniformer_pose.entry_point import checked_config
from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.saved_model import RECORD_KEY, SavedModel, saved_record
from uniformer_pose.skeleton import load_skeleton
from uniformer_pose.weights.export import save_pretrained, write_released_layout
from uniformer_pose.weights.loading import load_into, load_model
from uniformer_pose.weights.start import POSE_NETWORK, starting_network

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs" / "your_model.md").read_text(encoding="utf-8")
RUNS = ("runs/train/mine", "evaluated")
COCO = load_skeleton("coco_17")
CODEC = HeatmapCodec(64, 64, sigma=1.5)


# One file each is all that another optimizer, or another schedule, takes.
OWN_GROUPS = {
    "optimizer": "{_target_: torch.optim.SGD, _partial_: true, lr_per_256: 0.32, decay_norms_and_biases: false}",
    "scheduler": """
        per_epoch:
          halved: {_target_: torch.optim.lr_scheduler.ExponentialLR, _partial_: true, gamma: 0.5}
    """,
}


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    assert found is not None
    return found[1]


def commands() -> dict[str, list[str]]:
    """Arguments by script, in the page's order."""
    lines = [shlex.split(line) for line in block("bash").splitlines()]
    return {Path(line[1]).stem: line[2:] for line in lines}


def in_process(script: str, function: str, schema: str, arguments: list[str]) -> Any:
    """What ``python src/<script>.py <arguments>`` does behind Hydra's command line; a process costs ten seconds."""
    module = importlib.import_module(script)
    return getattr(module, function)(checked_config(composed(script, *arguments), getattr(module, schema)))


@pytest.fixture(scope="module")
def folder(synthetic_root: Path, run_program: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's files lie, and its training has been run."""
    folder = tmp_path_factory.mktemp("your_model")
    (folder / "my_conf" / "model").mkdir(parents=True)
    (folder / "my_net.py").write_text(block("python"))
    (folder / "my_conf" / "model" / "my_net.yaml").write_text(block("yaml"))
    for group, text in OWN_GROUPS.items():
        (folder / "my_conf" / group).mkdir()
        (folder / "my_conf" / group / "mine.yaml").write_text(text)
    small = ["trainer=cpu", "trainer.max_epochs=1", "data.batch_size=8", "data.num_workers=0", "model.channels=8"]
    small += ["optimizer=mine", "scheduler=mine", "trainer.check_val_every_n_epoch=1", f"data.root={synthetic_root}"]
    finished = run_program("train.py", [*commands()["train"], *small], folder, PYTHONPATH=f"{folder}:{PROJECT / 'src'}")
    assert finished.returncode == 0, finished.stderr
    assert "weights: random" in finished.stdout + finished.stderr
    assert "learning rate 0.01 = 0.32 x 8 / 256" in finished.stdout + finished.stderr
    assert re.search(r"to evaluate it .*src/eval.py ckpt_path=\S*best.ckpt model_class=my_net.MyNet\n", finished.stdout)
    return folder


def test_every_command_of_the_page_works(
    folder: Path, synthetic_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    in_process("eval", "evaluate", "EvalConfig", [*commands()["eval"], "trainer=cpu", "++run_dir=evaluated"])
    # Of a training so short AP is 0; the predictions are what must be the same.
    trained, evaluated = (json.loads((folder / run / "predictions.json").read_text()) for run in RUNS)
    for before, after in zip(trained, evaluated, strict=True):
        assert after["keypoints"] == pytest.approx(before["keypoints"], abs=1e-3)
    (folder / "pictures").symlink_to(synthetic_root / "images" / "val")
    assert in_process("predict", "predict", "PredictConfig", commands()["predict"]) == {}
    assert len(json.loads((folder / "runs/predict/pictures/poses.json").read_text())) == 6
    in_process("export", "export", "ExportConfig", commands()["export"])
    estimator = PoseEstimator("exported", model_class="my_net.MyNet", announce=len)
    of_checkpoint = PoseEstimator(
        "runs/train/mine/checkpoints/best.ckpt", model_class=importlib.import_module("my_net").MyNet, announce=len
    )
    picture = next((synthetic_root / "images" / "val").iterdir())
    assert (estimator(picture).keypoints == of_checkpoint(picture).keypoints).all()


def test_a_checkpoint_imports_nothing_that_nobody_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "runs/train/mine/checkpoints/best.ckpt"
    with pytest.raises(InputError, match=r"my_net.MyNet, which no file may import.*model_class=my_net.MyNet"):
        load_model(path)
    with pytest.raises(InputError, match="cannot be imported"):
        load_model(path, model_class="no_such_package.MyNet")
    with pytest.raises(InputError, match=r"model_class"):
        load_network(path)
    for other in ("torch.nn.Identity", "os.path.join"):
        with pytest.raises(InputError, match=r"cannot be built|missing|unknown|not a torch.nn.Module"):
            load_model(path, model_class=other)


# ------------------------------------------------------------------------------------------- the same, in small


class Net(nn.Module):
    """All of it below an attribute that wrappers are known by, one weight used twice, a buffer of whole numbers."""

    def __init__(self, num_keypoints: int, channels: int = 4, stride: int = 4, depth: dict[str, int] | None = None):
        super().__init__()
        self.model = nn.Conv2d(3, num_keypoints, stride, stride=stride)
        self.twin = self.model
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images)


class Subclass(PoseNetwork):
    """A PoseNetwork that computes something else with the same parameters."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return -super().forward(images)


HERE = __name__


def saved(folder: Path, target: str = f"{HERE}.Net", **arguments: Any) -> tuple[Path, SavedModel]:
    network, other, _line = starting_network({"_target_": target, **arguments}, COCO, CODEC)
    model = SavedModel(network, CODEC, COCO, (0.0,) * 3, (1.0,) * 3, 1.25, {}, {}, other)
    weights = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    path = folder / "last.ckpt"
    torch.save({"state_dict": weights, RECORD_KEY: saved_record(model)}, path)
    return path, model


IMAGE = torch.rand(1, 3, 64, 64)


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        (f"{HERE}.Net", {"depth": {"a": 1}}),
        (f"{HERE}.Subclass", {"depths": [1, 1, 1, 1], "embed_dims": [8, 8, 64, 64]}),
    ],
)
def test_what_is_saved_is_loaded_and_exported_alike(tmp_path: Path, target: str, arguments: dict[str, Any]) -> None:
    path, written = saved(tmp_path, target, **arguments)
    loaded, _report = load_model(path, model_class=target)
    exported = from_pretrained(save_pretrained(loaded, tmp_path / "out").parent, model_class=target)
    with torch.no_grad():
        expected = written.network.eval()(IMAGE)
        assert torch.equal(loaded.network(IMAGE), expected)
        assert torch.equal(exported.network(IMAGE), expected)
    again, _other, line = starting_network({"_target_": target, **arguments, "pretrained": str(path)}, COCO, CODEC)
    with torch.no_grad():
        assert torch.equal(again.eval()(IMAGE), expected)
    assert str(path) in line
    with pytest.raises(InputError, match=r"format=mmpose.*safetensors"):
        write_released_layout(loaded, tmp_path / "x.pth", "mmpose")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"stride": 8}, r"must return a tensor of shape \(1, 17, 16, 16\).*not \(1, 17, 8, 8\)"),
        ({"width": 3}, "cannot be built from.*width"),
        ({"depth": {"_target_": "torch.nn.Identity"}}, "model.depth: .*plain"),
        ({"_args_": [3]}, "model._args_: .*plain"),
        ({"_target_": "no_such_package.Net"}, "cannot be imported"),
        ({"_target_": "builtins.dict"}, "makes a dict, not a torch.nn.Module"),
        ({"_target_": "torch.nn.Identity"}, r"must return a tensor.*not \(1, 3, 64, 64\)"),
        ({"_target_": f"{HERE}.Lazy"}, "lazy"),
        ({"_target_": f"{HERE}.Broken"}, "fails for images of shape.*ZeroDivisionError"),
    ],
)
def test_what_cannot_work_is_refused_before_the_training(node: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        starting_network({"_target_": f"{HERE}.Net"} | node, COCO, CODEC)
    assert "\n" not in str(raised.value)


class Lazy(nn.Module):
    def __init__(self, num_keypoints: int):
        super().__init__()
        self.convolution = nn.LazyConv2d(num_keypoints, 4, stride=4)


class Broken(nn.Module):
    def __init__(self, num_keypoints: int):
        super().__init__()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * (1 // 0)


def test_weights_of_another_class_or_other_keypoints_are_not_taken(tmp_path: Path) -> None:
    path, model = saved(tmp_path)
    uniformer = PoseNetwork(17, [1, 1, 1, 1])
    torch.save(uniformer.state_dict(), tmp_path / "uniformer.pth")
    backwards = COCO.to_dict()
    backwards["keypoints"] = dict(reversed(backwards["keypoints"].items()))
    for load, message in (
        (lambda: load_into(uniformer, path, skeleton=COCO), "holds .*Net, but the network is PoseNetwork"),
        (lambda: load_into(model.network, tmp_path / "uniformer.pth", skeleton=COCO), "holds a PoseNetwork, but"),
        (lambda: load_into(model.network, path, skeleton=COCO, with_head=False), "left out"),
        (lambda: load_into(model.network, path, skeleton=type(COCO).from_dict(backwards)), "another order"),
        (lambda: load_model(path, skeleton=type(COCO).from_dict(backwards), model_class=Net), "another order"),
        (lambda: load_model(tmp_path / "uniformer.pth", codec=CODEC, model_class=Net), "leave model_class out"),
    ):
        with pytest.raises(InputError, match=message):
            load()


def test_a_network_of_ours_needs_no_description() -> None:
    config = {"_target_": POSE_NETWORK, "depths": [1, 1, 1, 1], "pretrained": None}
    _network, other, line = starting_network(config, COCO, CODEC)
    assert (other, line) == (None, "weights: random (model.pretrained=null)")
    config["pretrained"] = "absent"
    assert starting_network(config, COCO, CODEC, resumed_from=Path("a.ckpt"))[2] == "weights: those of a.ckpt"
    with pytest.raises(InputError, match="stride=8: must be 4"):
        starting_network(config, COCO, HeatmapCodec(64, 64, sigma=1.5, stride=8))
    with pytest.raises(InputError, match="cannot be saved"):
        saved_record(SavedModel(Net(17), CODEC, COCO, (0.0,) * 3, (1.0,) * 3, 1.25, {}, {}))
