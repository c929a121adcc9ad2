"""Predicted poses of a data set as flat arrays: what the network's output becomes before it is scored."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.errors import InputError

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class PosePredictions:
    """N predicted poses with K keypoints each; row n of every array belongs to pose n.

    Arrays of any number type are accepted and kept as int64 (``ids``, ``image_ids``) and float64. All
    coordinates are image pixels. Values are not judged here: ``reject_unusable`` does that where scoring
    starts.
    """

    ids: npt.NDArray[np.int64]
    """(N,) the pose's name within its image; a repeated (image id, id) is the same pose."""
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

    def __post_init__(self) -> None:
        count = len(self.ids)
        num_keypoints = self.keypoints_in_image.shape[1] if self.keypoints_in_image.ndim == 3 else -1
        shapes: dict[str, tuple[int, ...]] = {
            "ids": (count,),
            "image_ids": (count,),
            "boxes_xywh": (count, 4),
            "box_scores": (count,),
            "areas": (count,),
            "keypoints_in_image": (count, num_keypoints, 2),
            "keypoint_scores": (count, num_keypoints),
        }
        for name, shape in shapes.items():
            array = np.asarray(getattr(self, name))
            integers = name in ("ids", "image_ids")
            if array.size and array.dtype.kind not in ("iu" if integers else "iuf"):
                raise ValueError(f"{name} must hold {'integers' if integers else 'numbers'}, not {array.dtype}")
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}; {count} ids ask for {shape}".replace("-1", "K"))
            object.__setattr__(self, name, array.astype(np.int64 if integers else np.float64, copy=False))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_keypoints(self) -> int:
        """How many keypoints a pose has (K)."""
        return int(self.keypoints_in_image.shape[1])

    @classmethod
    def empty(cls, num_keypoints: int) -> PosePredictions:
        """No poses, of figures with ``num_keypoints`` keypoints."""
        return cls(
            ids=np.zeros(0, np.int64),
            image_ids=np.zeros(0, np.int64),
            boxes_xywh=np.zeros((0, 4)),
            box_scores=np.zeros(0),
            areas=np.zeros(0),
            keypoints_in_image=np.zeros((0, num_keypoints, 2)),
            keypoint_scores=np.zeros((0, num_keypoints)),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[PosePredictions]) -> PosePredictions:
        """All poses of the parts, in their order; parts without poses (a rank without images) add nothing."""
        filled = [part for part in parts if len(part)]
        if not filled:
            return parts[0] if parts else cls.empty(0)
        sizes = sorted({part.num_keypoints for part in filled})
        if len(sizes) > 1:
            raise InputError(
                f"predictions with {' and '.join(map(str, sizes))} keypoints cannot be joined; "
                "join predictions of one skeleton"
            )
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in filled]) for f in fields(cls)})

    @classmethod
    def from_records(cls, records: Sequence[Mapping[str, Any]]) -> PosePredictions:
        """Predictions from one mapping per pose, as a JSON file holds them.

        A record has ``id``, ``image_id``, ``bbox_xywh`` (4), ``bbox_score``, ``keypoints`` (K x 2),
        ``keypoint_scores`` (K), and ``scale_wh_aspect_fixed``, the (width, height) whose product is the area. Or they
        are COCO results (``is_coco_results``): ``image_id``, ``keypoints`` (x, y, score of K keypoints), ``score``, and
        ``bbox`` or none, which is then that of the keypoints; ids are their places. Other entries are left alone. A
        missing or misshapen entry raises ``InputError`` naming the record.
        """
        records = list(records)
        if not records:
            return cls.empty(0)
        if is_coco_results(records):
            return cls._from_coco_results(records)
        keypoints = _column(records, "keypoints", (-1, 2))
        return cls(
            ids=_column(records, "id", (), integers=True),
            image_ids=_column(records, "image_id", (), integers=True),
            boxes_xywh=_column(records, "bbox_xywh", (4,)),
            box_scores=_column(records, "bbox_score", ()),
            areas=_column(records, "scale_wh_aspect_fixed", (2,)).astype(np.float64).prod(axis=1),
            keypoints_in_image=keypoints,
            keypoint_scores=_column(records, "keypoint_scores", keypoints.shape[1:2]),
        )

    @classmethod
    def _from_coco_results(cls, records: Sequence[Mapping[str, Any]]) -> PosePredictions:
        flat = _column(records, "keypoints", (-1,))
        if flat.shape[1] % 3:
            raise InputError("prediction record 0: 'keypoints' of COCO results are x, y, score of one after the other")
        poses = flat.reshape(len(records), -1, 3).astype(np.float64)
        points = poses[..., :2]
        if records[0].get("bbox"):
            boxes = _column(records, "bbox", (4,)).astype(np.float64)
        else:  # as pycocotools takes it
            boxes = np.concatenate([points.min(axis=1), np.ptp(points, axis=1)], axis=1)
        return cls(
            ids=np.arange(len(records)),
            image_ids=_column(records, "image_id", (), integers=True),
            boxes_xywh=boxes,
            box_scores=_column(records, "score", ()),
            areas=np.maximum(boxes[:, 2] * boxes[:, 3], 1.0),
            keypoints_in_image=points,
            keypoint_scores=poses[..., 2],
        )

    def take(self, indices: npt.NDArray[Any]) -> PosePredictions:
        """The poses at ``indices`` (positions or a boolean mask), in that order."""
        return PosePredictions(**{field.name: getattr(self, field.name)[indices] for field in fields(self)})

    def sorted_unique(self) -> PosePredictions:
        """The poses by image id, then id, each (image id, id) once: the first given is the one that stays.

        Distributed loaders repeat samples to fill their last batch, and one repeated detection costs AP. Such
        copies agree up to rounding; where they do not, two different prediction sets were mixed, and a
        warning says so.
        """
        order = np.lexsort((self.ids, self.image_ids))  # stable: repeats keep the order they came in
        image_ids, ids = self.image_ids[order], self.ids[order]
        repeats = np.zeros(len(order), dtype=bool)
        repeats[1:] = (image_ids[1:] == image_ids[:-1]) & (ids[1:] == ids[:-1])
        if repeats.any():
            firsts = order[np.maximum.accumulate(np.where(repeats, 0, np.arange(len(order))))]
            keypoints, scores = self.keypoints_in_image, self.box_scores
            differ = _rows_differ(keypoints[order], keypoints[firsts], tolerance=1.0)
            differ |= _rows_differ(scores[order], scores[firsts], tolerance=0.01)
            if differ.any():
                at = int(np.flatnonzero(differ)[0])
                warnings.warn(
                    f"{int(differ.sum())} predictions repeat the (image id, id) of a different pose and are "
                    f"left out, first image {image_ids[at]} id {ids[at]}; give each pose its own id",
                    stacklevel=2,
                )
        return self.take(order[~repeats])

    def reject_unusable(self) -> None:
        """Raise ``InputError`` if a pose holds NaN or infinity, or an area that is not positive.

        This comes before any scoring: pycocotools gives a pose of NaNs a perfect match (every comparison that
        would end the match is false), so a diverged network would reach AP 1.0.
        """
        unusable = np.zeros(len(self), dtype=bool)
        for name in ("boxes_xywh", "box_scores", "areas", "keypoints_in_image", "keypoint_scores"):
            values = getattr(self, name)
            unusable |= ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        if unusable.any():
            raise InputError(
                f"{int(unusable.sum())} of {len(self)} predictions hold NaN or infinity, "
                f"{self._name_first(unusable)}; nothing was scored: check the network for divergence"
            )
        flat = self.areas <= 0
        if flat.any():
            raise InputError(
                f"{int(flat.sum())} of {len(self)} predictions have an area that is not positive, "
                f"{self._name_first(flat)}; the area is that of the crop's region in image pixels"
            )

    def _name_first(self, chosen: npt.NDArray[np.bool_]) -> str:
        index = int(np.flatnonzero(chosen)[0])
        return f"first image {self.image_ids[index]} id {self.ids[index]}"


def is_coco_results(records: Sequence[Any]) -> bool:
    """Whether records are of COCO's results format, in which poses have a final score and no number of their own."""
    first = records[0] if len(records) else None
    return isinstance(first, Mapping) and "score" in first and "keypoint_scores" not in first


def _column(
    records: Sequence[Mapping[str, Any]], name: str, shape: tuple[int, ...], *, integers: bool = False
) -> Array:
    """(N, *shape) array of one entry of every record, -1 for the length of the first; InputError for what differs."""
    for index, record in enumerate(records):
        if not isinstance(record, Mapping) or name not in record:
            found = ", ".join(map(str, record)) if isinstance(record, Mapping) else f"{record!r:.40}"
            raise InputError(f"prediction record {index} lacks {name}; it has {found or 'nothing'}")
    values = [record[name] for record in records]
    array = _numbers(values, integers)
    first = _numbers(values[0], integers)
    if first is not None and first.ndim == len(shape):
        shape = tuple(found if length < 0 else length for length, found in zip(shape, first.shape, strict=True))
    if array is not None and array.shape == (len(values), *shape):
        return array
    wanted = f"{' x '.join(map(str, shape)).replace('-1', 'K')} {'integers' if integers else 'numbers'}".strip()
    for index, value in enumerate(values):
        found_array = _numbers(value, integers)
        if found_array is None or found_array.shape != shape:
            held = f"{value!r:.60}" if found_array is None else f"of shape {found_array.shape}"
            raise InputError(f"prediction record {index}: {name!r} must be {wanted}, not {held}")
    raise InputError(f"prediction records: {name!r} does not hold {wanted} of one kind throughout")


def _numbers(value: Any, integers: bool) -> Array | None:
    """The value as an array, or None where its rows differ in length or it is no such number at all."""
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        return None
    return array if array.dtype.kind in ("iu" if integers else "iuf") else None


def _rows_differ(rows: Array, others: Array, tolerance: float) -> npt.NDArray[np.bool_]:
    close = np.isclose(rows, others, rtol=0, atol=tolerance, equal_nan=True)
    return np.asarray(~close.all(axis=tuple(range(1, close.ndim))))
