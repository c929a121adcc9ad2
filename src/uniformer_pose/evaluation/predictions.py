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

_INTEGER_FIELDS = ("ids", "image_ids")
_RECORD_ENTRIES = ("id", "image_id", "bbox_xywh", "bbox_score", "keypoints", "keypoint_scores")


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
        for field in fields(self):
            array = np.asarray(getattr(self, field.name))
            wanted = "iu" if field.name in _INTEGER_FIELDS else "iuf"
            if array.size and array.dtype.kind not in wanted:
                raise ValueError(f"{field.name} must hold {_kind_name(wanted)}, not {array.dtype}")
            dtype = np.int64 if field.name in _INTEGER_FIELDS else np.float64
            object.__setattr__(self, field.name, array.astype(dtype, copy=False))
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
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"{name} has shape {found}; {count} ids ask for {shape}".replace("-1", "K"))

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
        ``keypoint_scores`` (K), and either ``area`` or ``scale_wh_aspect_fixed``, the (width, height) whose
        product is the area. Or they are COCO results (``is_coco_results``): ``image_id``, ``keypoints`` (x, y, score of
        K keypoints), ``score``, and ``bbox`` or none, which is then that of the keypoints; ids are their places. Other
        entries are left alone. A missing or misshapen entry raises ``InputError`` naming the record.
        """
        records = list(records)
        if not records:
            return cls.empty(0)
        if is_coco_results(records):
            return cls._from_coco_results(records)
        for index, record in enumerate(records):
            _require_entries(index, record)
        first = records[0]["keypoints"]
        if not isinstance(first, (list, tuple, np.ndarray)):
            raise InputError(f"prediction record 0: 'keypoints' must be a list of [x, y], not {first!r:.60}")
        num_keypoints = len(first)
        return cls(
            ids=_column(records, "id", (), "iu"),
            image_ids=_column(records, "image_id", (), "iu"),
            boxes_xywh=_column(records, "bbox_xywh", (4,), "iuf"),
            box_scores=_column(records, "bbox_score", (), "iuf"),
            areas=_areas(records),
            keypoints_in_image=_column(records, "keypoints", (num_keypoints, 2), "iuf"),
            keypoint_scores=_column(records, "keypoint_scores", (num_keypoints,), "iuf"),
        )

    @classmethod
    def _from_coco_results(cls, records: Sequence[Mapping[str, Any]]) -> PosePredictions:
        for index, record in enumerate(records):
            _require_entries(index, record, ("image_id", "keypoints", "score"))
        first = _regular_array(records[0]["keypoints"])
        length = 0 if first is None else first.size
        if first is None or first.ndim != 1 or length % 3 or not length:
            raise InputError("prediction record 0: 'keypoints' of COCO results are x, y, score of one after the other")
        poses = _column(records, "keypoints", (length,), "iuf").reshape(len(records), -1, 3).astype(np.float64)
        points = poses[..., :2]
        if records[0].get("bbox"):
            boxes = _column(records, "bbox", (4,), "iuf").astype(np.float64)
        else:  # as pycocotools takes it
            boxes = np.concatenate([points.min(axis=1), np.ptp(points, axis=1)], axis=1)
        return cls(
            ids=np.arange(len(records)),
            image_ids=_column(records, "image_id", (), "iu"),
            boxes_xywh=boxes,
            box_scores=_column(records, "score", (), "iuf"),
            areas=np.maximum(boxes[:, 2] * boxes[:, 3], 1.0),
            keypoints_in_image=points,
            keypoint_scores=poses[..., 2],
        )

    def to_records(self) -> list[dict[str, Any]]:
        """One dict of plain numbers and lists per pose; ``from_records`` gives the same predictions back."""
        columns = {
            "id": self.ids,
            "image_id": self.image_ids,
            "bbox_xywh": self.boxes_xywh,
            "bbox_score": self.box_scores,
            "area": self.areas,
            "keypoints": self.keypoints_in_image,
            "keypoint_scores": self.keypoint_scores,
        }
        rows = zip(*(array.tolist() for array in columns.values()), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows]

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


def _require_entries(index: int, record: Any, names: Sequence[str] = _RECORD_ENTRIES) -> None:
    if not isinstance(record, Mapping):
        raise InputError(f"prediction record {index} is a {type(record).__name__}; give one mapping per pose")
    missing = [name for name in names if name not in record]
    if names is _RECORD_ENTRIES and "area" not in record and "scale_wh_aspect_fixed" not in record:
        missing.append("area")
    if missing:
        found = ", ".join(map(str, record)) or "nothing"
        raise InputError(f"prediction record {index} lacks {', '.join(missing)}; it has {found}")


def _column(records: Sequence[Mapping[str, Any]], name: str, shape: tuple[int, ...], kinds: str) -> Array:
    """(N, *shape) array of one entry of every record; whatever does not fit raises, naming the record."""
    values = [record[name] for record in records]
    array = _regular_array(values)
    if array is not None and array.shape == (len(values), *shape) and array.dtype.kind in kinds:
        return array
    for index, value in enumerate(values):
        found = _regular_array(value)
        if found is None or found.shape != shape or found.dtype.kind not in kinds:
            wanted = (
                " x ".join(map(str, shape)) + f" {_kind_name(kinds)}" if shape else f"one of the {_kind_name(kinds)}"
            )
            held = f"{value!r:.60}" if found is None or found.shape == shape else f"of shape {found.shape}"
            raise InputError(f"prediction record {index}: {name!r} must be {wanted}, not {held}")
    raise InputError(f"prediction records: {name!r} does not hold {_kind_name(kinds)} of one kind throughout")


def _areas(records: Sequence[Mapping[str, Any]]) -> Array:
    with_area = sum("area" in record for record in records)
    if with_area == len(records):
        return _column(records, "area", (), "iuf")
    if with_area:
        raise InputError(
            f"{with_area} of {len(records)} prediction records have an 'area', the rest only "
            "'scale_wh_aspect_fixed'; give all of them the same entry"
        )
    return np.asarray(_column(records, "scale_wh_aspect_fixed", (2,), "iuf").astype(np.float64).prod(axis=1))


def _regular_array(value: Any) -> Array | None:
    """The value as an array, or None where its rows differ in length or it is no number at all."""
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        return None
    return None if array.dtype.kind == "O" else array


def _kind_name(kinds: str) -> str:
    return "integers" if kinds == "iu" else "numbers"


def _rows_differ(rows: Array, others: Array, tolerance: float) -> npt.NDArray[np.bool_]:
    close = np.isclose(rows, others, rtol=0, atol=tolerance, equal_nan=True)
    return np.asarray(~close.all(axis=tuple(range(1, close.ndim))))
