from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import types
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pytest

from uniformer_pose.errors import InputError
from uniformer_pose.static_signatures import find_signature

_numbers = count()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a package of the given files, which all fail when they are imported, and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**files: str) -> str:
        name = f"a_package_{next(_numbers)}"
        for module, text in files.items():
            path = tmp_path / name / f"{module.replace('__in__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\nraise AssertionError('imported')\n")
        return name

    return write


def names(path: str) -> list[str]:
    signature = find_signature(path)
    return [*signature.arguments, *(["**"] if signature.takes_any_name else [])]


def one_type(package: Any, source: str, annotation: str) -> Any:
    name = package(__init__=f"{source}\ndef f(x: {annotation}): ...")
    return find_signature(f"{name}.f").arguments["x"].type


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(a, /, b, c=1, *more, d, e=2): ...", ["b", "c", "d", "e"]),
        ("def f(a, **others): ...", ["a", "**"]),
        ("async def f(a): ...", ["a"]),
        ("@anything\n@else_(3)\ndef f(a): ...", ["a"]),
        ("@overload\ndef f(a): ...\n@overload\ndef f(b): ...\ndef f(a, b): ...", ["a", "b"]),
        ("class f:\n    def __init__(self, a): ...", ["a"]),
        ("class f:\n    def __new__(cls, a): ...", ["a"]),
        ("class f: ...", []),
        ("class base:\n    def __init__(self, a): ...\nclass f(base): ...", ["a"]),
        ("class one: ...\nclass two:\n    def __init__(self, a): ...\nclass f(one, two[int]): ...", ["a"]),
        ("from abc import ABC\nfrom typing import Generic\nclass f(ABC, Generic[T]): ...", []),
        ("from not_installed import base\nclass f(base): ...", ["**"]),
        ("class f(Exception): ...", ["**"]),
        ("class f(f): ...", ["**"]),
        ("@dataclass\nclass f:\n    a: int\n    b: int = 3\n    c: ClassVar[int] = 1", ["a", "b"]),
        ("@dataclass(frozen=True)\nclass f:\n    a: int\n    b: int = field(init=False, default=1)", ["a"]),
        ("@dataclass\nclass base:\n    a: int\n@dataclass\nclass f(base):\n    b: int", ["a", "b"]),
        ("class base:\n    def __init__(self, z): ...\n@dataclass\nclass f(base):\n    b: int", ["b"]),
        ("from typing import NamedTuple\nclass f(NamedTuple):\n    a: int", ["a"]),
        ("import attrs\n@attrs.define\nclass f:\n    a: int", ["**"]),
        ("def g(a): ...\nf = g", ["a"]),
        ("f = partial(g, 1)", ["**"]),
        ("f, h = make()", ["**"]),
        ("try:\n    from not_installed import f\nexcept ImportError:\n    f = None", ["**"]),
        ("try:\n    from not_installed import f\nexcept ImportError:\n    def f(a): ...", ["a"]),
        ("if TYPE_CHECKING:\n    def f(a): ...", ["a"]),
        ("with suppress():\n    def f(a): ...", ["a"]),
        ("from math import sqrt as f", ["**"]),
    ],
)
def test_the_arguments_that_can_be_given_by_name_are_read_from_the_source(
    package: Any, source: str, expected: list[str]
) -> None:
    assert names(f"{package(__init__=source)}.f") == expected


DEFINED = "class Thing:\n    def __init__(self, a): ...\n    @classmethod\n    def load(cls, b): ...\n"


@pytest.mark.parametrize(
    ("files", "path", "expected"),
    [
        ({"__init__": "", "one": DEFINED}, "one.Thing", ["a"]),
        ({"one": DEFINED}, "one.Thing", ["a"]),
        ({"__init__": "from .one import Thing", "one": DEFINED}, "Thing", ["a"]),
        ({"__init__": "from .one import Thing as Other", "one": DEFINED}, "Other", ["a"]),
        ({"__init__": "from . import one as two", "one": DEFINED}, "two.Thing", ["a"]),
        ({"__init__": "from .one import *", "one": DEFINED}, "Thing", ["a"]),
        ({"__init__": "from .one import *", "one": "from .two import Thing", "two": DEFINED}, "Thing", ["a"]),
        ({"__init__": "from .absent import *", "one": DEFINED}, "one.Thing", ["a"]),
        ({"deep__in____init__": "from ..one import Thing", "one": DEFINED}, "deep.Thing", ["a"]),
        ({"deep__in__two": "from ..one import Thing", "one": DEFINED}, "deep.two.Thing", ["a"]),
        ({"__init__": "from .one import *", "one": "from . import *"}, "one", None),
        ({"__init__": DEFINED}, "Thing.load", ["b"]),
        ({"__init__": DEFINED + "class More(Thing): ..."}, "More.load", ["b"]),
        ({"__init__": "lazy = {'one': ['Thing']}\ndef __getattr__(name): ..."}, "Thing", ["**"]),
        ({"__init__": "def __getattr__(name): ..."}, "Thing", ["**"]),
        ({"__init__": "this is no Python"}, "Thing", ["**"]),
    ],
)
def test_a_name_is_followed_to_where_it_is_defined(
    package: Any, files: dict[str, str], path: str, expected: list[str] | None
) -> None:
    path = f"{package(**files)}.{path}"
    if expected is None:
        with pytest.raises(InputError, match="this is of type module"):
            find_signature(path)
    else:
        assert names(path) == expected


@pytest.mark.parametrize(
    ("source", "path", "expected"),
    [
        ("class Thing: ...", "Thign", "there is no Thign in {package}; did you mean Thing?"),
        ("class Thing:\n    def load(self): ...", "Thing.laod", "{package}.Thing has no laod; did you mean load?"),
        (
            "class Thing: ...\ndef __getattr__(name): ...",
            "Thign",
            "there is no Thign in {package}; did you mean Thing?",
        ),
        ("Thing = 3", "Thing", "this is of type int; name a class or a function"),
        ("import os as Thing", "Thing", "this is of type module; name a class or a function"),
        ("", "Thing", "there is no Thing in {package}; nothing is allowed here"),
    ],
)
def test_a_name_that_is_not_there_is_refused_with_the_nearest(
    package: Any, source: str, path: str, expected: str
) -> None:
    name = package(__init__=source)
    with pytest.raises(InputError) as caught:
        find_signature(f"{name}.{path}")
    assert str(caught.value) == expected.format(package=name)


@pytest.mark.parametrize(
    ("source", "annotation", "expected"),
    [
        ("", "int", int),
        ("", "'int | None'", int | None),
        ("", "None", types.NoneType),
        ("", "list[int] | str", list[int] | str),
        ("from typing import Optional", "Optional[float]", float | None),
        ("import typing as t", "t.Union[int, 't.Any | str']", int | Any | str),
        ("from typing import Literal", "Literal['a', 1]", Literal["a", 1]),
        ("from typing_extensions import Literal", "Literal['a']", Literal["a"]),
        ("from typing import Annotated", "Annotated[int, 'metres']", int),
        ("from collections.abc import Mapping", "Mapping[str, float]", Mapping[str, float]),
        ("from typing import Literal\nMethod = Literal['a']", "Method | None", Literal["a"] | None),
        ("from pathlib import Path", "Path", Path),
        ("T = TypeVar('T')", "T", Any),
        ("from not_installed import Thing", "Thing", Any),
        ("", "not_defined", Any),
        ("", "'not an annotation'", Any),
        ("", "f(3)", Any),
        ("from typing import Literal", "Literal[compute()]", Any),
        ("from typing import TypedDict\nclass T(TypedDict): ...", "T", Any),
        ("from typing import Protocol\nclass T(Protocol): ...", "T", Any),
        ("from enum import Enum\nclass T(str, Enum): ...", "T", Any),
        ("Json = dict[str, 'Json']", "Json", Any),
    ],
)
def test_an_annotation_is_read_as_the_type_it_means(package: Any, source: str, annotation: str, expected: Any) -> None:
    assert one_type(package, source, annotation) == expected


def test_a_class_is_represented_by_its_name(package: Any) -> None:
    made = one_type(package, "class Thing(Generic[T]): ...", "'Thing[int]'")
    assert made.__name__ == "Thing"


def test_an_alias_is_read_where_it_is_defined(package: Any) -> None:
    name = package(
        __init__="from .types_ import Method\ndef f(x: Method): ...",
        types_="import typing as t\nM = t.Literal['a']\nMethod = t.Union[M, None]",
    )
    assert find_signature(f"{name}.f").arguments["x"].type == Literal["a"] | None


def public_classes() -> list[str]:
    """Everything that a config of this project may well name."""
    paths = ["lightning.pytorch.Trainer"]
    for module in (
        "lightning.pytorch.callbacks",
        "lightning.pytorch.loggers",
        "lightning.pytorch.profilers",
        "lightning.pytorch.strategies",
        "torch.optim",
        "torch.optim.lr_scheduler",
    ):
        contents = importlib.import_module(module)
        paths += [f"{module}.{name}" for name in contents.__all__ if inspect.isclass(getattr(contents, name))]
    return paths


def test_of_all_public_classes_the_same_arguments_are_read_as_python_sees() -> None:
    differing = {}
    for path in public_classes():
        module, _, name = path.rpartition(".")
        parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters.values()
        by_name = [p.name for p in parameters if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
        real = [*by_name, *(["**"] if any(p.kind is p.VAR_KEYWORD for p in parameters) else [])]
        if real != names(path):
            differing[path] = (real, names(path))
    assert differing == {}


def test_reading_signatures_imports_nothing_of_their_packages() -> None:
    program = (
        "import sys\n"
        "from uniformer_pose.static_signatures import find_signature\n"
        "for path in ('lightning.pytorch.Trainer', 'torch.optim.AdamW', 'lightning.pytorch.strategies.FSDPStrategy'):\n"
        "    [argument.type for argument in find_signature(path).arguments.values()]\n"
        "print(*({'torch', 'lightning', 'numpy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "\n"
