"""Ten optimizer steps on four crops give the losses that MMPose gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_reference_heatmaps import network_with_reference_weights, normalised
from torch import Tensor

REFERENCE = "training_trajectory_uniformer_s_256x192.npz"


def masked_mean_squared_error(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    # The mean runs over all of B * K * h * w: an unlabelled keypoint adds 0, and counts in the denominator.
    return ((heatmaps - targets).square() * weights[:, :, None, None]).mean()


def batch(reference: np.lib.npyio.NpzFile) -> tuple[Tensor, Tensor, Tensor]:
    targets = torch.from_numpy(reference["target_heatmaps"])
    return normalised(reference["crops_rgb"]), targets, torch.from_numpy(reference["target_weights"])


def test_the_first_loss_and_gradient_norm_are_the_reference_s(numbers_folder: Path) -> None:
    reference = np.load(numbers_folder / REFERENCE)
    images, targets, weights = batch(reference)
    network = network_with_reference_weights("s").train()
    loss = masked_mean_squared_error(network(images), targets, weights)
    loss.backward()
    norm = torch.nn.utils.get_total_norm(p.grad for p in network.parameters() if p.grad is not None)
    assert loss.item() == pytest.approx(float(reference["losses_adam"][0]), rel=0.001)
    assert float(norm) == pytest.approx(float(reference["first_step_grad_norm"]), rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("adam", marks=pytest.mark.long), "adamw"])
def test_ten_steps_follow_the_reference(numbers_folder: Path, name: str) -> None:
    reference = np.load(numbers_folder / REFERENCE)
    images, targets, weights = batch(reference)
    network = network_with_reference_weights("s").train()
    learning_rate = float(reference["learning_rate"])
    optimizer: torch.optim.Optimizer
    if name == "adam":
        optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    else:
        optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.01)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = masked_mean_squared_error(network(images), targets, weights)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    expected = reference[f"losses_{name}"]
    np.testing.assert_allclose(losses[:3], expected[:3], rtol=0.01)
    # Rounding grows from step to step; further on only the course is comparable.
    np.testing.assert_allclose(losses, expected, rtol=0.1)
