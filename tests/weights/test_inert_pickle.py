"""Foreign objects beside the weights are read without their classes, and code is not read at all."""

from __future__ import annotations

import argparse
import collections
import functools
import os
import pickle
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from uniformer_pose.weights.inert_pickle import global_names, inert_globals


def read(path: Path) -> Any:
    with torch.serialization.safe_globals(inert_globals(global_names(path))):
        return torch.load(path, weights_only=True)


@pytest.fixture
def foreign_class() -> Iterator[Callable[[str, type], type]]:
    """Puts a class under a foreign name while a file is written; reading happens without it."""
    added: list[str] = []

    def install(dotted: str, cls: type) -> type:
        parts = dotted.split(".")
        for length in range(1, len(parts)):
            name = ".".join(parts[:length])
            if name not in sys.modules:
                sys.modules[name] = types.ModuleType(name)
                added.append(name)
        cls.__module__, cls.__qualname__ = ".".join(parts[:-1]), parts[-1]
        setattr(sys.modules[cls.__module__], parts[-1], cls)
        return cls

    yield install
    for name in added:
        del sys.modules[name]


class _HistoryBuffer:
    """Pickles as MMEngine's does: arrays, and its statistics as methods of the class."""

    def __init__(self) -> None:
        self.history = np.zeros(3)

    def mean(self) -> float:
        return float(self.history.mean())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "statistics": {"mean": type(self).mean}}


class _SettingsDict(dict):  # type: ignore[type-arg]
    pass


@pytest.mark.parametrize("old_format", [False, True], ids=["archive", "old format"])
def test_inert_objects_of_many_kinds_do_not_keep_the_tensors_back(
    tmp_path: Path, foreign_class: Callable[[str, type], type], old_format: bool
) -> None:
    buffer = foreign_class("mmengine.logging.history_buffer.HistoryBuffer", _HistoryBuffer)
    buffer.mean.__module__, buffer.mean.__qualname__ = buffer.__module__, "HistoryBuffer.mean"
    settings = foreign_class("yacs.config.CfgNode", _SettingsDict)
    contents = {
        "state_dict": {"weight": torch.arange(3.0)},
        "message_hub": {"loss": buffer()},
        "config": settings({"model": settings({"depth": 3})}),
        "args": argparse.Namespace(lr=1e-3, output=Path("runs")),
        "omegaconf": OmegaConf.create({"a": [1, {"b": None}]}),
        "recent": collections.deque([1, 2], maxlen=3),
        "best": np.float64(0.74),
        "sigmas": np.ones((2, 3), dtype=np.float32),
        "torch": torch.__version__,
    }
    path = tmp_path / "weights.pth"
    torch.save(contents, path, _use_new_zipfile_serialization=not old_format)
    del sys.modules["mmengine.logging.history_buffer"].HistoryBuffer
    del sys.modules["yacs.config"].CfgNode

    held = read(path)

    assert torch.equal(held["state_dict"]["weight"], torch.arange(3.0))
    assert held["best"] == 0.74
    assert held["config"] == {"model": {"depth": 3}}
    assert np.array_equal(held["sigmas"], np.ones((2, 3)))
    assert not hasattr(held["args"], "lr")


class _Calls:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("old_format", [False, True], ids=["archive", "old format"])
@pytest.mark.parametrize(
    "evil",
    [
        lambda marker: _Calls(os.mkdir, marker),
        lambda marker: _Calls(eval, f"__import__('os').mkdir({marker!r})"),
        lambda marker: _Calls(pickle.loads, pickle.dumps(_Calls(os.mkdir, marker))),
        lambda marker: _Calls(subprocess.Popen, ["mkdir", marker]),
        lambda marker: _Calls(functools.partial, os.mkdir, marker),
        lambda marker: _Calls(torch.storage._load_from_bytes, pickle.dumps(_Calls(os.mkdir, marker))),
        lambda marker: _Calls(torch.hub.load, marker, "model"),
        lambda marker: _Calls(np.save, marker, np.zeros(1)),
        lambda marker: _Calls(Path.mkdir, Path(marker)),
        lambda marker: _Calls(Path(marker).touch),
        lambda marker: _Calls(getattr, torch.ones(1), "tofile"),
    ],
)
def test_code_is_refused_by_torch_itself_and_never_runs(
    tmp_path: Path, evil: Callable[[str], Any], old_format: bool
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "weights.pth"
    torch.save({"meta": evil(str(marker))}, path, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(pickle.UnpicklingError):
        read(path)
    assert not marker.exists()


def test_names_of_functions_have_no_stand_in() -> None:
    names = {"os.system", "posix.system", "subprocess.Popen", "builtins.eval", "builtins.exec", "builtins.__import__"}
    names |= {"builtins.open", "importlib.import_module", "numpy.load", "functools.partial", "operator.attrgetter"}
    names |= {"runpy.run_path", "torch.hub.load", "pathlib.Path.write_text", "argparse.Namespace.__init__"}
    names |= {"mmengine.fileio.load", "timm.models.create_model", "omegaconf.OmegaConf.load"}
    names |= {"mmengine.config.Config.fromfile"}
    assert names.isdisjoint(entry[1] for entry in inert_globals(names) if isinstance(entry, tuple))
