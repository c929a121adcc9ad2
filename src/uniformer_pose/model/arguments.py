"""The numbers that describe a pose network, and the ranges in which they make sense."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Len, Lt

from uniformer_pose.config import check_arguments
from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.codec import OutputKind
from uniformer_pose.ranges import Count, CountOrNone, Positive

OfStages = Annotated[Sequence[Count], Len(4, 4)]
# Three doublings take the backbone's stride 32 to the heatmaps' stride 4.
OfDeconvolutions = Annotated[Sequence[Count], Len(3, 3)]


@dataclass(frozen=True)
class HeadArguments:
    """What the network gives for each keypoint.

    - ``kind``: ``heatmap`` is a map at a quarter of the crop's size, ``simcc`` a vector for each axis, ``rtmcc`` such
      vectors by RTMPose's head.
    - ``deconvolutions``: whether a simcc head begins as a heatmap head does.
    - ``visibility``: two logits beside it, that the keypoint is labelled and that it is visible (``VisibilityHead``).

    Raises InputError for arguments that do not fit together.
    """

    kind: Literal["heatmap", "simcc", "rtmcc"] = "heatmap"
    deconvolutions: bool = True
    visibility: bool = False

    def __post_init__(self) -> None:
        check_arguments(type(self), vars(self), "head")
        if not self.deconvolutions and self.kind != "simcc":
            raise InputError(f"head.deconvolutions=false: is for head=simcc; {self.kind} heads have no such choice")

    @property
    def output_kind(self) -> OutputKind:
        """What the head gives: the vectors of rtmcc are those of simcc."""
        return "heatmap" if self.kind == "heatmap" else "simcc"


@dataclass(frozen=True)
class Architecture:
    """What the network computes: its weights have a meaning only with these numbers.

    - ``depths``, ``embed_dims``: blocks and channels of the four stages.
    - ``head_dim``: channels per attention head. It leaves no trace in the weights' shapes: the released pose and
      ImageNet weights need 64, but S-dagger's and the token-labelled ones of S, S-dagger and B 32, unless their name
      says otherwise.
    - ``stage3_attention``: ``global`` over the whole map, ``window`` within ``window_size`` square windows, ``hybrid``
      windows with every fourth block global.
    - ``layer_norm_eps``: of the attention blocks' LayerNorms; 1e-6 in the original, 1e-5 in MMPose's port.
    - ``stem``: how each stage begins: ``patch`` cuts the map into patches that do not overlap (S and B),
      ``convolution`` halves it with overlapping 3x3 convolutions, twice at the image (S-dagger).
    - ``layer_scale``: what the learnt per-channel scale of each residual branch starts from (Touvron et al., arXiv
      2103.17239); 1e-6 in the original. None: no such scale.
    - ``layer_scale_blocks``: which blocks have that scale: ``attention`` those of stages 3 and 4 (B with layer scale),
      ``all`` every block (L).
    - ``deconv_channels``: of the heatmap head's three transposed convolutions.
    - ``head``: what comes behind the backbone; ``HeadArguments``, or a mapping of them.
    - ``crop_height``, ``crop_width``: of the images in pixels, for a head that is made for one size. None for others.

    Raises InputError for numbers that do not fit together.
    """

    num_keypoints: Count
    depths: OfStages
    embed_dims: OfStages = (64, 128, 320, 512)
    head_dim: Count = 64
    mlp_ratio: Positive = 4.0
    stage3_attention: Literal["global", "window", "hybrid"] = "global"
    window_size: Count = 14
    layer_norm_eps: Positive = 1e-6
    deconv_channels: OfDeconvolutions = (256, 256, 256)
    stem: Literal["patch", "convolution"] = "patch"
    layer_scale: Positive | None = None
    layer_scale_blocks: Literal["attention", "all"] = "attention"
    head: HeadArguments | Mapping[str, Any] = HeadArguments()
    crop_height: Count | None = None
    crop_width: Count | None = None

    def __post_init__(self) -> None:
        settle(self)
        if any(dim % self.head_dim for dim in self.embed_dims[2:]):
            stated = f"embed_dims={list(self.embed_dims)}"
            raise InputError(f"{stated}: stages 3 and 4 need multiples of head_dim={self.head_dim}")
        if self.stem == "convolution" and self.embed_dims[0] % 2:
            raise InputError(f"embed_dims={list(self.embed_dims)}: stem=convolution needs an even first number")

    def to_dict(self) -> dict[str, Any]:
        """The arguments as plain numbers, strings and lists, for a checkpoint."""
        return plain_arguments(self)


@dataclass(frozen=True)
class NetworkArguments(Architecture):
    """An architecture, and how it is trained; the latter changes nothing of what trained weights compute.

    - ``drop_path_rate``: stochastic depth of the last block; it grows linearly from 0 at the first.
    - ``checkpointed_blocks``: per stage, how many of its first blocks recompute their activations in the backward pass
      instead of keeping them: less memory for one more forward pass of those blocks.
    - ``frozen_batchnorm``: running statistics and affine weights of the backbone's BatchNorms stay as they are, in
      train mode too. The head's have no statistics worth keeping when training starts from ImageNet weights.
    """

    drop_path_rate: Annotated[float, Ge(0), Lt(1)] = 0.0
    checkpointed_blocks: Annotated[Sequence[CountOrNone], Len(4, 4)] = (0, 0, 0, 0)
    frozen_batchnorm: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(count > depth for count, depth in zip(self.checkpointed_blocks, self.depths, strict=True)):
            blocks = list(self.checkpointed_blocks)
            raise InputError(f"checkpointed_blocks={blocks}: give at most depths={list(self.depths)}")


def settle(arguments: Any) -> None:
    """Make the ``head`` of a network's arguments, if it is a mapping, what it says; InputError for wrong values."""
    if not isinstance(arguments.head, HeadArguments):
        object.__setattr__(arguments, "head", HeadArguments(**arguments.head))
    check_arguments(type(arguments), plain_arguments(arguments))


def plain_arguments(arguments: Any) -> dict[str, Any]:
    """The fields of a network's arguments as plain numbers, strings, lists and dicts, for a checkpoint."""
    # One by one: a list-like from a config file must not reach the checkpoint as its own type.
    return {field.name: _plain(getattr(arguments, field.name)) for field in dataclasses.fields(arguments)}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return dict(vars(value)) if isinstance(value, HeadArguments) else list(value)
