"""Pictures in the notebooks: several in a row, and heatmaps laid over the crop that they belong to."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from IPython import get_ipython
from IPython.core.pylabtools import print_figure
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec

_DOTS_PER_INCH = 80
_JPEG_QUALITY = 82


def set_up_notebook() -> None:
    """Keep figures small, so that the notebooks read well on the web: photographs as JPEG, plots as PNG.

    One library remarks that it cannot show progress bars here; that is silenced.
    """
    warnings.filterwarnings("ignore", message="IProgress not found")
    plt.rcParams |= {"figure.dpi": _DOTS_PER_INCH, "axes.titlesize": "small", "figure.constrained_layout.use": True}
    shell = get_ipython()
    if shell is not None:
        shell.enable_matplotlib("inline")  # now, because it forgets other formats
        formatters = shell.display_formatter.formatters
        formatters["image/jpeg"].for_type(Figure, _photograph)
        formatters["image/png"].for_type(Figure, _plot)


def show(pictures: Sequence[npt.NDArray[Any]], titles: Sequence[str] = (), *, height: float = 2.5) -> npt.NDArray[Any]:
    """Pictures beside one another, ``height`` inches high; returns their axes, to draw on."""
    shapes = [picture.shape[1] / picture.shape[0] for picture in pictures]
    figure, axes = plt.subplots(
        1,
        len(pictures),
        figsize=(height * sum(shapes) + 0.05 * len(pictures), height + (0.25 if titles else 0.0)),
        width_ratios=shapes,
        squeeze=False,
        layout="constrained",
    )
    for axis, picture, title in zip(axes[0], pictures, [*titles, *[""] * len(pictures)], strict=False):
        axis.imshow(picture, interpolation="antialiased")
        axis.set_title(title)
        axis.set_axis_off()
        axis.autoscale(False)  # what is drawn on a picture must not change its frame
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    return np.asarray(axes[0])


def lay_over(axis: Axes, heatmap: npt.ArrayLike, codec: HeatmapCodec, *, highest: float = 1.0) -> None:
    """Draw a heatmap (h, w) over the crop on an axis: transparent at 0, each cell around the pixel it stands for."""
    heights = np.asarray(heatmap, dtype=np.float64)
    wide, tall = codec.cell_size
    rows, columns = heights.shape
    axis.imshow(
        heights,
        cmap="magma",
        vmin=0,
        vmax=highest,
        alpha=np.clip(heights / highest, 0, 0.85),
        extent=(-wide / 2, (columns - 0.5) * wide, (rows - 0.5) * tall, -tall / 2),
        interpolation="nearest",
    )


def _photograph(figure: Figure) -> str | None:
    if not _holds_pictures(figure):
        return None
    image: str = print_figure(figure, "jpeg", base64=True, pil_kwargs={"quality": _JPEG_QUALITY, "optimize": True})
    return image


def _plot(figure: Figure) -> str | None:
    if _holds_pictures(figure):
        return None
    image: str = print_figure(figure, "png", base64=True)
    return image


def _holds_pictures(figure: Figure) -> bool:
    return any(axis.images for axis in figure.axes)
