"""Heatmaps of one person -> coloured layers that lie over the crop, each cell where the decoder takes it to be."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec

FloatArray = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]


def heatmap_layer(heatmap: FloatArray, codec: HeatmapCodec) -> Image:
    """(height, width, 4) RGBA picture in the crop's frame of one (h, w) heatmap.

    Colour and opacity follow the heatmap relative to its own maximum, so that a weak heatmap can be read too; where
    it is not positive the layer is transparent, and within one cell behind its last one it fades out.
    """
    in_crop = cv2.warpAffine(
        heatmap.astype(np.float32),
        _cells_to_crop(codec),
        (codec.width, codec.height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
    )
    peak = float(heatmap.max())
    level = np.clip(in_crop / peak if peak > 0 else np.zeros_like(in_crop), 0, 1)
    bytes_of_level = np.round(level * 255).astype(np.uint8)
    coloured = cv2.cvtColor(cv2.applyColorMap(bytes_of_level, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    return np.asarray(np.dstack([coloured, bytes_of_level]), dtype=np.uint8)


def _cells_to_crop(codec: HeatmapCodec) -> FloatArray:
    """(2, 3) affine matrix from heatmap cells to crop pixels, in the convention of ``HeatmapCodec``."""
    if codec.unbiased:
        cell_width = (codec.width - 1) / (codec.heatmap_width - 1)
        cell_height = (codec.height - 1) / (codec.heatmap_height - 1)
    else:
        cell_width = cell_height = float(codec.stride)
    return np.array([[cell_width, 0.0, 0.0], [0.0, cell_height, 0.0]])
