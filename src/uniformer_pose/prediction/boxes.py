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
from torchvision.ops import box_convert, nms

from uniformer_pose.errors import InputError
from uniformer_pose.ranges import Count, NotNegative, Share

FloatArray = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class PersonBoxes:
    """The people found in one picture: ``boxes_xywh`` (P, 4) in image pixels, ``scores`` (P,).

    Both become float64. A box may reach beyond the picture. Raises InputError unless both have P rows, all numbers are
    finite, and every width and height is positive.
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
            usable = np.isfinite(boxes).all(axis=1) & np.isfinite(scores) & (boxes[:, 2:] > 0).all(axis=1)
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
    def empty(cls) -> PersonBoxes:
        """Nobody."""
        return cls(np.empty((0, 4)), np.empty(0))

    @classmethod
    def from_corners(cls, corners_xyxy: torch.Tensor, scores: torch.Tensor) -> PersonBoxes:
        """Boxes from the corners (P, 4) that networks give; those without width or height, mere padding, go."""
        xywh = box_convert(corners_xyxy.double().cpu(), "xyxy", "xywh").numpy()
        has_area = (xywh[:, 2:] > 0).all(axis=1) | ~np.isfinite(xywh).all(axis=1)  # those __post_init__ shall tell
        return cls(xywh[has_area], scores.double().cpu().numpy()[has_area])


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
        sizes = [image.shape[:2] for image in images]
        return [PersonBoxes(np.array([[0.0, 0.0, width, height]]), np.ones(1)) for height, width in sizes]

    def remarks(self) -> list[str]:
        """Nothing."""
        return []


class DetectedBoxes:
    """The people that ``model``, a ``Detector``, finds, without those boxes that are not worth a pose.

    Left out, and counted under the first of these reasons that holds:

    - ``low score``: below ``min_score``;
    - ``outside the picture``: no part of it lies inside;
    - ``too small``: what of it lies inside is lower than ``min_height`` or narrower than ``min_width`` pixels;
    - ``overlap``: its intersection over union with a better box that stays is above ``nms_iou`` (None: no such check).
      Detectors suppress repetitions already; this is for two boxes around one person that some let through, and high
      enough to leave people alone who stand close together;
    - ``too many``: there are ``max_people`` better ones (None: no limit).

    No box is clipped to the picture, as in the published test protocol: cutting one would move its centre and change
    its scale, and with them the crop.
    """

    def __init__(
        self,
        model: Detector,
        *,
        min_score: Share = 0.3,
        nms_iou: Share | None = 0.65,
        min_height: NotNegative = 8.0,
        min_width: NotNegative = 4.0,
        max_people: Count | None = None,
    ) -> None:
        self.model = model
        self.min_score, self.nms_iou, self.max_people = min_score, nms_iou, max_people
        self.min_height, self.min_width = min_height, min_width
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
        boxes, scores = found.boxes_xywh, found.scores
        with np.errstate(over="ignore"):  # the far corner of a box that is finite but absurd
            corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        inside = np.clip(corners, 0, [width, height, width, height])
        visible_width, visible_height = (inside[:, 2:] - inside[:, :2]).T
        left = np.ones(len(found), dtype=bool)
        for reason, applies in (
            ("low score", scores < self.min_score),
            ("outside the picture", (visible_width <= 0) | (visible_height <= 0)),
            ("too small", (visible_height < self.min_height) | (visible_width < self.min_width)),
        ):
            self._left_out[reason] += int((left & applies).sum())
            left &= ~applies
        candidates = np.flatnonzero(left)
        order = candidates[np.argsort(-scores[candidates], kind="stable")]
        if self.nms_iou is not None:
            # Ranks in place of scores, so that equal ones cannot change places.
            ranks = torch.arange(len(order), 0, -1, dtype=torch.float64)
            kept = order[nms(torch.from_numpy(corners[order]), ranks, self.nms_iou).numpy()]
            self._left_out["overlap"] += len(order) - len(kept)
            order = kept
        best = order[: self.max_people]
        self._left_out["too many"] += len(order) - len(best)
        self._kept += len(best)
        return PersonBoxes(boxes[best], scores[best])
