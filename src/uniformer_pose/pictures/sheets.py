"""Contact sheets: one panel of two pictures per person, some people at a time.

Crops are (B, height, width, 3) uint8 RGB, keypoints (B, K, 2) are (x, y) in crop pixels, visibility (B, K) is
COCO's (0 unlabelled, 1 hidden, 2 visible), heatmaps are (B, K, h, w).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from uniformer_pose.pictures.drawing import Array, Image, draw_poses
from uniformer_pose.pictures.heatmap import lay_heatmaps_over
from uniformer_pose.skeleton import Skeleton

_LOWEST, _HIGHEST = 192, 384  # pixels: crops are shown at least and at most this high
_CAPTION_HEIGHT = 24
_GAP = 6
BACKGROUND = (32, 32, 36)
_STRIP = (52, 52, 58)
TEXT = (235, 235, 235)
_GOOD, _FAIR, POOR = (110, 220, 110), (240, 200, 80), (255, 110, 100)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def training_sheet(
    crops: Image,
    keypoints_in_crop: Array,
    visibility: Array,
    target_heatmaps: Array,
    skeleton: Skeleton,
    *,
    cell_size: tuple[float, float] = (4.0, 4.0),
    max_people: int = 16,
    columns: int = 4,
) -> Image:
    """One RGB picture of what a batch teaches: crops with keypoints (left), and with target heatmaps (right).

    Visible keypoints are filled, hidden ones are rings. The heatmaps of all keypoints are summed, each in its
    keypoint's colour, so that a left joint taught as a right one shows. ``cell_size`` is the codec's.
    """
    panels = []
    for person in range(min(len(crops), max_people)):
        crop, scale = enlarged(crops[person])
        seen = np.asarray(visibility)[person]
        left = annotated(crop, scale, keypoints_in_crop[person], seen, skeleton)
        # Cell i stands at crop pixel i * step, not in the middle of a block of pixels.
        shift = (scale - 1) / 2
        cells_to_sheet = np.array([[cell_size[0] * scale, 0, shift], [0, cell_size[1] * scale, shift]])
        overlaid = lay_heatmaps_over(crop, target_heatmaps[person], skeleton.colours, cells_to_sheet)
        caption = f"{int((seen == 2).sum())} visible, {int((seen == 1).sum())} hidden of {skeleton.num_keypoints}"
        panels.append(panel(left, overlaid, caption))
    return arrange(panels, f"training targets, {len(panels)} of {len(crops)} people", columns)


def prediction_sheet(
    crops: Image,
    true_keypoints_in_crop: Array,
    visibility: Array,
    predicted_keypoints_in_crop: Array,
    keypoint_scores: Array,
    skeleton: Skeleton,
    *,
    oks: Array | Sequence[float],
    scores: Array | Sequence[float],
    score_threshold: float = 0.2,
    max_people: int = 16,
    columns: int = 4,
    hollow: Array | None = None,
) -> Image:
    """One RGB picture of predictions (right) beside ground truth (left), people in the order given.

    ``oks`` (B,) and ``scores`` (B,) are written above each person, in a colour that grades the OKS: green from 0.75,
    yellow from 0.5, red below; NaN, where nothing is labelled, is written as a dash. Predicted keypoints
    are drawn where their score is above the threshold, those of ``hollow`` (B, K) as rings.
    """
    panels = []
    for person in range(min(len(crops), max_people)):
        crop, scale = enlarged(crops[person])
        truth = annotated(crop, scale, true_keypoints_in_crop[person], np.asarray(visibility)[person], skeleton)
        points = _scaled(predicted_keypoints_in_crop[person], scale)
        confidence = np.asarray(keypoint_scores)[person]
        rings = None if hollow is None else hollow[person][None]
        predicted = draw_poses(
            crop, points[None], confidence[None], skeleton, score_threshold=score_threshold, hollow=rings
        )
        similarity, score = float(oks[person]), float(scores[person])
        colour = _GOOD if similarity >= 0.75 else _FAIR if similarity >= 0.5 else POOR
        told = ("-" if np.isnan(value) else f"{value:.2f}" for value in (similarity, score))
        caption = "OKS {}  score {}".format(*told)
        panels.append(panel(truth, predicted, caption, TEXT if np.isnan(similarity) else colour))
    return arrange(panels, f"ground truth | prediction, {len(panels)} of {len(crops)} people", columns)


def _scaled(points: Array, scale: float) -> npt.NDArray[np.float64]:
    """(..., 2) points of a picture that was enlarged by ``scale``; pixel centres stay pixel centres."""
    return (np.asarray(points, dtype=np.float64) + 0.5) * scale - 0.5


def annotated(crop: Image, scale: float, keypoints: Array, seen: Array, skeleton: Skeleton) -> Image:
    """An enlarged crop with keypoints (K, 2) of the original: filled where visible (K,), rings where hidden."""
    points = _scaled(keypoints, scale)[None]
    return draw_poses(crop, points, seen[None], skeleton, score_threshold=0, hollow=np.asarray(seen == 1)[None])


def enlarged(crop: Image) -> tuple[Image, float]:
    """A crop at the size of the sheet, and how much larger that is."""
    height, width = crop.shape[:2]
    scale = float(np.clip(height, _LOWEST, _HIGHEST)) / height
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(np.ascontiguousarray(crop), size, interpolation=interpolation), np.uint8), scale


def panel(left: Image, right: Image, caption: str, colour: tuple[int, int, int] = TEXT) -> Image:
    """Two pictures of one height side by side, under a caption of that colour."""
    body = np.hstack([left, np.full((len(left), 2, 3), _STRIP, dtype=np.uint8), right])
    return np.vstack([_strip(body.shape[1], caption, colour, _STRIP), body])


def _strip(width: int, text: str, colour: tuple[int, int, int], background: tuple[int, int, int]) -> Image:
    """A caption of fixed height; its letters shrink to fit, and what still does not fit is cut."""
    strip = np.full((_CAPTION_HEIGHT, width, 3), background, dtype=np.uint8)
    size = 0.5
    while size > 0.35 and cv2.getTextSize(text, _FONT, size, 1)[0][0] > width - 2 * _GAP:
        size -= 0.05
    cv2.putText(strip, text, (_GAP, _CAPTION_HEIGHT - 8), _FONT, size, colour, 1, cv2.LINE_AA)
    return strip


def arrange(panels: Sequence[Image], title: str, columns: int = 4) -> Image:
    """Panels of one size in rows, under a title; a sheet without panels is its title."""
    if not panels:
        return _strip(2 * _LOWEST, title, TEXT, BACKGROUND)
    columns = max(1, min(columns, len(panels)))
    panel_height, panel_width = panels[0].shape[:2]
    rows = -(-len(panels) // columns)
    height, width = _CAPTION_HEIGHT + rows * (panel_height + _GAP), _GAP + columns * (panel_width + _GAP)
    sheet = np.full((height, width, 3), BACKGROUND, dtype=np.uint8)
    sheet[:_CAPTION_HEIGHT] = _strip(width, title, TEXT, BACKGROUND)
    for index, part in enumerate(panels):
        top = _CAPTION_HEIGHT + index // columns * (panel_height + _GAP)
        left = _GAP + index % columns * (panel_width + _GAP)
        sheet[top : top + panel_height, left : left + panel_width] = part
    return sheet
