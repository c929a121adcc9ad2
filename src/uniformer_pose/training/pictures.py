"""What happens beside the training: pictures to look at."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from uniformer_pose.data.coco import PersonInstances
from uniformer_pose.data.images import read_image_of
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.oks import keypoint_similarities
from uniformer_pose.pictures.drawing import likely_hidden, save_picture
from uniformer_pose.pictures.sheets import prediction_sheet, training_sheet
from uniformer_pose.ranges import Count
from uniformer_pose.training.pose_module import PoseModule

Image = npt.NDArray[np.uint8]


class Pictures(Callback):
    """A sheet of the first training batch with its targets, and one of predictions at each evaluation.

    Written as PNG into ``folder`` and sent to every logger that takes images. ``num_people`` bounds both sheets.
    """

    def __init__(self, folder: str, num_people: Count = 16) -> None:
        self.folder = Path(folder)
        self.num_people = num_people
        self._first_batch_seen = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: dict[str, Tensor], _batch_index: int
    ) -> None:
        """Draw the first batch of this run, exactly as the network is about to see it."""
        if self._first_batch_seen or not trainer.is_global_zero or (self.folder / "training_crops.png").exists():
            return
        self._first_batch_seen = True
        model = cast("PoseModule", pl_module).model
        names = ("crops", "keypoints_in_crop", "visibility")
        crops, keypoints, visibility = (batch[name][: self.num_people].cpu() for name in names)
        targets, _weights = model.codec.encode(keypoints, visibility)
        sheet = training_sheet(
            crops.numpy(),
            keypoints.numpy(),
            visibility.numpy(),
            model.codec.heatmaps(targets).numpy(),
            model.skeleton,
            cell_size=model.codec.cell_size,
            max_people=self.num_people,
        )
        self._keep(trainer, "training_crops", "training_crops", sheet)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the predictions of the evaluation that has just ended."""
        if not trainer.is_global_zero or not isinstance(pl_module, PoseModule) or pl_module.evaluation is None:
            return
        epoch = f"_epoch_{trainer.current_epoch:03d}" if trainer.state.fn == "fit" else ""
        for place, name in enumerate(pl_module.evaluations):
            title = f"predictions_{name}" if len(pl_module.evaluations) > 1 else "predictions"
            self._keep(trainer, f"{title}{epoch}", title, evaluation_sheet(pl_module, self.num_people, place))

    def _keep(self, trainer: pl.Trainer, file: str, title: str, sheet: Image) -> None:
        """Write a picture and send it to the loggers."""
        try:
            save_picture(self.folder / f"{file}.png", sheet)
        except InputError as error:  # the disk is full, say: a picture less is no reason to stop
            rank_zero_warn(f"{error}; training goes on without this picture")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(title, [sheet], step=trainer.global_step)
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(title, sheet, trainer.global_step, dataformats="HWC")


def evaluation_sheet(module: PoseModule, num_people: int, place: int = 0) -> Image:
    """People spread evenly over the ground truth of one set, each beside the pose on its image with the highest OKS.

    ``place`` is the set's. Drawn on the crop of the annotated box. People on images where nothing was predicted, and
    those whose annotated box has no area, are left out.
    """
    evaluation = [*module.evaluations.values()][place]
    people = cast("PersonInstances", module.data.val_sets[place].val_people)
    truth, poses, skeleton = evaluation.ground_truth, evaluation.predictions, evaluation.ground_truth.skeleton
    has_area = (truth.boxes_xywh[:, 2:] > 0).all(axis=1)
    shown = np.flatnonzero(truth.is_scored & has_area & np.isin(truth.image_ids, poses.image_ids))
    shown = np.take(shown, np.linspace(0, len(shown) - 1, min(num_people, len(shown))).astype(int))
    index_of_image = {image_id: index for index, image_id in enumerate(people.image_ids.tolist())}
    crops, true_keypoints, predicted, scores, similarities, visibility = [], [], [], [], [], []
    for person in shown.tolist():
        there, labelled = truth.keypoints_in_image[person], truth.visibility[person] > 0
        candidates = poses.take(np.flatnonzero(poses.image_ids == truth.image_ids[person]))
        per_keypoint = keypoint_similarities(
            candidates.keypoints_in_image, there, truth.areas[[person]], skeleton.oks_sigmas
        )
        oks = per_keypoint[:, labelled].mean(axis=1)
        geometry = module.model.crop_spec.around(truth.boxes_xywh[person])
        crops.append(geometry.crop(read_image_of(people, index_of_image[int(truth.image_ids[person])]).pixels))
        true_keypoints.append(geometry.to_crop(there))
        predicted.append(geometry.to_crop(candidates.keypoints_in_image[oks.argmax()]))
        scores.append(candidates.keypoint_scores[oks.argmax()])
        similarities.append(float(oks.max()))
        if candidates.visibility is not None:
            visibility.append(candidates.visibility[oks.argmax()])
    return prediction_sheet(
        np.array(crops, dtype=np.uint8),
        np.array(true_keypoints),
        truth.visibility[shown],
        np.array(predicted),
        np.array(scores),
        skeleton,
        oks=similarities,
        scores=[float(np.mean(of_person)) for of_person in scores],
        score_threshold=module.protocol.keypoint_score_threshold,
        hollow=likely_hidden(np.array(visibility)) if visibility else None,
        max_people=num_people,
    )
