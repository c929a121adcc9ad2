"""COCO keypoint AP and AR of predicted poses (cocodataset.org/#keypoints-eval).

The numbers are those of pycocotools, which every paper reports: computed by it, or to the last digit as it does
(``coco_matching``). It trusts its input, and several defects give a wrong number without a word; so what goes in is
checked first:

- predictions: NaN (pycocotools would score it AP 1.0), repeats (each costs AP), images that the file lacks;
- annotations: read as for training (``data.coco``), with areas that fit their boxes.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from uniformer_pose.data.categories import DEFAULT_PERSON_CATEGORY, category_names, require_counted
from uniformer_pose.data.coco import AreaSource, annotations_of, areas_of, implausible_areas
from uniformer_pose.data.coco_json import AnnotationFile, read_annotation_file
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.coco_matching import ALL_AREAS, People, Poses, precision_recall
from uniformer_pose.evaluation.oks import oks_nms, pose_scores, soft_oks_nms
from uniformer_pose.evaluation.predictions import PosePredictions, is_coco_results
from uniformer_pose.evaluation.protocol import EvaluationProtocol, NmsMode, ScoreMode
from uniformer_pose.skeleton import Skeleton, load_skeleton

METRIC_NAMES = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
"""COCO's order: over OKS .50:.05:.95, at .50, at .75, of medium, of large people; precision, then recall."""

MEDIUM_AREAS = (32.0**2, 96.0**2)
LARGE_AREAS = (96.0**2, 1e10)
"""Square pixels of the person's segment, both ends included."""


@dataclass(frozen=True, eq=False)
class CocoGroundTruth:
    """The people of a COCO keypoint file, read and checked once; evaluate against it as often as you like.

    Row g of the arrays is one annotation of the evaluated category, crowds and people without labelled
    keypoints included: COCO ignores what matches those instead of counting it as wrong.
    """

    file: Path
    skeleton: Skeleton
    category_id: int
    """The id that results have: that of the one category that counts, or the first of several."""
    listed_image_ids: npt.NDArray[np.int64]
    """All images of the file; a prediction on one without people is a false positive."""
    ids: npt.NDArray[np.int64]
    image_ids: npt.NDArray[np.int64]
    boxes_xywh: npt.NDArray[np.float64]
    areas: npt.NDArray[np.float64]
    """(G,) area of the person's segment in square pixels (smaller than the box)."""
    keypoints_in_image: npt.NDArray[np.float64]
    """(G, K, 2)"""
    visibility: npt.NDArray[np.float64]
    """(G, K) COCO's v; above 0 is labelled."""
    labelled_counts: npt.NDArray[np.int64]
    """(G,) the file's num_keypoints, or the count of labelled keypoints where the file leaves it out."""
    is_crowd: npt.NDArray[np.bool_]
    categories: Mapping[int, str] = field(default_factory=dict)
    """Ids and names of those whose annotations are scored, as one class."""
    area: AreaSource = "annotated"
    """Where ``areas`` are from."""
    images_in_file: int = 0
    """How many images the whole file lists, also where this is the ground truth of some of them."""

    @property
    def is_scored(self) -> npt.NDArray[np.bool_]:
        """(G,) whether missing this person costs recall."""
        return np.asarray((self.labelled_counts > 0) & ~self.is_crowd)

    @classmethod
    def load(
        cls,
        annotation_file: str | Path,
        skeleton: Skeleton | None = None,
        *,
        categories: Sequence[str | int] | None = None,
        area: AreaSource = "annotated",
    ) -> CocoGroundTruth:
        """Ground truth from a COCO keypoint JSON.

        ``skeleton`` (``coco_17`` by default) says how many keypoints a person has and their OKS sigmas; ``categories``
        which annotations are scored, all of them as one class (``counted_categories``); what COCO and AP-10K state for
        several is the mean over them, each scored alone. ``area`` ``"box"`` takes 0.53 of the box for everybody's area.

        ``InputError`` names file and annotation for what the loader refuses, and for a missing area. A missing
        ``num_keypoints`` is counted from the keypoints, a missing ``iscrowd`` is 0. Warnings tell of areas that do not
        fit their boxes, and of counts that contradict the keypoints.
        """
        file = Path(annotation_file)
        return cls.of(read_annotation_file(file), file, skeleton, categories=categories, area=area)

    @classmethod
    def of(
        cls,
        content: AnnotationFile,
        file: Path,
        skeleton: Skeleton | None = None,
        *,
        categories: Sequence[str | int] | None = None,
        area: AreaSource = "annotated",
    ) -> CocoGroundTruth:
        """Ground truth of ``load`` from what the file holds; ``file`` names it in messages."""
        skeleton = skeleton or load_skeleton("coco_17")
        found = annotations_of(content, file, skeleton, categories)
        counted = (found.keypoints[..., 2] > 0).sum(axis=1)
        declared = [record.num_keypoints for record in found.records]
        loaded = cls(
            file=file,
            skeleton=skeleton,
            category_id=next(iter(found.categories)),
            listed_image_ids=np.sort(found.image_ids),
            ids=found.ids,
            image_ids=found.image_ids[found.image_of_record],
            boxes_xywh=found.boxes_xywh,
            areas=areas_of(found.records, found.boxes_xywh, area, file),
            keypoints_in_image=found.keypoints[..., :2],
            visibility=found.keypoints[..., 2],
            labelled_counts=np.array(
                [n if said is None else int(said) for said, n in zip(declared, counted.tolist(), strict=True)],
                dtype=np.int64,
            ),
            is_crowd=found.is_crowd,
            categories=found.categories,
            area=area,
            images_in_file=len(found.image_ids),
        )
        loaded._warn_of_doubts(counted)
        return loaded

    def _warn_of_doubts(self, counted: npt.NDArray[np.int64]) -> None:
        doubtful = self.ids[(self.labelled_counts > 0) != (counted > 0)]
        if len(doubtful):
            warnings.warn(
                f"{self.file}: num_keypoints contradicts the keypoints' v in {len(doubtful)} annotations, first "
                f"{doubtful[0]}; people with num_keypoints 0 are not scored, so leave it out or correct it",
                stacklevel=4,
            )
        if self.area == "box":
            return
        scored = np.flatnonzero(self.is_scored)
        for found in implausible_areas(self.areas[scored], self.boxes_xywh[scored]):
            first = scored[found.where][0]
            width, height = self.boxes_xywh[first, 2:]
            warnings.warn(
                f"{self.file}: {int(found.where.sum())} of {len(scored)} people have an implausible area, first "
                f"annotation {self.ids[first]} with {self.areas[first]:g} in a box of {width:g} x {height:g}: "
                f"{found.effect()}; correct area, or set data.area=box",
                stacklevel=4,
            )

    def require_images(self, image_ids: npt.NDArray[np.int64], what: str) -> None:
        """Raise ``InputError`` naming the ids that are none of this file's images; ``what`` names them."""
        unknown = np.setdiff1d(image_ids, self.listed_image_ids)
        if len(unknown):
            shown = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
            raise InputError(
                f"{self.file} does not list {len(unknown)} images that {what} (ids {shown}); "
                "evaluate against the file that the boxes were made for"
            )

    def restricted_to(self, image_ids: Iterable[int]) -> CocoGroundTruth:
        """The ground truth of some of the file's images alone; ``InputError`` for images that the file lacks."""
        chosen = np.unique(np.asarray(list(image_ids), dtype=np.int64))
        self.require_images(chosen, "image_ids names")
        kept = np.isin(self.image_ids, chosen)
        per_person = ("ids", "image_ids", "boxes_xywh", "areas", "keypoints_in_image", "visibility")
        arrays = {name: getattr(self, name)[kept] for name in (*per_person, "labelled_counts", "is_crowd")}
        return replace(self, listed_image_ids=chosen, **arrays)

    def to_coco_annotations(self) -> list[dict[str, Any]]:
        """Fresh COCO annotation dicts: pycocotools writes into the ones it is given."""
        keypoints = np.concatenate([self.keypoints_in_image, self.visibility[..., None]], axis=-1)
        return [
            {
                "id": annotation_id,
                "image_id": image_id,
                "category_id": self.category_id,
                "bbox": box,
                "area": area,
                "keypoints": flat_keypoints,
                "num_keypoints": labelled_count,
                "iscrowd": int(crowd),
            }
            for annotation_id, image_id, box, area, flat_keypoints, labelled_count, crowd in zip(
                self.ids.tolist(),
                self.image_ids.tolist(),
                self.boxes_xywh.tolist(),
                self.areas.tolist(),
                keypoints.reshape(-1, 3 * self.skeleton.num_keypoints),
                self.labelled_counts.tolist(),
                self.is_crowd.tolist(),
                strict=True,
            )
        ]


def coco_keypoint_metrics(
    annotation_file: str | Path | CocoGroundTruth,
    predictions: PosePredictions | Sequence[Mapping[str, Any]],
    score_mode: ScoreMode | None = None,
    nms_mode: NmsMode | None = None,
    *,
    skeleton: Skeleton | None = None,
    keypoint_score_threshold: float = 0.2,
    nms_threshold: float = 0.9,
    image_ids: Iterable[int] | None = None,
) -> dict[str, float]:
    """COCO keypoint metrics (``METRIC_NAMES``, 0 to 1) of rescored and NMS-filtered predictions.

    ``annotation_file`` is a path, or a ``CocoGroundTruth`` to spare its reading; ``predictions`` may also be
    records (``PosePredictions.from_records``), in any order, COCO results among them: what ``json.load`` gives of such
    a file. ``score_mode`` and ``nms_mode`` None are the published protocol, and for COCO results, which have been
    through one, the scores that they have and no NMS. ``skeleton`` gives the number of keypoints and the OKS sigmas,
    ``coco_17`` by default. ``image_ids`` restricts the evaluation to those images of the file.

    As in pycocotools, -1 stands for "no such people in the ground truth". No predictions give 0 and a
    warning. Predictions with NaN or infinity, of another number of keypoints, or on unknown images raise
    ``InputError``.
    """
    ground_truth = loaded_ground_truth(annotation_file, skeleton)
    is_final = not isinstance(predictions, PosePredictions) and is_coco_results(predictions)
    poses = checked_predictions(ground_truth, predictions)
    if image_ids is not None:
        ground_truth = ground_truth.restricted_to(image_ids)
        poses = poses.take(np.isin(poses.image_ids, ground_truth.listed_image_ids))
    protocol = EvaluationProtocol(
        score_mode=score_mode or ("bbox" if is_final else "bbox_keypoint"),
        nms_mode=nms_mode or ("none" if is_final else "oks_nms"),
        keypoint_score_threshold=keypoint_score_threshold,
        nms_threshold=nms_threshold,
    )
    return protocol_metrics(ground_truth, poses, protocol)


def protocol_metrics(
    ground_truth: CocoGroundTruth, predictions: PosePredictions, protocol: EvaluationProtocol
) -> dict[str, float]:
    """``coco_keypoint_metrics`` for ground truth that was loaded and predictions on its images."""
    predictions = checked_predictions(ground_truth, predictions)
    if not len(predictions):
        warnings.warn(
            f"{ground_truth.file}: no predictions on any of its {len(ground_truth.listed_image_ids)} evaluated images; "
            "every person counts as missed",
            stacklevel=3,
        )
    poses, scores = select_poses(predictions, protocol, ground_truth.skeleton.oks_sigmas)
    compute = pycocotools_metrics if protocol.matching == "pycocotools" else array_metrics
    return compute(ground_truth, poses, scores)


def coco_results(
    predictions: PosePredictions | Sequence[Mapping[str, Any]],
    protocol: EvaluationProtocol | None = None,
    *,
    skeleton: Skeleton | None = None,
    category_id: int = DEFAULT_PERSON_CATEGORY,
    with_boxes: bool = True,
) -> list[dict[str, Any]]:
    """Rescored predictions that NMS kept, in COCO's results format.

    One dict per pose: ``image_id``, ``category_id``, ``keypoints`` [x, y, keypoint score] x K in image
    pixels, ``score``, and ``bbox``, the box the pose was looked for in. By image id, and within an image best first
    (``nms_mode="none"``: by id). The published protocol is the default. Unusable predictions raise ``InputError`` as
    in ``coco_keypoint_metrics``.

    The format for keypoints has no ``bbox``, and ``with_boxes=False`` leaves it out: for the test server. With it,
    ``COCO.loadRes`` takes a pose's area from the box rather than from the extent of its keypoints, and ``COCOeval``
    gives the numbers of ``coco_keypoint_metrics``, APM, APL, ARM and ARL included.
    """
    skeleton = skeleton or load_skeleton("coco_17")
    poses, scores = select_poses(_usable(predictions, skeleton), protocol or EvaluationProtocol(), skeleton.oks_sigmas)
    results = [
        {"image_id": image_id, "category_id": category_id, "keypoints": keypoints, "score": score}
        for image_id, keypoints, score in zip(
            poses.image_ids.tolist(), _flat_keypoints(poses).tolist(), scores.tolist(), strict=True
        )
    ]
    if with_boxes:
        for result, box in zip(results, poses.boxes_xywh.tolist(), strict=True):
            result["bbox"] = box
    return results


def write_coco_results(path: str | Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Write what ``coco_results`` gave as a COCO results JSON, making its folder where it is missing."""
    path = Path(path)
    text = json.dumps([dict(result) for result in results], allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def select_poses(
    predictions: PosePredictions, protocol: EvaluationProtocol, sigmas: npt.NDArray[np.float64]
) -> tuple[PosePredictions, npt.NDArray[np.float64]]:
    """Poses to report and their scores (N,): repeats dropped, rescored, near-copies suppressed.

    ``oks_nms`` drops a pose whose OKS with a better one is above the threshold; ``soft_oks_nms`` keeps the 20
    of an image that win while the scores of their like decay (the reported scores do not); ``none`` keeps
    all. By image id; ``sigmas`` (K,) are the OKS constants. Predictions must be finite
    (``PosePredictions.reject_unusable``).
    """
    if not len(predictions):
        return predictions, np.zeros(0)
    poses = predictions.sorted_unique()
    scores = pose_scores(
        poses.box_scores, poses.keypoint_scores, protocol.score_mode, protocol.keypoint_score_threshold
    )
    if protocol.nms_mode == "none":
        return poses, scores
    suppress = oks_nms if protocol.nms_mode == "oks_nms" else soft_oks_nms
    kept = suppress(
        poses.keypoints_in_image, scores, poses.areas, sigmas, protocol.nms_threshold, image_ids=poses.image_ids
    )
    return poses.take(kept), scores[kept]


def format_metrics_table(metrics: Mapping[str, float]) -> str:
    """The ten metrics as two lines of text, names over values; a dash where there are no such people."""
    values = [metrics[name] for name in METRIC_NAMES]
    header = "  ".join(f"{name:>6}" for name in METRIC_NAMES)
    row = "  ".join(f"{value:6.4f}" if value >= 0 else f"{'-':>6}" for value in values)
    return f"{header}\n{row}"


def loaded_ground_truth(
    annotation_file: str | Path | CocoGroundTruth, skeleton: Skeleton | None = None
) -> CocoGroundTruth:
    """Ground truth of a path, or the one given; another skeleton than it was loaded with is an error."""
    if not isinstance(annotation_file, CocoGroundTruth):
        return CocoGroundTruth.load(annotation_file, skeleton)
    if skeleton is not None and not skeleton.measures_as(annotation_file.skeleton):
        raise InputError(
            f"{annotation_file.file} was loaded with skeleton {annotation_file.skeleton.name!r}, not "
            f"{skeleton.name!r}; load it with the skeleton to evaluate"
        )
    return annotation_file


def checked_predictions(
    ground_truth: CocoGroundTruth, predictions: PosePredictions | Sequence[Mapping[str, Any]]
) -> PosePredictions:
    """Predictions that can be scored against this ground truth; raises ``InputError`` for any that cannot.

    COCO results of categories that do not count are left out, with a warning; where that are all, it is an error.
    """
    if not isinstance(predictions, PosePredictions) and is_coco_results(predictions) and ground_truth.categories:
        predictions = _of_counted_categories(ground_truth, predictions)
    poses = _usable(predictions, ground_truth.skeleton)
    ground_truth.require_images(poses.image_ids, "the predictions name")
    return poses


def _of_counted_categories(
    ground_truth: CocoGroundTruth, results: Sequence[Mapping[str, Any]]
) -> Sequence[Mapping[str, Any]]:
    source = Path("COCO results")
    for number, result in enumerate(results):
        if type(result.get("category_id")) is not int:
            raise InputError(f"{source}: result number {number} has no whole number for 'category_id'; correct it")
    ids = np.array([result["category_id"] for result in results], dtype=np.int64)
    require_counted(ids, ground_truth.categories, source, ground_truth.file, "results")
    counted = np.isin(ids, list(ground_truth.categories))
    if not counted.all():
        warnings.warn(
            f"{int((~counted).sum())} of {len(ids)} results are of categories that do not count in {ground_truth.file} "
            f"and left out; {category_names(ground_truth.categories)} counts",
            stacklevel=4,
        )
    return [result for result, counts in zip(results, counted.tolist(), strict=True) if counts]


def _usable(predictions: PosePredictions | Sequence[Mapping[str, Any]], skeleton: Skeleton) -> PosePredictions:
    poses = predictions if isinstance(predictions, PosePredictions) else PosePredictions.from_records(predictions)
    if len(poses) and poses.num_keypoints != skeleton.num_keypoints:
        raise InputError(
            f"the predictions have {poses.num_keypoints} keypoints, skeleton {skeleton.name!r} has "
            f"{skeleton.num_keypoints}; name the skeleton they were made with"
        )
    poses.reject_unusable()
    return poses


def _flat_keypoints(poses: PosePredictions) -> npt.NDArray[np.float64]:
    """(N, 3K) x, y, keypoint score of one keypoint after the other."""
    triplets = np.concatenate([poses.keypoints_in_image, poses.keypoint_scores[..., None]], axis=-1)
    return triplets.reshape(len(poses), 3 * poses.num_keypoints)


def array_metrics(
    ground_truth: CocoGroundTruth, poses: PosePredictions, scores: npt.NDArray[np.float64]
) -> dict[str, float]:
    """The ten numbers of poses that are to be reported, with their scores (N,), by ``coco_matching``."""
    ranges = (ALL_AREAS, MEDIUM_AREAS, LARGE_AREAS)
    outcome = precision_recall(
        people_of(ground_truth), poses_of(poses, scores), ground_truth.skeleton.oks_sigmas, ranges
    )
    return {
        "AP": outcome.average_precision(),
        "AP50": outcome.average_precision(threshold=0.5),
        "AP75": outcome.average_precision(threshold=0.75),
        "APM": outcome.average_precision(area=1),
        "APL": outcome.average_precision(area=2),
        "AR": outcome.average_recall(),
        "AR50": outcome.average_recall(threshold=0.5),
        "AR75": outcome.average_recall(threshold=0.75),
        "ARM": outcome.average_recall(area=1),
        "ARL": outcome.average_recall(area=2),
    }


def people_of(ground_truth: CocoGroundTruth) -> People:
    """The annotated people as ``precision_recall`` takes them."""
    return People(
        image_ids=ground_truth.image_ids,
        boxes_xywh=ground_truth.boxes_xywh,
        areas=ground_truth.areas,
        keypoints=ground_truth.keypoints_in_image,
        labelled=ground_truth.visibility > 0,
        is_crowd=ground_truth.is_crowd,
        is_scored=ground_truth.is_scored,
    )


def poses_of(poses: PosePredictions, scores: npt.NDArray[np.float64]) -> Poses:
    """The predicted poses as ``precision_recall`` takes them.

    A pose's area decides whether it counts against medium or large people when it has no match (it moves APM and APL
    only). It is the box's, as in MMPose; loading results without boxes, pycocotools would take the keypoints' extent.
    """
    areas = np.prod(poses.boxes_xywh[:, 2:], axis=1)
    return Poses(image_ids=poses.image_ids, keypoints=poses.keypoints_in_image, scores=scores, areas=areas)


def pycocotools_metrics(
    ground_truth: CocoGroundTruth, poses: PosePredictions, scores: npt.NDArray[np.float64]
) -> dict[str, float]:
    """``array_metrics``, computed by pycocotools itself."""
    detections = [
        {
            "id": number,
            "image_id": image_id,
            "category_id": ground_truth.category_id,
            "keypoints": keypoints,
            "score": score,
            "area": area,
        }
        for number, (image_id, keypoints, score, area) in enumerate(
            zip(
                poses.image_ids.tolist(),
                _flat_keypoints(poses),
                scores.tolist(),
                poses_of(poses, scores).areas.tolist(),
                strict=True,
            ),
            start=1,
        )
    ]
    # It prints its progress and a table, and squares distances that may be absurd.
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(over="ignore"):
        evaluation = COCOeval(
            _coco_object(ground_truth, ground_truth.to_coco_annotations()),
            _coco_object(ground_truth, detections),
            iouType="keypoints",
        )
        evaluation.params.kpt_oks_sigmas = ground_truth.skeleton.oks_sigmas
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) for name, value in zip(METRIC_NAMES, evaluation.stats, strict=True)}


def _coco_object(ground_truth: CocoGroundTruth, annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image_id} for image_id in ground_truth.listed_image_ids.tolist()],
        "categories": [{"id": ground_truth.category_id, "name": ground_truth.skeleton.name}],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
