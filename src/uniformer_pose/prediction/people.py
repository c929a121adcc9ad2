"""The poses of one picture: keypoints in image pixels, ready to be drawn, written or handed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.categories import DEFAULT_PERSON_CATEGORY
from uniformer_pose.evaluation.oks import pose_scores
from uniformer_pose.pictures.drawing import draw_poses, likely_hidden
from uniformer_pose.skeleton import Skeleton

FloatArray = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class People:
    """P people of one picture with K keypoints each; row p of every array is person p, in the order of their boxes.

    Points are (x, y), boxes xywh, all in image pixels. A score is the height of the keypoint's heatmap peak: about 1
    where the network is sure, towards 0 where it is not; of a SimCC codec it is the lower one of two peaks, and has no
    such scale. ``areas`` are those of the regions that the network saw,
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
    visibility: FloatArray | None = None
    """(P, K, 2) probabilities that a keypoint is labelled, and if so that it is visible; None of a network without."""

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def pose_scores(self) -> FloatArray:
        """(P,) box score times the mean of the keypoint scores above 0.2, as COCO results of this network have it."""
        return pose_scores(self.box_scores, self.scores) if len(self) else np.zeros(0)

    def plot(self, image: Image, *, score_threshold: float = 0.2) -> Image:
        """A copy of the RGB picture with everybody's skeleton, in the colours of the skeleton file.

        Keypoints that are more likely hidden than visible are rings.
        """
        shown = (image, self.keypoints, self.scores, self.skeleton)
        return draw_poses(*shown, score_threshold=score_threshold, hollow=likely_hidden(self.visibility))

    def to_coco(self, image_id: int, category_id: int = DEFAULT_PERSON_CATEGORY) -> list[dict[str, Any]]:
        """COCO results: per person ``keypoints`` [x, y, keypoint score] x K, ``score`` and ``bbox``.

        Where they are known, ``track_id`` and ``visibility`` [probability labelled, probability visible] x K.
        """
        triplets = np.concatenate([self.keypoints, self.scores[..., None]], axis=-1).reshape(
            len(self), 3 * self.skeleton.num_keypoints
        )
        picture = {"image_id": image_id, "category_id": category_id}
        rows = zip(triplets.tolist(), self.pose_scores.tolist(), self.boxes.tolist(), strict=True)
        results = [picture | {"keypoints": flat, "score": score, "bbox": box} for flat, score, box in rows]
        for name, known in (("track_id", self.ids), ("visibility", self.visibility)):
            if known is not None:
                results = [result | {name: value} for result, value in zip(results, known.tolist(), strict=True)]
        return results
