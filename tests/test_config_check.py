"""Configs against the signatures that receive them: what is refused, in which words, and what is accepted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from annotated_types import Ge, Lt

from uniformer_pose.config import Keys, Node, check_config, find_signature
from uniformer_pose.errors import InputError
from uniformer_pose.nearest_name import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

HERE = __name__
TRAINER = "lightning.pytorch.Trainer"


class Backbone:
    """A target with the annotations that our own classes use."""

    def __init__(
        self,
        depths: Sequence[int],
        rate: Annotated[float, Ge(0), Lt(1)] = 0.0,
        attention: Literal["global", "window"] = "global",
        pair: tuple[int, float] = (1, 0.5),
        widths: Mapping[str, int] | None = None,
        frozen: bool = False,
        label: str = "",
        legacy: int = None,  # type: ignore[assignment]  # noqa: RUF013
        only_for_the_type_checker: Tensor | None = None,
        neck: Backbone | list[Backbone] | None = None,
        activation: Callable[[float], float] | None = None,
        unannotated=None,  # type: ignore[no-untyped-def]
    ) -> None:
        raise AssertionError("a check never calls a target")


class Derived(Backbone): ...


def make_head(*, channels: int, **options: Any) -> None:
    raise AssertionError("a check never calls a target")


not_callable = 3
compiled = len


@dataclass
class Folders:
    data: str
    output: str = "runs"


@dataclass
class TopLevel:
    model: Annotated[
        Node,
        Keys(
            also_read={"pretrained": str | None},
            set_by_program={"legacy": "give legacies=...", "frozen": "leave it out"},
        ),
    ]
    seed: Annotated[int, Ge(0)] = 0
    ckpt_path: str | None = None
    mode: Literal["max", "min"] = "max"
    trainer: Node | None = None
    callbacks: dict[str, Node | None] = field(default_factory=dict)
    folders: Folders | None = None
    data: dict[str, Any] | None = None
    some: Annotated[dict[str, Any], Keys(some_of=f"{HERE}.Backbone")] = field(default_factory=dict)


def model(target: str = f"{HERE}.Backbone", **arguments: Any) -> dict[str, Any]:
    required = {"depths": [1]} if target.startswith(f"{HERE}.Backbone") else {}
    return {"_target_": target, **required, **arguments}


def refusal(**config: Any) -> str:
    with pytest.raises(InputError) as caught:
        check_config({"model": model(), **config}, TopLevel)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def says(text: str, words: str) -> bool:
    """Whether every word stands in a text."""
    return all(word in text for word in words.split())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"sede": 1}, "sede=1: seed?"),
        ({"zzz": None}, "zzz=null: allowed: callbacks, ckpt_path, trainer"),
        ({"seed": "5"}, "seed='5': integer"),
        ({"seed": True}, "seed=true: integer"),
        ({"seed": None}, "seed=null: integer"),
        ({"seed": -1}, "seed=-1: equal 0"),
        ({"seed": "???"}, "required: seed=..."),
        ({"ckpt_path": 3}, "ckpt_path=3: string null"),
        ({"mode": "maximum"}, "mode='maximum': 'max' 'min'"),
        ({"trainer": "gpu"}, "trainer='gpu': _target_ null"),
        ({"callbacks": {"best": {"monitor": "AP"}}}, "callbacks.best={'monitor': _target_"),
        ({"folders": {"data": "x", "outptu": "y"}}, "folders.outptu='y': output?"),
        ({"folders": {"output": "y"}}, "folders.data required:"),
        ({"folders": 3}, "folders=3:"),
        ({"data": {"sizes": [1, "???"]}}, "data.sizes[1] required:"),
        ({"some": {"rate": "x"}}, "some.rate='x': number"),
        ({"some": {"rat": 1}}, "some.rat=1: rate?"),
        ({"some": model(f"{HERE}.make_head", channels="x")}, "some.channels='x': integer"),
    ],
)
def test_a_wrong_top_level_is_refused(config: dict[str, Any], words: str) -> None:
    assert says(refusal(**config), words)


def test_a_top_level_key_without_a_default_is_required() -> None:
    with pytest.raises(InputError, match=r"^model is required"):
        check_config({"seed": 1}, TopLevel)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"depth": [1]}, "model.depth=[1]: depths?"),
        ({"_partal_": True}, "model._partal_=true: _partial_?"),
        ({"_partial_": 1}, "model._partial_=1: true false"),
        ({"_target_": 3}, "model._target_=3: string"),
        ({"depths": "3458"}, "model.depths='3458': list"),
        ({"depths": [5, 8, "20", 7]}, "model.depths[2]='20': integer"),
        ({"rate": True}, "model.rate=true: number"),
        ({"rate": 1.0}, "model.rate=1.0: less 1"),
        ({"rate": float("nan")}, "model.rate=nan:"),
        ({"attention": "local"}, "model.attention='local': 'global' 'window'"),
        ({"pair": [1]}, "model.pair=[1]: longer list"),
        ({"pair": [1, 2, 3]}, "model.pair=[1, shorter list"),
        ({"pair": [1.5, 2]}, "model.pair[0]=1.5: integer"),
        ({"widths": {"stem": "64"}}, "model.widths.stem='64': integer"),
        ({"widths": [64]}, "model.widths=[64]: dictionary null"),
        ({"label": None}, "model.label=null: string"),
        ({"neck": "small"}, "model.neck='small': _target_ Backbone null"),
        ({"neck": [model(), "small"]}, "model.neck[1]='small': _target_ Backbone"),
        ({"activation": "relu"}, "model.activation='relu': _target_ Callable"),
        ({"unannotated": [{"deeper": model(rats=1)}]}, "model.unannotated[0].deeper.rats=1: rate?"),
        ({"depths": "x" * 200}, "model.depths='xxx ...:"),
        ({"pretrained": 3}, "model.pretrained=3: string null"),
        ({"pretraind": "x"}, "model.pretraind='x': pretrained?"),
        ({"neck": model(pretrained="x")}, "model.neck.pretrained='x':"),
        ({"_target_": f"{HERE}.make_head"}, "model.channels required:"),
        ({"neck": {"_target_": f"{HERE}.Backbone"}}, "model.neck.depths required:"),
        ({"legacy": 1}, "model.legacy=1: program legacies=..."),
    ],
)
def test_a_wrong_argument_of_a_target_is_refused(arguments: dict[str, Any], words: str) -> None:
    assert says(refusal(model=model() | arguments), words)


@pytest.mark.parametrize(
    "arguments",
    [
        {"depths": [1, 2], "rate": 0, "attention": "window", "pair": [3, 1], "widths": {"stem": 64}},
        {"depths": (1, 2), "unannotated": {"any": "thing"}, "only_for_the_type_checker": "not known here"},
        {"neck": model(legacy=None, frozen=True), "widths": None},
        {"neck": [model(), model()]},
        {"rate": model(f"{HERE}.make_head", channels=3)},
        {"activation": model("math.sqrt", _partial_=True)},
        {"_partial_": True, "_convert_": "all", "_recursive_": False, "_args_": [[1, 2]]},
        {"_target_": f"{HERE}.Derived", "rate": 0.5},
        {"neck": {"_target_": f"{HERE}.Backbone", "_partial_": True}},
        {"neck": {"_target_": f"{HERE}.compiled"}},
        {"_target_": f"{HERE}.make_head", "channels": 3, "anything": 1},
    ],
)
def test_what_python_would_take_is_accepted(arguments: dict[str, Any]) -> None:
    check_config({"model": model() | arguments, "some": {"depths": None, "rate": 0.5}}, TopLevel)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (f"{HERE}.Bakbone", f"{HERE} Backbone?"),
        (f"{HERE}.not_callable", "type int class function"),
        ("lightning.pytorch.calbacks.ModelCheckpoint", "callbacks?"),
        ("lightening.pytorch.Trainer", "lightning?"),
        ("torch.optim.Adamw", "AdamW?"),
        ("", "name class function"),
        ("lightning.pytorch", "type module class function"),
        (f"{HERE}.Backbone.laod", "laod"),
    ],
)
def test_an_unknown_target_is_named_with_its_nearest_neighbour(target: str, words: str) -> None:
    assert says(refusal(model={"_target_": target}), f"model._target_={target}: {words}")


@pytest.mark.parametrize(
    "broken", ["import not_installed_here", "from math import no_such_name", "this is no Python", "1 / 0"]
)
def test_a_module_of_the_users_that_cannot_be_imported_is_told_with_file_and_line(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_broken_module.py").write_text(f"x = 1\n{broken}\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = refusal(model={"_target_": "a_broken_module.Net"})
    assert says(text, "importing a_broken_module fails a_broken_module.py line 2")


REAL: dict[str, Any] = {
    "optimizer": model("torch.optim.AdamW", _partial_=True, lr=5e-4, betas=[0.9, 0.999]),
    "trainer": model(
        TRAINER,
        devices=1,
        max_epochs=-1,
        gradient_clip_val=None,
        limit_train_batches=1.0,
        limit_val_batches=0,
        deterministic="warn",
        max_time=model("datetime.timedelta", hours=3),
        strategy=model("lightning.pytorch.strategies.DDPStrategy", timeout=model("datetime.timedelta", minutes=10)),
    ),
    "best": model("lightning.pytorch.callbacks.ModelCheckpoint", monitor="val/AP", save_last=True),
    "rate": model("lightning.pytorch.callbacks.LearningRateMonitor", logging_interval="epoch"),
    "wandb": model("lightning.pytorch.loggers.WandbLogger", project="pose", tags=["a"]),
    "schedule": model("torch.optim.lr_scheduler.MultiStepLR", _partial_=True, milestones=[170]),
}


def test_lightning_and_torch_targets_are_accepted_soon_and_left_as_they_were() -> None:
    before = repr(REAL)
    check_config({"model": model(), "data": REAL}, TopLevel)
    start = time.process_time()
    check_config({"model": model(), "data": REAL}, TopLevel)
    assert time.process_time() - start < 0.2
    assert repr(REAL) == before


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("best", {"montior": "AP"}, "data.best.montior='AP': monitor?"),
        ("rate", {"logging_interval": "day"}, "data.rate.logging_interval='day': 'step' 'epoch' null"),
        ("wandb", {"offline": "yes"}, "data.wandb.offline='yes': true false"),
        ("optimizer", {"lr": "abc"}, "data.optimizer.lr='abc': number"),
        ("optimizer", {"weight_decay": -1}, "data.optimizer.weight_decay=-1: 0"),
        ("optimizer", {"betas": [0.9, 1.0]}, "data.optimizer.betas[1]=1.0: less"),
        ("trainer", {"max_epochs": "5"}, "data.trainer.max_epochs='5': integer null"),
        ("trainer", {"max_epochs": 0}, "data.trainer.max_epochs=0: 1"),
        ("trainer", {"check_val_every_n_epoch": 0}, "data.trainer.check_val_every_n_epoch=0: 1"),
        ("trainer", {"limit_train_batches": 0}, "data.trainer.limit_train_batches=0:"),
        ("trainer", {"limit_val_batches": 1.5}, "data.trainer.limit_val_batches=1.5:"),
        ("trainer", {"gradient_clip_val": -1.0}, "data.trainer.gradient_clip_val=-1.0: 0"),
        ("trainer", {"devices": [0, "1"]}, "data.trainer.devices[1]='1': integer"),
        ("trainer", {"deterministic": "wran"}, "data.trainer.deterministic='wran': true false 'warn' null"),
        ("trainer", {"callbacks": "best"}, "data.trainer.callbacks='best': list Callback null"),
    ],
)
def test_one_mistake_in_a_real_configuration_is_found(name: str, change: dict[str, Any], words: str) -> None:
    assert says(refusal(data={**REAL, name: REAL[name] | change}), words)


def test_the_first_of_several_problems_is_told_and_the_others_counted() -> None:
    assert refusal(seed="x", mode="y", sede=1) == "seed='x': must be a valid integer (and 2 more)"
    assert refusal(model=model(depths=3, rate="x")) == "model.depths=3: must be a list (and 1 more)"


def test_the_arguments_of_a_class_are_those_of_its_constructor() -> None:
    assert not find_signature(f"{HERE}.Derived").takes_any_name
    assert "neck" in find_signature(f"{HERE}.Derived").arguments
    assert find_signature(f"{HERE}.make_head").takes_any_name


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("max_epoch", ["max_steps", "max_epochs"], "did you mean max_epochs?"),
        ("ADAMW", ["SGD", "AdamW"], "did you mean AdamW?"),
        ("zzz", ["b", "a", "a"], "allowed: a, b"),
        ("zzz", [], "nothing is allowed here"),
        ("zzz", [f"a{n:03}" for n in range(60)], f"allowed: {', '.join(f'a{n:03}' for n in range(50))}, ... (10 more)"),
    ],
)
def test_the_nearest_name_is_suggested(name: str, options: list[str], expected: str) -> None:
    assert did_you_mean(name, options) == expected
