"""Every file of conf/ composes and passes the check, and mistakes are told in one line, soon."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import instantiate

from check_data import CheckDataConfig
from demo import DemoConfig
from eval import EvalConfig
from export import ExportConfig
from make_synthetic import MakeSyntheticConfig
from predict import PredictConfig
from prepare import PrepareConfig
from programs import composed
from reproduce import ReproduceConfig
from uniformer_pose.config import check_config
from uniformer_pose.config_parts import TrainConfig
from uniformer_pose.entry_point import CONF, checked_config, config_groups, one_of_each, plain_config
from uniformer_pose.errors import InputError
from uniformer_pose.training.optimization import Optimization
from uniformer_pose.weights.zoo import read_zoo

PROJECT = Path(__file__).resolve().parents[1]
GROUPS = config_groups()
# Of src/train.py; the others are chosen by name (model_data) or belong to src/eval.py (data=from_checkpoint).
DATA = sorted(GROUPS["data"] - {"from_checkpoint"})
OF_TRAINING = GROUPS.keys() - {"model", "data", "model_data", "detector", "hparams_search"}
CHOICES = [f"{group}={choice}" for group in sorted(OF_TRAINING) for choice in sorted(GROUPS[group])]
DROP_PATH_OF_B = {"coco_256x192": 0.4, "coco_384x288": 0.5, "coco_448x320": 0.55}
ENTRY_POINTS: dict[str, tuple[type, list[str]]] = {
    "train": (TrainConfig, []),
    "eval": (EvalConfig, ["ckpt_path=x.ckpt"]),
    "predict": (PredictConfig, ["ckpt_path=x.ckpt", "source=x.jpg"]),
    "demo": (DemoConfig, []),
    "export": (ExportConfig, ["ckpt_path=x.ckpt"]),
    "reproduce": (ReproduceConfig, []),
    "check_data": (CheckDataConfig, ["data=coco_256x192"]),
    "prepare": (PrepareConfig, ["data=coco_256x192"]),
    "make_synthetic": (MakeSyntheticConfig, []),
    "make_synthetic_demo": (MakeSyntheticConfig, []),
}


def checked(*arguments: str, program: str = "train") -> dict[str, Any]:
    """The config of an entry point, with what it requires, as it sees it."""
    schema, required = ENTRY_POINTS[program]
    config = composed(program, *required, *arguments)
    return checked_config(config, schema)


def refused(command: str) -> str:
    """The one line for ``<program> <argument>``."""
    program, argument = command.split()
    with pytest.raises(InputError) as caught:
        checked(argument, program=program)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("program", ENTRY_POINTS)
def test_every_program_has_a_config_that_passes_its_check(program: str) -> None:
    assert checked(program=program)


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_of_every_group_passes_the_check_and_what_is_light_can_be_built(choice: str) -> None:
    group = choice.partition("=")[0]
    config = checked(choice)
    made = Optimization.of_config(config["optimizer"], config["scheduler"])
    if group in ("augmentation", "callbacks") or choice == "logger=csv":
        nodes = {name for name, node in config[group].items() if node is not None}
        assert one_of_each(config[group]).keys() == nodes
    elif group == "optimizer":
        assert made.optimizer([torch.nn.Parameter(torch.zeros(1))], lr=0.5).param_groups[0]["lr"] == 0.5
    elif group == "scheduler":
        assert len(made.schedulers(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5))) == 2


@pytest.mark.parametrize("model", sorted(GROUPS["model"]))
def test_every_model_can_be_built(model: str) -> None:
    config = checked(f"model={model}")["model"]
    arguments = {name: value for name, value in config.items() if name not in ("pretrained", "pretrained_head")}
    with torch.device("meta"):
        assert instantiate(arguments, num_keypoints=17, _convert_="all").arguments["depths"] == config["depths"]


@pytest.mark.parametrize("data", DATA)
def test_a_data_config_is_named_after_its_crop_size_and_goes_with_every_program(data: str) -> None:
    codec = instantiate(checked(f"data={data}")["data"]["codec"])
    assert data.endswith(f"{codec.height}x{codec.width}")
    for program in ("eval", "export", "reproduce"):
        assert checked(f"data={data}", program=program)["data"]["codec"]["height"] == codec.height


@pytest.mark.parametrize(("data", "rate"), DROP_PATH_OF_B.items())
def test_the_drop_path_is_that_of_model_and_input_size_however_they_are_chosen(data: str, rate: float) -> None:
    def rate_of(*arguments: str) -> Any:
        return checked(*arguments)["model"]["drop_path_rate"]

    assert rate_of("model=uniformer_b", f"data={data}") == rate_of(f"experiment=uniformer_b_{data}") == rate
    assert rate_of(f"experiment=uniformer_b_{data}", "model.drop_path_rate=0.1") == 0.1
    assert rate_of(f"experiment=uniformer_s_{data}") == 0.2


@pytest.mark.parametrize("recipe", sorted(GROUPS["experiment"] - {"demo"}))
def test_a_recipe_names_the_imagenet_backbone_it_starts_from(recipe: str) -> None:
    model = checked(f"experiment={recipe}")["model"]
    backbone = read_zoo().backbones[model["pretrained"].removeprefix("zoo:")]
    assert backbone.url is not None
    assert recipe.startswith(backbone.network)
    assert model["head_dim"] == backbone.head_dim
    assert checked("model.pretrained=mine.pth", f"experiment={recipe}")["model"]["pretrained"] == "mine.pth"


def test_the_search_of_hyperparameters_composes_and_passes_the_check() -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    assert checked("hparams_search=optuna") == checked()


@pytest.mark.parametrize(
    ("group", "content"),
    [
        ("model", "_target_: my_parts.MyNet\nwidth: 8\n"),
        ("optimizer", "_target_: torch.optim.SGD\n_partial_: true\nmomentum: 0.9\n"),
        ("data", "defaults: [_synthetic]\nroot: mine\ncodec: {height: 64, width: 64, sigma: 1.0}\n"),
        (
            "scheduler",
            "per_epoch: {decay: {_target_: torch.optim.lr_scheduler.ExponentialLR, _partial_: true, gamma: 0.9}}",
        ),
        ("augmentation", "defaults: [protocol]\nphotometric: {_target_: my_parts.MyNoise}\n"),
    ],
)
def test_a_part_of_ones_own_is_added_with_one_yaml(
    group: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_parts.py").write_text(
        "class MyNet:\n    def __init__(self, num_keypoints: int, width: int = 4): ...\nclass MyNoise: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text(content)
    search = f"hydra.searchpath=[file://{tmp_path}]"
    known = yaml.safe_load(content.replace("defaults", "_defaults"))
    config = checked(search, f"{group}=mine")[group]
    assert all(config[name] for name in known if name != "_defaults")
    with pytest.raises(InputError, match=f"^{group}.colour=3: no such"):
        checked(search, f"{group}=mine", f"{group}.colour=3")


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("trainer.max_steps=5", "trainer.max_steps", 5),
        ("data.codec.blur_kernel=17", "data.codec.blur_kernel", 17),
        ("optimizer.fused=true", "optimizer.fused", True),
        ("name='a=b'", "name", "a=b"),
        ("training={compile_step: true}", "training.compile_step", True),
        ("logger=null", "logger", None),
        ("augmentation=null", "augmentation", None),
        ("data={root: elsewhere}", "data.root", "elsewhere"),
    ],
)
def test_any_argument_that_is_there_can_be_set(argument: str, key: str, value: Any) -> None:
    found: Any = checked(argument)
    for name in key.split("."):
        found = found[name]
    assert found == value


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("sede=1", "no such key; did you mean seed?"),
        ("modl=uniformer_b", "no such key; did you mean model?"),
        ("model=uniformr_b", "no such choice; did you mean uniformer_b?"),
        ("data=coco", "no such choice; did you mean coco_256x192?"),
        ("seed=x", "seed='x': must be a valid integer"),
        ("precision=bf61", "'auto', 'fp32', 'bf16' or 'fp16'"),
        ("trainer.max_epoch=5", "lightning.pytorch.Trainer; did you mean max_epochs?"),
        ("trainer.max_epochs=many", "trainer.max_epochs='many': must be -1 or a valid integer or null"),
        ("trainer.devices=1.5", "trainer.devices=1.5: must be"),
        ("model.drop_path=0.1", "did you mean drop_path_rate?"),
        ("model.pretraind=a", "did you mean pretrained?"),
        ("model.pretrained=3", "a valid string or null"),
        ("model.depths=[3,4,8,x]", "model.depths[3]='x': must be a valid integer"),
        ("model.stage3_attention=all", "'global', 'window' or 'hybrid'"),
        ("data.codec.method=drk", "'msra', 'dark' or 'udp'"),
        ("data.root=???", "data.root is required: give data.root=..."),
        ("callbacks.best=best", "a config with a _target_ or null"),
        ("callbacks.early_stopping.patience=3", "callbacks.early_stopping={'patience': 3}: must be a config with a"),
        ("optimizer._target_=torch.optim.Adamw", "there is no Adamw in torch.optim; did you mean AdamW?"),
        ("optimizer.weight_decy=1", "torch.optim.AdamW; did you mean weight_decay?"),
        ("evaluation.flip=false", "did you mean flip_test?"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_in_one_line(argument: str, words: str) -> None:
    assert words in refused(f"train {argument}")


@pytest.mark.parametrize(
    ("command", "instead"),
    [
        ("train optimizer.lr=0.5", "optimizer.lr_per_256"),
        ("train optimizer.params=[]", "leave it out"),
        ("train trainer.precision=16-mixed", "precision=..."),
        ("train trainer.logger=false", "logger="),
        ("train trainer.callbacks=[]", "callbacks."),
        ("train model.num_keypoints=21", "data.skeleton"),
        ("train data.seed=3", "seed=..."),
        ("train data.geometric=null", "augmentation.geometric"),
        ("train training.protocol=x", "evaluation"),
        ("train training.optimizer=x", "optimizer"),
        ("eval trainer.precision=64", "precision=..."),
        ("eval trainer.callbacks=[]", "leave it out"),
        ("eval data.seed=3", "nothing is trained"),
        ("reproduce trainer.precision=16-mixed", "precision=..."),
        ("reproduce data.photometric=null", "augmentation"),
        ("prepare data.seed=1", "seed=..."),
    ],
)
def test_a_key_that_the_program_sets_itself_is_refused_with_the_one_to_use(command: str, instead: str) -> None:
    line = refused(command)
    assert line.startswith(command.split()[1].partition("=")[0] + "=")
    assert instead in line


@pytest.mark.parametrize(
    ("program", "typed"),
    [("eval", "data.mean"), ("eval", "data.batch_size"), ("reproduce", "data.codec.height"), ("reproduce", "data.std")],
)
def test_what_a_program_does_not_read_may_stand_in_a_shared_file_but_not_be_typed(program: str, typed: str) -> None:
    schema, required = ENTRY_POINTS[program]
    plain = plain_config(composed(program, "data=coco_256x192", *required))
    check_config(plain, schema, ["data.root", "data.codecs"])
    with pytest.raises(InputError, match=f"^{typed}: not read"):
        check_config(plain, schema, ["data.root", typed])


@pytest.mark.parametrize(
    "command",
    [
        "train seed=-1",
        "train seed=4294967296",
        "train data.num_workers=-1",
        "train data.batch_size=0",
        "train data.max_images=0",
        "train data.box_padding=0",
        "train data.worker_timeout=-1",
        "train data.mean=[0.485,0.456,0.406]",
        "train data.mean=[103.5,116.3]",
        "train data.std=[0.229,0.224,0.225]",
        "train data.std=[0,57.1,57.4]",
        "train scheduler.per_step.warmup.total_iters=-5",
        "train optimizer.lr_per_256=-1",
        "train optimizer.lr_per_256=.inf",
        "train scheduler.per_epoch.drops.gamma=0",
        "train scheduler.per_step.warmup.start_factor=2",
        "train scheduler.per_epoch.drops.milestones=[0,5]",
        "train trainer.max_epochs=-2",
        "train trainer.check_val_every_n_epoch=0",
        "train trainer.num_nodes=0",
        "train optimizer.weight_decay=-0.1",
        "train optimizer.betas=[0.9,1.5]",
        "train callbacks.resume_checkpoints.every_minutes=-1",
        "train callbacks.throughput.after_batches=0",
        "train evaluation.keypoint_score_threshold=2",
        "train name=../../x",
        "train name=/tmp/x",
        "train evaluation=null",
        "train callbacks=null",
        "train trainer=null",
        "train model=null",
        "train data=null",
        "eval head_dim=0",
        "eval evaluation=null",
        "predict detector=null",
        "predict batch_size=0",
        "predict score_threshold=1.5",
        "predict input_size=[256]",
        "predict input_size=[256,0]",
        "demo port=70000",
        "reproduce tolerance=-1",
        "check_data workers=0",
        "prepare workers=-1",
        "prepare images_per_shard=0",
        "make_synthetic sede=1",
    ],
)
def test_a_value_out_of_its_range_is_refused_before_any_work(command: str) -> None:
    assert refused(command).startswith(command.split()[1].partition("=")[0])


def facts(value: Any, key: str) -> set[tuple[str, str]]:
    if isinstance(value, dict):
        return {fact for name, child in value.items() if name != "defaults" for fact in facts(child, f"{key}.{name}")}
    return {(key, str(value))}


def test_no_two_files_say_the_same() -> None:
    said = {}
    for file in CONF.rglob("*.yaml"):
        text, group = file.read_text(), file.parent.relative_to(CONF).as_posix()
        said[file] = facts(yaml.safe_load(text) or {}, "." if "@package _global_" in text else group)
    for one, other in itertools.combinations(said, 2):
        assert len(said[one] & said[other]) <= 3, (one, other)  # a crop size is three


def test_a_mistake_ends_a_real_run_with_status_2_before_torch_is_imported(tmp_path: Path) -> None:
    script = """
import atexit, runpy, sys
atexit.register(lambda: print("imported:", *({"torch", "lightning", "cv2"} & sys.modules.keys())))
sys.argv[0] = script = sys.argv.pop(1)
runpy.run_path(script, run_name="__main__")
"""
    command = [sys.executable, "-c", script, str(PROJECT / "src" / "train.py"), "sede=5"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (2, "error: sede=5: no such key; did you mean seed?\n")
    assert done.stdout == "imported:\n"
