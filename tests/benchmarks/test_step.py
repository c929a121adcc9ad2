from __future__ import annotations

import copy
from itertools import count

import numpy as np
import pytest
import torch
from small_training import small_module

from uniformer_pose.benchmarks.step import (
    benchmark_step,
    loss_curve,
    plain_step,
    random_batch,
    saved_bytes,
    training_step,
)
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec

CPU = torch.device("cpu")
STEPS, WINDOW = 200, 20
# The two differ in memory order, hence in rounding, which training magnifies: 6e-5 in the first 20 steps, 4 % in the
# worst of 200, 0.5 % in the means of 20. Two plain runs whose weights differ by one rounding come to 5 % and 1.2 %.
FIRST_STEPS, EVERY_STEP, MEANS = 1e-3, 0.15, 0.03


def test_a_random_batch_has_the_fields_types_and_shapes_of_the_loader_s(coco: PersonCrops) -> None:
    real = next(iter(coco.train_dataloader()))

    made = random_batch(coco.codec, coco.skeleton.num_keypoints, 4, CPU)

    assert {name: (value.shape, value.dtype) for name, value in made.items()} == {
        name: (value.shape, value.dtype) for name, value in real.items()
    }


def both_curves(data: PersonCrops, steps: int, learning_rate: float) -> np.ndarray:
    torch.manual_seed(0)
    plain = small_module().train()
    own = copy.deepcopy(plain)

    batches: list[dict[str, torch.Tensor]] = []
    for epoch in count():
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        batches += loader
        if len(batches) >= steps:
            break

    curves = []
    for make, module in ((plain_step, plain), (training_step, own)):
        optimizer = torch.optim.AdamW(module.network.parameters(), lr=learning_rate)
        curves.append(loss_curve(make(module, optimizer, "fp32"), batches[:steps]))
    return np.array(curves)


def test_the_first_steps_of_the_plain_and_of_the_training_step_give_the_same_losses(coco: PersonCrops) -> None:
    plain, own = both_curves(coco, 5, 1e-3)

    np.testing.assert_allclose(own, plain, rtol=1e-4)


@pytest.mark.slow
def test_the_loss_curves_agree_over_200_steps(coco: PersonCrops) -> None:
    plain, own = both_curves(coco, STEPS, 1e-3)

    assert plain[-50:].mean() < 0.95 * plain[:WINDOW].mean()  # something is learnt
    np.testing.assert_allclose(own[:WINDOW], plain[:WINDOW], rtol=FIRST_STEPS)
    np.testing.assert_allclose(own, plain, rtol=EVERY_STEP)
    means = [curve.reshape(-1, WINDOW).mean(axis=1) for curve in (plain, own)]
    np.testing.assert_allclose(means[1], means[0], rtol=MEANS)


def test_what_is_kept_for_the_backward_pass_is_counted_once_and_without_weights() -> None:
    layer = torch.nn.Linear(8, 8, bias=False)
    inputs = torch.rand(4, 8)

    def forward() -> torch.Tensor:
        outputs = layer(inputs)  # keeps its inputs
        return (outputs * outputs).sum()  # keeps its inputs, both the same tensor

    assert saved_bytes(forward, layer) == inputs.nbytes + 4 * 8 * 4


def test_the_benchmark_of_the_step_compares_both_and_states_the_share_of_the_peak() -> None:
    result = benchmark_step(
        small_module,
        torch.optim.AdamW,
        device=CPU,
        number_format="fp32",
        batch_size=2,
        rounds=2,
        steps=1,
        clock="cpu",
        compile_step=False,
    )

    (comparison,) = result.comparisons
    assert [side.units for side in comparison.sides] == [[2, 2], [2, 2]]
    assert 0 < result.facts["compute_fraction_of_peak"] < 2
    assert result.facts["gigaflops_per_image"] > 0
    assert result.facts["kept_for_backward_over_plain"] == pytest.approx(1, abs=0.5)
    assert "the plain one" in result.verdict[0]


def test_the_reference_is_in_the_usual_memory_order() -> None:
    module = small_module()
    module.network.to(memory_format=torch.channels_last)

    plain_step(module, torch.optim.AdamW(module.network.parameters()), "fp32")

    assert all(weight.is_contiguous() for weight in module.network.parameters())


def test_a_random_batch_is_the_same_for_the_same_seed() -> None:
    codec = HeatmapCodec(64, 64, sigma=1.5)
    first, again, other = (random_batch(codec, 17, 2, CPU, seed)["crops"] for seed in (0, 0, 1))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
