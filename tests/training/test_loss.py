"""The step's loss: compiled whole and once, equal to the plain one, and never waiting for the device."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_setup import TinySetup
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from uniformer_pose.training.loss import keypoint_mse, loss_and_accuracy
from uniformer_pose.training.pose_module import PoseModule


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


def test_the_loss_is_the_mean_square_over_all_cells_where_unlabelled_keypoints_count_as_zero() -> None:
    heatmaps = torch.tensor([[[[1.0, 0.0], [0.5, 0.0]], [[7.0, 2.0], [3.0, 0.0]]]], requires_grad=True)
    loss = keypoint_mse(heatmaps, torch.full((1, 2, 2, 2), 0.5), torch.tensor([[1.0, 0.0]]))
    loss.backward()
    assert loss.item() == pytest.approx((0.25 + 0.25 + 0.0 + 0.25) / 8)
    assert heatmaps.grad is not None
    assert heatmaps.grad[0, 1].abs().max() == 0


def test_the_loss_of_half_precision_heatmaps_is_computed_in_single_precision() -> None:
    heatmaps = torch.full((1, 1, 4, 4), 0.001, dtype=torch.float16)  # its square is below fp16's smallest number
    loss = keypoint_mse(heatmaps, torch.zeros(1, 1, 4, 4), torch.ones(1, 1))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(float(heatmaps[0, 0, 0, 0]) ** 2, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("network", [{"stage3_attention": "hybrid"}, {"checkpointed_blocks": [0, 0, 1, 1]}])
def test_the_compiled_step_is_one_graph_compiled_once_and_has_the_plain_gradients(
    tiny: TinySetup, network: dict[str, Any]
) -> None:
    gradients, losses, counter = [], [], CompileCounterWithBackend("aot_eager")
    for step in (loss_and_accuracy, torch.compile(loss_and_accuracy, fullgraph=True, dynamic=False, backend=counter)):
        module = tiny.module(model=tiny.model(window_size=3, **network)).train()
        for seed in range(2):
            loss, accuracy = step(*arguments(module, batch(seed)))
            loss.backward()
        losses.append((float(loss.detach()), float(accuracy)))
        gradients.append([p.grad for p in module.network.parameters()])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for plain, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-3 * float(plain.abs().max()) + 1e-9)
    assert counter.frame_count == 1


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
