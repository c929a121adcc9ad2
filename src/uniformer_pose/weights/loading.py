"""The one loader: any weight file or address -> a network that is complete, or a sentence that says why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from uniformer_pose.errors import WRONG_VALUES, InputError, one_line, printable
from uniformer_pose.keypoints.codec import Codec
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.keypoints.simcc_codec import SimCCCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.model.other_network import NetworkClass
from uniformer_pose.model.timm_network import TimmPoseNetwork
from uniformer_pose.saved_model import (
    RECORD_KEY,
    OwnNetwork,
    SavedModel,
    damaged,
    model_of_record,
    other_network,
    own_class,
    own_network,
    require_readable,
)
from uniformer_pose.skeleton import Skeleton, load_skeleton
from uniformer_pose.weights.architecture import network_arguments, require_fillable, require_output_of
from uniformer_pose.weights.contract import LoadReport, fill
from uniformer_pose.weights.fetch import is_address, local_file
from uniformer_pose.weights.file_contents import FileContents, naming, read_weight_file
from uniformer_pose.weights.head_channels import channels_by_name, differences, num_channels
from uniformer_pose.weights.layouts import NamedWeights, named_weights, shortened
from uniformer_pose.weights.timm_weights import classifier_weights
from uniformer_pose.weights.zoo import Released, read_zoo

_USUAL_HEAD_DIM = 64
_VISIBILITY = "head.visibility."


def load_network(
    address: str | Path, *, head_dim: int | None = None, announce: Callable[[str], object] = print
) -> OwnNetwork:
    """The network of a file, in eval mode on the CPU: (B, 3, H, W) normalised RGB -> (B, K, H/4, W/4) heatmaps.

    ``address``: a path, an https URL, ``zoo:<name>`` or ``hf://owner/repo/file``, of any layout. ``head_dim`` is for
    files that do not say it (64 is assumed, but for the released ones that are known to have 32). ``announce`` is given
    the line that says what was loaded.

    Raises InputError for a file that is not whole, holds code, or does not fill the network completely.
    """
    file = _read(address)
    with naming(file.file.path):
        if file.network_class is not None:
            raise InputError(f"weights of {file.network_class}; use from_pretrained(..., model_class=...)")
        network = _own_network(file, head_dim, None)
        announce(str(_fill(network, file)))
    return network.eval()


def load_model(
    address: str | Path,
    *,
    codec: Codec | None = None,
    head_dim: int | None = None,
    skeleton: str | Path | Skeleton | None = None,
    model_class: NetworkClass | None = None,
    assumed_skeleton: str | Path | None = None,
) -> tuple[SavedModel, LoadReport]:
    """A trained pose model with what feeds and reads it, in eval mode on the CPU.

    Files of this project say all of it, and so do the names and digests of the released ones. For any other pose
    model ``codec`` says at what crop size it was trained, and the released models' preprocessing is assumed.

    ``skeleton`` is that of the data to come, by name, path or as it is: the model then gives these keypoints in this
    order, found by their names, and is scored with these sigmas. What it learnt as mirror pairs stays. The report says
    what differs. ``assumed_skeleton`` is the same for a file that has no more than names of keypoints. ``model_class``
    builds the network of a file whose network is none of this package's: a class that
    you trust, or its import path.

    Raises InputError as ``load_network`` does, for a file without a heatmap head, and for keypoints of ``skeleton``
    that the file does not have.
    """
    given = skeleton if skeleton is None or isinstance(skeleton, Skeleton) else load_skeleton(skeleton)
    file = _read(address)
    if given is None and assumed_skeleton is not None and file.record is None and file.skeleton is None:
        given = load_skeleton(assumed_skeleton)
    with naming(file.file.path):
        other = other_network(file.record or {}, model_class)
        network = other.built(model_class or other.path) if other else _own_network(file, head_dim, given)
        if file.record is not None:
            model = model_of_record(file.record, network, other, skeleton=given)
        else:
            model = _model_without_record(file, cast("PoseNetwork", network), codec, given)
        scored = model.skeleton if file.record is None else given
        return model, _fill(model.network, file, skeleton=model.skeleton, evaluated_on=scored, complete=True)


def load_into(
    network: nn.Module, address: str | Path, *, skeleton: Skeleton | None, with_head: bool = True
) -> LoadReport:
    """The weights of a file of any layout, put into ``network``; the report says what was taken.

    ``skeleton`` says which keypoints the network is for: each takes the file's channel of its name, and those that the
    file does not have keep their values. None: nothing is known of them, and the file must have as many. A classifier
    fills the backbone alone: ``norm4`` and the head keep their values. So does a pose model with ``with_head`` false,
    but for ``norm4``: for other keypoints than it was trained on. The visibility logits of a network keep theirs
    where the file has none. A ``TimmPoseNetwork`` takes its own checkpoints and timm's classifiers; a network that is
    none of this package's takes checkpoints of its own class alone, whole and of the same keypoints.

    Raises InputError, and leaves the network as it was, for a file that is not whole, holds code, is of another
    network, has no keypoint in common with ``skeleton``, or entries that are missing, unknown, of another shape or not
    finite.
    """
    file = _read(address)
    with naming(file.file.path):
        if type(network) is PoseNetwork:
            file.require_head_dim(network.arguments["head_dim"])
        if type(network) is TimmPoseNetwork and file.record is None:
            file = replace(file, weights=classifier_weights(network, file.file.contents))
        return _fill(network, file, with_head=with_head, skeleton=skeleton, may_stay=_may_stay(file, with_head))


def require_resumable(path: str | Path) -> None:
    """Raise InputError unless ``path`` is a whole checkpoint of a training of this project."""
    if is_address(str(path)):
        raise InputError(f"{path}: a training is resumed from a file; to start from weights give model.pretrained=")
    contents = read_weight_file(local_file(path)).contents
    if RECORD_KEY not in contents or "loops" not in contents:
        raise InputError(
            f"{path}: weights without the state of a training of this project; to start from them give "
            "model.pretrained=<file> in place of ckpt_path"
        )


@dataclass(frozen=True)
class _WeightFile:
    """What a file holds, and what is known of it; ``record`` is what this project wrote beside the weights."""

    file: FileContents
    weights: NamedWeights
    record: Mapping[str, Any] | None
    released: Released | None

    @property
    def network_class(self) -> str | None:
        """Import path of the network's class where that is no ``PoseNetwork``; for messages."""
        path = (self.record or {}).get("network_class")
        return None if path is None else printable(str(path))[:200]

    def is_of(self, network: OwnNetwork) -> bool:
        """Whether the file is of a network of this class, as far as it says so."""
        return self.network_class is None and (self.record is None or own_class(self.record) is type(network))

    @property
    def head_dim(self) -> int | None:
        """Channels per attention head that the file is known to need; nothing in its weights shows them."""
        network = (self.record or {}).get("network")
        if isinstance(network, Mapping) and isinstance(network.get("head_dim"), int):
            return int(network["head_dim"])
        return None if self.released is None else self.released.head_dim

    def require_head_dim(self, asked: int | None) -> None:
        """InputError for a ``head_dim`` other than the file is known to need."""
        if None not in (asked, self.head_dim) and asked != self.head_dim:
            raise InputError(
                f"was trained with head_dim {self.head_dim}, not {asked}; the shapes would fit and the results be "
                f"wrong, so give model.head_dim={self.head_dim}"
            )

    @cached_property
    def skeleton(self) -> Skeleton | None:
        """What it was trained on: its own, else the released models' if its keypoints are theirs, else unknown."""
        if self.record is not None:
            return Skeleton.from_dict(self.record.get("skeleton", {}), source=str(self.file.path))
        released, names = load_skeleton(read_zoo().skeleton), self.keypoint_names or ()
        return released if len(names) == released.num_keypoints and None not in released.places_in(names) else None

    @property
    def keypoint_names(self) -> Sequence[str] | None:
        """Of its channels, in their order: its own, else the released models' if it has as many, else unknown."""
        if self.record is not None:
            return self.skeleton.keypoint_names if self.skeleton else None
        names: Any = self.file.contents
        for key in ("meta", "dataset_meta", "keypoint_id2name"):  # where MMPose keeps them
            names = names.get(key) if isinstance(names, Mapping) else None
        channels = num_channels(self.weights.tensors)
        if isinstance(names, Mapping) and channels and set(names) == set(range(channels)):
            return [str(names[place]) for place in range(channels)]
        released = load_skeleton(read_zoo().skeleton).keypoint_names
        return released if channels == len(released) else None


def _read(address: str | Path) -> _WeightFile:
    file = read_weight_file(local_file(address))
    record = file.contents.get(RECORD_KEY)
    with naming(file.path):
        if record is not None:
            require_readable(record)
        released = read_zoo().of_file(file.path.name, file.sha256)
        if released and file.path.name == released.file_name and not file.sha256.startswith(released.sha256 or ""):
            raise InputError(
                f"damaged or altered: the released file of this name has sha256 {released.sha256}, this one "
                f"{file.sha256[:8]}; fetch it again, or rename it if it was changed on purpose"
            )
        is_other = record is not None and "network_class" in record
        weights = named_weights(file.contents, has_record=record is not None, as_they_are=is_other)
    return _WeightFile(file, weights, record, released)


def _own_network(file: _WeightFile, head_dim: int | None, skeleton: Skeleton | None) -> OwnNetwork:
    """The network of a pose model's file, or one like it for ``skeleton``; its weights are still random."""
    tensors = file.weights.tensors
    if file.weights.layout == "ImageNet classifier":
        raise InputError(
            "an ImageNet classifier, which has no heatmap head; train one on it with model.pretrained=<file>"
        )
    file.require_head_dim(head_dim)
    resized = {} if skeleton is None else {"num_keypoints": skeleton.num_keypoints}
    try:
        make = own_class(file.record or {})
        if file.record is not None:
            arguments = dict(file.record["network"])
        else:
            arguments = network_arguments({name: tensor.shape for name, tensor in tensors.items()})
            arguments |= {"head_dim": head_dim or file.head_dim or _USUAL_HEAD_DIM}
        # Building draws initial weights: the caller's random state is none of their business.
        with torch.random.fork_rng(devices=[]):
            require_fillable(make, arguments, list(tensors.values()))
            return make(**arguments | resized)
    except WRONG_VALUES as error:
        raise error if file.record is None and isinstance(error, InputError) else damaged(one_line(error)) from error


def _model_without_record(
    file: _WeightFile, network: PoseNetwork, codec: Codec | None, given: Skeleton | None
) -> SavedModel:
    """A model of somebody else's file, fed as the released models are."""
    zoo, released = read_zoo(), file.released
    wanted = given or load_skeleton(zoo.skeleton)
    if file.skeleton is not None:
        wanted = wanted.paired_as(file.skeleton)
    if released is not None:
        codec = HeatmapCodec(height=released.height, width=released.width, sigma=released.sigma)
    made_for = network.arguments["crop_height"], network.arguments["crop_width"]
    if codec is None and None not in made_for:  # a head of vectors, whose decoder needs no more
        codec = SimCCCodec(*made_for)
    if codec is None:
        raise InputError(
            "does not say at what crop size it was trained; give data=<one of conf/data>, such as data=coco_256x192"
        )
    require_output_of(network, codec)
    return SavedModel(network.eval(), codec, wanted, zoo.mean, zoo.std, zoo.box_padding, config={}, versions={})


def _fill(
    network: nn.Module,
    file: _WeightFile,
    *,
    with_head: bool = True,
    skeleton: Skeleton | None = None,
    evaluated_on: Skeleton | None = None,
    complete: bool = False,
    may_stay: tuple[str, ...] = (),
) -> LoadReport:
    """Load a file by the contract; ``skeleton`` is what the network is for, all of it there if it is ``complete``."""
    tensors, remarks = dict(file.weights.tensors), list(file.weights.remarks)
    has_head = file.weights.layout not in ("ImageNet classifier", "timm classifier")
    own = own_network(network)
    if own is None or not file.is_of(own):
        tensors = _of_other_network(network, file, skeleton, with_head=with_head)
    elif has_head and not with_head:
        head = [name for name in tensors if name.startswith("head.")]
        tensors = {name: tensor for name, tensor in tensors.items() if name not in head}
        remarks.append(f"its head of {len(head)} tensors left out as asked")
    elif has_head and skeleton is not None:
        values = network.state_dict()
        tensors, moved = channels_by_name(tensors, values, file.keypoint_names, skeleton, complete=complete)
        remarks += moved
    remarks += differences(file.skeleton, evaluated_on)
    if type(network) is PoseNetwork and file.record is None:
        known = "as released" if file.released is not None else "assumed: the file does not say it"
        remarks.append(f"head_dim {network.arguments['head_dim']} {known}")
    weights = replace(file.weights, tensors=tensors, remarks=tuple(remarks))
    return fill(network, file.file, weights, may_stay=may_stay)


def _may_stay(file: _WeightFile, with_head: bool) -> tuple[str, ...]:
    """Beginnings of the names that a network to start from this file keeps if the file does not have them."""
    if not with_head:
        return ("head.",)
    has_visibility = any(name.startswith(_VISIBILITY) for name in file.weights.tensors)
    return () if has_visibility else (_VISIBILITY,)


def _of_other_network(
    network: nn.Module, file: _WeightFile, skeleton: Skeleton | None, *, with_head: bool
) -> dict[str, Tensor]:
    """The file's tensors under the names of a network whose parts nothing is known of: all of it, or InputError."""
    if own_network(network) is not None or file.network_class is None:
        held = file.network_class or f"a {own_class(file.record or {}).__name__}"
        raise InputError(
            f"holds {held}, but the network is {type(network).__name__}; a model from outside this package starts from "
            "its own checkpoints, or loads others in its constructor"
        )
    names = file.keypoint_names or ()
    if not with_head or (skeleton is not None and not skeleton.is_in_order_of(names)):
        raise InputError(
            f"{file.network_class} with the keypoints {shortened(names)}; its head is not known, so it can be neither "
            "left out nor matched to other keypoints, or another order"
        )
    tensors, wanted = dict(file.weights.tensors), network.state_dict()
    if tensors.keys() != wanted.keys():  # Lightning writes them behind the name of the module's attribute
        return {name.removeprefix("network."): tensor for name, tensor in tensors.items()}
    return tensors
