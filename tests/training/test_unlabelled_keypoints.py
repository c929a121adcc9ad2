"""What nobody has labelled teaches nothing: no gradient, and no weight that depends on where it is said to be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_setup import TinySetup
from torch import Tensor

from uniformer_pose.keypoints.codec import Codec
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.keypoints.simcc_codec import SimCCCodec
from uniformer_pose.training.loss import AdaptiveWing, KeypointKL, KeypointMSE, KeypointOHKM, Loss
from uniformer_pose.training.step import loss_and_output

HEATMAPS: list[Codec] = [HeatmapCodec(64, 64, sigma=1.5, method=method) for method in ("msra", "dark", "udp")]
KL: dict[str, Any] = {"beta": 10.0, "target_softmax": True}
CASES: list[tuple[Codec, Loss]] = [
    *((codec, loss) for codec in HEATMAPS for loss in (KeypointMSE(), KeypointOHKM(), AdaptiveWing())),
    (SimCCCodec(64, 64), KeypointKL(**KL)),
    (SimCCCodec(64, 64), KeypointKL(**KL, sum_over_batch=True)),
    (SimCCCodec(64, 64, normalized=True), KeypointKL()),
]
ANYWHERE = [0.0, -1.0, 31.5, 1e9, float("inf"), float("nan")]


def labels() -> tuple[Tensor, Tensor]:
    """Four people of 17 keypoints in a crop of 64: 17, 12, 3 (fewer than the hardest are) and none are labelled."""
    points = 64 * torch.rand(4, 17, 2, generator=torch.Generator().manual_seed(0))
    visibility = torch.full((4, 17), 2, dtype=torch.uint8)
    visibility[1, :5] = visibility[2, 3:] = visibility[3] = 0
    visibility[0, 4] = 1
    return points, visibility


@pytest.mark.parametrize(("codec", "loss"), CASES, ids=lambda case: str(getattr(case, "method", type(case).__name__)))
def test_the_gradient_of_an_unlabelled_keypoints_output_is_exactly_0(codec: Codec, loss: Loss) -> None:
    points, visibility = labels()
    output = torch.randn(4, 17, *codec.output_shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    targets, weights = codec.encode(points, visibility)

    value = loss(codec, output, targets, weights)
    value.backward()

    assert output.grad is not None
    of_keypoints = output.grad.flatten(2)
    assert (of_keypoints[visibility == 0] == 0).all()
    learnt = (of_keypoints[visibility > 0] != 0).any(dim=-1)
    assert learnt.sum() == (19 if isinstance(loss, KeypointOHKM) else 32)  # 8 of 17, 8 of 12, and 3
    without = output.detach().clone()
    without[visibility == 0] = 1e3
    assert torch.equal(loss(codec, without, targets, weights), value)


@pytest.mark.parametrize(("codec", "loss"), CASES, ids=lambda case: str(getattr(case, "method", type(case).__name__)))
def test_weights_after_a_step_do_not_depend_on_where_an_unlabelled_keypoint_is(
    codec: Codec, loss: Loss, tiny: TinySetup
) -> None:
    points, visibility = labels()
    crops = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    unlabelled = visibility == 0

    after = []
    for place in ANYWHERE:
        points[unlabelled] = place
        after.append(weights_after_a_step(tiny, codec, loss, crops, points, visibility))
    points[0, 0] += 9  # which is labelled

    assert all(torch.equal(weights, after[0]) for weights in after)
    assert not torch.equal(weights_after_a_step(tiny, codec, loss, crops, points, visibility), after[0])


def weights_after_a_step(tiny: TinySetup, codec: Codec, loss: Loss, *batch: Tensor) -> Tensor:
    head = {"head": {"kind": "simcc"}, "crop_height": 64, "crop_width": 64} if codec.kind == "simcc" else {}
    module = tiny.module(model=tiny.model(**head))
    optimizer = torch.optim.AdamW(module.network.parameters(), lr=1e-2)
    loss_and_output(module.network.train(), module.normalize, codec, loss, *batch)[0].backward()
    optimizer.step()
    weights = torch.cat([weight.detach().flatten() for weight in module.network.parameters()])
    assert weights.isfinite().all()
    return weights
