"""Configs against the signatures that receive them: what is refused, with which words, and what is accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from annotated_types import Ge, Lt

from uniformer_pose.config import Keys, Node, check_config
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
class TopLevel:
    model: Annotated[
        Node,
        Keys(
            also_read={"pretrained": str | None},
            set_by_program={"legacy": "legacies", "frozen": ""},
        ),
    ]
    seed: Annotated[int, Ge(0)] = 0
    ckpt_path: str | None = None
    mode: Literal["max", "min"] = "max"
    trainer: Node | None = None
    callbacks: dict[str, Node | None] = field(default_factory=dict)
    groups: dict[Literal["first", "second"], Node | None] | None = None
    data: dict[str, Any] | None = None
    part: Annotated[Node, Keys(ignored={"rate|wid.*": "leave it out"})] = field(default_factory=dict)


def model(target: str = f"{HERE}.Backbone", **arguments: Any) -> dict[str, Any]:
    required = {"depths": [1]} if target == f"{HERE}.Backbone" else {}
    return {"_target_": target, **required, **arguments}


def refusal(**config: Any) -> str:
    with pytest.raises(InputError) as caught:
        check_config({"model": model(), **config}, TopLevel)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"sede": 1}, "sede=1: seed?"),
        ({"zzz": None}, "zzz=null: allowed: callbacks, ckpt_path, trainer"),
        ({"seed": "5"}, "seed='5': integer"),
        ({"seed": True}, "seed=true: integer"),
        ({"seed": -1}, "seed=-1: equal 0"),
        ({"seed": "???"}, "required: seed=..."),
        ({"seed": "x", "mode": "y", "sede": 1}, "seed='x': (and 2 more)"),
        ({"ckpt_path": 3}, "ckpt_path=3: string null"),
        ({"mode": "maximum"}, "mode='maximum': 'max' 'min'"),
        ({"trainer": "gpu"}, "trainer='gpu': _target_ null"),
        ({"callbacks": {"best": {"monitor": "AP"}}}, "callbacks.best={'monitor': _target_"),
        ({"groups": {"frist": None}}, "groups.frist=null: key 'first' 'second'"),
        ({"groups": 3}, "groups=3:"),
        ({"model": model(depths=3, rate="x")}, "model.depths=3: list (and 1 more)"),
        ({"model": model(depth=[1])}, "model.depth=[1]: depths?"),
        ({"model": model(_partal_=True)}, "model._partal_=true: _partial_?"),
        ({"model": {"_target_": 3}}, "model._target_=3: string"),
        ({"model": model(depths="x" * 200)}, "model.depths='xxx ...:"),
        ({"model": model(depths=[5, 8, "20", 7])}, "model.depths[2]='20': integer"),
        ({"model": model(rate=1.0)}, "model.rate=1.0: less 1"),
        ({"model": model(rate=float("nan"))}, "model.rate=nan:"),
        ({"model": model(attention="local")}, "model.attention='local': 'global' 'window'"),
        ({"model": model(pair=[1])}, "model.pair=[1]: longer list"),
        ({"model": model(pair=[1.5, 2])}, "model.pair[0]=1.5: integer"),
        ({"model": model(widths={"stem": "64"})}, "model.widths.stem='64': integer"),
        ({"model": model(neck=[model(), "small"])}, "model.neck[1]='small': _target_ Backbone"),
        ({"model": model(neck=model(pretrained="x"))}, "model.neck.pretrained='x':"),
        ({"model": model(neck={"_target_": f"{HERE}.Backbone"})}, "model.neck.depths required:"),
        ({"model": model(activation="relu")}, "model.activation='relu': _target_ Callable"),
        ({"model": model(unannotated=[{"deeper": model(rats=1)}])}, "model.unannotated[0].deeper.rats=1: rate?"),
        ({"model": model(pretraind="x")}, "model.pretraind='x': pretrained?"),
        ({"model": model(f"{HERE}.Derived", depth=1)}, "model.depth=1: depths?"),
        ({"model": model(legacy=1)}, "model.legacy=1: program legacies=..."),
        ({"model": model(f"{HERE}.Bakbone")}, f"{HERE} Backbone?"),
        ({"model": model(f"{HERE}.not_callable")}, "type int class function"),
        ({"model": model("lightning.pytorch.calbacks.ModelCheckpoint")}, "callbacks?"),
        ({"model": model("lightening.pytorch.Trainer")}, "lightning?"),
        ({"model": model("torch.optim.Adamw")}, "model._target_=torch.optim.Adamw: AdamW?"),
        ({"model": model("")}, "name class function"),
        ({"model": model(f"{HERE}.Backbone.laod")}, "laod"),
    ],
)
def test_what_nobody_could_take_is_refused(config: dict[str, Any], words: str) -> None:
    line = refusal(**config)
    assert all(word in line for word in words.split())


def test_what_is_not_read_may_stand_in_a_file_but_not_be_typed() -> None:
    config = {"model": model(), "part": model(rate=0.5, widths={"stem": 1}, _partial_=True)}
    check_config(config, TopLevel, ["part", "part.depths", "part.label.rate"])
    for key in ("part.rate", "part.widths.stem"):
        with pytest.raises(InputError, match=f"^{key}: not read here; leave it out"):
            check_config(config, TopLevel, [key])


def test_a_top_level_key_without_a_default_is_required() -> None:
    with pytest.raises(InputError, match=r"^model is required"):
        check_config({"seed": 1}, TopLevel)


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
    check_config({"model": model() | arguments}, TopLevel)


@pytest.mark.parametrize(
    "broken", ["import not_installed_here", "from math import no_such_name", "this is no Python", "1 / 0"]
)
def test_a_module_of_the_users_that_cannot_be_imported_is_told_with_file_and_line(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_broken_module.py").write_text(f"x = 1\n{broken}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "a_broken_module.py, line 2" in refusal(model={"_target_": "a_broken_module.Net"})


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("max_epoch", ["max_steps", "max_epochs"], "max_epochs?"),
        ("ADAMW", ["SGD", "AdamW"], "AdamW?"),
        ("zzz", ["b", "a", "a"], "a, b"),
        ("zzz", [], "nothing is allowed here"),
        ("zzz", [f"a{n:03}" for n in range(60)], "a049, ... (10 more)"),
    ],
)
def test_the_nearest_name_is_suggested_or_some_are_listed(name: str, options: list[str], expected: str) -> None:
    assert did_you_mean(name, options).endswith(expected)
