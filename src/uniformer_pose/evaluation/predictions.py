"""Predicted poses of a data set as flat arrays: what the network's output becomes before it is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from uniformer_pose.data.coco_json import UNFIT, Integer, garbage_collection_paused
from uniformer_pose.errors import InputError

Array = npt.NDArray[Any]
T = TypeVar("T")


class BoxedPose(msgspec.Struct, gc=False):
    """A pose before rescoring and NMS: ``keypoints`` (K, 2) and their scores (K,), the box it was looked for in.

    ``scale_wh_aspect_fixed`` is the size of the region that the crop showed; ``category_id`` is that of the box.
    """

    id: Integer
    image_id: Integer
    bbox_xywh: tuple[float, float, float, float]
    bbox_score: float
    scale_wh_aspect_fixed: tuple[float, float]
    keypoints: list[tuple[float, float]]
    keypoint_scores: list[float]
    category_id: Integer | None = None


class CocoResult(msgspec.Struct, gc=False):
    """A pose in COCO's results format: x, y and score of each of the ``keypoints``, and its final ``score``."""

    image_id: Integer
    category_id: Integer
    keypoints: list[float]
    score: float
    bbox: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class PosePredictions:
    """N predicted poses with K keypoints each; row n of every array belongs to pose n.

    Arrays of any number type are accepted and kept as int64 (ids) and float64. All coordinates are image pixels. Values
    are not judged here: ``reject_unusable`` does that where scoring starts.
    """

    ids: npt.NDArray[np.int64]
    """(N,) the pose's name within its image; no (image id, id) is repeated."""
    image_ids: npt.NDArray[np.int64]
    """(N,) COCO image id."""
    boxes_xywh: npt.NDArray[np.float64]
    """(N, 4) the box the pose was looked for in."""
    box_scores: npt.NDArray[np.float64]
    """(N,) the detector's score; 1 for ground-truth boxes."""
    areas: npt.NDArray[np.float64]
    """(N,) width times height of the region the crop showed (padded, aspect-fixed), for OKS-NMS."""
    keypoints_in_image: npt.NDArray[np.float64]
    """(N, K, 2) x and y."""
    keypoint_scores: npt.NDArray[np.float64]
    """(N, K)"""
    visibility: npt.NDArray[np.float64] | None = None
    """(N, K, 2) probabilities that a keypoint is labelled, and if so that it is visible; None of a network without."""
    category_ids: npt.NDArray[np.int64] | None = None
    """(N,) those of the boxes; None where all are of one class."""

    def __post_init__(self) -> None:
        count, keypoints = len(self.ids), np.shape(self.keypoint_scores)[1:]
        shapes = {"boxes_xywh": (count, 4), "keypoints_in_image": (count, *keypoints, 2)}
        shapes |= {"keypoint_scores": (count, *keypoints), "visibility": (count, *keypoints, 2)}
        for name in self._arrays():
            kind = np.int64 if name in ("ids", "image_ids", "category_ids") else np.float64
            array = np.asarray(getattr(self, name)).astype(kind, casting="same_kind", copy=False)
            if array.shape != shapes.get(name, (count,)):
                raise ValueError(f"{name} has shape {array.shape}, not {shapes.get(name, (count,))}")
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_keypoints(self) -> int:
        """How many keypoints a pose has (K)."""
        return int(self.keypoints_in_image.shape[1])

    @classmethod
    def empty(cls, num_keypoints: int) -> PosePredictions:
        """No poses, of figures with ``num_keypoints`` keypoints."""
        none, scores = np.zeros(0, np.int64), np.zeros((0, num_keypoints))
        return cls(none, none, np.zeros((0, 4)), np.zeros(0), np.zeros(0), np.zeros((0, num_keypoints, 2)), scores)

    @classmethod
    def from_results(cls, results: Sequence[CocoResult]) -> PosePredictions:
        """Predictions from COCO results; their places are the ids, and without a box it is that of the keypoints."""
        if not results:
            return cls.empty(0)
        lengths = np.array([len(result.keypoints) for result in results])
        odd = np.flatnonzero((lengths != lengths[0]) | (lengths % 3 != 0))
        if len(odd):
            raise InputError(
                f"prediction record {odd[0]}: 'keypoints' has {lengths[odd[0]]} numbers; it must be x, y, score of one "
                "keypoint after the other, of as many keypoints in all records"
            )
        flat = np.fromiter(chain.from_iterable(r.keypoints for r in results), np.float64, int(lengths.sum()))
        poses = flat.reshape(len(results), -1, 3)
        points = poses[..., :2]
        if all(result.bbox for result in results):
            boxes = np.array([result.bbox for result in results])
        else:  # as pycocotools takes it
            boxes = np.concatenate([points.min(axis=1), np.ptp(points, axis=1)], axis=1)
        return cls(
            ids=np.arange(len(results)),
            image_ids=np.array([result.image_id for result in results]),
            boxes_xywh=boxes,
            box_scores=np.array([result.score for result in results]),
            areas=np.maximum(boxes[:, 2] * boxes[:, 3], 1.0),
            keypoints_in_image=points,
            keypoint_scores=poses[..., 2],
            category_ids=np.array([result.category_id for result in results]),
        )

    @classmethod
    def from_boxed_poses(cls, records: Sequence[Mapping[str, Any]]) -> PosePredictions:
        """Predictions from dicts with the fields of ``BoxedPose``; InputError names the first that is none."""
        poses = _converted(records, BoxedPose, "predicted poses")
        counts = {len(values) for pose in poses for values in (pose.keypoints, pose.keypoint_scores)}
        if len(counts) > 1:
            raise InputError(
                "the predictions differ in their number of keypoints or scores; give those of one skeleton"
            )
        categories = [pose.category_id for pose in poses if pose.category_id is not None]
        return cls(
            ids=np.array([pose.id for pose in poses]),
            image_ids=np.array([pose.image_id for pose in poses]),
            boxes_xywh=np.array([pose.bbox_xywh for pose in poses]),
            box_scores=np.array([pose.bbox_score for pose in poses]),
            areas=np.array([pose.scale_wh_aspect_fixed for pose in poses]).prod(axis=1),
            keypoints_in_image=np.array([pose.keypoints for pose in poses]),
            keypoint_scores=np.array([pose.keypoint_scores for pose in poses]),
            category_ids=np.array(categories) if len(categories) == len(poses) else None,
        )

    def take(self, indices: npt.NDArray[Any]) -> PosePredictions:
        """The poses at ``indices`` (positions or a boolean mask), in that order."""
        return PosePredictions(**{name: getattr(self, name)[indices] for name in self._arrays()})

    def of_keypoints(self, chosen: slice | Sequence[int]) -> PosePredictions:
        """The poses as if they had these keypoints only."""
        visibility = None if self.visibility is None else self.visibility[:, chosen]
        return replace(
            self,
            keypoints_in_image=self.keypoints_in_image[:, chosen],
            keypoint_scores=self.keypoint_scores[:, chosen],
            visibility=visibility,
        )

    def sorted_by_image(self) -> PosePredictions:
        """The poses by image id, then id."""
        return self.take(np.lexsort((self.ids, self.image_ids)))

    def reject_unusable(self) -> None:
        """Raise ``InputError`` if a pose holds NaN or infinity, or an area that is not positive, or comes twice.

        This comes before any scoring: pycocotools gives a pose of NaNs a perfect match (every comparison that
        would end the match is false), so a diverged network would reach AP 1.0; and each repeated pose costs AP.
        """
        values = [getattr(self, name) for name in self._arrays()]
        finite = [np.isfinite(array).all(axis=tuple(range(1, array.ndim))) for array in values]
        order = np.lexsort((self.ids, self.image_ids))
        again = np.zeros(len(self), dtype=np.bool_)
        again[order[1:]] = (np.diff(self.image_ids[order]) == 0) & (np.diff(self.ids[order]) == 0)
        for unusable, what in (
            (~np.all(finite, axis=0), "hold NaN or infinity (has the network diverged?)"),
            (self.areas <= 0, "have an area that is not positive"),
            (again, "repeat the image id and id of an earlier one"),
        ):
            if unusable.any():
                index = int(np.flatnonzero(unusable)[0])
                raise InputError(
                    f"{int(unusable.sum())} of {len(self)} predictions {what}, first image {self.image_ids[index]} id "
                    f"{self.ids[index]}; nothing is scored"
                )

    def _arrays(self) -> list[str]:
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]


def coco_results_of(records: Sequence[Mapping[str, Any]]) -> list[CocoResult]:
    """COCO results, as ``json.load`` gives them or with numpy's numbers; InputError names the first that is none."""
    return _converted(records, CocoResult, "COCO results")


def _converted(records: Sequence[Mapping[str, Any]], kind: type[T], what: str) -> list[T]:
    try:
        with garbage_collection_paused():
            return msgspec.convert(records, list[kind])  # type: ignore[valid-type]
    except UNFIT:
        pass
    try:
        plain = msgspec.json.encode(records, enc_hook=_plain)
        return msgspec.json.decode(plain, type=list[kind])  # type: ignore[valid-type]
    except (*UNFIT, TypeError) as error:
        raise InputError(f"the predictions are no {what} ({error})") from None


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
