"""The numbers that describe a pose network, and the ranges in which they make sense."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from uniformer_pose.errors import InputError

Stage3Attention = Literal["global", "window", "hybrid"]
Stem = Literal["patch", "convolution"]
LayerScaleBlocks = Literal["attention", "all"]

# Three doublings take the backbone's stride 32 to the heatmaps' stride 4.
_DECONVOLUTIONS = 3


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

    Raises InputError for numbers that do not fit together.
    """

    num_keypoints: int
    depths: Sequence[int]
    embed_dims: Sequence[int] = (64, 128, 320, 512)
    head_dim: int = 64
    mlp_ratio: float = 4.0
    stage3_attention: Stage3Attention = "global"
    window_size: int = 14
    layer_norm_eps: float = 1e-6
    deconv_channels: Sequence[int] = (256, 256, 256)
    stem: Stem = "patch"
    layer_scale: float | None = None
    layer_scale_blocks: LayerScaleBlocks = "attention"

    def __post_init__(self) -> None:
        for name, choices in (
            ("stage3_attention", Stage3Attention),
            ("stem", Stem),
            ("layer_scale_blocks", LayerScaleBlocks),
        ):
            if getattr(self, name) not in get_args(choices):
                raise self._refusal(name, f"must be one of {', '.join(get_args(choices))}")
        for name, length in (("depths", 4), ("embed_dims", 4), ("deconv_channels", _DECONVOLUTIONS)):
            self._require_counts(name, length, at_least=1)
        for name in ("num_keypoints", "head_dim", "window_size"):
            if getattr(self, name) < 1:
                raise self._refusal(name, "must be at least 1")
        for name in ("mlp_ratio", "layer_norm_eps"):
            if not getattr(self, name) > 0:
                raise self._refusal(name, "must be above 0")
        if self.layer_scale is not None and not 0 < self.layer_scale < math.inf:
            raise self._refusal("layer_scale", "must be above 0, or null for none; the original code has 1e-6")
        if any(dim % self.head_dim for dim in self.embed_dims[2:]):
            raise self._refusal("embed_dims", f"stages 3 and 4 need multiples of head_dim={self.head_dim}")
        if self.stem == "convolution" and self.embed_dims[0] % 2:
            raise self._refusal("embed_dims", "stem=convolution needs an even first number")

    def _require_counts(self, name: str, length: int, *, at_least: int) -> None:
        values = getattr(self, name)
        if len(values) != length or min(values) < at_least:
            raise self._refusal(name, f"give {length} whole numbers, each at least {at_least}")

    def _refusal(self, name: str, reason: str) -> InputError:
        value = getattr(self, name)
        return InputError(f"{name}={value if isinstance(value, int | float | str | None) else list(value)}: {reason}")


@dataclass(frozen=True)
class NetworkArguments(Architecture):
    """An architecture, and how it is trained; the latter changes nothing of what trained weights compute.

    - ``drop_path_rate``: stochastic depth of the last block; it grows linearly from 0 at the first.
    - ``checkpointed_blocks``: per stage, how many of its first blocks recompute their activations in the backward pass
      instead of keeping them: less memory for one more forward pass of those blocks.
    - ``frozen_batchnorm``: running statistics and affine weights of the backbone's BatchNorms stay as they are, in
      train mode too. The head's have no statistics worth keeping when training starts from ImageNet weights.
    """

    drop_path_rate: float = 0.0
    checkpointed_blocks: Sequence[int] = (0, 0, 0, 0)
    frozen_batchnorm: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.drop_path_rate < 1:
            raise self._refusal("drop_path_rate", "must be at least 0 and below 1")
        self._require_counts("checkpointed_blocks", 4, at_least=0)
        if any(count > depth for count, depth in zip(self.checkpointed_blocks, self.depths, strict=True)):
            raise self._refusal("checkpointed_blocks", f"give at most depths={list(self.depths)}")

    def to_dict(self) -> dict[str, Any]:
        """The arguments as plain numbers, strings and lists, for a checkpoint."""
        # One by one: a list-like from a config file must not reach the checkpoint as its own type.
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return [int(entry) for entry in value]
