"""What a file of ours holds beside the weights, and how a model is rebuilt from it alone.

A checkpoint is Lightning's, plus one entry, ``uniformer_pose``: the network's arguments, the codec, the skeleton, the
normalisation, the data and the composed config, all as plain dicts, lists, strings and numbers. It loads with
``weights_only=True``, and nothing in it is ever imported or called by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from torch import nn

from uniformer_pose.config import Keys, Node, check_config
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.errors import WRONG_VALUES, InputError, named_set, one_line, printable
from uniformer_pose.keypoints.codec import Codec, codec_of_dict
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.model.other_network import NetworkClass, OtherNetwork
from uniformer_pose.model.timm_network import TimmPoseNetwork
from uniformer_pose.skeleton import Skeleton, load_skeleton

RECORD_KEY = "uniformer_pose"
FORMAT = 1

OwnNetwork = PoseNetwork | TimmPoseNetwork
_FAMILIES: dict[object, type[OwnNetwork]] = {"uniformer": PoseNetwork, "timm": TimmPoseNetwork}


@dataclass(frozen=True)
class SavedModel:
    """A trained network and all that is needed to feed it and to read it.

    ``mean`` and ``std`` are RGB on a 0 to 255 scale. ``box_padding`` is the part of the box that a crop shows.
    ``config`` is the composed config of the training, for the record and for defaults such as the data's folder;
    ``versions`` are those of the libraries that wrote it. ``other_network`` describes a network that is none of this
    package's.
    """

    network: nn.Module
    codec: Codec
    skeleton: Skeleton
    mean: tuple[float, ...]
    std: tuple[float, ...]
    box_padding: float
    config: dict[str, Any]
    versions: dict[str, str]
    other_network: OtherNetwork | None = None

    @property
    def crop_spec(self) -> CropSpec:
        """The crops that the network takes."""
        return CropSpec(self.codec.height, self.codec.width, self.box_padding, self.codec.unbiased)

    @property
    def pose_network(self) -> PoseNetwork | None:
        """The network, if it is UniFormer's and not another class, be it derived from it."""
        return self.network if type(self.network) is PoseNetwork else None


def saved_record(model: SavedModel) -> dict[str, Any]:
    """The ``uniformer_pose`` entry of a checkpoint: everything but the weights, in plain types."""
    if (own := own_network(model.network)) is not None:
        network: dict[str, Any] = {"network": own.arguments}
        if type(own) is TimmPoseNetwork:
            network["network_family"] = "timm"
    elif (other := model.other_network) is not None:
        network = {"network": other.arguments, "network_class": other.path}
    else:
        raise InputError(f"{type(model.network).__name__} cannot be saved: give SavedModel(..., other_network=...)")
    return {
        "format": FORMAT,
        **network,
        "codec": model.codec.to_dict(),
        "skeleton": model.skeleton.to_dict(),
        "mean": [float(x) for x in model.mean],
        "std": [float(x) for x in model.std],
        "box_padding": float(model.box_padding),
        "config": model.config,
        # str(): torch.__version__ is of a class of its own, with which the file would not load.
        "versions": {name: str(version) for name, version in model.versions.items()},
    }


def own_network(network: nn.Module) -> OwnNetwork | None:
    """The network, if it is of a class of this package, and not of one derived from it."""
    return network if type(network) is PoseNetwork or type(network) is TimmPoseNetwork else None


def own_class(record: Mapping[str, Any]) -> type[OwnNetwork]:
    """Which of this package's classes a record's network is of; InputError for none of them."""
    family = record.get("network_family", "uniformer")
    if not isinstance(family, str) or family not in _FAMILIES:
        raise damaged(f"network_family {printable(str(family))[:80]}")
    return _FAMILIES[family]


def require_readable(record: object) -> None:
    """InputError unless this is a record of the format that this version writes."""
    if not isinstance(record, Mapping):
        raise damaged(f"a {type(record).__name__}")
    if record.get("format") != FORMAT:
        raise InputError(f"format {record.get('format')!r}, this version reads {FORMAT}; update uniformer-pose")


def other_network(record: Mapping[str, Any], model_class: NetworkClass | None) -> OtherNetwork | None:
    """The network of a record that is from outside this package; InputError unless the caller named its class.

    ``model_class`` is what the caller trusts to build it; a record is never trusted with that.
    """
    path, arguments = record.get("network_class"), record.get("network")
    if path is None and model_class is not None:
        raise InputError("its network is this package's own; leave model_class out")
    if path is None:
        return None
    if model_class is None:
        shown = printable(str(path))[:200]
        raise InputError(
            f"weights of {shown}, which no file may import; if you trust that class, name it: model_class={shown}"
        )
    return OtherNetwork(str(path), dict(arguments) if isinstance(arguments, Mapping) else {})


def model_of_record(
    record: Mapping[str, Any], network: nn.Module, other: OtherNetwork | None, *, skeleton: Skeleton | None = None
) -> SavedModel:
    """The model that a record describes, around a ``network`` (described by ``other``), in eval mode.

    With ``skeleton`` the network is for these keypoints; the mirror pairs stay the record's. Raises InputError for a
    record that makes no sense.
    """
    try:
        model = SavedModel(
            network=network.eval(),
            codec=codec_of_dict(record["codec"]),
            skeleton=Skeleton.from_dict(record["skeleton"], source="the file"),
            mean=tuple(float(x) for x in record["mean"]),
            std=tuple(float(x) for x in record["std"]),
            box_padding=float(record["box_padding"]),
            config=dict(record["config"]),
            versions=dict(record["versions"]),
            other_network=other,
        )
        if len(model.mean) != 3 or len(model.std) != 3 or not all(map(math.isfinite, (*model.mean, *model.std))):
            raise ValueError("mean and std must be three finite numbers each")
        if not (all(x > 0 for x in model.std) and 0 < model.box_padding < math.inf):
            raise ValueError("std and box_padding must be above 0")
    except WRONG_VALUES as error:
        raise damaged(one_line(error)) from error
    return model if skeleton is None else replace(model, skeleton=skeleton.paired_as(model.skeleton))


def damaged(reason: str) -> InputError:
    """The error for a record that makes no sense."""
    return InputError(f"its {RECORD_KEY!r} entry is damaged ({reason}); copy the file again")


def require_same_keypoints(record: object, skeleton: Skeleton) -> None:
    """InputError unless the checkpoint of this record, to continue from, has the keypoints of ``skeleton`` in place."""
    fields = record.get("skeleton") if isinstance(record, Mapping) else None
    trained = None if fields is None else Skeleton.from_dict(fields, source="the checkpoint")
    if trained is not None and not trained.is_in_order_of(skeleton.keypoint_names):
        raise InputError(
            f"the checkpoint to continue from is of other keypoints, or the same in another order, than skeleton "
            f"{skeleton.name!r:.80}; start from it by model.pretrained=<file>, which matches them by name"
        )


_OWN = ("codec", "skeleton", "mean", "std", "box_padding")


@dataclass
class _Stored:
    data: Annotated[Node, Keys(set_by_program=dict.fromkeys(_OWN, ""))]


_ONLY_FOR_TRAINING = {"max_images", "prepared", "on_bad_image"}
"""What a training may leave out or put up with; an evaluation does so only where it is asked to."""
_OF_ALL_SETS = {"eval_batch_size", "num_workers", "prefetch", "worker_timeout", "on_bad_image", "max_images"}
_AUGMENTATION = {"geometric", "photometric", "stages"}


def arguments_by_set(model: SavedModel, overrides: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """``data_arguments`` of each of several sets by its name, of the only one by none.

    The sets are those of ``overrides`` where that is a whole data config, else those that the model was trained on;
    ``overrides["sets"]`` has what differs of one of them.
    """
    stored = {} if overrides.get("codec") is not None else model.config.get("data", {})
    of_set = overrides.get("sets") or {}
    known = stored.get("sets", {} if stored else of_set) if isinstance(stored, Mapping) else {}
    if not (isinstance(known, Mapping) and all(map(_is_set, known.items()))):
        raise InputError("what the checkpoint says of its sets cannot be used; give data=<one of conf/data>")
    for name in sorted(of_set.keys() - known.keys()):
        raise InputError(f"data.sets.{name}: the model was not trained on it; give data=joint data.sets=[...] with it")
    if not known:
        return {"": data_arguments(model, overrides)}
    given = {name: value for name, value in overrides.items() if value is not None and not name.startswith("_")}
    for name in sorted(given.keys() - _OF_ALL_SETS - {"sets"} if stored else ()):
        raise InputError(f"data.{name}: there are several sets; give data.sets.<set>.{name}, of {', '.join(known)}")
    shared = {name: stored[name] for name in _OF_ALL_SETS - _ONLY_FOR_TRAINING if name in stored}
    shared |= {name: given[name] for name in _OF_ALL_SETS if name in given}
    shared = {"codec": model.codec, "skeleton": "coco_17", "val_boxes": "gt"} | shared
    left_out = _AUGMENTATION | (_ONLY_FOR_TRAINING if stored else set())
    found = {}
    for name, arguments in known.items():
        own = {key: value for key, value in arguments.items() if key not in left_out}
        with named_set(name):
            found[name] = data_arguments(model, shared | own | of_set.get(name, {})) | {"name": name}
    return found


def _is_set(entry: tuple[object, object]) -> bool:
    """Whether this can be a set's name, which is also a folder's, and its arguments."""
    return bool(re.fullmatch(r"\w[\w-]*", str(entry[0]))) and isinstance(entry[1], Mapping)


def data_arguments(model: SavedModel, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``PersonCrops`` for evaluating a saved model: its training's, with ``overrides`` that are not None.

    Limits of the training are left behind (``_ONLY_FOR_TRAINING``); and so is all of it where ``overrides`` are a whole
    data config, with a root and a codec.

    The codec, the normalisation and the box padding are always the model's own, whatever ``overrides`` say of them:
    with others it would see crops unlike those it was trained on. Where they name a skeleton with other keypoints or
    sigmas than the model's, people have these, and are evaluated in those that the model has (``model_skeleton``).
    Raises InputError where the file holds arguments that ``PersonCrops`` does not take.
    """
    own = {name: getattr(model, name) for name in _OWN}
    skeleton = None if overrides.get("skeleton") is None else load_skeleton(overrides["skeleton"])
    if skeleton is not None and not model.skeleton.measures_as(skeleton):
        own |= {"skeleton": skeleton, "model_skeleton": model.skeleton}
    is_whole = overrides.get("codec") is not None and overrides.get("root") is not None
    stored = {} if is_whole else model.config.get("data", {})
    if not isinstance(stored, Mapping) or (not stored and overrides.get("root") is None):
        raise InputError("the checkpoint does not say what it was trained on; give data=<one of conf/data>")
    arguments = {name: value for name, value in stored.items() if name not in _ONLY_FOR_TRAINING}
    arguments |= {name: value for name, value in overrides.items() if value is not None}
    arguments.setdefault("train_annotations", None)  # of a set that is there to be evaluated on
    arguments = {name: value for name, value in arguments.items() if not str(name).startswith("_") and name not in own}
    for name, value in arguments.items():
        if isinstance(value, Mapping) and (name != "keypoint_mapping" or "_target_" in value):
            # nothing of it would be called, but neither is it of any use
            raise InputError(f"the checkpoint's data.{name} is a mapping, not a value; give data.{name}=<value>")
    try:
        check_config({"data": arguments | {"_target_": "uniformer_pose.data.datamodule.PersonCrops"}}, _Stored)
    except InputError as error:
        raise InputError(f"what the checkpoint says of its data cannot be used: {error}") from error
    return arguments | own
