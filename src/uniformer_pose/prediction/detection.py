"""Pictures -> boxes of people: what a detector is, and which of its boxes are worth a pose.

A detector is any callable of the form of ``Detector``: pictures in, one ``PersonBoxes`` per picture out. Boxes are xywh
in image pixels, edges rather than pixel centres: a box over the whole of a picture is (0, 0, width, height).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import box_convert, nms

from uniformer_pose.errors import InputError

FloatArray = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class PersonBoxes:
    """The people found in one picture: ``boxes_xywh`` (P, 4) in image pixels, ``scores`` (P,).

    Both become arrays of float64 of their own that cannot be written to. A box may reach beyond the picture. Raises
    InputError unless both have P rows, all numbers are finite, and every width and height is positive.
    """

    boxes_xywh: FloatArray
    scores: FloatArray

    def __post_init__(self) -> None:
        try:
            boxes = np.array(self.boxes_xywh, dtype=np.float64)
            scores = np.array(self.scores, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"person boxes: not arrays of numbers ({error}); give boxes (P, 4) and scores (P,)"
            ) from None
        if boxes.size == 0 and scores.size == 0:
            boxes, scores = boxes.reshape(0, 4), scores.reshape(0)
        if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
            raise InputError(
                f"person boxes of shape {boxes.shape} with scores of shape {scores.shape}: give boxes (P, 4), xywh in "
                "image pixels, and scores (P,)"
            )
        wrong = np.flatnonzero(~(np.isfinite(boxes).all(axis=1) & np.isfinite(scores) & (boxes[:, 2:] > 0).all(axis=1)))
        if len(wrong):
            row = int(wrong[0])
            raise InputError(
                f"person box {row} is {boxes[row].tolist()} with score {scores[row]}: every number must be finite, "
                "width and height positive; boxes are xywh in image pixels"
            )
        for name, array in (("boxes_xywh", boxes), ("scores", scores)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls) -> PersonBoxes:
        """Nobody."""
        return cls(np.empty((0, 4)), np.empty(0))


@dataclass(frozen=True, eq=False)
class KeptBoxes(PersonBoxes):
    """The boxes that stayed, best first; ``removed`` counts the others by reason, without reasons that none had."""

    removed: Mapping[str, int] = field(default_factory=dict)


Detector = Callable[[Sequence[Image]], Sequence[PersonBoxes]]
"""RGB uint8 pictures (H, W, 3), of any sizes -> the people of each, in that order."""


def detected_people(detector: Detector, images: Sequence[Image]) -> list[PersonBoxes]:
    """What the detector finds in each picture; InputError where it does not answer with one PersonBoxes for each."""
    found = detector(images)
    if not isinstance(found, Sequence) or len(found) != len(images):
        what = f"{len(found)} results" if isinstance(found, Sequence) else f"a {type(found).__name__}"
        raise InputError(f"the detector gave {what} for {len(images)} pictures; it must give one PersonBoxes for each")
    for boxes in found:
        if not isinstance(boxes, PersonBoxes):
            raise InputError(
                f"the detector gave a {type(boxes).__name__} for a picture; give PersonBoxes(boxes_xywh, scores)"
            )
    return list(found)


def kept_boxes(
    found: PersonBoxes,
    *,
    height: int,
    width: int,
    min_score: float = 0.3,
    nms_iou: float | None = 0.65,
    min_height: float = 8.0,
    min_width: float = 4.0,
    max_people: int | None = None,
) -> KeptBoxes:
    """The boxes of a ``height`` x ``width`` picture that are worth a pose, best first; of equal scores the earlier.

    Removed, and counted under the first of these reasons that holds:

    - ``low score``: below ``min_score``;
    - ``outside the picture``: no part of it lies inside;
    - ``too small``: what of it lies inside is lower than ``min_height`` or narrower than ``min_width`` pixels;
    - ``overlap``: its intersection over union with a better box that stays is above ``nms_iou`` (None: no such check).
      Detectors suppress repetitions already; this is for two boxes around one person that some let through, and high
      enough to leave people alone who stand close together;
    - ``too many``: there are ``max_people`` better ones (None: no limit).

    No box is clipped to the picture, as in the published test protocol: cutting one would move its centre and change
    its scale, and with them the crop. InputError for a threshold that makes no sense.
    """
    _check_thresholds(min_score, nms_iou, min_height, min_width, max_people)
    boxes, scores = found.boxes_xywh, found.scores
    with np.errstate(over="ignore"):  # the far corner of a box that is finite but absurd
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    inside = np.clip(corners, 0, [width, height, width, height])
    visible_width, visible_height = (inside[:, 2:] - inside[:, :2]).T
    removed: dict[str, int] = {}
    left = np.ones(len(found), dtype=bool)
    for reason, applies in (
        ("low score", scores < min_score),
        ("outside the picture", (visible_width <= 0) | (visible_height <= 0)),
        ("too small", (visible_height < min_height) | (visible_width < min_width)),
    ):
        removed[reason] = int((left & applies).sum())
        left &= ~applies
    candidates = np.flatnonzero(left)
    order = candidates[np.argsort(-scores[candidates], kind="stable")]
    if nms_iou is not None:
        # Ranks in place of scores, so that equal ones cannot change places.
        ranks = torch.arange(len(order), 0, -1, dtype=torch.float64)
        kept = order[nms(torch.from_numpy(corners[order]), ranks, nms_iou).numpy()]
        removed["overlap"] = len(order) - len(kept)
        order = kept
    if max_people is not None:
        removed["too many"] = max(0, len(order) - max_people)
        order = order[:max_people]
    return KeptBoxes(boxes[order], scores[order], {reason: count for reason, count in removed.items() if count})


def boxes_from_corners(corners_xyxy: FloatArray, scores: FloatArray) -> PersonBoxes:
    """Boxes from the corners (P, 4) that networks give; those without width or height, mere padding, are left out."""
    xywh = box_convert(torch.from_numpy(np.array(corners_xyxy, dtype=np.float64)), "xyxy", "xywh").numpy()
    has_area = (xywh[:, 2:] > 0).all(axis=1) | ~np.isfinite(xywh).all(axis=1)  # those PersonBoxes shall tell
    return PersonBoxes(xywh[has_area], np.asarray(scores, dtype=np.float64)[has_area])


def check_pictures(images: Sequence[Image]) -> None:
    """InputError for what is no RGB uint8 array (H, W, 3) with at least one pixel."""
    for number, image in enumerate(images):
        shape, kind = getattr(image, "shape", None), getattr(image, "dtype", type(image).__name__)
        if shape is None or len(shape) != 3 or shape[2] != 3 or 0 in shape or kind != np.uint8:
            raise InputError(
                f"picture {number} of {len(images)}: {kind} of shape {shape}; a detector takes RGB uint8 arrays of "
                "shape (height, width, 3)"
            )


def _check_thresholds(
    min_score: float, nms_iou: float | None, min_height: float, min_width: float, max_people: int | None
) -> None:
    if not math.isfinite(min_score):
        raise InputError(f"min_score={min_score}: give the lowest score that is kept, such as 0.3; 0 keeps all boxes")
    if nms_iou is not None and not 0 < nms_iou <= 1:
        raise InputError(f"nms_iou={nms_iou}: give an overlap above 0 and at most 1, or null for no suppression")
    for name, size in (("min_height", min_height), ("min_width", min_width)):
        if not (math.isfinite(size) and size >= 0):
            raise InputError(f"{name}={size}: give image pixels, 0 or more")
    if max_people is not None and max_people < 1:
        raise InputError(f"max_people={max_people}: give 1 or more, or null for no limit")
