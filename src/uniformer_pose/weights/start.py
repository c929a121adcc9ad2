"""What a training starts from: the network that the config's ``model`` asks for, and which weights are in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from torch import nn

from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.codec import Codec
from uniformer_pose.keypoints.heatmap_codec import HEATMAP_STRIDE, HeatmapCodec
from uniformer_pose.keypoints.simcc_codec import SimCCCodec
from uniformer_pose.model.arguments import HeadArguments
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.model.other_network import OtherNetwork
from uniformer_pose.model.timm_network import TimmPoseNetwork
from uniformer_pose.saved_model import own_network
from uniformer_pose.skeleton import Skeleton
from uniformer_pose.training.loss import KeypointKL, Loss
from uniformer_pose.weights.loading import load_into
from uniformer_pose.weights.timm_weights import BY_TAG, address_of_tag, require_same_normalization

POSE_NETWORK = f"{PoseNetwork.__module__}.{PoseNetwork.__qualname__}"
TIMM_NETWORK = f"{TimmPoseNetwork.__module__}.{TimmPoseNetwork.__qualname__}"


def starting_network(
    config: Mapping[str, Any],
    skeleton: Skeleton,
    codec: Codec,
    *,
    head: HeadArguments | None = None,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    resumed_from: Path | None = None,
) -> tuple[nn.Module, OtherNetwork | None, str]:
    """The network, its description where it is from outside this package, and the line that says what its weights are.

    ``config`` is its ``model``, ``head`` what comes behind the backbone, of a network of this package.
    ``normalization`` is the mean and std of the images (RGB, 0 to 255), which timm's weights need to be their own.
    ``pretrained`` is not read where the checkpoint ``resumed_from`` is going to replace it. Raises InputError for a
    class that cannot be trained and saved (``OtherNetwork``) and as ``load_into`` does.
    """
    arguments = dict(config)
    pretrained, with_head = arguments.pop("pretrained", None), arguments.pop("pretrained_head", True)
    network, other = _network(arguments, skeleton, codec, head or HeadArguments())
    if resumed_from is not None:
        return network, other, f"weights: those of {resumed_from}"
    if pretrained is None:
        return network, other, "weights: random (model.pretrained=null)"
    try:
        address, remark = pretrained, ""
        if type(network) is TimmPoseNetwork and pretrained == BY_TAG:
            address = address_of_tag(network)
        report = load_into(network, address, skeleton=skeleton, with_head=with_head)
        if type(network) is TimmPoseNetwork and report.layout == "timm classifier" and normalization is not None:
            remark = f", {require_same_normalization(network, *normalization)}"
    except InputError as error:  # a recipe may have asked for it, and not the user
        raise InputError(f"{error} (model.pretrained={pretrained}; null for random weights)") from error
    return network, other, f"weights: {report}{remark}"


def _network(
    arguments: Mapping[str, Any], skeleton: Skeleton, codec: Codec, head: HeadArguments
) -> tuple[nn.Module, OtherNetwork | None]:
    if (target := arguments["_target_"]) in (POSE_NETWORK, TIMM_NETWORK):
        if isinstance(codec, HeatmapCodec) and codec.stride != HEATMAP_STRIDE:
            raise InputError(f"data.codec.stride={codec.stride}: must be {HEATMAP_STRIDE}, as the pose head has it")
        # Of a UniFormer recorded where weights need it alone: a heatmap head takes crops of any size.
        is_sized = target == TIMM_NETWORK or head.kind != "heatmap"
        of_crop = {"crop_height": codec.height, "crop_width": codec.width} if is_sized else {}
        own = {"num_keypoints": skeleton.num_keypoints, "head": head} | of_crop
        network = instantiate(arguments, **own, _convert_="all")
        if target == TIMM_NETWORK:
            network.freeze_unused(codec.output_shape)
        return network, None
    if head.visibility:
        raise InputError(f"head.visibility=true: {arguments['_target_']} has a head of its own; leave it out")
    other = OtherNetwork.of_config(arguments, skeleton.num_keypoints)
    network = other.built(other.path)
    if own_network(network) is not None:
        return network, None
    other.require_interface(network, height=codec.height, width=codec.width, output_shape=codec.output_shape)
    return network, other


def require_fitting(
    codec: Codec, head: HeadArguments, loss: Loss, *, chosen: str | None = None, train_poses: str | None = None
) -> None:
    """InputError unless the head gives, and the loss understands, what the codec makes targets of.

    ``chosen`` is the method that ``codec=...`` asks for, if it was given. ``train_poses``, if there are any, do not say
    what is visible, as a head of visibilities must be told.
    """
    if head.visibility and train_poses is not None:
        raise InputError(
            f"head.visibility=true with data.train_poses={train_poses}: predicted poses do not say which keypoints are "
            "labelled and visible; leave one of them out"
        )
    if chosen not in (None, codec.method):
        raise InputError(f"codec={chosen} with data.codec.method={codec.method}: give codec={codec.method}, alone")
    if head.output_kind != codec.kind:
        raise InputError(
            f"head={head.kind} with data.codec.method={codec.method}, which is for {codec.kind} heads; codec=<method> "
            "sets codec, head and loss together"
        )
    if codec.kind not in loss.kinds:
        raise InputError(
            f"loss={type(loss).__name__} is for {' and '.join(loss.kinds)}, data.codec.method={codec.method} makes "
            f"targets of {codec.kind}; codec=<method> sets codec, head and loss together"
        )
    if isinstance(codec, SimCCCodec) and isinstance(loss, KeypointKL) and codec.normalized == loss.target_softmax:
        raise InputError(
            f"loss.target_softmax={str(loss.target_softmax).lower()} with data.codec.normalized="
            f"{str(codec.normalized).lower()}: the softmax (loss=kl) is for targets whose peak is 1, the target as it "
            "is (loss=kl_simcc) for normalized ones"
        )
