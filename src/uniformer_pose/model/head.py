"""Heads: backbone features -> a network's output, one for each kind of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from uniformer_pose.errors import InputError
from uniformer_pose.model.arguments import HeadArguments
from uniformer_pose.model.heatmap_head import HeatmapHead
from uniformer_pose.model.pose_head import PoseHead, VisibilityHead

_HEATMAP_STRIDE = 4


class OfHead(Protocol):
    """What a network's arguments say of its head, whatever its backbone (``Architecture`` explains them)."""

    @property
    def num_keypoints(self) -> int: ...  # noqa: D102

    @property
    def deconv_channels(self) -> Sequence[int]: ...  # noqa: D102

    @property
    def head(self) -> HeadArguments | Mapping[str, Any]: ...  # noqa: D102  # once built, the former

    @property
    def crop_height(self) -> int | None: ...  # noqa: D102

    @property
    def crop_width(self) -> int | None: ...  # noqa: D102


def pose_head(arguments: OfHead, in_channels: int, stride: int) -> PoseHead:
    """The head that the arguments ask for, on features (B, in_channels, H / stride, W / stride)."""
    wanted = cast("HeadArguments", arguments.head)
    head = HeatmapHead(in_channels, arguments.num_keypoints, deconvolutions(arguments.deconv_channels, stride))
    if wanted.visibility:
        head.visibility = VisibilityHead(in_channels, arguments.num_keypoints)
    return head


def deconvolutions(channels: Sequence[int], stride: int) -> Sequence[int]:
    """As many of the last ``channels`` as take features of this stride to the heatmaps' 4, each doubling the map.

    Three for a stride of 32, two for 16, none for 4. InputError for other strides, and where there are too few.
    """
    doublings = (stride // _HEATMAP_STRIDE).bit_length() - 1
    if doublings < 0 or stride != _HEATMAP_STRIDE << doublings:
        raise InputError(f"a backbone of stride {stride}: heads take features of stride 4, 8, 16 or 32")
    if doublings > len(channels):
        raise InputError(f"deconv_channels={list(channels)}: features of stride {stride} need {doublings} of them")
    return channels[len(channels) - doublings :]
