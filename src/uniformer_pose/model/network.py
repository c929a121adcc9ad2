"""The pose network: UniFormer backbone and head in one module, described by a few plain numbers."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from uniformer_pose.model.arguments import NetworkArguments
from uniformer_pose.model.head import pose_head
from uniformer_pose.model.uniformer import UniFormer


class PoseNetwork(nn.Module):
    """Normalised RGB person crops -> what the head gives; by default keypoint heatmaps at a quarter of their size.

    The arguments are those of ``NetworkArguments``, such as ``PoseNetwork(17, depths=[3, 4, 8, 3])``. ``arguments``
    holds them as plain numbers, strings and lists for a checkpoint: ``PoseNetwork(**network.arguments)`` has the same
    parameters.

    UniFormer-S is ``depths=[3, 4, 8, 3]``, UniFormer-B ``depths=[5, 8, 20, 7]``, all else by default; S-dagger is
    ``depths=[3, 5, 9, 3]`` with ``stem="convolution"`` and ``head_dim=32``.
    """

    # The arguments are written once, in the dataclass; a configuration is checked against them.
    __signature__ = inspect.signature(NetworkArguments, eval_str=True)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__()
        given = NetworkArguments(*arguments, **named)
        self.backbone = UniFormer(given)
        self.head = pose_head(given, given.embed_dims[-1], stride=32)
        self.arguments: dict[str, Any] = given.to_dict()

    def forward(self, images: Tensor) -> Any:
        """Images (B, 3, H, W) -> heatmaps (B, K, H/4, W/4) or what else ``head`` gives; H, W multiples of 32.

        With visibility two tensors: that, and logits (B, K, 2) of "labelled" and "visible".
        """
        return self.head(self.backbone(images))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The backbone's layers as timm's layer-wise decay wants them (blocks, or if ``coarse`` stages).

        What begins a stage belongs to its first block, the last norm to the last block; the rest is the head.
        """
        block = r"^backbone\.blocks(\d)\." + ("" if coarse else r"(\d+)\.")
        return {
            "stem": r"^backbone\.patch_embed1\.",
            "blocks": [(r"^backbone\.patch_embed([2-4])\.", (0,)), (block, None), (r"^backbone\.norm4\.", (99999,))],
        }

    def no_weight_decay(self) -> set[str]:
        """Names of what weight decay leaves alone beside norms and biases, as timm asks: layer scales of any shape."""
        return {"*.gamma_1", "*.gamma_2"}
