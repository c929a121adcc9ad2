"""The metric of each published data set, by its name: COCO's numbers, or what the set has in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from uniformer_pose.data.coco import AreaSource
from uniformer_pose.data.mpii_json import read_mpii_file
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.body_parts import part_metrics, parts_of
from uniformer_pose.evaluation.by_category import mean_over_categories
from uniformer_pose.evaluation.coco_metrics import METRIC_NAMES, array_metrics, checked_predictions, reported_poses
from uniformer_pose.evaluation.crowd_levels import LEVELS, crowd_indices_of, crowd_metrics
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.evaluation.pckh import NEEDS_HEADS, PCKH_NAMES, pckh_metrics, pckh_of, read_head_sizes
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol, MetricKind, NmsMode, ScoreMode
from uniformer_pose.skeleton import Skeleton, load_skeleton

Metrics = dict[str, float] | dict[str, dict[str, float]]

_FACTS = Path(__file__).with_name("data_sets.yaml")


class DataSetScoring(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How a data set is scored: an entry of ``data_sets.yaml``, which says what the fields are."""

    skeleton: str
    area: AreaSource = "annotated"
    metric: MetricKind = "coco"


def data_set_scoring(data_set: str) -> DataSetScoring:
    """The facts of a data set; InputError lists the known ones."""
    known = msgspec.convert(yaml.safe_load(_FACTS.read_text(encoding="utf-8")), dict[str, DataSetScoring])
    if data_set not in known:
        raise InputError(f"no data set {data_set!r:.60}; its metric is known of {', '.join(known)}")
    return known[data_set]


def keypoint_metrics(
    data_set: str,
    annotation_file: str | Path,
    predictions: PosePredictions | Sequence[Mapping[str, Any]],
    *,
    score_mode: ScoreMode | None = None,
    nms_mode: NmsMode | None = None,
    headbox_file: str | Path | None = None,
) -> Metrics:
    """The numbers of a published data set's own metric for predictions on its annotation file.

    ``data_set``: ``coco``, ``aic``, ``ochuman``, ``halpe``, ``halpe26``, ``humanart``, ``exlpose``: the ten of COCO
    (``METRIC_NAMES``), with the set's sigmas and areas. ``crowdpose``: ``AP_easy``, ``AP_medium`` and ``AP_hard`` too.
    ``ap10k``: each the mean over the species. ``coco_wholebody``: the ten for ``body``, ``foot``, ``face``,
    ``lefthand``, ``righthand`` and ``wholebody``. ``mpii``: ``pckh_metrics``, in percent; it needs ``headbox_file``, no
    scores and no NMS.

    ``predictions``: a ``PosePredictions``, dicts with the fields of ``BoxedPose``, or COCO results; for ``halpe26``
    the first two may have Halpe's 136 keypoints. The modes are those of ``EvaluationProtocol`` and by default the
    published ones, but COCO results are then taken as they are. InputError as in ``coco_keypoint_metrics``, and for a
    file without what the metric needs.
    """
    scoring = data_set_scoring(data_set)
    if not isinstance(predictions, PosePredictions) and predictions and "keypoint_scores" in predictions[0]:
        predictions = PosePredictions.from_boxed_poses(predictions)
    kind = scoring.metric
    if kind == "pckh":
        return _mpii_metrics(annotation_file, headbox_file, predictions)
    skeleton = load_skeleton(scoring.skeleton)
    truth = CocoGroundTruth.load(annotation_file, skeleton, area=scoring.area)
    if isinstance(predictions, PosePredictions):
        predictions = _those_of_file(predictions, truth.skeleton)
    modes: dict[str, Any] = {"score_mode": score_mode, "nms_mode": nms_mode}
    modes = {name: mode for name, mode in modes.items() if mode is not None}
    return metric_of(kind, truth, predictions, EvaluationProtocol(**modes) if modes else None)


def require_fields(kind: MetricKind, ground_truth: CocoGroundTruth) -> None:
    """InputError where the people lack what a metric needs, or are not of its skeleton."""
    if kind == "crowd_levels":
        crowd_indices_of(ground_truth)
    if kind == "body_parts":
        parts_of(ground_truth.skeleton)
    if kind == "pckh":
        if not set(ground_truth.skeleton.keypoint_names) <= set(load_skeleton("mpii_16").keypoint_names):
            raise InputError(f"skeleton {ground_truth.skeleton.name!r:.80} is not MPII's; metric pckh is for mpii_16")
        if ground_truth.head_sizes is None:
            raise InputError(f"{ground_truth.file}: {NEEDS_HEADS}")


def metric_names(kind: MetricKind, skeleton: Skeleton) -> tuple[str, ...]:
    """What ``named_apart`` makes of a metric's numbers on people of a skeleton."""
    if kind == "pckh":
        return PCKH_NAMES
    if kind == "body_parts":
        parts = ["" if part == "wholebody" else f"_{part}" for part in parts_of(skeleton)]
        return tuple(f"{name}{part}" for part in parts for name in METRIC_NAMES)
    return (*METRIC_NAMES, *(f"AP_{level}" for level in LEVELS if kind == "crowd_levels"))


def metric_of(
    kind: MetricKind,
    ground_truth: CocoGroundTruth,
    predictions: PosePredictions | Sequence[Mapping[str, Any]],
    protocol: EvaluationProtocol | None,
) -> Metrics:
    """The numbers of a metric; ``protocol`` None as in ``coco_keypoint_metrics``, errors also of ``require_fields``."""
    require_fields(kind, ground_truth)
    if kind == "pckh":
        return pckh_of(ground_truth, checked_predictions(ground_truth, _of_places(predictions)))
    poses, scores = reported_poses(ground_truth, predictions, protocol)
    if kind == "body_parts":
        return part_metrics(ground_truth, poses, scores)
    if kind == "crowd_levels":
        return crowd_metrics(ground_truth, poses, scores)
    if kind == "mean_over_categories":
        return mean_over_categories(ground_truth, poses, scores)
    return array_metrics(ground_truth, poses, scores)


def named_apart(metrics: Metrics) -> dict[str, float]:
    """In one dict: the numbers of the whole body as they are, those of a part with its name, as in ``AP_foot``."""
    named: dict[str, float] = {}
    for key, value in metrics.items():
        if isinstance(value, float):
            named[key] = value
        else:
            end = "" if key == "wholebody" else f"_{key}"
            named |= {f"{name}{end}": number for name, number in value.items()}
    return named


def _those_of_file(predictions: PosePredictions, skeleton: Skeleton) -> PosePredictions:
    """The skeleton's keypoints, the first, where predictions have all that the annotation file has."""
    if predictions.num_keypoints != sum(count for _, count in skeleton.arrays_in_files):
        return predictions
    return predictions.of_keypoints(slice(skeleton.num_keypoints))


def _mpii_metrics(
    annotation_file: str | Path,
    headbox_file: str | Path | None,
    predictions: PosePredictions | Sequence[Mapping[str, Any]],
) -> dict[str, float]:
    if headbox_file is None:
        raise InputError("PCKh needs the sizes of heads: give headbox_file, MPII's mpii_gt_val.mat")
    people = read_mpii_file(annotation_file)
    return pckh_metrics(people, read_head_sizes(headbox_file, people), _of_places(predictions))


def _of_places(predictions: PosePredictions | Sequence[Mapping[str, Any]]) -> PosePredictions:
    if isinstance(predictions, PosePredictions):
        return predictions
    if predictions:
        raise InputError("PCKh needs predictions whose id is the person's place in the annotation file")
    return PosePredictions.empty(16)
