"""The one loader: any weight file or address -> a network that is complete, or a sentence that says why not.

Names and shapes must fit exactly, but for the differences that are known for each layout; anything else would leave
part of a network random without a word. What was taken, and what was assumed, is one line (``LoadReport``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from uniformer_pose.errors import InputError, printable
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.model.other_network import NetworkClass
from uniformer_pose.saved_model import RECORD_KEY, SavedModel, model_of_record
from uniformer_pose.skeleton import Skeleton, load_skeleton
from uniformer_pose.weights.address import is_address, local_file
from uniformer_pose.weights.architecture import model_size_name, network_arguments
from uniformer_pose.weights.file_contents import FileContents, read_weight_file
from uniformer_pose.weights.head_channels import channels_by_name, differences, num_channels
from uniformer_pose.weights.layouts import NamedWeights, named_weights, shortened
from uniformer_pose.weights.published_models import (
    PublishedBackbone,
    PublishedModel,
    PublishedModels,
    published_models,
)

_USUAL_HEAD_DIM = 64


@dataclass(frozen=True)
class LoadReport:
    """What was taken from a file; ``str()`` of it is one line for the log.

    ``loaded`` and ``left_untouched`` are names of the network, ``skipped`` names of the file.
    """

    path: Path
    size: str
    layout: str
    container: str
    checked_by: str | None
    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    left_untouched: tuple[str, ...]
    remarks: tuple[str, ...]

    def __str__(self) -> str:
        checked = f"checked by {self.checked_by}" if self.checked_by else "without a checksum to check it by"
        expected = len(self.loaded) + len(self.left_untouched)
        parts = [
            f"{self.path}: {self.size}, {self.layout} ({self.container}, {checked}): "
            f"{len(self.loaded)} of {expected} tensors loaded"
        ]
        if self.skipped:
            parts.append(f"{len(self.skipped)} skipped as expected ({shortened(self.skipped)})")
        if self.left_untouched:
            parts.append(f"{len(self.left_untouched)} left as they were ({shortened(self.left_untouched)})")
        return ", ".join([*parts, *self.remarks])


def load_network(
    address: str | Path,
    *,
    head_dim: int | None = None,
    num_keypoints: int | None = None,
    announce: Callable[[str], object] = print,
) -> PoseNetwork:
    """The network of a file, in eval mode on the CPU: (B, 3, H, W) normalised RGB -> (B, K, H/4, W/4) heatmaps.

    ``address``: a path, an https URL, ``zoo:<name>`` or ``hf://owner/repo/file``, of any layout. ``head_dim`` is for
    files that do not say it (64 is assumed, but for the released ones that are known to have 32). ``num_keypoints``
    asks for a new, untrained head of that many keypoints on an ImageNet classifier, which has none. ``announce``
    is given the line that says what was loaded.

    Raises InputError for a file that is not whole, holds code, or does not fill the network completely.
    """
    file = _read(address)
    if file.weights.layout == "ImageNet classifier" and num_keypoints is None:
        raise InputError(
            f"{file.path}: an ImageNet classifier, which has no heatmap head; train one on it with "
            "model.pretrained=<file>, or give num_keypoints=<n> for an untrained one"
        )
    if file.network_class is not None:
        raise InputError(f"{file.path}: weights of {file.network_class}; use from_pretrained(..., model_class=...)")
    if file.record is not None:
        network = cast("PoseNetwork", model_of_record(file.record, str(file.path), _tensor_sizes(file)).network)
        _require_head_dim(file, head_dim, network.arguments["head_dim"])
    else:
        network = _built(file, head_dim, {"num_keypoints": num_keypoints, **_arguments_in(file)})
    if num_keypoints not in (None, network.arguments["num_keypoints"]):
        raise InputError(f"{file.path}: has {network.arguments['num_keypoints']} keypoints; leave num_keypoints out")
    announce(str(_fill(network, file)))
    return network.eval()


def load_model(
    address: str | Path,
    *,
    codec: HeatmapCodec | None = None,
    head_dim: int | None = None,
    skeleton: str | Path | Skeleton | None = None,
    model_class: NetworkClass | None = None,
) -> tuple[SavedModel, LoadReport]:
    """A trained pose model with what feeds and reads it, in eval mode on the CPU.

    Files of this project say all of it, and so do the names and digests of the released ones. For any other pose
    model ``codec`` says at what crop size it was trained, and the released models' preprocessing is assumed.

    ``skeleton`` is that of the data to come, by name, path or as it is: the model then gives these keypoints in this
    order, found by their names, and is scored with these sigmas. What it learnt as mirror pairs stays. The report says
    what differs. ``model_class`` builds the network of a file whose network is no ``PoseNetwork``: a class that you
    trust, or its import path.

    Raises InputError as ``load_network`` does, for a file without a heatmap head, and for keypoints of ``skeleton``
    that the file does not have.
    """
    file = _read(address)
    if file.weights.layout == "ImageNet classifier":
        raise InputError(
            f"{file.path}: an ImageNet classifier, which has no heatmap head; train one on it with "
            "src/train.py model.pretrained=<file>"
        )
    given = skeleton if skeleton is None or isinstance(skeleton, Skeleton) else load_skeleton(skeleton)
    if file.record is not None:
        model = model_of_record(
            file.record, str(file.path), _tensor_sizes(file), skeleton=given, model_class=model_class
        )
        if model.pose_network is not None:
            _require_head_dim(file, head_dim, model.pose_network.arguments["head_dim"])
        return model, _fill(model.network, file, skeleton=model.skeleton, evaluated_on=given)
    if model_class is not None:
        raise InputError(f"{file.path}: model_class is for checkpoints of this project; leave it out")
    table, own = file.table, file.skeleton
    wanted = given or load_skeleton(table.skeleton)
    wanted = wanted if own is None else wanted.paired_as(own)
    network = _built(file, head_dim, _arguments_in(file) | {"num_keypoints": wanted.num_keypoints})
    if isinstance(file.published, PublishedModel):
        published = file.published
        codec = HeatmapCodec(height=published.height, width=published.width, sigma=published.sigma)
    if codec is None:
        raise InputError(
            f"{file.path}: does not say at what crop size it was trained; give data=<one of conf/data>, such as "
            "data=coco_256x192"
        )
    report = _fill(network, file, skeleton=wanted, evaluated_on=given or wanted)
    return (
        SavedModel(network.eval(), codec, wanted, table.mean, table.std, table.box_padding, config={}, versions={}),
        report,
    )


def load_into(
    network: nn.Module, address: str | Path, *, skeleton: Skeleton | None, with_head: bool = True
) -> LoadReport:
    """The weights of a file of any layout, put into ``network``; the report says what was taken.

    ``skeleton`` says which keypoints the network is for: each takes the file's channel of its name, and those that the
    file does not have keep their values. None: nothing is known of them, and the file must have as many. A classifier
    fills the backbone alone: ``norm4`` and the head keep their values. So does a pose model with ``with_head`` false,
    but for ``norm4``: for other keypoints than it was trained on. A network that is no ``PoseNetwork`` takes
    checkpoints of its own class alone, whole and of the same keypoints.

    Raises InputError, and leaves the network as it was, for a file that is not whole, holds code, is of another
    network, has no keypoint in common with ``skeleton``, or entries that are missing, unknown, of another shape or not
    finite.
    """
    file = _read(address)
    if type(network) is PoseNetwork:
        _require_head_dim(file, network.arguments["head_dim"], _head_dim_of(file))
    return _fill(network, file, with_head=with_head, skeleton=skeleton)


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
    path: Path
    contents: FileContents
    weights: NamedWeights
    record: Mapping[str, Any] | None
    """What this project wrote beside the weights."""
    published: PublishedModel | PublishedBackbone | None
    table: PublishedModels

    @property
    def network_class(self) -> str | None:
        """Import path of the network's class where that is no ``PoseNetwork``; for messages."""
        path = None if self.record is None else self.record.get("network_class")
        return None if path is None else printable(str(path))[:200]

    @property
    def keypoint_names(self) -> Sequence[str] | None:
        """Of its channels, in their order: its own, else the released models' if it has as many, else unknown."""
        if self.record is not None:
            return self._recorded_skeleton().keypoint_names
        names, channels = cast("Any", self.contents.contents), num_channels(self.weights.tensors)
        for key in ("meta", "dataset_meta", "keypoint_id2name"):  # where MMPose keeps them
            names = names.get(key) if isinstance(names, Mapping) else None
        if isinstance(names, Mapping) and channels and set(names) == set(range(channels)):
            return [str(names[place]) for place in range(channels)]
        released = load_skeleton(self.table.skeleton).keypoint_names
        return released if channels == len(released) else None

    @property
    def skeleton(self) -> Skeleton | None:
        """What it was trained on: its own, else the released models' if its keypoints are theirs, else unknown."""
        if self.record is not None:
            return self._recorded_skeleton()
        released, names = load_skeleton(self.table.skeleton), self.keypoint_names or ()
        return released if len(names) == released.num_keypoints and None not in released.places_in(names) else None

    def _recorded_skeleton(self) -> Skeleton:
        return Skeleton.from_dict((self.record or {}).get("skeleton", {}), source=str(self.path))


def _read(address: str | Path) -> _WeightFile:
    contents = read_weight_file(local_file(address))
    table = published_models()
    record = contents.contents.get(RECORD_KEY)
    if record is not None and not isinstance(record, Mapping):
        raise InputError(f"{contents.path}: its {RECORD_KEY!r} entry is damaged; copy the file again")
    published = table.of_file(contents.path.name, contents.sha256)
    if isinstance(published, PublishedModel) and contents.misnamed == published.sha256:
        raise InputError(
            f"{contents.path}: damaged or altered: the released file of this name has sha256 {published.sha256}, this "
            f"one {contents.sha256[:8]}; fetch it again, or rename it if it was changed on purpose"
        )
    return _WeightFile(
        path=contents.path,
        contents=contents,
        weights=named_weights(
            contents.contents,
            contents.path,
            has_record=record is not None,
            as_they_are=record is not None and "network_class" in record,
        ),
        record=record,
        published=published,
        table=table,
    )


def _built(file: _WeightFile, head_dim: int | None, arguments: Mapping[str, Any]) -> PoseNetwork:
    """A network for a file without a record, its weights still random."""
    known = _head_dim_of(file)
    _require_head_dim(file, head_dim, known)
    # Building draws initial weights: the caller's random state is none of their business.
    try:
        with torch.random.fork_rng(devices=[]):
            return PoseNetwork(**arguments, head_dim=head_dim or known or _USUAL_HEAD_DIM)
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from error


def _tensor_sizes(file: _WeightFile) -> list[int]:
    return [tensor.numel() for tensor in file.weights.tensors.values()]


def _arguments_in(file: _WeightFile) -> dict[str, Any]:
    extras = {name for group in file.weights.expected_extras for name in group}
    shapes = {name: tuple(tensor.shape) for name, tensor in file.weights.tensors.items() if name not in extras}
    try:
        return network_arguments(shapes)
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from error


def _head_dim_of(file: _WeightFile) -> int | None:
    """Channels per attention head that the file is known to need; nothing in its weights shows them."""
    if file.record is not None:
        network = file.record.get("network")
        found = network.get("head_dim") if isinstance(network, Mapping) else None
        return found if isinstance(found, int) else None
    if isinstance(file.published, PublishedBackbone):
        return file.published.head_dim
    return _USUAL_HEAD_DIM if file.published is not None else None


def _require_head_dim(file: _WeightFile, asked: int | None, known: int | None) -> None:
    if asked is not None and known is not None and asked != known:
        raise InputError(
            f"{file.path}: was trained with head_dim {known}, not {asked}; the shapes would fit and the results be "
            f"wrong, so give model.head_dim={known}"
        )


def _fill(
    network: nn.Module,
    file: _WeightFile,
    *,
    with_head: bool = True,
    skeleton: Skeleton | None = None,
    evaluated_on: Skeleton | None = None,
) -> LoadReport:
    """Hold the file to its contract with the network, and load it.

    ``skeleton`` is what the network is for. ``evaluated_on``, that of the data, says that it will not be trained.
    """
    wanted, tensors, layout = network.state_dict(), dict(file.weights.tensors), file.weights.layout
    remarks = list(file.weights.remarks)
    if file.contents.misnamed is not None:
        remarks.append(f"{file.contents.misnamed} in its name is not its sha256, {file.contents.sha256[:8]}...")
    dropped_head: list[str] = []
    if type(network) is not PoseNetwork or file.network_class is not None:
        tensors = _of_other_network(network, file, skeleton, with_head=with_head)
    if not with_head and layout != "ImageNet classifier":
        dropped_head = [name for name in tensors if name.startswith("head.")]
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
        remarks.append(f"its head of {len(dropped_head)} tensors left out as asked")
    if type(network) is PoseNetwork:
        _require_same_size(network, file)
        if with_head and skeleton is not None and layout != "ImageNet classifier":
            tensors, remark = channels_by_name(
                tensors, wanted, file.keypoint_names, skeleton, source=str(file.path), complete=evaluated_on is not None
            )
            remarks += [remark] if remark else []
    remarks += differences(file.skeleton, evaluated_on)

    extra = [name for name in tensors if name not in wanted]
    skipped = [name for group in file.weights.expected_extras for name in group if name in extra]
    absent = [name for name in wanted if name not in tensors]
    left_untouched = [
        name for name in absent if file.weights.may_lack(name) or (dropped_head and name.startswith("head."))
    ]
    loaded = {name: tensors[name] for name in wanted if name in tensors}
    misshapen = {name for name, tensor in loaded.items() if tensor.shape != wanted[name].shape}
    half_there = [
        name
        for group in file.weights.expected_extras
        for name in group
        if name not in tensors and any(other in tensors for other in group)
    ]
    problems = {
        "missing": [name for name in absent if name not in left_untouched] + half_there,
        "unknown to the network": [name for name in extra if name not in skipped],
        "of another shape": [
            f"{name}: file {list(loaded[name].shape)}, network {list(wanted[name].shape)}" for name in sorted(misshapen)
        ],
        "of another type": [
            f"{name}: {tensor.dtype}"
            for name, tensor in loaded.items()
            if tensor.is_floating_point() != wanted[name].is_floating_point()
        ],
        "not finite": [
            name
            for name, tensor in loaded.items()
            if name not in misshapen and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
        ],
    }
    if any(problems.values()):
        found = "; ".join(f"{len(n)} {what} ({shortened(n)})" for what, n in problems.items() if n)
        raise InputError(
            f"{file.path}: taken for {layout} weights, but of their entries {found}; {_advice(network, file)}"
        )
    network.load_state_dict(loaded, strict=not left_untouched)
    if file.record is None and type(network) is PoseNetwork:
        head_dim = network.arguments["head_dim"]
        known = file.published is not None
        remarks.append(f"head_dim {head_dim} {'as released' if known else 'assumed: the file does not say it'}")
    return LoadReport(
        path=file.path,
        size=_size(network),
        layout=layout,
        container=file.contents.container,
        checked_by=file.contents.checked_by,
        loaded=tuple(loaded),
        skipped=tuple(skipped),
        left_untouched=tuple(left_untouched),
        remarks=tuple(remarks),
    )


def _size(network: nn.Module) -> str:
    if type(network) is not PoseNetwork:
        return type(network).__name__
    return model_size_name(network.arguments) or "a UniFormer of no published size"


def _of_other_network(
    network: nn.Module, file: _WeightFile, skeleton: Skeleton | None, *, with_head: bool
) -> dict[str, Tensor]:
    """The file's tensors under the names of a network whose parts nothing is known of: all of it, or InputError."""
    if type(network) is PoseNetwork or file.network_class is None:
        raise InputError(
            f"{file.path}: holds {file.network_class or 'a UniFormer'}, but the network is {type(network).__name__}; a "
            "model from outside this package starts from its own checkpoints, or loads others in its constructor"
        )
    names = file.keypoint_names or ()
    if not with_head or (skeleton is not None and not skeleton.is_in_order_of(names)):
        raise InputError(
            f"{file.path}: {file.network_class} with the keypoints {shortened(names)}; its head is not known, so it "
            "can be neither left out nor matched to other keypoints, or another order"
        )
    tensors, wanted = dict(file.weights.tensors), network.state_dict()
    if tensors.keys() != wanted.keys():  # Lightning writes them behind the name of the module's attribute
        return {name.removeprefix("network."): tensor for name, tensor in tensors.items()}
    return tensors


def _require_same_size(network: PoseNetwork, file: _WeightFile) -> None:
    """Say that sizes differ, where they do: the names of a hundred missing tensors do not say it."""
    try:
        found = _arguments_in(file)
    except InputError:
        if file.record is not None or any(name in network.state_dict() for name in file.weights.tensors):
            return  # parts of the right network are there: the contract names what is not
        raise
    differing = [name for name in ("depths", "embed_dims", "stem") if found[name] != network.arguments[name]]
    if (found["layer_scale"] is None) != (network.arguments["layer_scale"] is None):  # its value leaves no trace
        differing.append("layer_scale")
    elif found["layer_scale"] is not None and found["layer_scale_blocks"] != network.arguments["layer_scale_blocks"]:
        differing.append("layer_scale_blocks")
    if differing:
        wanted = ", ".join(f"{name} {network.arguments[name]}" for name in differing)
        held = ", ".join(f"{name} {found[name]}" for name in differing)
        name_found, name_wanted = model_size_name(found), model_size_name(network.arguments)
        raise InputError(
            f"{file.path}: holds {name_found or 'a UniFormer'} ({held}), but the network is {name_wanted or 'one'} "
            f"of {wanted}; {_advice(network, file)}"
        )


def _advice(network: nn.Module, file: _WeightFile) -> str:
    if file.record is not None and file.record.get("network") == getattr(network, "arguments", None):
        return "the weights are not of the network that the file itself describes, so copy or export it again"
    return "check that the file is whole, and choose the model= and data.skeleton= that it was made for"
