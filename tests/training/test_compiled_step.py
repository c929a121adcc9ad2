"""The compiled step: one graph, compiled once, with the plain numbers; or the plain step, where that fails."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled_training import NETWORK, trained
from tiny_setup import TinySetup
from torch._dynamo.utils import counters

from uniformer_pose.training.compiled_step import CompiledStep, compiled_where_asked

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _nothing_compiled_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def use_backend(monkeypatch: pytest.MonkeyPatch, backend: Any) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        NETWORK,
        {"drop_path_rate": 0.3, "stage3_attention": "hybrid", "stem": "convolution"},
        {"frozen_batchnorm": True, "checkpointed_blocks": [1, 0, 0, 1]},
        {"head": {"visibility": True}},
    ],
    ids=["checkpointed", "plain", "frozen", "visibility"],
)
def test_a_training_compiles_one_graph_once_and_has_the_plain_numbers(
    tiny: TinySetup, monkeypatch: pytest.MonkeyPatch, network: dict[str, Any]
) -> None:
    tiny.write_people([1] * 9)  # four batches of two, and one that is left over
    use_backend(monkeypatch, "aot_eager")
    plain, compiled = (trained(tiny, compiled=choice, network=network) for choice in (False, True))
    assert len(plain["losses"]) == 8
    assert (compiled["graphs"], compiled["breaks"]) == (1, 0)
    assert compiled["losses"] == pytest.approx(plain["losses"], rel=1e-5)
    assert compiled["buffers"] == pytest.approx(plain["buffers"], rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_each_of_two_processes_compiles_one_graph_once(tiny: TinySetup) -> None:
    tiny.write_people([1] * 9)
    script = Path(__file__).with_name("compiled_training.py")
    ended = subprocess.run(
        [sys.executable, str(script), str(tiny.folder)], capture_output=True, text=True, timeout=280, check=False
    )
    assert ended.returncode == 0, ended.stderr
    found = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    compiled = [one for one in found if one["graphs"]]
    plain = [one for one in found if not one["graphs"]]
    assert [(one["graphs"], one["breaks"]) for one in compiled] == [(1, 0), (1, 0)]
    assert sorted(one["losses"] for one in compiled) == [
        pytest.approx(losses, rel=1e-5) for losses in sorted(one["losses"] for one in plain)
    ]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)  # a compiler of C++ runs, on all of the step
def test_inductor_s_kernels_have_the_plain_numbers_and_are_compiled_once(tiny: TinySetup, tmp_path: Path) -> None:
    tiny.write_people([1] * 4)
    plain = trained(tiny, compiled=False, network=NETWORK)
    for _ in ("cold", "warm"):
        compiled = trained(tiny, compiled=True, network=NETWORK)
        assert compiled["losses"] == pytest.approx(plain["losses"], rel=1e-4)
    assert counters["aot_autograd"]["autograd_cache_hit"] == 1
    assert any((tmp_path / "compiled").rglob("*.so"))


def test_kernels_are_kept_beside_downloads_unless_the_person_says_where() -> None:
    program = "import os, uniformer_pose; print(os.environ['TORCHINDUCTOR_CACHE_DIR'])"
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    for chosen, expected in (
        ({"UNIFORMER_POSE_CACHE": "/somewhere"}, "/somewhere/compiled"),
        ({"UNIFORMER_POSE_CACHE": "/somewhere", "TORCHINDUCTOR_CACHE_DIR": "/mine"}, "/mine"),
    ):
        printed = subprocess.check_output([sys.executable, "-c", program], env=environment | chosen, text=True)
        assert printed.strip() == expected


def test_what_cannot_be_compiled_is_said_once_and_computed_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: Any) -> None:
        raise RuntimeError("no C compiler found")

    use_backend(monkeypatch, no_compiler)
    step = CompiledStep(lambda x: x + 1)
    with pytest.warns(UserWarning, match=r"cannot be compiled.*no C compiler found.*compile_step=false") as said:
        assert [int(step(torch.tensor(number))) for number in (1, 2)] == [2, 3]
    assert len(said) == 1
    assert "\n" not in str(said[0].message)


def test_auto_compiles_on_a_gpu_alone() -> None:
    function = torch.square
    assert compiled_where_asked(function, "auto", CPU) is compiled_where_asked(function, False, CPU) is function
    for choice, device in ((True, CPU), ("auto", torch.device("cuda"))):
        assert isinstance(compiled_where_asked(function, choice, device), CompiledStep)
