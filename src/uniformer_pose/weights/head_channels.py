"""Which channels of a file's head are which keypoints of a skeleton: found by their names, never by place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from uniformer_pose.errors import InputError, printable
from uniformer_pose.model.pose_head import PER_KEYPOINT
from uniformer_pose.skeleton import Skeleton
from uniformer_pose.weights.layouts import shortened


def num_channels(tensors: Mapping[str, Tensor]) -> int:
    """Keypoints of the head among ``tensors``; 0 where there is none, or a damaged one."""
    counts = {len(tensors[name]) if tensors[name].ndim else 0 for name in _per_keypoint(tensors)}
    return counts.pop() if len(counts) == 1 else 0


def channels_by_name(
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    names: Sequence[str] | None,
    skeleton: Skeleton,
    *,
    complete: bool,
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors with the channels of ``names`` where ``skeleton`` has these keypoints, and a remark if any moved.

    ``own`` are those of the network: a keypoint that is none of ``names`` keeps its values there, or with ``complete``
    is an error, and so is one left out of a head whose keypoints look at each other. Raises InputError for that, for no
    keypoint in common, and without ``names``.
    """
    found = num_channels(tensors)
    if not found:  # whoever compares names and shapes says what is wrong with it
        return dict(tensors), []
    other_way = "" if complete else ", or leave the head out: model.pretrained_head=false"
    if names is None:
        raise InputError(
            f"has {found} keypoints, but does not say which; only files of this project, and MMPose's with names in "
            f"their dataset_meta, can have others than the 17 of coco_17{other_way}"
        )
    if len(names) != found:
        raise InputError(f"weights of {found} keypoints beside the names of {len(names)}; export it again")
    places = skeleton.places_in(names)
    absent = [name for name, place in zip(skeleton.keypoint_names, places, strict=True) if place is None]
    if len(absent) == skeleton.num_keypoints or (absent and complete):
        raise InputError(
            f"its keypoints ({shortened(names)}) do not include {printable(', '.join(absent))} of skeleton "
            f"{skeleton.name}; correct the names there, or give data of the model's keypoints{other_way}"
        )
    if skeleton.is_in_order_of(names):
        return dict(tensors), []
    rows = [row for row, place in enumerate(places) if place is not None]
    if complete and len(rows) < found and any(name.startswith("head.gau.") for name in tensors):
        raise InputError(
            f"{found - len(rows)} of its {found} keypoints cannot be left out: in an RTMCC head all look at each "
            "other, and the others would move; take them all, and drop them from the results"
        )
    matched = dict(tensors)
    for name in _per_keypoint(tensors):
        if name in own and tensors[name].shape[1:] == own[name].shape[1:] and tensors[name].is_floating_point():
            matched[name] = own[name].clone()
            matched[name][rows] = tensors[name][[places[row] for row in rows]].to(own[name])
    untrained = f"; untrained, since the file has none: {', '.join(absent)}" if absent else ""
    return matched, [
        f"head matched by keypoint name: {len(rows)} of the {skeleton.num_keypoints} of skeleton {skeleton.name}, from "
        f"{found} in the file{untrained}"
    ]


def _per_keypoint(tensors: Mapping[str, Tensor]) -> list[str]:
    return [name for name in tensors if name.startswith("head.") and PER_KEYPOINT.fullmatch(name, len("head."))]


def differences(trained: Skeleton | None, evaluated_on: Skeleton | None) -> list[str]:
    """What to say where the data's skeleton and the one trained on differ in more than names; nothing without both."""
    if trained is None or evaluated_on is None:
        return []
    remarks = []
    places = trained.places_in(evaluated_on.keypoint_names)
    ours = [evaluated_on.sigmas[place] for place in places if place is not None]
    theirs = [sigma for sigma, place in zip(trained.sigmas, places, strict=True) if place is not None]
    if not np.allclose(ours, theirs, rtol=1e-6, atol=0):
        remarks.append(f"scored with the OKS sigmas of skeleton {evaluated_on.name}, which differ from the training's")
    if evaluated_on.paired_as(trained) is not evaluated_on:
        remarks.append(f"mirrored with the model's pairs, which skeleton {evaluated_on.name} has otherwise")
    return remarks
