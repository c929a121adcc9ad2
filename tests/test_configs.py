"""Every file of conf/ composes and passes the check, and mistakes are told in one line, soon."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from check_data import CheckDataConfig
from demo import DemoConfig
from eval import EvalConfig
from export import ExportConfig
from make_synthetic import MakeSyntheticConfig
from predict import PredictConfig
from prepare import PrepareConfig
from reproduce import ReproduceConfig
from train import TrainConfig, checked_train_config
from uniformer_pose.config import check_config
from uniformer_pose.entry_point import (
    accept_any_argument,
    checked_config,
    config_groups,
    one_of_each,
    plain_config,
    refuse_unknown_choices,
)
from uniformer_pose.errors import InputError
from uniformer_pose.training.optimization import Optimization
from uniformer_pose.weights.published_models import published_models

PROJECT = Path(__file__).resolve().parents[1]
CONF = PROJECT / "conf"
GROUPS = config_groups(CONF)
# Of src/train.py; the others are chosen by name (model_data) or belong to src/eval.py (data=from_checkpoint).
DATA = sorted(GROUPS["data"] - {"from_checkpoint"})
CHOICES = [
    f"{group}={choice}"
    for group in ("augmentation", "callbacks", "debug", "evaluation", "experiment", "logger", "optimizer", "trainer")
    for choice in sorted(GROUPS[group])
]
DROP_PATH_OF_B = {"coco_256x192": 0.4, "coco_384x288": 0.5, "coco_448x320": 0.55}


@pytest.fixture(scope="module", autouse=True)
def _config_folder() -> Iterator[None]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def composed(*arguments: str, name: str = "train") -> DictConfig:
    """What the entry point ``name`` gets for a command line."""
    refuse_unknown_choices(arguments, GROUPS)
    run_dir = ["++run_dir=runs/here"] if name in ("train", "eval", "reproduce", "check_data") else []
    return compose(name, overrides=[*accept_any_argument(arguments, GROUPS), *run_dir])


def checked(*arguments: str) -> dict[str, Any]:
    return checked_train_config(composed(*arguments))


def refused(*arguments: str) -> str:
    with pytest.raises(InputError) as caught:
        checked(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_default_is_unchanged_by_a_command_line_without_arguments() -> None:
    config = checked()
    assert config["model"]["depths"] == [3, 4, 8, 3]
    assert config["data"]["codec"]["height"] == 256


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_of_every_group_composes_and_passes_the_check(choice: str) -> None:
    group, _, name = choice.partition("=")
    config = checked(choice)
    assert name in GROUPS[group]
    assert config["trainer"]["_target_"] == "lightning.pytorch.Trainer"


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("model", sorted(GROUPS["model"]))
def test_every_model_goes_with_every_data_and_can_be_built(model: str, data: str) -> None:
    config = checked(f"model={model}", f"data={data}")
    expected = config["data"]["codec"]
    assert data.endswith(f"{expected['height']}x{expected['width']}")
    entry_points_own = ("pretrained", "pretrained_head")
    arguments = {name: value for name, value in config["model"].items() if name not in entry_points_own}
    with torch.device("meta"):
        network = instantiate(arguments, num_keypoints=17, _convert_="all")
    codec = instantiate(expected)
    assert network.arguments["depths"] == config["model"]["depths"]
    assert (codec.heatmap_height, codec.heatmap_width) == (expected["height"] // 4, expected["width"] // 4)


@pytest.mark.parametrize(("data", "rate"), DROP_PATH_OF_B.items())
def test_uniformer_b_has_the_drop_path_of_its_input_size_however_it_is_chosen(data: str, rate: float) -> None:
    assert checked("model=uniformer_b", f"data={data}")["model"]["drop_path_rate"] == rate
    assert checked(f"experiment=uniformer_b_{data}")["model"]["drop_path_rate"] == rate


@pytest.mark.parametrize("data", DROP_PATH_OF_B)
def test_uniformer_s_has_one_drop_path(data: str) -> None:
    assert checked(f"experiment=uniformer_s_{data}")["model"]["drop_path_rate"] == 0.2


def test_the_drop_path_on_the_command_line_wins_over_that_of_the_pair() -> None:
    config = checked("experiment=uniformer_b_coco_384x288", "model.drop_path_rate=0.1")
    assert config["model"]["drop_path_rate"] == 0.1


@pytest.mark.parametrize("recipe", sorted(GROUPS["experiment"] - {"demo"}))
def test_a_recipe_names_the_imagenet_backbone_it_starts_from(recipe: str) -> None:
    model = checked(f"experiment={recipe}")["model"]
    backbone = published_models().backbones[model["pretrained"].removeprefix("zoo:")]
    assert backbone.url is not None
    assert recipe.startswith(backbone.network)
    assert model["head_dim"] == backbone.head_dim
    assert checked(f"experiment={recipe}", "model.pretrained=null")["model"]["pretrained"] is None
    assert checked("model.pretrained=mine.pth", f"experiment={recipe}")["model"]["pretrained"] == "mine.pth"


@pytest.mark.parametrize("choice", [c for c in CHOICES if c.startswith(("augmentation", "callbacks", "logger=csv"))])
def test_augmentations_callbacks_and_the_csv_logger_can_be_built(choice: str) -> None:
    group = choice.partition("=")[0]
    config = checked(choice, "model=uniformer_s")
    assert one_of_each(config[group] or {}).keys() == {name for name, node in config[group].items() if node is not None}


@pytest.mark.parametrize("optimizer", sorted(GROUPS["optimizer"]))
def test_every_optimizer_can_be_built(optimizer: str) -> None:
    config = checked(f"optimizer={optimizer}")
    made = Optimization.of_config(config["optimizer"], config["scheduler"])
    assert made.optimizer([torch.nn.Parameter(torch.zeros(1))], lr=0.5).param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("scheduler", sorted(GROUPS["scheduler"]))
def test_every_scheduler_can_be_built(scheduler: str) -> None:
    config = checked(f"scheduler={scheduler}")
    made = Optimization.of_config(config["optimizer"], config["scheduler"])
    assert len(made.schedulers(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5))) == 2


def test_the_search_of_hyperparameters_composes_and_passes_the_check() -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    assert checked("hparams_search=optuna") == checked()


@pytest.mark.parametrize("data", sorted(GROUPS["data"]))
def test_evaluation_takes_its_data_from_the_checkpoint_or_any_data(data: str) -> None:
    config = checked_config(composed("ckpt_path=x.ckpt", f"data={data}", name="eval"), EvalConfig)
    assert config["ckpt_path"] == "x.ckpt"


def test_the_settings_of_the_synthetic_dataset_pass_the_check() -> None:
    settings = checked_config(compose("make_synthetic"), MakeSyntheticConfig)
    assert settings["num_train_images"] > 0


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("trainer.max_steps=5", ("trainer", "max_steps"), 5),
        ("trainer.gradient_clip_val=1.0", ("trainer", "gradient_clip_val"), 1.0),
        ("trainer.max_epochs=3", ("trainer", "max_epochs"), 3),
        ("data.codec.blur_kernel=17", ("data", "codec", "blur_kernel"), 17),
        ("optimizer.fused=true", ("optimizer", "fused"), True),
        ("name='a=b'", ("name",), "a=b"),
        ("training={compile_step: auto}", ("training", "compile_step"), "auto"),
        ("model.pretrained=x.pth", ("model", "pretrained"), "x.pth"),
    ],
)
def test_any_argument_that_is_there_can_be_set(argument: str, key: tuple[str, ...], value: Any) -> None:
    found: Any = checked(argument)
    for name in key:
        found = found[name]
    assert found == value


TRAINER = "no such argument of lightning.pytorch.Trainer"
NETWORK = "no such argument of uniformer_pose.model.network.PoseNetwork"
BAD = [
    ("sede=1", "sede=1: no such key; did you mean seed?"),
    ("modl=uniformer_b", "modl='uniformer_b': no such key; did you mean model?"),
    ("model=uniformr_b", "model=uniformr_b: no such choice; did you mean uniformer_b?"),
    (
        "data=_coco",
        "data=_coco: no such choice; allowed: coco_256x192, coco_384x288, coco_448x320, from_checkpoint, "
        "synthetic_128x96, synthetic_256x192",
    ),
    ("seed=x", "seed='x': must be a valid integer"),
    ("precision=bf61", "precision='bf61': must be 'auto', 'fp32', 'bf16' or 'fp16'"),
    ("trainer.max_epoch=5", f"trainer.max_epoch=5: {TRAINER}; did you mean max_epochs?"),
    ("trainer.max_epochs=many", "trainer.max_epochs='many': must be -1 or a valid integer or null"),
    ("trainer.devices=1.5", "trainer.devices=1.5: must be a valid string or -1 or a valid integer or a list"),
    ("model.drop_path=0.1", f"model.drop_path=0.1: {NETWORK}; did you mean drop_path_rate?"),
    ("model.pretraind=a", f"model.pretraind='a': {NETWORK}; did you mean pretrained?"),
    ("model.pretrained=3", "model.pretrained=3: must be a valid string or null"),
    ("model.depths=[3,4,8,x]", "model.depths[3]='x': must be a valid integer"),
    ("model.stage3_attention=all", "model.stage3_attention='all': must be 'global', 'window' or 'hybrid'"),
    (
        "data.codec.height=250",
        "crop size 250x192 (height x width): both must be positive multiples of 32, such as 256x192",
    ),
    (
        "data.codec.width=-192",
        "crop size 256x-192 (height x width): both must be positive multiples of 32, such as 256x192",
    ),
    ("data.codec.stride=8", "heatmap stride 8: must be 4, which is what the pose head gives"),
    ("data.codec.method=drk", "data.codec.method='drk': must be 'msra', 'dark' or 'udp'"),
    ("data.on_bad_image=skp", "data.on_bad_image='skp': must be 'error' or 'skip'"),
    ("data.root=???", "data.root is required: give data.root=..."),
    ("name=${nope}", "name: Interpolation key 'nope' not found"),
    ("callbacks.best=best", "callbacks.best='best': must be a config with a _target_ or null"),
    (
        "callbacks.early_stopping.patience=3",
        "callbacks.early_stopping={'patience': 3}: must be a config with a _target_ or null",
    ),
    (
        "optimizer._target_=torch.optim.Adamw",
        "optimizer._target_=torch.optim.Adamw: there is no Adamw in torch.optim; did you mean AdamW?",
    ),
    (
        "optimizer.weight_decy=1",
        "optimizer.weight_decy=1: no such argument of torch.optim.AdamW; did you mean weight_decay?",
    ),
    (
        "evaluation.flip=false",
        "evaluation.flip=false: no such argument of uniformer_pose.evaluation.protocol.EvaluationProtocol; "
        "did you mean flip_test?",
    ),
    ("logger.csv.version=[1]", "logger.csv.version=[1]: must be a valid string or a valid integer or null"),
]


@pytest.mark.parametrize(("argument", "expected"), BAD)
def test_a_mistake_on_the_command_line_is_told_in_one_line(argument: str, expected: str) -> None:
    assert refused(argument) == expected


def test_a_value_that_others_refer_to_is_asked_for_by_its_own_name() -> None:
    with pytest.raises(InputError, match=r"^run_dir is required: give run_dir=\.\.\.$"):
        checked_config(compose("train", overrides=["++run_dir=???"]), TrainConfig)


def test_evaluation_refuses_an_argument_that_its_data_does_not_have() -> None:
    with pytest.raises(InputError) as caught:
        checked_config(composed("ckpt_path=x.ckpt", "data.eval_batch_sise=2", name="eval"), EvalConfig)
    assert str(caught.value) == (
        "data.eval_batch_sise=2: no such argument of uniformer_pose.data.datamodule.PersonCrops; "
        "did you mean eval_batch_size?"
    )


NOWHERE = "ckpt_path=x.ckpt"
ENTRY_POINTS: dict[str, tuple[type, list[str]]] = {
    "train": (TrainConfig, []),
    "eval": (EvalConfig, [NOWHERE]),
    "predict": (PredictConfig, [NOWHERE, "source=x.jpg"]),
    "demo": (DemoConfig, []),
    "export": (ExportConfig, [NOWHERE]),
    "reproduce": (ReproduceConfig, []),
    "check_data": (CheckDataConfig, ["data=coco_256x192"]),
    "prepare": (PrepareConfig, ["data=coco_256x192"]),
}


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
        ("predict detector.keep.height=3", "leave it out"),
        ("demo detector.keep.width=3", "leave it out"),
        ("reproduce trainer.precision=16-mixed", "precision=..."),
        ("reproduce data.photometric=null", "augmentation"),
        ("prepare data.seed=1", "seed=..."),
    ],
)
def test_a_key_that_the_program_sets_itself_is_refused_with_the_one_to_use(command: str, instead: str) -> None:
    name, argument = command.split()
    schema, required = ENTRY_POINTS[name]
    with pytest.raises(InputError) as caught:
        checked_config(composed(argument, *required, name=name), schema)
    assert str(caught.value).startswith(argument.partition("=")[0] + "=")
    assert instead in str(caught.value)


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("eval", "data.mean"),
        ("eval", "data.box_padding"),
        ("eval", "data.batch_size"),
        ("reproduce", "data.codec.height"),
        ("reproduce", "data.std"),
    ],
)
def test_what_an_entry_point_does_not_read_may_stand_in_a_shared_file_but_not_be_typed(name: str, typed: str) -> None:
    schema, required = ENTRY_POINTS[name]
    plain = plain_config(composed("data=coco_256x192", *required, name=name))
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
        "train callbacks.resume_points.every_minutes=-1",
        "train callbacks.throughput.after_batches=0",
        "train evaluation.keypoint_score_threshold=2",
        "train name=../../x",
        "train name=/tmp/x",
        "train evaluation=null",
        "train callbacks=null",
        "train trainer=null",
        "train model=null",
        "train data=null",
        "prepare data=null",
        "predict detector=null",
        "eval head_dim=0",
        "eval evaluation=null",
        "predict batch_size=0",
        "predict score_threshold=1.5",
        "predict input_size=[256]",
        "predict input_size=[256,0]",
        "demo port=70000",
        "demo limits.megapixels=0",
        "reproduce tolerance=-1",
        "check_data workers=0",
        "check_data max_examples=-1",
        "prepare workers=-1",
        "prepare images_per_shard=0",
    ],
)
def test_a_value_out_of_its_range_is_refused_before_any_work(command: str) -> None:
    name, argument = command.split()
    schema, required = ENTRY_POINTS[name]
    with pytest.raises(InputError) as caught:
        checked_config(composed(*required, argument, name=name), schema)
    assert str(caught.value).startswith(argument.partition("=")[0])
    assert "\n" not in str(caught.value)


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


def test_no_logger_and_no_augmentation_are_choices() -> None:
    config = checked("logger=null", "augmentation=null")
    assert config["logger"] is None
    assert config["augmentation"] is None


STARTED_AS_A_USER_DOES = """
import atexit, runpy, sys
atexit.register(lambda: print("imported:", *({"torch", "lightning", "cv2"} & sys.modules.keys())))
sys.argv[0] = script = sys.argv.pop(1)
runpy.run_path(script, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["sede=5"], "sede=5: no such key; did you mean seed?"),
        (["model=uniformr_b"], "model=uniformr_b: no such choice; did you mean uniformer_b?"),
    ],
)
def test_a_mistake_ends_a_real_run_with_status_2_before_torch_is_imported(
    arguments: list[str], expected: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", STARTED_AS_A_USER_DOES, str(PROJECT / "src" / "train.py"), *arguments]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False, timeout=120
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr) == (2, f"error: {expected}\n")
    assert done.stdout == "imported:\n"
    # Of the processor, not of the clock: the machine may have other things to do. A second and a half is usual.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5
