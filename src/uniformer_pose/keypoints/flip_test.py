"""The flip test: average a network's output for a crop with that for its mirror image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Output = TypeVar("Output", Tensor, tuple[Tensor, ...])


def flip_test(network: Callable[[Tensor], Output], images: Tensor, mirrored: Callable[[Output], Output]) -> Output:
    """The mean, in fp32, of the network's output for the images (B, 3, H, W) and for the mirrored images.

    ``mirrored`` makes of the latter what it is for the plain images (``Codec.mirrored``). Several outputs are averaged
    one by one. The network is called twice, so a flip test needs no more memory than a plain one.
    """
    plain = network(images)
    of_mirrored = mirrored(network(images.flip(-1)))
    if isinstance(plain, Tensor):
        return _mean(plain, of_mirrored)
    return tuple(map(_mean, plain, of_mirrored))


def _mean(plain: Tensor, of_mirrored: Tensor) -> Tensor:
    return (plain.float() + of_mirrored.float()) * 0.5


def mirror_heatmaps(heatmaps_of_mirrored: Tensor, mirror_permutation: Tensor, shift: bool = True) -> Tensor:
    """(B, K, h, w) heatmaps of the plain crop, from those of the mirrored crop.

    Columns are reversed and every keypoint takes the place of its mirror partner: ``mirror_permutation`` (K,)
    holds the partners' indices and lies on the heatmaps' device.

    ``shift`` moves the result one cell right; column 0 keeps its value. It is for codecs whose cell ``i`` is
    crop pixel ``stride * i`` (msra and dark), and whose last cell therefore stops ``stride`` pixels before
    the crop's edge. Reversing ``w`` such columns mirrors about cell ``(w - 1) / 2``. The person, however, was
    mirrored about cell ``w / 2`` where ``CropGeometry`` mirrors (in training), which leaves the result
    exactly one cell too far left, or about cell ``w / 2 - 1 / (2 * stride)`` where the crop's own columns are
    reversed (in ``flip_test``), which leaves it ``1 - 1 / stride`` cells too far left; the shift of one cell
    is then a quarter cell too much for a stride of 4, as in the published results. In udp the first and last
    cells are the first and last pixels, all these mirrors agree, and there is nothing to shift: pass
    ``shift=not codec.unbiased``.
    """
    heatmaps = heatmaps_of_mirrored.flip(-1).index_select(1, mirror_permutation)
    if not shift:
        return heatmaps
    return torch.cat([heatmaps[..., :1], heatmaps[..., :-1]], dim=-1)
