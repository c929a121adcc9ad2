"""Stages of augmentation: what the last epochs draw, whoever reads them, and what is refused before any training."""

from __future__ import annotations

import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from torch.utils.data import DataLoader

from programs import composed
from uniformer_pose.config_parts import TrainConfig
from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.crop_dataset import TrainingCrops, as_it_is
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.data.images import ImageSource
from uniformer_pose.data.photometric import PhotometricAugmentation
from uniformer_pose.data.rtmpose_photometric import RTMPosePhotometric
from uniformer_pose.data.sampling import EpochSampler
from uniformer_pose.data.stages import Stage, later_pipelines
from uniformer_pose.entry_point import checked_config, one_of_each, users_mistake
from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.skeleton import load_skeleton

SPEC = CropSpec(64, 48)
STRONG, LOOKS = GeometricAugmentation(), RTMPosePhotometric()
EPOCHS = 5
WEAK = Stage(last_epochs=2, max_epochs=EPOCHS, geometric={"scale_factor": 0.1}, photometric={"dropout_probability": 0})


def crops(coco, geometric=STRONG, photometric=LOOKS, **stages):
    later = later_pipelines(geometric, photometric, stages)
    pipelines = {"geometric": geometric, "photometric": photometric, "stages": later}
    return TrainingCrops(ImageSource(coco.read()), coco.skeleton, SPEC, seed=3, **pipelines)


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in one)


def test_the_last_epochs_are_those_of_the_stage_and_the_others_are_as_without_it(tiny_coco):
    staged, strong = crops(tiny_coco, weak=WEAK), crops(tiny_coco)
    weak = crops(tiny_coco, GeometricAugmentation(scale_factor=0.1), RTMPosePhotometric(dropout_probability=0))
    for epoch in range(EPOCHS + 1):
        expected, other = (weak, strong) if epoch >= 3 else (strong, weak)
        for index in range(4):
            assert same(staged[(index, epoch)], expected[(index, epoch)])
            assert not same(staged[(index, epoch)], other[(index, epoch)])


def test_a_stage_lasts_until_the_next_one_and_may_leave_out_or_replace_a_part(tiny_coco):
    looks = PhotometricAugmentation(color_probability=1)
    stages = {
        "last": Stage(1, EPOCHS, geometric=None, photometric=None),
        "third": Stage(3, EPOCHS, photometric=looks),
        "given_up": None,
    }
    staged = crops(tiny_coco, **stages)
    by_epoch = [crops(tiny_coco)] * 2 + [crops(tiny_coco, photometric=looks)] * 2 + [crops(tiny_coco, None, None)]
    for epoch, expected in enumerate(by_epoch):
        assert same(staged[(1, epoch)], expected[(1, epoch)])


def test_where_the_first_epochs_have_no_such_part_a_stage_changes_nothing_of_it(tiny_coco):
    assert same(
        crops(tiny_coco, photometric=None, weak=WEAK)[(0, 4)],
        crops(tiny_coco, GeometricAugmentation(scale_factor=0.1), None)[(0, 4)],
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_that_stay_between_the_epochs_need_not_be_told(tiny_coco, workers):
    data, read = crops(tiny_coco, weak=WEAK), []
    sampler = EpochSampler(len(data), seed=3)
    options: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": 4} if workers else {}
    loader = DataLoader(data, sampler=sampler, batch_size=2, collate_fn=as_it_is, num_workers=workers, **options)
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        read += list(loader)
    visits = [visit for epoch in range(EPOCHS) for visit in ordered(len(data), epoch)]
    alone = [data[visit] for visit in visits]
    for name in alone[0]:
        assert np.array_equal(torch.cat([batch[name] for batch in read]), np.stack([one[name] for one in alone]))


def ordered(people, epoch):
    sampler = EpochSampler(people, seed=3)
    sampler.set_epoch(epoch)
    return list(sampler)


def module(coco, *, rank=0, processes=1, skeleton="coco_17", geometric=STRONG, **settings):
    coco.write()
    data = PersonCrops(
        str(coco.folder),
        "people.json",
        "images",
        "people.json",
        "images",
        "gt",
        skeleton,
        HeatmapCodec(64, 64, sigma=1.5),
        (123.675, 116.28, 103.53),
        (58.395, 57.12, 57.375),
        batch_size=2 // processes,
        num_workers=0,
        seed=3,
        geometric=geometric,
        photometric=LOOKS,
        **settings,
    )
    data.trainer = SimpleNamespace(global_rank=rank, world_size=processes)
    data.setup("fit")
    return data


def test_two_processes_read_what_one_reads_before_and_after_the_switch(tiny_coco):
    one, *both = (
        module(tiny_coco, rank=rank, processes=processes, stages={"weak": WEAK})
        for rank, processes in ((0, 1), (0, 2), (1, 2))
    )
    for epoch in (2, 3):
        alone, *shares = ([*of_epoch(data, epoch)] for data in (one, *both))
        assert len(alone) == len(shares[0]) == len(shares[1]) == 2
        for batch, first, second in zip(alone, *shares, strict=True):
            assert same(batch, {name: torch.cat([first[name], second[name]]) for name in batch})


def of_epoch(data, epoch):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return loader


def test_training_says_from_which_epoch_on_a_stage_is(tiny_coco, caplog):
    with caplog.at_level("INFO"):
        module(tiny_coco, stages={"weak": WEAK})
    assert "augmentation: stage weak from epoch 3 on" in caplog.text


@pytest.mark.parametrize("probability", [0.5, 0])
def test_a_side_without_partner_is_told_of_where_only_a_stage_mirrors(tiny_coco, probability):
    coco = load_skeleton("coco_17")
    without_ears = replace(coco, left_right_pairs=tuple(p for p in coco.left_right_pairs if "left_ear" not in p))
    stages = {"late": Stage(1, 2, geometric={"flip_probability": probability})}
    with warnings.catch_warnings(record=True, action="always") as caught:
        module(tiny_coco, skeleton=without_ears, geometric=replace(STRONG, flip_probability=0), stages=stages)
    assert any("left_ear, right_ear" in str(each.message) for each in caught) == bool(probability)


# -------------------------------------------------------------------------------------------------- from the config


def augmentation(*overrides):
    config = checked_config(composed("train", "augmentation=rtmpose", *overrides), TrainConfig)
    parts = one_of_each(config["augmentation"])
    geometric, photometric = parts["geometric"], parts.get("photometric")
    return geometric, photometric, later_pipelines(geometric, photometric, parts.get("stages") or {})


def test_the_configs_stages_are_those_of_rtmpose():
    """rtmpose-m_8xb256-420e_coco-256x192 of MMPose 1.3.2: from epoch 390 of 420 on."""
    geometric, photometric, (weak,) = augmentation("trainer.max_epochs=420")
    assert geometric == GeometricAugmentation(
        shift_probability=0.3, shift_factor=0.16, scale_factor=0.4, rotation_probability=0.6, rotation_degrees=80
    )
    assert photometric == RTMPosePhotometric(dropout_probability=1.0)
    assert weak.first_epoch == 390
    assert weak.geometric == GeometricAugmentation(shift_factor=0.0, scale_factor=0.25, rotation_degrees=60)
    assert weak.photometric == RTMPosePhotometric(dropout_probability=0.5)


def test_what_is_set_for_the_first_epochs_holds_for_the_last_ones_unless_the_stage_says_otherwise():
    _, photometric, (weak,) = augmentation(
        "augmentation.geometric.flip_probability=0",
        "augmentation.geometric.scale_factor=0.3",
        "augmentation.photometric=null",
        "augmentation.stages.weak.last_epochs=5",
    )
    assert (weak.geometric.flip_probability, weak.geometric.scale_factor) == (0, 0.25)
    assert photometric is weak.photometric is None
    assert weak.first_epoch == 205
    for none in ("augmentation.stages.weak=null", "augmentation.stages=null"):
        assert augmentation(none, "trainer.max_epochs=2")[2] == []


def test_a_stage_is_added_to_other_draws_in_one_place():
    stage = "{calm: {_target_: uniformer_pose.data.stages.Stage, last_epochs: 10, max_epochs: 40, photometric: null}}"
    geometric, _, (calm,) = augmentation("augmentation=strong", f"augmentation.stages={stage}")
    assert (calm.name, calm.first_epoch, calm.geometric, calm.photometric) == ("calm", 30, geometric, None)


def test_a_longer_training_has_its_last_epochs_later():
    """Resumed with another trainer.max_epochs: from then on as if that had been planned."""
    assert [augmentation(f"trainer.max_epochs={epochs}")[2][0].first_epoch for epochs in (210, 260)] == [180, 230]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["trainer.max_epochs=29"], "trainer.max_epochs=29: augmentation.stages.weak is for the last 30 epochs; give"),
        (["trainer.max_epochs=-1"], "trainer.max_epochs=-1: augmentation.stages.weak is for the last 30 epochs; give"),
        (["trainer.max_epochs=null"], "trainer.max_epochs=null: augmentation.stages.weak is for the last 30 epochs"),
        (["augmentation.stages.weak.last_epochs=0"], "augmentation.stages.weak.last_epochs=0: must be"),
        (["augmentation.stages.weak.last_epoch=3"], "augmentation.stages.weak.last_epoch=3: no such argument of"),
        (["augmentation.stages.weak=3"], "augmentation.stages.weak=3: must be a config with a _target_ or null"),
        (["augmentation.stages=weak"], "augmentation.stages='weak': must be a config with a _target_ or "),
        (["augmentation.stagse.weak=null"], "augmentation.stagse"),
        (["augmentation.geometric=3"], "augmentation.geometric=3: must be a config with a _target_ or "),
        (
            ["augmentation.stages.weak.geometric.scale=0.2"],
            "augmentation.stages.weak.geometric.scale=0.2: no such argument of GeometricAugmentation; did you",
        ),
        (
            ["augmentation.stages.weak.geometric.scale_factor=1.2"],
            "augmentation.stages.weak.geometric.scale_factor=1.2: must be less than 1",
        ),
        (["augmentation.stages.weak.photometric=3"], "augmentation.stages.weak.photometric=3: must be a config with a"),
        (
            ["augmentation.stages.later=${augmentation.stages.weak}"],
            "augmentation.stages.later.last_epochs=30: stage weak has the same epochs; give another number",
        ),
    ],
)
def test_a_mistake_is_one_line_before_any_work(overrides, told):
    with pytest.raises((InputError, InstantiationException)) as raised:
        augmentation(*overrides)
    line = users_mistake(raised.value)
    assert line.startswith(told), line
    assert "\n" not in line


def test_an_augmentation_that_is_no_dataclass_is_replaced_not_changed():
    def noise(image, rng):
        return image

    with pytest.raises(
        InputError, match=r"^augmentation\.stages\.weak\.photometric: function is no dataclass.*_target_"
    ):
        later_pipelines(None, noise, {"weak": WEAK})
    assert later_pipelines(None, LOOKS, {"weak": Stage(1, 2, photometric=noise)})[0].photometric is noise
