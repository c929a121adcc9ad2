"""One pass over the evaluation images, in any number of processes: every box counts once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from uniformer_pose.data.coco import PersonInstances
from uniformer_pose.data.crop_geometry import CropGeometry, CropSpec
from uniformer_pose.errors import DivergedError
from uniformer_pose.evaluation.coco_metrics import select_poses
from uniformer_pose.evaluation.data_set_metrics import metric_of, named_apart
from uniformer_pose.evaluation.error_types import error_types
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol, MetricKind
from uniformer_pose.evaluation.visibility import judge_visibility, visibility_metrics

_KEPT = ("instance_index", "centers_in_image", "extents_in_image", "keypoints_in_crop", "scores", "unreadable_images")


class PoseMetric(Metric):
    """Gathers the poses of all processes and scores them: the metric's ``kind``, and ``visibility_metrics``.

    Every process computes them from the same poses, so that each has them, or the same error. ``ground_truth`` None:
    nothing is scored. ``places``: which of the network's keypoints these people have, in their order; None where it is
    made for them. ``is_part``: only some of the boxes are evaluated, and scored against the images they are in.
    After ``compute``: ``predictions``, and ``ground_truth`` of the evaluated images.
    """

    full_state_update = False

    def __init__(
        self,
        people: PersonInstances,
        crop_spec: CropSpec,
        protocol: EvaluationProtocol,
        ground_truth: CocoGroundTruth | None,
        *,
        kind: MetricKind = "coco",
        places: Sequence[int] | None = None,
        is_part: bool = False,
    ) -> None:
        super().__init__()
        self.kind, self.places = kind, places
        self.people, self.crop_spec, self.protocol, self.is_part = people, crop_spec, protocol, is_part
        self.ground_truth = ground_truth
        self.predictions: PosePredictions
        for name in _KEPT:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self, batch: Mapping[str, Tensor], keypoints_in_crop: Tensor, scores: Tensor, visibility: Tensor | None = None
    ) -> None:
        """Keep the poses of a batch of ``EvaluationImages``, on their device until the pass is over.

        ``visibility`` (B, K, 2) is there for every batch in every process, or for none.
        """
        if visibility is not None:  # gathered with the scores, (B, K, 3), so that nobody gathers what is not there
            scores = torch.cat([scores[..., None], visibility], dim=-1)
        poses = {**batch, "keypoints_in_crop": keypoints_in_crop, "scores": scores}
        for name in _KEPT:
            getattr(self, name).append(poses[name])

    def compute(self) -> dict[str, float]:
        """The metrics by their names; DivergedError where a prediction is not finite."""
        self.predictions = self._gathered()
        if self.ground_truth is None:
            return {}
        if self.is_part:
            self.ground_truth = self.ground_truth.restricted_to(self.predictions.image_ids)
        metrics = named_apart(metric_of(self.kind, self.ground_truth, self.predictions, self.protocol))
        if self.predictions.visibility is None:
            return metrics
        poses, _ = select_poses(self.predictions, self.protocol, self.ground_truth.skeleton.oks_sigmas)
        return metrics | visibility_metrics(judge_visibility(error_types(self.ground_truth, poses)))

    def _gathered(self) -> PosePredictions:
        """The poses in image pixels, each box once; an error if one is missing or not finite."""
        people = self.people
        unreadable = np.unique(self._values("unreadable_images"))
        if len(unreadable):
            names = [str(people.file_names[index]) for index in unreadable]
            rank_zero_warn(
                f"{len(names)} evaluation images could not be read, their people count as missed: "
                f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
            )
        index, first = np.unique(self._values("instance_index"), return_index=True)
        missing = len(people) - int(people.boxes_per_image[unreadable].sum()) - len(index)
        if missing and not self.is_part:
            raise RuntimeError(f"{missing} of {len(people)} evaluation boxes were not predicted")
        crops = CropGeometry(
            self.crop_spec, self._values("centers_in_image")[first], self._values("extents_in_image")[first]
        )
        keypoints, scores = crops.to_image(self._values("keypoints_in_crop")[first]), self._values("scores")[first]
        bad = ~(np.isfinite(keypoints).all((1, 2)) & np.isfinite(scores).all(tuple(range(1, scores.ndim))))
        if bad.any():
            raise DivergedError(
                f"{int(bad.sum())} of {len(bad)} predictions are not finite, so nothing is scored; "
                "try precision=fp32, or train with a lower optimizer.lr_per_256"
            )
        poses = PosePredictions(
            ids=people.instance_ids[index],
            image_ids=people.image_ids[people.image_of_instance[index]],
            boxes_xywh=people.boxes_xywh[index],
            box_scores=people.box_scores[index],
            areas=crops.extent.prod(axis=1),
            keypoints_in_image=keypoints,
            keypoint_scores=scores[..., 0] if scores.ndim == 3 else scores,
            visibility=scores[..., 1:] if scores.ndim == 3 else None,
            category_ids=self._categories_of(people.instance_ids[index]),
        )
        return poses if self.places is None else poses.of_keypoints(self.places)

    def _categories_of(self, instance_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """Those of the boxes, where they are people of the ground truth."""
        truth = self.ground_truth
        if truth is None or self.people.record != "annotation" or self.kind != "mean_over_categories":
            return None
        order = np.argsort(truth.ids)
        return np.asarray(truth.category_ids[order[np.searchsorted(truth.ids, instance_ids, sorter=order)]])

    def _values(self, name: str) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = dim_zero_cat(getattr(self, name)).cpu().numpy()
        return values
