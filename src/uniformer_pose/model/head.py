"""Heads: backbone features -> a network's output, one for each kind of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import HEATMAP_STRIDE
from uniformer_pose.model.arguments import Architecture, HeadArguments
from uniformer_pose.model.heatmap_head import HeatmapHead
from uniformer_pose.model.pose_head import PoseHead, VisibilityHead
from uniformer_pose.model.rtmcc_head import RTMCCHead
from uniformer_pose.model.simcc_head import SimCCHead

if TYPE_CHECKING:
    from uniformer_pose.model.timm_network import TimmArguments


def pose_head(arguments: Architecture | TimmArguments, in_channels: int, stride: int) -> PoseHead:
    """The head that the arguments ask for, on features (B, in_channels, H / stride, W / stride)."""
    wanted = cast("HeadArguments", arguments.head)  # which a mapping has become
    head = _head(wanted, arguments, in_channels, stride)
    if wanted.visibility:
        head.visibility = VisibilityHead(in_channels, arguments.num_keypoints)
    return head


def _head(wanted: HeadArguments, arguments: Architecture | TimmArguments, in_channels: int, stride: int) -> PoseHead:
    num_keypoints = arguments.num_keypoints
    if wanted.kind == "heatmap":
        return HeatmapHead(in_channels, num_keypoints, deconvolutions(arguments.deconv_channels, stride))
    height, width = arguments.crop_height, arguments.crop_width
    if height is None or width is None:
        raise InputError(f"head {wanted.kind}: is made for crops of one size; give crop_height and crop_width")
    if wanted.kind == "rtmcc":
        return RTMCCHead(in_channels, num_keypoints, height, width, stride)
    channels = deconvolutions(arguments.deconv_channels, stride) if wanted.deconvolutions else None
    return SimCCHead(in_channels, num_keypoints, height, width, stride, channels)


def deconvolutions(channels: Sequence[int], stride: int) -> Sequence[int]:
    """As many of the last ``channels`` as take features of this stride to the heatmaps' 4, each doubling the map.

    Three for a stride of 32, two for 16, none for 4. InputError for other strides, and where there are too few.
    """
    doublings = (stride // HEATMAP_STRIDE).bit_length() - 1
    if doublings < 0 or stride != HEATMAP_STRIDE << doublings:
        raise InputError(f"a backbone of stride {stride}: heads take features of stride 4, 8, 16 or 32")
    if doublings > len(channels):
        raise InputError(f"deconv_channels={list(channels)}: features of stride {stride} need {doublings} of them")
    return channels[len(channels) - doublings :]
