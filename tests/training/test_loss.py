"""The step's loss, which never waits for the device."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny_setup import TinySetup
from torch import Tensor

from uniformer_pose.training.loss import keypoint_mse
from uniformer_pose.training.pose_module import PoseModule


def batch(seed: int = 0, size: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "crops": torch.randint(0, 256, (size, 64, 64, 3), dtype=torch.uint8, generator=generator),
        "keypoints_in_crop": torch.rand(size, 17, 2, generator=generator) * 64,
        "visibility": torch.full((size, 17), 2),
        "replaced": torch.zeros(size, dtype=torch.uint8),
    }


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
