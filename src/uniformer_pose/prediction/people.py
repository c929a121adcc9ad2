"""The poses of one picture: keypoints in image pixels, ready to be drawn, written or handed on."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.categories import DEFAULT_PERSON_CATEGORY
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.oks import pose_scores
from uniformer_pose.pictures.drawing import draw_poses
from uniformer_pose.skeleton import Skeleton

if TYPE_CHECKING:
    import fiftyone
    import supervision

FloatArray = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class People:
    """P people of one picture with K keypoints each; row p of every array is person p, in the order of their boxes.

    Points are (x, y), boxes xywh, all in image pixels. A score is the height of the keypoint's heatmap peak: about 1
    where the network is sure, towards 0 where it is not. ``areas`` are those of the regions that the network saw,
    in pixels squared, as OKS between predictions wants them. ``ids`` number the people through a video.
    """

    keypoints: FloatArray
    """(P, K, 2)"""
    scores: FloatArray
    """(P, K)"""
    boxes: FloatArray
    """(P, 4)"""
    box_scores: FloatArray
    """(P,)"""
    areas: FloatArray
    """(P,)"""
    skeleton: Skeleton
    ids: npt.NDArray[np.int64] | None = None
    """(P,)"""

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def pose_scores(self) -> FloatArray:
        """(P,) box score times the mean of the keypoint scores above 0.2, as COCO results of this network have it."""
        return pose_scores(self.box_scores, self.scores) if len(self) else np.zeros(0)

    def plot(self, image: Image, *, score_threshold: float = 0.2) -> Image:
        """A copy of the RGB picture with everybody's skeleton, in the colours of the skeleton file."""
        return draw_poses(image, self.keypoints, self.scores, self.skeleton, score_threshold=score_threshold)

    def to_coco(self, image_id: int, category_id: int = DEFAULT_PERSON_CATEGORY) -> list[dict[str, Any]]:
        """COCO results: per person ``keypoints`` [x, y, keypoint score] x K, ``score`` and ``bbox``."""
        triplets = np.concatenate([self.keypoints, self.scores[..., None]], axis=-1).reshape(
            len(self), 3 * self.skeleton.num_keypoints
        )
        tracks = [{}] * len(self) if self.ids is None else [{"track_id": number} for number in self.ids.tolist()]
        rows = zip(triplets.tolist(), self.pose_scores.tolist(), self.boxes.tolist(), tracks, strict=True)
        picture = {"image_id": image_id, "category_id": category_id}
        return [picture | {"keypoints": flat, "score": score, "bbox": box} | track for flat, score, box, track in rows]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists without the skeleton; ``from_dict`` gives the same people back."""
        names = ("keypoints", "scores", "boxes", "box_scores", "areas", "ids")
        return {name: None if (array := getattr(self, name)) is None else array.tolist() for name in names}

    @classmethod
    def from_dict(cls, content: dict[str, Any], skeleton: Skeleton) -> People:
        """The people of ``to_dict``."""
        arrays = {name: np.asarray(values, dtype=np.float64) for name, values in content.items() if name != "ids"}
        count, num_keypoints = len(arrays["box_scores"]), skeleton.num_keypoints
        arrays["keypoints"] = arrays["keypoints"].reshape(count, num_keypoints, 2)
        arrays["scores"] = arrays["scores"].reshape(count, num_keypoints)
        arrays["boxes"] = arrays["boxes"].reshape(count, 4)
        ids = None if content["ids"] is None else np.asarray(content["ids"], dtype=np.int64)
        return cls(**arrays, skeleton=skeleton, ids=ids)

    def to_supervision(self) -> supervision.KeyPoints:
        """The same as roboflow's ``supervision.KeyPoints`` (an extra package)."""
        sv = _extra("supervision")
        return sv.KeyPoints(
            xy=self.keypoints.astype(np.float32),
            keypoint_confidence=self.scores.astype(np.float32),
            detection_confidence=self.pose_scores.astype(np.float32),
            class_id=np.zeros(len(self), dtype=int),
        )

    def to_fiftyone(self, *, height: int, width: int) -> fiftyone.Keypoints:
        """The same as FiftyOne's ``Keypoints`` (an extra package), whose points are parts of the picture's size."""
        fo = _extra("fiftyone")
        parts = self.keypoints / [width, height]
        return fo.Keypoints(
            keypoints=[
                fo.Keypoint(label="person", points=[tuple(point) for point in points], confidence=scores)
                for points, scores in zip(parts.tolist(), self.scores.tolist(), strict=True)
            ]
        )


def _extra(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise InputError(f"the package {package} is not installed; install it with: pip install {package}") from error
