"""The step's loss: compiled whole and once, equal to the plain one, and never waiting for the device."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_setup import TinySetup
from torch import Tensor
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend

from uniformer_pose.training.pose_module import PoseModule
from uniformer_pose.training.step_loss import StepLoss, loss_and_accuracy, what_hinders_compiling

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _nothing_compiled_before() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def batch(seed: int = 0, size: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "crops": torch.randint(0, 256, (size, 64, 64, 3), dtype=torch.uint8, generator=generator),
        "keypoints_in_crop": torch.rand(size, 17, 2, generator=generator) * 64,
        "visibility": torch.full((size, 17), 2),
        "replaced": torch.zeros(size, dtype=torch.uint8),
    }


def arguments(module: Any, values: dict[str, Tensor]) -> tuple[Any, ...]:
    parts = (values["crops"], values["keypoints_in_crop"], values["visibility"])
    return (module.network, module.normalize, module.codec, *parts)


@pytest.mark.slow
def test_the_compiled_loss_and_gradients_are_the_plain_ones(tiny: TinySetup) -> None:
    gradients, losses = [], []
    for compile_step in (False, True):
        module = tiny.module().train()
        loss, accuracy = StepLoss(compile_step, CPU, backend="aot_eager")(*arguments(module, batch()))
        loss.backward()
        losses.append((float(loss.detach()), float(accuracy)))
        gradients.append([p.grad for p in module.network.parameters()])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for plain, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-3 * float(plain.abs().max()) + 1e-9)


@pytest.mark.slow
def test_the_step_is_one_graph_and_compiled_once_though_evaluations_come_between(tiny: TinySetup) -> None:
    counter = CompileCounter()
    module = tiny.module(model=tiny.model(drop_path_rate=0.5, stage3_attention="hybrid", window_size=3)).train()
    step_loss = StepLoss(True, CPU, backend=counter)
    optimizer = torch.optim.AdamW(module.network.parameters())
    for step in range(4):
        loss, _ = step_loss(*arguments(module, batch(step)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == 1:
            module.eval()
            with torch.inference_mode():
                for size in (3, 1):
                    module.network(torch.randn(size, 3, 64, 64))
            module.train()
    assert counter.frame_count == 1


@pytest.mark.slow
@pytest.mark.parametrize("checkpointed", [[0, 0, 1, 1]])
def test_recomputed_attention_blocks_compile_too(tiny: TinySetup, checkpointed: list[int]) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    module = tiny.module(model=tiny.model(checkpointed_blocks=checkpointed)).train()
    StepLoss(True, CPU, backend=counter)(*arguments(module, batch()))[0].backward()
    assert counter.frame_count == 1


@pytest.mark.slow
def test_where_compiling_fails_the_step_goes_on_and_says_so_once(tiny: TinySetup) -> None:
    def broken(_graph: Any, _inputs: Any) -> Any:
        raise RuntimeError("no kernels today")

    module = tiny.module().eval()  # running statistics stay, so that two calls compare
    step_loss = StepLoss(True, CPU, backend=broken)
    expected, _ = loss_and_accuracy(*arguments(module, batch()))
    with pytest.warns(UserWarning, match=r"the training step is not compiled: .*no kernels today"):
        loss, _ = step_loss(*arguments(module, batch()))
    assert torch.equal(loss, expected)
    assert not step_loss.compiled
    assert torch.equal(step_loss(*arguments(module, batch()))[0], expected)


def test_without_a_compiler_one_line_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert what_hinders_compiling(CPU) == "no C++ compiler (no-such-compiler) is installed"
    with pytest.warns(UserWarning, match="the training step is not compiled: no C"):
        assert not StepLoss(True, CPU).compiled


def test_auto_leaves_a_processor_s_step_as_it_is() -> None:
    assert not StepLoss("auto", CPU).compiled


def test_a_step_reads_nothing_back_from_the_device(tiny: TinySetup, monkeypatch: pytest.MonkeyPatch) -> None:
    # On the meta device there are no numbers: whatever asks for one, a branch, a print, a copy to the host, raises.
    module = tiny.module(model=tiny.model(drop_path_rate=0.5)).train().to("meta")
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    monkeypatch.setattr(PoseModule, "global_step", 0)
    monkeypatch.setattr(PoseModule, "trainer", SimpleNamespace(log_every_n_steps=50, fast_dev_run=False))
    values = {name: tensor.to("meta") for name, tensor in batch().items()}
    for number in range(2):
        module.training_step(values, number).backward()
    with pytest.raises((RuntimeError, NotImplementedError)):
        float(module.training_step(values, 2))
