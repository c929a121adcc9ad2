"""A teacher adds the difference of its output to the loss, and nothing of it becomes the student's."""

from __future__ import annotations

import functools
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from resumable_training import differences, train
from tiny_setup import TinySetup
from torch._dynamo.utils import counters

from uniformer_pose.data.tensors import CropNormalization
from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.keypoints.simcc_codec import SimCCCodec
from uniformer_pose.saved_model import SavedModel
from uniformer_pose.skeleton import Skeleton, load_skeleton
from uniformer_pose.training.ema import AveragedWeights
from uniformer_pose.training.loss import KeypointKL, KeypointMSE
from uniformer_pose.training.step import loss_and_output
from uniformer_pose.training.teacher import Teacher

COCO = load_skeleton("coco_17")
FIELDS = COCO.to_dict()
LAST_FIRST = dict(reversed(FIELDS["keypoints"].items()))
OTHER_ORDER = Skeleton.from_dict(FIELDS | {"keypoints": LAST_FIRST})


def batch_of(tiny: TinySetup) -> dict[str, torch.Tensor]:
    data = tiny.data(batch_size=6)
    data.setup("fit")
    batch: dict[str, torch.Tensor] = next(iter(data.train_dataloader()))
    return batch


def loss_of(tiny: TinySetup, model: SavedModel, teacher: Teacher | None = None, **others: Any) -> torch.Tensor:
    batch = batch_of(tiny)
    parts = (batch["crops"], batch["keypoints_in_crop"], batch["visibility"])
    normalize = CropNormalization(model.mean, model.std)
    value, _ = loss_and_output(
        model.network.eval(), normalize, model.codec, KeypointMSE(), *parts, teacher=teacher, **others
    )
    return value


def test_a_student_that_is_its_teacher_learns_nothing_from_it(tiny: TinySetup) -> None:
    model = tiny.model()
    assert loss_of(tiny, model, Teacher(deepcopy(model), KeypointMSE(), 10.0)).item() == loss_of(tiny, model).item()


def test_the_difference_of_all_cells_is_added_by_its_weight(tiny: TinySetup) -> None:
    model, other = tiny.model(), tiny.model(seed=1)
    crops = batch_of(tiny)["crops"]
    images = CropNormalization(model.mean, model.std)(crops)
    difference = (model.network.eval()(images) - other.network.eval()(images)).square().mean().item()
    added = loss_of(tiny, model, Teacher(other, KeypointMSE(), 3.0)).item() - loss_of(tiny, model).item()
    assert added == pytest.approx(3.0 * difference, rel=1e-4)


def test_a_student_of_vectors_learns_their_softmax(tiny: TinySetup) -> None:
    """The divergence of both axes' distributions, by formula."""
    first, other = (
        replace(tiny.model(seed, head={"kind": "simcc"}, crop_height=64, crop_width=64), codec=SimCCCodec(64, 64))
        for seed in (0, 1)
    )
    images = CropNormalization(first.mean, first.std)(batch_of(tiny)["crops"])
    output, target = (4 * model.network.eval()(images).detach() for model in (first, other))  # beta is 4
    expected = 0.0
    for axis in (slice(0, 128), slice(128, 256)):
        wanted, logs = target[..., axis].softmax(-1), output[..., axis].log_softmax(-1)
        expected += (wanted * (wanted.log() - logs)).mean().item()
    loss = KeypointKL(beta=4.0)
    assert Teacher(other, loss, 2.0)(images, output / 4).item() == pytest.approx(2 * expected, rel=1e-4)
    assert Teacher(first, loss)(images, output / 4).item() == pytest.approx(0.0, abs=1e-8)


def test_keypoint_weights_multiply_those_of_the_codec(tiny: TinySetup) -> None:
    model = tiny.model()
    ones = torch.ones(6, 17)
    assert loss_of(tiny, model, keypoint_weights=ones).item() == loss_of(tiny, model).item()
    assert loss_of(tiny, model, keypoint_weights=0.25 * ones).item() == pytest.approx(
        0.25 * loss_of(tiny, model).item()
    )


def trained(tiny: TinySetup, *callbacks: pl.Callback, epochs: int = 4, **settings: Any) -> Any:
    module = tiny.module(**settings)
    pl.seed_everything(0, verbose=False)
    trainer = tiny.trainer(callbacks=list(callbacks), max_epochs=epochs, limit_val_batches=0)
    trainer.fit(module, datamodule=tiny.data())
    return module


def test_training_moves_towards_the_teacher_whose_weights_stay(tiny: TinySetup) -> None:
    other = tiny.model(seed=1)
    torch.nn.init.ones_(other.network.head.final_layer.bias)  # far from what the labels want
    images = CropNormalization(other.mean, other.std)(batch_of(tiny)["crops"])
    wanted = other.network.eval()(images).detach()
    path = tiny.write_model(other)
    kept = torch.load(path, weights_only=True)["state_dict"]
    distances = {}
    for weight in (0.0, 30.0):
        module = trained(
            tiny, AveragedWeights(0.5), epochs=12, learning_rate_per_256=6.0, teacher=path, teacher_weight=weight
        )
        distances[weight] = (module.network.eval()(images) - wanted).square().mean().item()
    assert distances[30.0] < 0.7 * distances[0.0]
    for name, tensor in module.teacher.network.state_dict().items():
        assert torch.equal(tensor, kept[f"network.{name}"])
    assert not module.teacher.network.training
    assert {name.partition(".")[0] for name in module.state_dict()} == {"network"}
    assert deepcopy(module).teacher is module.teacher


def test_without_weight_the_teacher_changes_no_bit(tiny: TinySetup) -> None:
    taught = trained(tiny, teacher=tiny.write_model(tiny.model(seed=1)), teacher_weight=0.0)
    plain = trained(tiny)
    for one, other in zip(taught.network.parameters(), plain.network.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"codec": HeatmapCodec(96, 64, sigma=1.5, method="dark")}, r"its data\.codec\.height is 96, the student's 64"),
        (
            {"codec": HeatmapCodec(64, 64, sigma=2.0, method="dark")},
            r"its data\.codec\.sigma is 2\.0, the student's 1\.5",
        ),
        (
            {"codec": HeatmapCodec(64, 64, sigma=1.5, method="udp")},
            r"its data\.codec\.method is udp, the student's dark",
        ),
        ({"codec": SimCCCodec(64, 64)}, r"its data\.codec\.method is simcc, the student's dark"),
        ({"mean": (0.0, 0.0, 0.0)}, r"its data\.mean is \(0\.0, 0\.0, 0\.0\)"),
        ({"std": (255.0, 255.0, 255.0)}, r"its data\.std is"),
        ({"box_padding": 1.1}, r"its data\.box_padding is 1\.1, the student's 1\.25"),
        ({"skeleton": OTHER_ORDER}, r"its keypoints is \('right_ankle', 'left_ankle'"),
    ],
)
def test_a_teacher_of_other_crops_or_output_is_refused_in_one_line(
    tiny: TinySetup, changed: dict[str, Any], message: str
) -> None:
    path = tiny.write_model(replace(tiny.model(), **changed))
    with pytest.raises(InputError, match=f"training.teacher={path}: {message}") as refused:
        tiny.module(teacher=path)
    assert "\n" not in str(refused.value)


def test_how_the_teacher_is_decoded_does_not_matter(tiny: TinySetup) -> None:
    codec = HeatmapCodec(64, 64, sigma=1.5, method="dark", blur_kernel=5)
    assert tiny.module(teacher=tiny.write_model(replace(tiny.model(), codec=codec))).teacher is not None


def test_a_resumed_training_is_bit_for_bit_the_one_that_was_not_interrupted(tiny: TinySetup, tmp_path: Path) -> None:
    path = tiny.write_model(tiny.model(seed=1))
    train(tiny, tmp_path / "straight", epochs=2, teacher=path)
    train(tiny, tmp_path / "run", epochs=1, teacher=path)
    train(tiny, tmp_path / "run", epochs=2, teacher=path)
    assert differences(tmp_path / "run", tmp_path / "straight") == []


@pytest.mark.slow
def test_the_compiled_step_is_one_graph_with_the_plain_numbers(
    tiny: TinySetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    path = tiny.write_model(tiny.model(seed=1))
    plain = trained(tiny, teacher=path)
    torch._dynamo.reset()
    counters.clear()
    compiled = trained(tiny, teacher=path, compile_step=True)
    assert (counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())) == (1, 0)
    for one, other in zip(compiled.network.parameters(), plain.network.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5)
    torch._dynamo.reset()
