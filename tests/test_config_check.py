from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest

from uniformer_pose.config_check import AlsoReads, Node, SomeArgumentsOf, check_arguments, check_config
from uniformer_pose.errors import InputError
from uniformer_pose.nearest_name import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

HERE = __name__


class Backbone:
    """A target with the annotations that our own classes use."""

    def __init__(
        self,
        depths: Sequence[int],
        rate: float = 0.0,
        attention: Literal["global", "window"] = "global",
        pair: tuple[int, float] = (1, 0.5),
        widths: Mapping[str, int] | None = None,
        frozen: bool = False,
        label: str = "",
        legacy: int = None,  # type: ignore[assignment]  # noqa: RUF013
        only_for_the_type_checker: Tensor | None = None,
        neck: Backbone | None = None,
        activation: Callable[[float], float] | None = None,
        unannotated=None,  # type: ignore[no-untyped-def]
    ) -> None:
        raise AssertionError("a check never calls a target")


def make_head(*, channels: int, **options: Any) -> None:
    raise AssertionError("a check never calls a target")


not_callable = 3


@dataclass
class Folders:
    data: str
    output: str = "runs"


@dataclass
class TopLevel:
    model: Node
    seed: int = 0
    ckpt_path: str | None = None
    mode: Literal["max", "min"] = "max"
    trainer: Node | None = None
    callbacks: dict[str, Node | None] = field(default_factory=dict)
    folders: Folders | None = None
    data: dict[str, Any] | None = None


def model(**arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{HERE}.Backbone", **arguments}


def message(**config: Any) -> str:
    with pytest.raises(InputError) as caught:
        check_config({"model": model(), **config}, TopLevel)
    text = str(caught.value)
    assert "\n" not in text
    return text


def accepts(**config: Any) -> None:
    check_config({"model": model(), **config}, TopLevel)


TRAINER = "lightning.pytorch.Trainer"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"sede": 1}, "sede=1: no such key; did you mean seed?"),
        (
            {"zzz": None},
            "zzz=null: no such key; allowed: callbacks, ckpt_path, data, folders, mode, model, seed, trainer",
        ),
        ({"seed": "5"}, "seed='5': must be int"),
        ({"seed": True}, "seed=true: must be int"),
        ({"seed": 1.0}, "seed=1.0: must be int"),
        ({"seed": None}, "seed=null: must be int"),
        ({"seed": "???"}, "seed is required: give seed=..."),
        ({"ckpt_path": 3}, "ckpt_path=3: must be str or null"),
        ({"mode": "maximum"}, "mode='maximum': must be 'max' or 'min'"),
        ({"trainer": "gpu"}, "trainer='gpu': must be a node with a _target_ or null"),
        (
            {"callbacks": {"best": {"monitor": "AP"}}},
            "callbacks.best={'monitor': 'AP'}: must be a node with a _target_ or null",
        ),
        ({"folders": {"data": "x", "outptu": "y"}}, "folders.outptu='y': no such key; did you mean output?"),
        ({"folders": {"output": "y"}}, "folders.data is required: give folders.data=..."),
        ({"data": {"folder": {"root": "???"}}}, "data.folder.root is required: give data.folder.root=..."),
        ({"data": {"sizes": [1, "???"]}}, "data.sizes[1] is required: give data.sizes[1]=..."),
    ],
)
def test_a_wrong_top_level_is_refused_in_one_line(config: dict[str, Any], expected: str) -> None:
    assert message(**config) == expected


def test_a_top_level_key_without_a_default_is_required() -> None:
    with pytest.raises(InputError, match=r"^model is required: give model=\.\.\.$"):
        check_config({"seed": 1}, TopLevel)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"depth": [1]}, f"model.depth=[1]: {HERE}.Backbone has no argument depth; did you mean depths?"),
        (
            {"_partal_": True},
            f"model._partal_=true: {HERE}.Backbone has no argument _partal_; did you mean _partial_?",
        ),
        ({"_partial_": 1}, "model._partial_=1: must be true or false"),
        ({"_convert_": "some"}, "model._convert_='some': must be 'none' or 'partial' or 'object' or 'all'"),
        ({"depths": 3}, "model.depths=3: must be a list of int"),
        ({"depths": "3458"}, "model.depths='3458': must be a list of int"),
        ({"depths": [5, 8, "20", 7]}, "model.depths[2]='20': must be int"),
        ({"rate": "0.1"}, "model.rate='0.1': must be float"),
        ({"rate": True}, "model.rate=true: must be float"),
        ({"attention": "local"}, "model.attention='local': must be 'global' or 'window'"),
        ({"pair": [1]}, "model.pair=[1]: must be a list [int, float]"),
        ({"pair": [1.5, 2]}, "model.pair[0]=1.5: must be int"),
        ({"widths": {"stem": "64"}}, "model.widths.stem='64': must be int"),
        ({"widths": [64]}, "model.widths=[64]: must be a mapping or null"),
        ({"frozen": 1}, "model.frozen=1: must be true or false"),
        ({"label": 7}, "model.label=7: must be str"),
        ({"neck": "small"}, "model.neck='small': must be a node that makes Backbone or null"),
        ({"activation": "relu"}, "model.activation='relu': must be a node that makes Callable or null"),
        ({"label": None}, "model.label=null: must be str"),
        (
            {"only_for_the_type_checker": "x"},
            "model.only_for_the_type_checker='x': must be a node that makes Tensor or null",
        ),
        (
            {"neck": {"_target_": f"{HERE}.Backbone", "rate": "x"}},
            "model.neck.rate='x': must be float",
        ),
        (
            {"unannotated": [{"deeper": {"_target_": f"{HERE}.Backbone", "rats": 1}}]},
            f"model.unannotated[0].deeper.rats=1: {HERE}.Backbone has no argument rats; did you mean rate?",
        ),
        (
            {"depths": "x" * 200},
            f"model.depths='{'x' * 76}...: must be a list of int",
        ),
    ],
)
def test_a_wrong_argument_of_a_target_is_refused_in_one_line(arguments: dict[str, Any], expected: str) -> None:
    assert message(model=model(**arguments)) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        {"depths": [1, 2], "rate": 0, "attention": "window", "pair": [3, 1], "widths": {"stem": 64}},
        {"depths": (1, 2), "frozen": True, "legacy": None, "unannotated": {"any": "thing"}},
        {"neck": {"_target_": f"{HERE}.Backbone", "rate": 0.5}, "widths": None},
        {"rate": {"_target_": f"{HERE}.make_head", "channels": 3}},
        {"activation": {"_target_": "math.sqrt", "_partial_": True}},
        {"_partial_": True, "_convert_": "all", "_recursive_": False, "_args_": [[1, 2]]},
        {},
    ],
)
def test_what_python_would_take_is_accepted(arguments: dict[str, Any]) -> None:
    accepts(model=model(**arguments))


def test_a_target_with_open_keywords_accepts_any_name_but_checks_those_it_declares() -> None:
    accepts(model={"_target_": f"{HERE}.make_head", "channels": 3, "anything": 1})
    assert message(model={"_target_": f"{HERE}.make_head", "channels": "3"}) == "model.channels='3': must be int"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (f"{HERE}.Bakbone", f"{HERE} has no Bakbone; did you mean Backbone?"),
        (f"{HERE}.not_callable", "this is of type int; name a class or a function"),
        ("lightning.pytorch.Trianer", "there is no Trianer in lightning.pytorch; did you mean Trainer?"),
        (
            "lightning.pytorch.calbacks.ModelCheckpoint",
            "there is no calbacks in lightning.pytorch; did you mean callbacks?",
        ),
        ("lightening.pytorch.Trainer", "there is no lightening in this Python; did you mean lightning?"),
        ("torch.optim.Adamw", "there is no Adamw in torch.optim; did you mean AdamW?"),
        ("", "name a class or a function, such as torch.optim.AdamW"),
        ("lightning.pytorch", "this is of type module; name a class or a function"),
        ("datetime.timedleta", "datetime has no timedleta; did you mean timedelta?"),
    ],
)
def test_an_unknown_target_is_named_with_its_nearest_neighbour(target: str, expected: str) -> None:
    assert message(model={"_target_": target}) == f"model._target_={target}: {expected}"


def test_a_target_that_is_no_text_is_refused() -> None:
    assert message(model={"_target_": 3}) == "model._target_=3: must be str"


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        (
            {"max_epoch": 2},
            f"trainer.max_epoch=2: {TRAINER} has no argument max_epoch; did you mean max_epochs?",
        ),
        ({"max_epochs": "5"}, "trainer.max_epochs='5': must be int or null"),
        ({"deterministic": "wran"}, "trainer.deterministic='wran': must be true or false or 'warn' or null"),
        ({"devices": [0, "1"]}, "trainer.devices[1]='1': must be int"),
        (
            {"callbacks": "best"},
            "trainer.callbacks='best': must be "
            "a list of a node that makes Callback or a node that makes Callback or null",
        ),
    ],
)
def test_lightning_trainer_is_checked_by_its_own_signature(trainer: dict[str, Any], expected: str) -> None:
    assert message(trainer={"_target_": TRAINER, **trainer}) == expected


REAL_CONFIG: dict[str, Any] = {
    "seed": 0,
    "model": {
        "_target_": f"{HERE}.Backbone",
        "depths": [3, 4, 8, 3],
        "unannotated": {
            "_target_": "torch.optim.AdamW",
            "_partial_": True,
            "lr": 5e-4,
            "betas": [0.9, 0.999],
        },
    },
    "trainer": {
        "_target_": TRAINER,
        "accelerator": "auto",
        "devices": 1,
        "precision": "bf16-mixed",
        "max_epochs": 210,
        "gradient_clip_val": None,
        "limit_train_batches": 1.0,
        "deterministic": "warn",
        "default_root_dir": "runs",
        "max_time": {"_target_": "datetime.timedelta", "hours": 3},
        "profiler": None,
    },
    "callbacks": {
        "best": {
            "_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
            "monitor": "val/AP",
            "save_last": True,
            "train_time_interval": {"_target_": "datetime.timedelta", "minutes": 30},
        },
        "rate": {"_target_": "lightning.pytorch.callbacks.LearningRateMonitor", "logging_interval": "epoch"},
        "bar": None,
    },
    "data": {
        "csv": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "runs", "name": None},
        "wandb": {"_target_": "lightning.pytorch.loggers.WandbLogger", "project": "pose", "tags": ["a"]},
        "schedule": {
            "_target_": "torch.optim.lr_scheduler.MultiStepLR",
            "_partial_": True,
            "milestones": [170],
        },
    },
}


def test_lightning_and_torch_targets_are_accepted() -> None:
    check_config(REAL_CONFIG, TopLevel)


@pytest.mark.parametrize(
    ("node", "change", "expected"),
    [
        (
            ("callbacks", "best"),
            {"montior": "AP"},
            "callbacks.best.montior='AP': "
            "lightning.pytorch.callbacks.ModelCheckpoint has no argument montior; did you mean monitor?",
        ),
        (
            ("callbacks", "rate"),
            {"logging_interval": "day"},
            "callbacks.rate.logging_interval='day': must be 'step' or 'epoch' or null",
        ),
        (("data", "wandb"), {"offline": "yes"}, "data.wandb.offline='yes': must be true or false"),
        (
            ("data", "csv"),
            {"flush_logs": 1},
            "data.csv.flush_logs=1: "
            "lightning.pytorch.loggers.CSVLogger has no argument flush_logs; "
            "did you mean flush_logs_every_n_steps?",
        ),
        (
            ("model", "unannotated"),
            {"lr": "abc"},
            "model.unannotated.lr='abc': must be float or a node that makes Tensor",
        ),
        (
            ("model", "unannotated"),
            {"weigth_decay": 0.1},
            "model.unannotated.weigth_decay=0.1: "
            "torch.optim.AdamW has no argument weigth_decay; did you mean weight_decay?",
        ),
    ],
)
def test_one_mistake_in_a_real_configuration_is_found(
    node: tuple[str, str], change: dict[str, Any], expected: str
) -> None:
    group, name = node
    broken = {**REAL_CONFIG, group: {**REAL_CONFIG[group], name: {**REAL_CONFIG[group][name], **change}}}
    with pytest.raises(InputError) as caught:
        check_config(broken, TopLevel)
    assert str(caught.value) == expected


@dataclass
class WithExtras:
    model: Annotated[Node, AlsoReads(pretrained=str | None)]
    data: Annotated[dict[str, Any], SomeArgumentsOf(f"{HERE}.Backbone")] = field(default_factory=dict)


def message_with_extras(**config: Any) -> str:
    with pytest.raises(InputError) as caught:
        check_config(config, WithExtras)
    return str(caught.value)


def test_a_key_that_the_entry_point_reads_itself_is_checked_beside_the_targets_arguments() -> None:
    check_config({"model": model(pretrained=None, rate=0.5)}, WithExtras)
    assert message_with_extras(model=model(pretrained=3)) == "model.pretrained=3: must be str or null"
    assert message_with_extras(model=model(pretraind="x")) == (
        f"model.pretraind='x': {HERE}.Backbone has no argument pretraind; did you mean pretrained?"
    )
    nested = model(neck=model(pretrained="x"))
    assert message_with_extras(model=nested).startswith(f"model.neck.pretrained='x': {HERE}.Backbone has no argument")


def test_a_mapping_of_some_arguments_of_a_known_target_is_checked_but_for_those_not_given() -> None:
    check_config({"model": model(), "data": {"depths": None, "rate": 0.5}}, WithExtras)
    assert message_with_extras(model=model(), data={"rate": "x"}) == "data.rate='x': must be float"
    assert message_with_extras(model=model(), data={"rat": 1}) == (
        f"data.rat=1: {HERE}.Backbone has no argument rat; did you mean rate?"
    )
    other = {"_target_": f"{HERE}.make_head", "channels": "x"}
    assert message_with_extras(model=model(), data=other) == "data.channels='x': must be int"


def test_arguments_of_a_function_are_checked_without_a_key_before_them() -> None:
    check_arguments({"channels": 1, "more": 2}, f"{HERE}.make_head", {"name": str})
    with pytest.raises(InputError, match=r"^name=3: must be str \(and 1 more\)$"):
        check_arguments({"channels": "???", "name": 3}, f"{HERE}.make_head", {"name": str})


def test_the_first_of_several_problems_is_told_and_the_others_counted() -> None:
    assert message(seed="x", mode="y", sede=1) == "seed='x': must be int (and 2 more)"
    assert message(model=model(depths=3, rate="x")) == "model.depths=3: must be a list of int (and 1 more)"


def test_the_check_leaves_the_configuration_as_it_was() -> None:
    before = repr(REAL_CONFIG)
    check_config(REAL_CONFIG, TopLevel)
    assert repr(REAL_CONFIG) == before


def test_a_whole_configuration_is_checked_in_a_fifth_of_a_second() -> None:
    check_config(REAL_CONFIG, TopLevel)
    start = time.process_time()
    check_config(REAL_CONFIG, TopLevel)
    assert time.process_time() - start < 0.2


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("max_epoch", ["max_steps", "max_epochs"], "did you mean max_epochs?"),
        ("ADAMW", ["SGD", "AdamW"], "did you mean AdamW?"),
        ("zzz", ["b", "a", "a"], "allowed: a, b"),
        ("zzz", [], "nothing is allowed here"),
    ],
)
def test_the_nearest_name_is_suggested(name: str, options: list[str], expected: str) -> None:
    assert did_you_mean(name, options) == expected


def test_a_long_list_of_names_is_cut_and_says_so() -> None:
    assert did_you_mean("zzz", [f"a{n:03}" for n in range(60)]).endswith("a049, ... (10 more)")
