"""What a visibility head learns beside the keypoints, and that nobody else pays for it."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_setup import TinySetup

from uniformer_pose.training.step import loss_and_output, visibility_loss

V = torch.tensor([[0.0, 1.0, 2.0, 2.0]])


def test_labelled_is_learnt_of_every_keypoint_and_visible_of_labelled_ones_alone() -> None:
    logits = torch.zeros(1, 4, 2, requires_grad=True)
    loss = visibility_loss(logits, V)
    loss.backward()
    assert loss.item() == pytest.approx(2 * math.log(2), abs=1e-6)
    assert logits.grad is not None
    # The derivative of a cross-entropy at 0 is a half less the truth: over four keypoints, and over three labelled.
    torch.testing.assert_close(logits.grad[0, :, 0], torch.tensor([0.5, -0.5, -0.5, -0.5]) / 4)
    torch.testing.assert_close(logits.grad[0, :, 1], torch.tensor([0.0, 0.5, -0.5, -0.5]) / 3)


def test_of_keypoints_that_a_set_does_not_have_nothing_is_learnt() -> None:
    visibility = torch.tensor([[0.0, 1.0, 2.0, 0.0], [2.0, 2.0, 0.0, 1.0]])
    in_set = torch.tensor([[True, True, True, False], [True] * 4])
    logits = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = visibility_loss(logits, visibility, in_set)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, 3].tolist() == [0, 0]
    assert (logits.grad[..., 0] != 0).sum() == 7
    every = torch.ones(2, 4, dtype=torch.bool)
    torch.testing.assert_close(visibility_loss(logits, visibility, every), visibility_loss(logits, visibility))
    assert visibility_loss(logits, torch.zeros(2, 4), ~every) == 0


def test_a_batch_without_labels_and_half_precision_give_finite_numbers() -> None:
    loss = visibility_loss(torch.full((2, 3, 2), 60.0, dtype=torch.float16), torch.zeros(2, 3))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(60.0)


def test_a_step_adds_a_thousandth_of_it_and_its_output_is_the_keypoints(tiny: TinySetup) -> None:
    module = tiny.module(model=tiny.model(head={"visibility": True}))
    plain = tiny.module(model=tiny.model())
    plain.network.load_state_dict(module.network.state_dict(), strict=False)
    torch.nn.init.ones_(module.network.head.visibility.labelled.bias)
    crops = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    points, visibility = 64 * torch.rand(2, 17, 2), torch.randint(0, 3, (2, 17)).float()
    with_it, without = (
        loss_and_output(each.network.train(), each.normalize, each.codec, each.loss, crops, points, visibility)
        for each in (module, plain)
    )
    assert torch.equal(with_it[1], without[1])
    _, logits = module.network(module.normalize(crops))
    of_visibility = visibility_loss(logits, visibility).item()
    assert with_it[0].item() - without[0].item() == pytest.approx(1e-3 * of_visibility, rel=1e-3)


def test_the_visibility_logits_follow_the_other_weights_draws(tiny: TinySetup) -> None:
    entries, plain = tiny.model(head={"visibility": True}).network.state_dict(), tiny.model().network.state_dict()
    assert all(torch.equal(entries[name], entry) for name, entry in plain.items())
    beside = {name: tuple(entry.shape) for name, entry in entries.items() if name not in plain}
    assert beside == {
        f"head.visibility.{part}.{kind}": shape
        for part in ("labelled", "visible")
        for kind, shape in (("weight", (17, 32)), ("bias", (17,)))
    }
