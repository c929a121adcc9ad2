"""Heatmaps laid over a picture."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from uniformer_pose.pictures.drawing import Array, Image

_HIGHEST_OPACITY = 0.7


def lay_heatmaps_over(
    picture: Image, heatmaps: Array, colours: npt.ArrayLike, cells_to_picture: npt.ArrayLike
) -> Image:
    """A copy of the RGB picture (H, W, 3) with heatmaps (K, h, w) over it, each in its colour of (K, 3).

    Heatmaps are clipped to 0..1, NaN is 0; their sum is the opacity. ``cells_to_picture`` is the (2, 3) affine map from
    cells (column, row) to pixels; whole numbers are centres in both. The last cells fade out towards their outside.
    """
    canvas = np.array(picture, dtype=np.uint8, order="C", copy=True)
    heat = np.nan_to_num(np.asarray(heatmaps, dtype=np.float32), nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
    total = heat.sum(axis=0)
    opacity = _HIGHEST_OPACITY * total.clip(0, 1)
    paint = np.tensordot(heat, np.asarray(colours, dtype=np.float32), axes=(0, 0))
    layer = np.dstack([paint * (opacity / np.maximum(total, 1e-6))[..., None], opacity])
    # Only where the heatmaps reach: a photograph is many times as large as a person.
    rows, columns = total.shape
    matrix = np.asarray(cells_to_picture, dtype=np.float64)
    corners = matrix @ [[-1, columns, -1, columns], [-1, -1, rows, rows], [1, 1, 1, 1]]
    left, top = np.floor(corners.min(axis=1)).astype(int).clip(0).tolist()
    right, bottom = np.ceil(corners.max(axis=1)).astype(int).clip(0).tolist()
    part = canvas[top : bottom + 1, left : right + 1]
    if part.size:
        to_part = matrix - [[0, 0, left], [0, 0, top]]
        layer = cv2.warpAffine(layer, to_part, (part.shape[1], part.shape[0]), borderMode=cv2.BORDER_CONSTANT)
        part[:] = np.round(part * (1 - layer[..., 3:]) + layer[..., :3]).clip(0, 255)
    return canvas
