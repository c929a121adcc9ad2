"""Crops -> keypoints: the one way, in training's evaluation and in prediction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from uniformer_pose.data.tensors import CropNormalization
from uniformer_pose.evaluation.timing import Stopwatch
from uniformer_pose.keypoints.flip_test import flip_test
from uniformer_pose.saved_model import SavedModel


class PosePipeline:
    """Normalisation, network, flip test and decoding of one model, on the device where its crops are.

    ``network`` maps normalised images (B, 3, H, W) to what the model's codec decodes. Whoever moves ``normalize`` to
    another device moves the network too. What comes out is in crop pixels: ``model.crop_spec`` knows the way into the
    image.
    """

    def __init__(self, model: SavedModel, network: Callable[[Tensor], Tensor]) -> None:
        self.network = network
        self.codec = model.codec
        self.normalize = CropNormalization(model.mean, model.std)
        self._mirror = torch.from_numpy(model.skeleton.mirror_permutation)

    def output(self, crops: Tensor, *, with_flip_test: bool) -> Tensor:
        """uint8 RGB crops (B, H, W, 3) -> the network's output (B, K, ...), which the codec decodes."""
        images = self.normalize(crops)
        if not with_flip_test:
            return self.network(images)
        self._mirror = self._mirror.to(images.device)
        return flip_test(self.network, images, lambda output: self.codec.mirrored(output, self._mirror))

    def __call__(self, crops: Tensor, *, with_flip_test: bool, watch: Stopwatch | None = None) -> tuple[Tensor, Tensor]:
        """uint8 RGB crops (B, H, W, 3) -> keypoints in crop pixels (B, K, 2) and scores (B, K)."""
        watch = watch or Stopwatch()
        with watch.part("network", crops.device):
            output = self.output(crops, with_flip_test=with_flip_test)
        with watch.part("decoding", crops.device):
            return self.codec.decode(output)
