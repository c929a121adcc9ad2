import json
from dataclasses import replace
from functools import partial

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.images import read_image_of
from uniformer_pose.errors import DivergedError, InputError
from uniformer_pose.evaluation.pckh import PCKH_NAMES
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.skeleton import load_skeleton
from uniformer_pose.training.pictures import Pictures
from uniformer_pose.training.pose_module import PoseModule, logged_names

# What Lightning says of every resumed training: about callbacks, folders, and loaders it does not know.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed from"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch"),
]

# --------------------------------------------------------------------------------------------------- training


class Log(pl.Callback):
    """What happened at each training step and in each evaluation."""

    def __init__(self):
        self.people, self.epochs, self.rates, self.losses, self.aps = [], [], [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.people.append(batch["instance_index"].tolist())
        self.epochs.append(trainer.current_epoch)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())

    def on_validation_end(self, trainer, pl_module):
        self.aps.append(trainer.callback_metrics["val/AP"].item())


def test_training_changes_every_weight_and_logs_loss_accuracy_and_rate(tiny):
    module, trainer = tiny.module(), tiny.trainer()
    before = {name: weight.detach().clone() for name, weight in module.network.named_parameters()}

    trainer.fit(module, datamodule=tiny.data())

    unchanged = [name for name, weight in module.network.named_parameters() if torch.equal(weight, before[name])]
    assert unchanged == []
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert 0 < logged["train/loss"] < 1
    assert 0 <= logged["train/pck"] <= 1
    # The last of three steps of warm-up, two thirds of the way from 0.001 to 1.
    assert logged["train/learning_rate"] == pytest.approx(0.1 * 2 / 256 * (0.001 + 0.999 * 2 / 3))


def test_the_learning_rate_counts_devices_and_accumulated_batches(tiny):
    module, data = tiny.module(learning_rate_per_256=5e-4), tiny.data(batch_size=2)
    trainer = tiny.trainer(strategy="ddp", devices=2, accumulate_grad_batches=3, max_epochs=10)
    trainer.datamodule, module.trainer, data.trainer = data, trainer, trainer
    data.setup("fit")

    (optimizer,), _schedulers = module.configure_optimizers()

    assert optimizer.defaults["lr"] == pytest.approx(5e-4 * (2 * 2 * 3) / 256, rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        # Six people in batches of two: 3 steps an epoch, a milestone after the first.
        ({}, [1.0, 1.0, 1.0, 0.1, 0.1, 0.1]),
        # Two batches a step, the epoch's last step with one: 2 steps an epoch.
        ({"accumulate_grad_batches": 2}, [2.0, 2.0, 2.0, 0.2, 0.2, 0.2]),
        # The limit shortens the epoch, and with it comes the milestone.
        ({"limit_train_batches": 2}, [1.0, 1.0, 0.1, 0.1]),
        ({"limit_train_batches": 0.34}, [1.0, 0.1]),
    ],
)
def test_milestones_come_with_their_epoch(tiny, settings, rates):
    log = Log()
    module = tiny.module(
        warmup_steps=0, milestones=(1,), learning_rate_per_256=128.0, optimizer=partial(torch.optim.SGD, weight_decay=0)
    )

    tiny.trainer(max_epochs=2, limit_val_batches=0, callbacks=[log], **settings).fit(module, datamodule=tiny.data())

    assert log.rates == pytest.approx(rates)


def test_people_who_stood_in_for_unreadable_ones_are_reported(tiny):
    (tiny.folder / "images" / "100.png").write_bytes(b"no picture")

    with pytest.warns(UserWarning, match="epoch 0: 1 people stood in for others whose image could not be read"):
        tiny.trainer(limit_val_batches=0).fit(tiny.module(), datamodule=tiny.data(on_bad_image="skip"))


# ----------------------------------------------------------------------------------------------------- resume


def resumable(tiny, num_workers, log, folder=None, **trainer_settings):
    """Trainer, module and data of one run of two epochs with shuffling and augmentation."""
    callbacks = [log]
    if folder is not None:
        every = {"dirpath": tiny.folder / folder, "save_top_k": -1, "auto_insert_metric_name": False}
        callbacks += [
            pl.callbacks.ModelCheckpoint(filename="step_{step}", every_n_train_steps=1, **every),
            pl.callbacks.ModelCheckpoint(filename="epoch_{epoch}", save_on_train_epoch_end=True, **every),
        ]
    trainer = tiny.trainer(callbacks=callbacks, **({"max_epochs": 2} | trainer_settings))
    data = tiny.data(num_workers=num_workers, geometric=GeometricAugmentation(), seed=3)
    return trainer, tiny.module(milestones=(1,)), data


def same_weights(first, second):
    return all(
        torch.equal(a, b)
        for a, b in zip(first.network.state_dict().values(), second.network.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_then_resuming_equals_training_straight_through_bit_for_bit(tiny, num_workers):
    straight_log = Log()
    trainer, straight, data = resumable(tiny, num_workers, straight_log, folder="checkpoints")
    trainer.fit(straight, datamodule=data)
    assert len(straight_log.people) == 6
    assert straight_log.people[:3] != straight_log.people[3:]

    # After the first epoch; in the middle of each; after the last batch of the first, before its end.
    for checkpoint, steps_done in [("epoch_0", 3), ("step_2", 2), ("step_5", 5), ("step_3", 3)][: 4 - num_workers]:
        torch.manual_seed(99)
        log = Log()
        trainer, resumed, data = resumable(tiny, num_workers, log)
        trainer.fit(
            resumed,
            datamodule=data,
            ckpt_path=tiny.folder / "checkpoints" / f"{checkpoint}.ckpt",
            weights_only=True,
        )

        assert log.people == straight_log.people[steps_done:], checkpoint
        assert log.rates == straight_log.rates[steps_done:], checkpoint
        assert log.losses == straight_log.losses[steps_done:], checkpoint
        assert log.aps[-1] == straight_log.aps[-1], checkpoint
        assert trainer.global_step == 6, checkpoint
        assert same_weights(resumed, straight), checkpoint


def test_resuming_in_the_middle_of_an_epoch_with_other_batches_is_refused(tiny):
    trainer, module, data = resumable(tiny, 0, Log(), folder="checkpoints", max_epochs=1)
    trainer.fit(module, datamodule=data)
    data = tiny.data(batch_size=1, seed=3)

    with pytest.raises(InputError, match="stands after batch 2 of an epoch, but batch_size 2 is now 1; resume with"):
        tiny.trainer(max_epochs=2).fit(
            tiny.module(), datamodule=data, ckpt_path=tiny.folder / "checkpoints" / "step_2.ckpt", weights_only=True
        )


# ------------------------------------------------------------------------------------------------- divergence


class NanFrom(pl.Callback):
    """Makes the network's input NaN from one step on, and with it the loss and all weights."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            pl_module.normalize.std.fill_(float("nan"))


@pytest.mark.parametrize("check_val_every_n_epoch", [1, 3])
def test_a_loss_that_becomes_nan_stops_the_training_and_spares_the_checkpoints(tiny, check_val_every_n_epoch):
    to_folder = {"dirpath": tiny.folder / "checkpoints", "enable_version_counter": False}
    best = pl.callbacks.ModelCheckpoint(filename="best", monitor="val/AP", mode="max", **to_folder)
    last = pl.callbacks.ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **to_folder)
    trainer = tiny.trainer(
        max_epochs=6,
        callbacks=[best, last, NanFrom(step=4)],
        log_every_n_steps=50,
        check_val_every_n_epoch=check_val_every_n_epoch,
    )

    with pytest.raises(DivergedError) as raised:
        trainer.fit(tiny.module(), datamodule=tiny.data())

    assert "in epoch 1 at step 4, with" in str(raised.value)
    assert "\n" not in str(raised.value)
    written = {path.stem: torch.load(path, weights_only=True) for path in (tiny.folder / "checkpoints").iterdir()}
    assert set(written) == ({"best", "last"} if check_val_every_n_epoch == 1 else {"last"})
    for checkpoint in written.values():
        assert checkpoint["global_step"] == 3
        assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())


def test_weights_that_are_not_finite_are_not_scored(tiny):
    module, trainer = tiny.module(), tiny.trainer()
    trainer.validate(module, datamodule=tiny.data(), verbose=False)
    module.network.head.final_layer.bias.data.fill_(float("nan"))

    with pytest.raises(DivergedError, match="6 of 6 predictions are not finite, so nothing is scored; try precision"):
        trainer.validate(module, datamodule=tiny.data(), verbose=False)

    assert module.evaluation is None
    assert "val/AP" not in trainer.callback_metrics


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(tiny, value):
    module, trainer = tiny.module(), tiny.trainer(limit_val_batches=0)
    trainer.fit(module, datamodule=tiny.data())
    module.network.backbone.norm4.weight.data[3] = value
    path = tiny.folder / "last.ckpt"
    path.write_bytes(b"the older one")

    with pytest.raises(DivergedError, match=r"1 weight tensors are not finite \(network.backbone.norm4.weight, ...\)"):
        trainer.save_checkpoint(path)

    assert path.read_bytes() == b"the older one"


# ------------------------------------------------------------------------------------------------- evaluation


class KnowsTheTruth(nn.Module):
    """A network's place-holder: the target heatmaps of every evaluation crop, recognised by its pixels."""

    def __init__(self, module, data):
        super().__init__()
        people, mirror = data.val_people, module.model.skeleton.mirror_permutation
        self.heatmaps = {}
        for index in range(len(people)):
            image_index = people.image_of_instance[index]
            image = read_image_of(people, image_index).pixels
            geometry = data.crop_spec.around(people.boxes_xywh[index])
            crop = torch.from_numpy(geometry.crop(image))[None]
            keypoints = torch.from_numpy(geometry.to_crop(people.keypoints_in_image[index]))[None]
            visibility = torch.from_numpy(people.visibility[index])[None]
            mirrored_keypoints = keypoints[:, mirror].clone()
            mirrored_keypoints[..., 0] = data.codec.width - 1 - mirrored_keypoints[..., 0]
            plain = module.normalize(crop)
            self.heatmaps[self._key(plain[0])] = data.codec.encode(keypoints, visibility)[0][0]
            self.heatmaps[self._key(plain[0].flip(-1))] = data.codec.encode(mirrored_keypoints, visibility[:, mirror])[
                0
            ][0]

    @staticmethod
    def _key(image):
        return image.contiguous().numpy().tobytes()

    def forward(self, images):
        return torch.stack([self.heatmaps[self._key(image)] for image in images])


def evaluate(tiny, *, flip_test=False, truthful=True, trainer_settings=None, **data_settings):
    """The module and trainer after one evaluation with perfect heatmaps."""
    module = tiny.module(protocol=EvaluationProtocol(flip_test=flip_test))
    data = tiny.data(**data_settings)
    data.setup("validate")
    if truthful:
        module.pipeline.network = KnowsTheTruth(module, data)
    trainer = tiny.trainer(**(trainer_settings or {}))
    trainer.validate(module, datamodule=data, verbose=False)
    return module, trainer


@pytest.mark.parametrize(
    ("method", "flip_test"), [("msra", False), ("dark", False), ("udp", False), ("dark", True), ("udp", True)]
)
def test_the_ground_truth_as_heatmaps_scores_nearly_one_through_the_whole_evaluation(tiny, method, flip_test):
    tiny.codec = HeatmapCodec(128, 96, sigma=2.0, method=method)

    module, trainer = evaluate(tiny, flip_test=flip_test)

    assert trainer.callback_metrics["val/AP"].item() > 0.95
    assert trainer.callback_metrics["val/AR"].item() > 0.95
    assert module.evaluation.complete
    assert len(module.evaluation.predictions) == 6
    assert module.evaluation.metrics["AP"] == pytest.approx(trainer.callback_metrics["val/AP"].item(), abs=1e-6)


def test_predictions_are_in_image_pixels_beside_their_annotation(tiny):
    module, _ = evaluate(tiny)

    truth = {entry["id"]: entry for entry in json.loads((tiny.folder / "people.json").read_text())["annotations"]}
    poses = module.evaluation.predictions
    assert sorted(poses.ids.tolist()) == sorted(truth)
    for row, annotation_id in enumerate(poses.ids.tolist()):
        expected = np.reshape(truth[annotation_id]["keypoints"], (-1, 3))[:, :2]
        assert poses.image_ids[row] == truth[annotation_id]["image_id"]
        np.testing.assert_allclose(poses.keypoints_in_image[row], expected, atol=0.2)
        np.testing.assert_allclose(poses.boxes_xywh[row], truth[annotation_id]["bbox"], atol=1e-4)


def test_an_image_may_have_more_people_than_a_batch(tiny):
    tiny.write_people([7, 1])
    sizes = []
    module = tiny.module()
    data = tiny.data(eval_batch_size=3)
    module.network.register_forward_hook(lambda network, inputs, output: sizes.append(len(output)))

    tiny.trainer().validate(module, datamodule=data, verbose=False)

    assert sizes == [3, 3, 2]  # the rest of the crowd shares its round with the other image
    assert len(module.evaluation.predictions) == 8


@pytest.mark.parametrize("limit", [1, 0.5])
def test_an_evaluation_of_a_part_is_logged_as_undefined_and_marked(tiny, limit):
    with pytest.warns(UserWarning, match=r"partial validation of \d images: AP 1.0000 is logged as -1"):
        module, trainer = evaluate(tiny, eval_batch_size=2, trainer_settings={"limit_val_batches": limit})

    assert trainer.callback_metrics["val/AP"].item() == -1
    assert trainer.callback_metrics["val/AR"].item() == -1
    assert not module.evaluation.complete
    assert 0 < len(module.evaluation.predictions) < 6


def test_people_on_unreadable_images_count_as_missed_and_their_files_are_named(tiny):
    (tiny.folder / "images" / "99.png").write_bytes(b"no picture")  # two of the six people

    module, trainer, data, readable = tiny.module(), tiny.trainer(), tiny.data(on_bad_image="skip"), tiny.data()
    data.setup("validate")
    readable.setup("validate")
    module.pipeline.network = KnowsTheTruth(module, _without_image(readable, 99))

    with pytest.warns(UserWarning, match=r"1 evaluation images could not be read, their people count as missed: 99"):
        trainer.validate(module, datamodule=data, verbose=False)

    assert trainer.callback_metrics["val/AR"].item() == pytest.approx(4 / 6, abs=1e-3)
    assert module.evaluation.complete
    assert 99 not in module.evaluation.predictions.image_ids


def _without_image(data, image_id):
    """The data module with the people of one image taken out."""
    people = data.val_people
    kept = people.image_ids[people.image_of_instance] != image_id
    per_instance = ("image_of_instance", "instance_ids", "boxes_xywh", "box_scores", "keypoints_in_image", "visibility")
    data.val_people = replace(people, **{name: getattr(people, name)[kept] for name in per_instance})
    return data


def test_an_evaluation_where_no_image_can_be_read_scores_zero(tiny):
    for picture in (tiny.folder / "images").iterdir():
        picture.write_bytes(b"no picture")

    with pytest.warns(UserWarning, match=r"4 evaluation images could not be read.*100.png, 99.png"):
        _, trainer = evaluate(tiny, truthful=False, on_bad_image="skip")

    assert trainer.callback_metrics["val/AP"].item() == 0


def test_the_first_images_alone_are_scored_when_asked_for_and_the_evaluation_is_partial(tiny):
    module, trainer = evaluate(tiny, max_images=2)

    assert trainer.callback_metrics["val/AP"].item() > 0.95  # the people of the other images are not missed
    assert len(module.evaluation.predictions) == 3
    assert not module.evaluation.complete
    assert module.evaluation.part == "2 of 4 images"


def spoil(tiny, change):
    content = json.loads((tiny.folder / "people.json").read_text())
    change(content)
    (tiny.folder / "val.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda content: content["annotations"][0].pop("area"), "have no 'area'.*data.area=box"),
        (lambda content: content["annotations"][0].update(num_keypoints=17.0), r"\$\.num_keypoints"),
        (lambda content: content["annotations"][0].update(area=-1), "have no 'area' of 0 or more"),
        (lambda content: [a.update(num_keypoints=0) for a in content["annotations"]], "nobody to score"),
        (lambda content: content["annotations"][0].update(category_id="1"), r"\$\.category_id"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*num_keypoints contradicts")
def test_what_cannot_be_scored_ends_a_training_before_its_first_step(tiny, change, expected):
    spoil(tiny, change)
    module, trainer = tiny.module(), tiny.trainer(max_epochs=10, check_val_every_n_epoch=10)

    with pytest.raises(InputError, match=expected):
        trainer.fit(module, datamodule=tiny.data(val_annotations="val.json"))

    assert trainer.global_step == 0


@pytest.mark.parametrize("monitor", ["val/APP", "val/PCKh", "train/loss"])
def test_a_monitor_that_the_metric_does_not_give_is_refused_before_the_first_step(tiny, monitor):
    module, trainer = tiny.module(protocol=EvaluationProtocol(monitor=monitor)), tiny.trainer()
    with pytest.raises(InputError, match=rf"^evaluation\.monitor={monitor}: .*val/AP"):
        trainer.fit(module, datamodule=tiny.data())
    assert trainer.global_step == 0


def test_mpiis_people_are_evaluated_by_pckh_which_schedules_and_checkpoints_watch(tiny):
    tiny.skeleton = load_skeleton("mpii_16")
    tiny.write_people()
    savemat(tiny.folder / "heads.mat", {"headboxes_src": np.array([[[0.0] * 7] * 2, [[30.0] * 7] * 2])})
    with pytest.warns(UserWarning, match="has 6 of the 7 people"):
        module, trainer = evaluate(tiny, metric="pckh", headbox_file="heads.mat")
    assert module.monitor == "val/PCKh"
    assert trainer.callback_metrics["val/PCKh"].item() == 100
    assert module.evaluation.metrics == {
        name.removeprefix("val/"): v.item() for name, v in trainer.callback_metrics.items()
    }
    assert logged_names(tiny.data(metric="pckh").val_sets) == [f"val/{name}" for name in PCKH_NAMES]
    assert set(logged_names(tiny.data(metric="pckh").val_sets)) == set(trainer.callback_metrics)

    module = tiny.module()
    module.optimization = replace(module.optimization, per_epoch={"plateau": ReduceLROnPlateau})
    best = pl.callbacks.ModelCheckpoint(tiny.folder / "ckpt", filename="best", monitor="val/PCKh", mode="max")
    trainer = tiny.trainer(callbacks=[best, Pictures(str(tiny.folder / "pictures"))])
    with pytest.warns(UserWarning, match="has 6 of the 7 people"):
        trainer.fit(module, datamodule=tiny.data(metric="pckh", headbox_file="heads.mat"))
    assert trainer.lr_scheduler_configs[-1].monitor == "val/PCKh"
    assert best.best_model_score == trainer.callback_metrics["val/PCKh"]
    assert (tiny.folder / "pictures" / "predictions_epoch_000.png").is_file()


# ------------------------------------------------------------------------------------- images without ground truth


@pytest.fixture
def unannotated(tiny):
    """Arguments of a data module whose images nobody has annotated, with six detected boxes."""
    content = json.loads((tiny.folder / "people.json").read_text())
    boxes = [
        {"image_id": entry["image_id"], "category_id": 1, "bbox": entry["bbox"], "score": 0.5}
        for entry in content.pop("annotations")
    ]
    (tiny.folder / "image_info_test.json").write_text(json.dumps(content))
    (tiny.folder / "boxes.json").write_text(json.dumps(boxes))
    return {"val_annotations": "image_info_test.json", "val_boxes": "boxes.json"}


def test_poses_on_images_without_ground_truth_are_those_that_an_evaluation_would_score(tiny, unannotated):
    scored, predictor = tiny.module(), PoseModule(tiny.model(), EvaluationProtocol(flip_test=False), is_scored=False)
    tiny.trainer().validate(scored, datamodule=tiny.data(val_boxes="boxes.json"), verbose=False)
    trainer = tiny.trainer()
    trainer.validate(predictor, datamodule=tiny.data(**unannotated), verbose=False)

    assert predictor.evaluation is None
    assert trainer.callback_metrics == {}
    assert predictor.is_complete
    assert set(predictor.seconds) == {"loading", "network", "decoding", "matching", "total"}
    for field in predictor.metric.predictions.__dataclass_fields__:
        expected = getattr(scored.evaluation.predictions, field)
        np.testing.assert_array_equal(getattr(predictor.metric.predictions, field), expected)
