"""Where the people of each picture are: all over it, or where a detector finds them; in a file: ``listed_boxes``.

A detector is any callable of the form of ``Detector``: pictures in, one ``PersonBoxes`` per picture out. Boxes are xywh
in image pixels, edges rather than pixel centres: a box over the whole of a picture is (0, 0, width, height).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from uniformer_pose.errors import InputError
from uniformer_pose.ranges import Count, Share

FloatArray = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

# Pixels: far beyond any picture, and well within what a crop's arithmetic holds.
_FARTHEST = 1e7
# Of the part of a box that lies in the picture: what is smaller shows no pose.
_LEAST_WIDTH, _LEAST_HEIGHT = 4, 8


@dataclass(frozen=True, eq=False)
class PersonBoxes:
    """The people found in one picture: ``boxes_xywh`` (P, 4) in image pixels, ``scores`` (P,).

    Both become float64. A box may reach beyond the picture. Raises InputError unless both have P rows, all numbers are
    finite and below ten million, and every width and height is positive.
    """

    boxes_xywh: FloatArray
    scores: FloatArray

    def __post_init__(self) -> None:
        try:
            boxes = np.array(self.boxes_xywh, dtype=np.float64)
            scores = np.array(self.scores, dtype=np.float64)
            if boxes.size == scores.size == 0:
                boxes, scores = boxes.reshape(0, 4), scores.reshape(0)
            if boxes.shape != (*scores.shape, 4) or scores.ndim != 1:
                raise ValueError(f"they are of shape {boxes.shape} with scores of shape {scores.shape}")
            usable = (np.abs(boxes) <= _FARTHEST).all(axis=1) & np.isfinite(scores) & (boxes[:, 2:] > 0).all(axis=1)
            if not usable.all():
                raise ValueError(f"they are {boxes[~usable][:3].tolist()} with scores {scores[~usable][:3].tolist()}")
        except (TypeError, ValueError) as error:
            raise InputError(
                f"person boxes: {error}; give boxes (P, 4), xywh in image pixels, and scores (P,), all finite, widths "
                "and heights above 0"
            ) from None
        object.__setattr__(self, "boxes_xywh", boxes)
        object.__setattr__(self, "scores", scores)

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def whole(cls, image: Image) -> PersonBoxes:
        """One person who fills the picture."""
        height, width = image.shape[:2]
        return cls(np.array([[0.0, 0.0, width, height]]), np.ones(1))

    @classmethod
    def from_corners(cls, corners_xyxy: torch.Tensor, scores: torch.Tensor) -> PersonBoxes:
        """Boxes from the corners (P, 4) that networks give; those without width or height, mere padding, go."""
        corners = corners_xyxy.double().cpu().numpy()
        sizes = corners[:, 2:] - corners[:, :2]
        kept = ~(sizes <= 0).any(axis=1)  # NaN stays, for __post_init__ to tell
        return cls(np.hstack([corners[:, :2], sizes])[kept], scores.double().cpu().numpy()[kept])


Detector = Callable[[Sequence[Image]], Sequence[PersonBoxes]]
"""RGB uint8 pictures (H, W, 3), of any sizes -> the people of each, in that order."""


class BoxFinder(Protocol):
    """Names and RGB pixels of some pictures -> the boxes of each."""

    def __call__(self, names: Sequence[str], images: Sequence[Image], /) -> list[PersonBoxes]:
        """The boxes of each picture, in order."""

    def remarks(self) -> list[str]:
        """What a user should know about all boxes found so far, one sentence each."""


class FullPictures:
    """One person fills each picture."""

    def __call__(self, _names: Sequence[str], images: Sequence[Image]) -> list[PersonBoxes]:
        """One box as large as the picture."""
        return [PersonBoxes.whole(image) for image in images]

    def remarks(self) -> list[str]:
        """Nothing."""
        return []


class DetectedBoxes:
    """The people that ``model``, a ``Detector``, finds, without those boxes that are not worth a pose.

    Left out, and counted under the first of these reasons that holds:

    - ``low score``: below ``min_score``;
    - ``outside or too small``: less than 8 pixels in height or 4 in width lie inside the picture;
    - ``overlap``: its intersection over union with a better box that stays is above ``nms_iou`` (1: no such check).
      Detectors suppress repetitions already; this is for two boxes around one person that some let through, and high
      enough to leave people alone who stand close together;
    - ``too many``: there are ``max_people`` better ones (None: no limit).

    No box is clipped to the picture, as in the published test protocol: cutting one would move its centre and change
    its scale, and with them the crop.
    """

    def __init__(
        self, model: Detector, *, min_score: Share = 0.3, nms_iou: Share = 0.65, max_people: Count | None = None
    ) -> None:
        self.model = model
        self.min_score, self.nms_iou, self.max_people = min_score, nms_iou, max_people
        self._left_out: Counter[str] = Counter()
        self._kept = 0

    def __call__(self, _names: Sequence[str], images: Sequence[Image]) -> list[PersonBoxes]:
        """The kept boxes of each picture, best first; InputError unless the model gives PersonBoxes for each."""
        found = self.model(images) if images else []
        if not isinstance(found, Sequence) or [type(boxes) for boxes in found] != [PersonBoxes] * len(images):
            raise InputError(
                f"the detector gave {found!r:.80} for {len(images)} pictures; it must give a list with one "
                "PersonBoxes(boxes_xywh, scores) for each"
            )
        return [self._keep(boxes, *image.shape[:2]) for boxes, image in zip(found, images, strict=True)]

    def remarks(self) -> list[str]:
        """How many boxes were kept, and why others were not."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self._left_out.items() if count)
        return [f"detector: kept {self._kept} boxes" + (f" (left out: {reasons})" if reasons else "")]

    def _keep(self, found: PersonBoxes, height: int, width: int) -> PersonBoxes:
        """The boxes of a picture that are worth a pose, best first; of equal scores the earlier."""
        from torchvision.ops import nms  # two seconds of imports, which boxes from a file need not wait for

        boxes, scores = found.boxes_xywh, found.scores
        corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
        inside = np.clip(corners, 0, [width, height, width, height])
        certain = scores >= self.min_score
        shown = certain & (inside[:, 2:] - inside[:, :2] >= [_LEAST_WIDTH, _LEAST_HEIGHT]).all(axis=1)
        order = np.flatnonzero(shown)[np.argsort(-scores[shown], kind="stable")]
        # Ranks in place of scores, so that equal ones cannot change places.
        ranks = torch.arange(len(order), 0, -1, dtype=torch.float64)
        apart = order[nms(torch.from_numpy(corners[order]), ranks, self.nms_iou).numpy()]
        best = apart[: self.max_people]
        counts = [len(found), certain.sum(), len(order), len(apart), len(best)]
        reasons = ("low score", "outside or too small", "overlap", "too many")
        self._left_out.update(dict(zip(reasons, (-np.diff(counts)).tolist(), strict=True)))
        self._kept += len(best)
        return PersonBoxes(boxes[best], scores[best])
