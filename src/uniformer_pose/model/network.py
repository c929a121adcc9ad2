"""The pose network: UniFormer backbone and heatmap head in one module, described by a few plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from uniformer_pose.model.heatmap_head import HeatmapHead
from uniformer_pose.model.uniformer import UniFormer


class PoseNetwork(nn.Module):
    """Normalised RGB person crops -> keypoint heatmaps at a quarter of their height and width.

    The arguments are those of ``UniFormer`` and ``HeatmapHead``. ``arguments`` holds them as plain numbers,
    strings and lists for a checkpoint: ``PoseNetwork(**network.arguments)`` has the same parameters.

    UniFormer-S is ``depths=[3, 4, 8, 3]``, UniFormer-B ``depths=[5, 8, 20, 7]``, all else by default; S-dagger is
    ``depths=[3, 5, 9, 3]`` with ``stem="convolution"`` and ``head_dim=32``.
    ``frozen_batchnorm`` freezes the backbone's BatchNorms only. The head's have no statistics worth keeping
    when training starts from ImageNet weights.

    Raises InputError for numbers that do not fit together.
    """

    def __init__(
        self,
        num_keypoints: int,
        depths: Sequence[int],
        embed_dims: Sequence[int] = (64, 128, 320, 512),
        head_dim: int = 64,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        stage3_attention: Literal["global", "window", "hybrid"] = "global",
        window_size: int = 14,
        checkpointed_blocks: Sequence[int] = (0, 0, 0, 0),
        layer_norm_eps: float = 1e-6,
        deconv_channels: Sequence[int] = (256, 256, 256),
        frozen_batchnorm: bool = False,
        stem: Literal["patch", "convolution"] = "patch",
        layer_scale: float | None = None,
        layer_scale_blocks: Literal["attention", "all"] = "attention",
    ) -> None:
        super().__init__()
        self.backbone = UniFormer(
            depths=depths,
            embed_dims=embed_dims,
            head_dim=head_dim,
            mlp_ratio=mlp_ratio,
            drop_path_rate=drop_path_rate,
            stage3_attention=stage3_attention,
            window_size=window_size,
            checkpointed_blocks=checkpointed_blocks,
            layer_norm_eps=layer_norm_eps,
            frozen_batchnorm=frozen_batchnorm,
            stem=stem,
            layer_scale=layer_scale,
            layer_scale_blocks=layer_scale_blocks,
        )
        self.head = HeatmapHead(embed_dims[-1], num_keypoints, deconv_channels)
        # Cast one by one: a list-like from a config file must not reach the checkpoint as its own type.
        self.arguments: dict[str, Any] = {
            "num_keypoints": int(num_keypoints),
            "depths": [int(depth) for depth in depths],
            "embed_dims": [int(dim) for dim in embed_dims],
            "head_dim": int(head_dim),
            "mlp_ratio": float(mlp_ratio),
            "drop_path_rate": float(drop_path_rate),
            "stage3_attention": str(stage3_attention),
            "window_size": int(window_size),
            "checkpointed_blocks": [int(count) for count in checkpointed_blocks],
            "layer_norm_eps": float(layer_norm_eps),
            "deconv_channels": [int(channels) for channels in deconv_channels],
            "frozen_batchnorm": bool(frozen_batchnorm),
            "stem": str(stem),
            "layer_scale": None if layer_scale is None else float(layer_scale),
            "layer_scale_blocks": str(layer_scale_blocks),
        }

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> heatmaps (B, K, H/4, W/4); H and W must be multiples of 32 or InputError."""
        heatmaps: Tensor = self.head(self.backbone(images))
        return heatmaps
