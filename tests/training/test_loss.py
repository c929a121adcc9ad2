"""The losses of a step: MMPose's numbers, and what they are of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from uniformer_pose.keypoints.codec import Codec
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.keypoints.simcc_codec import SimCCCodec
from uniformer_pose.training.loss import AdaptiveWing, KeypointKL, KeypointMSE, KeypointOHKM, Loss

CODEC = HeatmapCodec(32, 32, sigma=2.0)
HEATMAP_LOSSES: list[Loss] = [KeypointMSE(), KeypointOHKM(), AdaptiveWing()]
VECTORS = SimCCCodec(256, 192)


def reference_inputs(case: dict[str, Any], inputs: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Output, targets and weights by the rule that stands beside the numbers."""
    random = np.random.Generator(np.random.PCG64(case["seed"]))
    if case["inputs"] == "heatmap":
        shape = inputs["heatmap"]["shape"]
        prediction = (0.3 * random.standard_normal(shape)).astype("float32")
        target = (random.random(shape) ** 6).astype("float32")
        weights = (random.integers(0, 3, shape[:2]) / 2).astype("float32")
        target[1, ::4] = 0
    else:
        shapes, sigmas = [inputs["simcc"]["shape_x"], inputs["simcc"]["shape_y"]], [case["sigma_x"], case["sigma_y"]]
        prediction = np.concatenate([(0.3 * random.standard_normal(s)).astype("float32") for s in shapes], axis=-1)
        centers = [random.integers(0, shape[2], shape[:2]) for shape in shapes]
        weights = (random.integers(0, 3, shapes[0][:2]) / 2).astype("float32")
        gaussians = [
            np.exp(-((np.arange(shape[2]) - center[..., None]) ** 2) / (2 * sigma**2))
            / (sigma * np.sqrt(2 * np.pi) if case["normalized"] else 1)
            for shape, center, sigma in zip(shapes, centers, sigmas, strict=True)
        ]
        target = np.concatenate(gaussians, axis=-1).astype("float32")
    return torch.from_numpy(prediction).requires_grad_(), torch.from_numpy(target), torch.from_numpy(weights)


def assert_equal(case: dict[str, Any], loss: Tensor, prediction: Tensor) -> None:
    """The value to 1e-6 of itself, and the gradients to 1e-5 of theirs."""
    loss.backward()
    assert loss.item() == pytest.approx(case["value"], rel=1e-6)
    gradient = prediction.grad
    assert gradient is not None
    ends = [""] if "gradient_norm" in case else ["_prediction_x", "_prediction_y"]
    parts = [gradient] if len(ends) == 1 else [gradient[..., :384], gradient[..., 384:]]
    for end, part in zip(ends, parts, strict=True):
        assert part.norm().item() == pytest.approx(case[f"gradient_norm{end}"], rel=1e-5)
        first = part.flatten()[:4].tolist()
        assert first == pytest.approx(case[f"gradient_first{end}"], rel=1e-5, abs=1e-5 * float(part.abs().max()))


# Which of our losses each of MMPose's is. Where it squares weights, ours is given their squares, or both heatmaps
# multiplied: the same for weights of 0 and 1.
PLAIN: dict[str, Loss] = {
    "mse_weighted": KeypointMSE(),
    "mse_weighted_flag_off": KeypointMSE(),
    "kl_rtmpose": KeypointKL(beta=10.0, target_softmax=True, sum_over_batch=True),
    "kl_rtmpose_label_beta_1": KeypointKL(beta=1.0, target_softmax=True, sum_over_batch=True),
    "kl_simcc": KeypointKL(beta=1.0, target_softmax=False, sum_over_batch=True),
}
UNWEIGHTED: dict[str, Loss] = {
    "mse_plain": KeypointMSE(),
    "ohkm_top8": KeypointOHKM(topk=8),
    "adaptive_wing": AdaptiveWing(),
    "kl_rtmpose_no_weight": KeypointKL(beta=10.0, target_softmax=True, sum_over_batch=True),
}


@pytest.mark.parametrize("name", [*PLAIN, *UNWEIGHTED, "ohkm_top8_weighted", "adaptive_wing_weighted", "skip"])
def test_losses_equal_mmpose_s(reference_folder: Path, name: str) -> None:
    reference = json.loads((reference_folder / "losses.json").read_text())
    case = reference["cases"]["mse_weighted_skip_empty" if name == "skip" else name]
    prediction, target, weights = reference_inputs(case, reference["inputs"])
    codec: Codec = VECTORS if name.startswith("kl") else CODEC
    if name in PLAIN:
        loss = PLAIN[name](codec, prediction, target, weights)
    elif name in UNWEIGHTED:
        loss = UNWEIGHTED[name](codec, prediction, target, torch.ones_like(weights))
    elif name == "ohkm_top8_weighted":
        loss = KeypointOHKM(topk=8)(codec, prediction, target, weights.square())
    elif name == "adaptive_wing_weighted":
        factor = weights[:, :, None, None]
        loss = AdaptiveWing()(codec, prediction * factor, target * factor, torch.ones_like(weights))
    else:  # MMPose's skip_empty_channel is what a weight of 0 does, which our codecs give to every empty target
        loss = KeypointMSE()(codec, prediction, target, weights * target.flatten(2).any(dim=-1))
    assert_equal(case, loss, prediction)


@pytest.mark.parametrize("loss", HEATMAP_LOSSES)
def test_weights_scale_the_errors_of_their_keypoints_and_0_takes_one_out(loss: Loss) -> None:
    heatmaps, targets = torch.rand(2, 5, 8, 8), torch.rand(2, 5, 8, 8)
    whole, half = (loss(CODEC, heatmaps, targets, torch.full((2, 5), weight)) for weight in (1.0, 0.5))
    assert half.item() == pytest.approx(0.5 * whole.item(), rel=1e-6)
    weights = torch.ones(2, 5)
    weights[:, 2] = 0
    without = loss(CODEC, heatmaps, targets, weights)
    heatmaps[:, 2] = 1e4
    assert torch.equal(loss(CODEC, heatmaps, targets, weights), without)


@pytest.mark.parametrize("arguments", [{"beta": 10.0, "target_softmax": True}, {"beta": 1.0}])
def test_the_divergence_is_by_default_the_same_for_a_batch_twice_as_large(arguments: dict[str, Any]) -> None:
    codec = SimCCCodec(64, 64, normalized=not arguments.get("target_softmax"))
    points, output = 64 * torch.rand(2, 5, 2), torch.randn(2, 5, 256)
    targets, weights = codec.encode(points, torch.ones(2, 5))
    loss, as_mmpose = KeypointKL(**arguments), KeypointKL(**arguments, sum_over_batch=True)
    once, twice = (
        [each(codec, output, targets, weights), each(codec, *two)]
        for each, two in (
            (loss, [part.repeat(2, *[1] * (part.ndim - 1)) for part in (output, targets, weights)]),
            (as_mmpose, [part.repeat(2, *[1] * (part.ndim - 1)) for part in (output, targets, weights)]),
        )
    )
    assert once[1].item() == pytest.approx(once[0].item(), rel=1e-6)
    assert twice[1].item() == pytest.approx(2 * twice[0].item(), rel=1e-6)
    assert twice[0].item() == pytest.approx(2 * once[0].item(), rel=1e-6)


def test_fewer_keypoints_than_the_hardest_are_all_of_them() -> None:
    heatmaps, targets, weights = torch.rand(2, 5, 8, 8), torch.rand(2, 5, 8, 8), torch.ones(2, 5)
    mean = KeypointMSE()(CODEC, heatmaps, targets, weights)
    torch.testing.assert_close(KeypointOHKM(topk=8)(CODEC, heatmaps, targets, weights), mean)


def test_the_loss_is_the_mean_square_over_all_cells_where_unlabelled_keypoints_count_as_zero() -> None:
    heatmaps = torch.tensor([[[[1.0, 0.0], [0.5, 0.0]], [[7.0, 2.0], [3.0, 0.0]]]], requires_grad=True)
    loss = KeypointMSE()(CODEC, heatmaps, torch.full((1, 2, 2, 2), 0.5), torch.tensor([[1.0, 0.0]]))
    loss.backward()
    assert loss.item() == pytest.approx((0.25 + 0.25 + 0.0 + 0.25) / 8)
    assert heatmaps.grad is not None
    assert heatmaps.grad[0, 1].abs().max() == 0


@pytest.mark.parametrize("loss", [*HEATMAP_LOSSES, KeypointKL(beta=10.0, target_softmax=True)])
def test_the_loss_of_half_precision_is_computed_in_single_precision(loss: Loss) -> None:
    codec: Codec = SimCCCodec(64, 64) if "simcc" in loss.kinds else CODEC
    shape = (1, 2, *codec.output_shape)
    half = (0.001 * torch.rand(shape, generator=torch.Generator().manual_seed(0))).half()
    targets = torch.zeros(shape)  # the squares are below fp16's smallest number
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(codec, half, targets, torch.ones(1, 2))
    assert found.dtype == torch.float32
    assert found.item() > 0
    assert found.item() == pytest.approx(loss(codec, half.float(), targets, torch.ones(1, 2)).item(), rel=1e-6)
