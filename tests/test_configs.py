"""Every file of conf/ composes and passes the check, and mistakes are told in one line, soon."""

from __future__ import annotations

import copy
import itertools
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from check_data import CheckDataConfig
from export import ExportConfig
from make_synthetic import MakeSyntheticConfig
from prepare import PrepareConfig
from programs import composed, require_one_line, run_here
from reproduce import ReproduceConfig
from uniformer_pose.config import check_config
from uniformer_pose.config_parts import DemoConfig, EvalConfig, PredictConfig, TrainConfig
from uniformer_pose.entry_point import (
    CONF,
    accept_any_argument,
    checked_config,
    config_groups,
    one_of_each,
    plain_config,
)
from uniformer_pose.errors import InputError
from uniformer_pose.overrides import given_values
from uniformer_pose.training.optimization import Optimization
from uniformer_pose.weights.zoo import read_zoo

PROJECT = Path(__file__).resolve().parents[1]
GROUPS = config_groups()
# Of src/train.py; the others are chosen by name (model_data) or belong to src/eval.py (data=from_checkpoint).
DATA = sorted(GROUPS["data"] - {"from_checkpoint"})
OF_TRAINING = GROUPS.keys() - {"model", "data", "model_data", "detector", "hparams_search", "without"}
CHOICES = [f"{group}={choice}" for group in sorted(OF_TRAINING) for choice in sorted(GROUPS[group])]
DROP_PATH_OF_B = {"coco_256x192": 0.4, "coco_384x288": 0.5, "coco_448x320": 0.55}
ENTRY_POINTS: dict[str, tuple[type, list[str]]] = {
    "train": (TrainConfig, []),
    "eval": (EvalConfig, ["ckpt_path=x.ckpt"]),
    "predict": (PredictConfig, ["ckpt_path=x.ckpt", "source=x.jpg"]),
    "demo": (DemoConfig, ["ckpt_path=x.ckpt"]),
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
    check_config(plain_config(config), schema, [argument.partition("=")[0] for argument in arguments])
    return checked_config(config, schema)


@cache
def composed_once(program: str) -> DictConfig:
    return composed(program, *ENTRY_POINTS[program][1])


def check_setting(program: str, argument: str) -> None:
    """The same with one argument, set as Hydra sets it; half a second of composing only where it chooses a file."""
    if argument.partition("=")[0] in GROUPS:
        checked(argument, program=program)
        return
    [override] = accept_any_argument([argument], GROUPS)
    [(key, value)] = given_values([override]).items()
    config = copy.deepcopy(composed_once(program))
    OmegaConf.update(config, key, value, merge=True, force_add=True)
    check_config(plain_config(config), ENTRY_POINTS[program][0], [key])


@pytest.mark.parametrize("program", ENTRY_POINTS)
def test_every_program_has_a_config_that_passes_its_check(program: str) -> None:
    assert checked(program=program)


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_of_every_group_passes_the_check_and_what_is_light_can_be_built(choice: str) -> None:
    group = choice.partition("=")[0]
    config = checked(choice, *(["data=joint"] if group == "data/sets" else []))
    made = Optimization.of_config(config["optimizer"], config["scheduler"])
    if group in ("augmentation", "callbacks") or choice == "logger=csv":
        nodes = {name for name, node in config[group].items() if node is not None}
        assert one_of_each(config[group]).keys() == nodes
    elif group == "optimizer":
        assert made.optimizer([torch.nn.Parameter(torch.zeros(1))], lr=0.5).param_groups[0]["lr"] == 0.5
    elif group == "scheduler":
        assert len(made.schedulers(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5), total_steps=9)) == 2


@pytest.mark.parametrize("model", sorted(GROUPS["model"]))
def test_every_model_can_be_built(model: str) -> None:
    of_timm = ["model.backbone=resnet18"] if model == "timm" else []
    config = checked(f"model={model}", *of_timm)["model"]
    arguments = {name: value for name, value in config.items() if name not in ("pretrained", "pretrained_head")}
    size = {"crop_height": 64, "crop_width": 64} if of_timm else {}
    with torch.device("meta"):
        made = instantiate(arguments, num_keypoints=17, **size, _convert_="all")
    name = "backbone" if of_timm else "depths"
    assert made.arguments[name] == config[name]


def test_timms_backbone_must_be_chosen() -> None:
    with pytest.raises(InputError, match=r"model.backbone"):
        checked("model=timm")


@pytest.mark.parametrize("data", sorted({*DATA} - {"joint"}))
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


@pytest.mark.parametrize("recipe", sorted(name for name in GROUPS["experiment"] if name.startswith("uniformer_")))
def test_a_recipe_names_the_imagenet_backbone_it_starts_from(recipe: str) -> None:
    model = checked(f"experiment={recipe}")["model"]
    backbone = read_zoo().backbones[model["pretrained"].removeprefix("zoo:")]
    assert (backbone.url is None) == recipe.endswith("_plus")  # whose weights are fetched by hand
    assert recipe.startswith(backbone.network)
    assert model["head_dim"] == backbone.head_dim
    assert checked("model.pretrained=mine.pth", f"experiment={recipe}")["model"]["pretrained"] == "mine.pth"


def test_sets_are_chosen_by_their_names_and_changed_one_by_one() -> None:
    config = checked("data=joint", "data.sets=[coco,crowdpose]", "data.sets.crowdpose.root=elsewhere")["data"]
    assert [*config["sets"]] == ["coco", "crowdpose"]
    alone = checked("data=crowdpose_256x192")["data"]
    own = config["sets"]["crowdpose"]
    assert own["root"] == "elsewhere"
    assert all(own[name] == alone[name] for name in own.keys() - {"root"})
    with pytest.raises(InputError, match=r"data\.sets=mpi: no such choice; .*mpii"):
        checked("data=joint", "data.sets=[coco,mpi]")
    with pytest.raises(InputError, match=r"data\.sets=\[coco,coco\]: coco stands there more than once"):
        checked("data=joint", "data.sets=[coco,coco]")


@pytest.mark.parametrize("program", ["check_data", "prepare"])
def test_programs_that_look_at_one_set_say_so(program: str, tmp_path: Path) -> None:
    result = run_here(f"{program}.py", ["data=joint", "data.sets=[aic]"], tmp_path)
    require_one_line(result, "data=joint: this program takes one set at a time, such as data=aic_256x192")
    square = run_here(f"{program}.py", ["data=joint", "data.sets=[mpii,aic]"], tmp_path)
    require_one_line(square, "such as data=mpii_256x256")


def test_the_search_of_hyperparameters_composes_and_passes_the_check() -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    assert checked("hparams_search=optuna") == checked()


@pytest.mark.parametrize(
    ("group", "content"),
    [
        ("model", "_target_: my_parts.MyNet\nwidth: 8\n"),
        ("optimizer", "_target_: torch.optim.SGD\n_partial_: true\nmomentum: 0.9\n"),
        (
            "data",
            "defaults: [_people, sets/synthetic@_here_]\nroot: mine\ncodec: {height: 64, width: 64, sigma: 1.0}\n",
        ),
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
        ("trainer.max_time={_target_: datetime.timedelta, hours: 3}", "trainer.max_time.hours", 3),
    ],
)
def test_any_argument_that_is_there_can_be_set(argument: str, key: str, value: Any) -> None:
    found: Any = checked(argument)
    for name in key.split("."):
        found = found[name]
    assert found == value


def test_checkpoints_watch_the_headline_of_the_data_unless_told_otherwise() -> None:
    watched = {
        arguments: checked(*arguments)["callbacks"]["best_checkpoint"]["monitor"]
        for arguments in ((), ("data=mpii_256x256",), ("data=crowdpose_256x192", "evaluation.monitor=val/AP_hard"))
    }
    assert [*watched.values()] == ["val/AP", "val/PCKh", "val/AP_hard"]
    stopping = checked("data=mpii_256x256", "callbacks=early_stopping")["callbacks"]["early_stopping"]
    assert stopping["monitor"] == "val/PCKh"
    evaluated = ((), ("data=mpii_256x256",), ("data.metric=pckh",))
    monitors = [composed("eval", "ckpt_path=x", *arguments).evaluation.monitor for arguments in evaluated]
    assert monitors == [None, "val/PCKh", "val/PCKh"]  # of the checkpoint's own data it says which


REFUSED = (Path(__file__).parent / "refused_settings.txt").read_text(encoding="utf-8")
"""Lines of ``<program> <setting>: words of the answer``."""


@pytest.mark.parametrize("row", REFUSED.splitlines())
def test_a_mistake_is_told_in_one_line_with_its_key_and_what_to_do_before_any_work(row: str) -> None:
    command, _, words = f"{row} ".partition(": ")
    program, argument = command.split()
    with pytest.raises(InputError) as caught:
        check_setting(program, argument)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(argument.partition("=")[0].partition(".")[0])
    assert all(word in line for word in words.split()), line


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
