"""What other programs write for ids, numbers, visibilities and boxes -> what training reads; every repair is counted.

Training reads annotations strictly. The converter reads what is plain to a person, writes it strictly, and says by kind
how often it had to. A keypoint that cannot be used is one without label; it does not cost the person.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.coco_json import LARGEST_NUMBER
from uniformer_pose.errors import InputError

FloatArray = npt.NDArray[np.float64]
Repairs = Counter[str]
"""How often each repair was needed, by what the user is told about it."""

_WHOLE = re.compile(r"\s*[-+]?\d+(\.0*)?\s*")
_SHORTEST_SIDE = 0.001  # pixel: as boxes are written
_OVER_THE_EDGE = 1.0  # pixel: annotation tools round
_MARGIN = 0.1  # of a box that is drawn around keypoints, of its larger side


def plain_number(value: object) -> float:
    """A number, also one in a text; NaN where there is none that could be a coordinate, size or score."""
    if isinstance(value, bool):
        return math.nan
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if abs(number) <= LARGEST_NUMBER else math.nan


def plain_id(value: object, repairs: Repairs) -> int | str | None:
    """An id: a whole number, also as 7.0, "7" or "7.0"; any other text as it is; None where there is none."""
    if type(value) is int and abs(value) < 2**63:
        return value
    if (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and _WHOLE.fullmatch(value)):
        repairs['ids written as text or with a decimal point ("7", 7.0) read as whole numbers'] += 1
        return int(str(value).strip().partition(".")[0]) if isinstance(value, str) else int(value)
    return value.strip() or None if isinstance(value, str) else None


def plain_visibility(value: object, repairs: Repairs) -> float:
    """A visibility or a confidence as a number, true being 2 (visible); NaN where there is none."""
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        value = value.strip().lower() == "true"
    if isinstance(value, bool):
        repairs["visibilities of true and false read as visible and not labelled"] += 1
        return 2.0 if value else 0.0
    return plain_number(value)


def plain_keypoints(values: Sequence[object], repairs: Repairs) -> FloatArray:
    """(K, 3) x, y and visibility from 3K values of any kind; NaN where they are no numbers."""
    if set(map(type, values)) <= {int, float}:
        with suppress(OverflowError):  # an integer of 400 digits
            return np.array(values, dtype=np.float64).reshape(-1, 3)
    rows = zip(values[::3], values[1::3], values[2::3], strict=True)
    plain = [(plain_number(x), plain_number(y), plain_visibility(v, repairs)) for x, y, v in rows]
    return np.array(plain).reshape(-1, 3)


def usable_keypoints(
    keypoints: FloatArray, height: int, width: int, *, min_confidence: float, repairs: Repairs
) -> FloatArray:
    """Keypoints (K, 3) in pixels of a picture of this size, visibility 0, 1 or 2, zeros where not labelled.

    Visibilities between whole numbers make all of a person's confidences: visible from ``min_confidence`` on. Raises
    InputError where labelled keypoints are there, and all of them outside the picture.
    """
    points, seen = keypoints[:, :2], keypoints[:, 2].copy()

    def unlabel(where: npt.NDArray[np.bool_], what: str) -> None:
        seen[where] = 0
        repairs[f"{what} read as not labelled"] += int(where.sum())

    unlabel(~np.isfinite(seen), "visibilities that are no number (NaN, null)")
    unlabel(np.asarray(seen < 0), "visibilities below 0")
    if (seen % 1 != 0).any():
        certain = seen >= min_confidence
        repairs[f"confidences of at least {min_confidence:g} read as visible"] += int(certain.sum())
        unlabel(~certain & (seen > 0), f"confidences below {min_confidence:g}")
        seen[certain] = 2
    unlabel(np.asarray(seen > 2), "visibilities above 2")
    unlabel((seen > 0) & ~(np.abs(points) <= LARGEST_NUMBER).all(axis=1), "labelled keypoints without coordinates")
    labelled = seen > 0
    with np.errstate(invalid="ignore"):
        beyond = labelled & ((points < -_OVER_THE_EDGE) | (points > (width, height))).any(axis=1)
    if beyond.any() and beyond.sum() == labelled.sum():
        x, y = points[beyond][0]
        raise InputError(
            f"all of its {beyond.sum()} labelled keypoints are outside the picture of {height}x{width} pixels (height "
            f"x width), the first at x {x:g}, y {y:g}; check the unit of the coordinates, and the image"
        )
    unlabel(beyond, "labelled keypoints outside their picture")
    return np.where(seen[:, None] > 0, np.column_stack([points, seen]), 0.0)


def usable_box(
    box_xywh: FloatArray, keypoints: FloatArray, height: int, width: int, repairs: Repairs
) -> FloatArray | None:
    """The box if it has an area in the picture, else one around the labelled keypoints; None without either.

    A drawn box is larger than the keypoints by a margin all around, as far as the picture goes. Raises InputError where
    the keypoints are too few, or in one place.
    """
    low, high = box_xywh[:2], box_xywh[:2] + box_xywh[2:]
    if (box_xywh[2:] >= _SHORTEST_SIDE).all() and (high > 0).all() and (low < (width - 1, height - 1)).all():
        return box_xywh
    labelled = keypoints[keypoints[:, 2] > 0, :2]
    if not len(labelled):
        repairs["people with neither a usable box nor a labelled keypoint left out"] += 1
        return None
    extent = np.ptp(labelled, axis=0)
    if extent.max() <= 0:
        raise InputError(
            f"has no usable box, and {len(labelled)} labelled keypoints, around which none can be drawn; give a box "
            "of x, y, width, height"
        )
    repairs["boxes drawn around the keypoints, where no usable one was given"] += 1
    reach = _MARGIN * float(extent.max())
    low = np.clip(labelled.min(axis=0) - reach, 0, (max(width - 2, 0), max(height - 2, 0)))
    high = np.clip(labelled.max(axis=0) + reach, 0, (width, height))
    return np.concatenate([low, np.maximum(high - low, 1.0)])
