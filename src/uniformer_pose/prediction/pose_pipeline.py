"""Crops -> keypoints: the one way, in training's evaluation and in prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from uniformer_pose.data.tensors import CropNormalization
from uniformer_pose.evaluation.timing import Stopwatch
from uniformer_pose.keypoints.codec import NetworkOutput, parts_of
from uniformer_pose.keypoints.flip_test import flip_test
from uniformer_pose.saved_model import SavedModel


class CropPoses(NamedTuple):
    """One pose for each of B crops, on their device.

    ``keypoints_in_crop`` (B, K, 2) in crop pixels, ``scores`` (B, K), and ``visibility`` (B, K, 2): the probabilities
    that a keypoint is labelled, and if so that it is visible; None of a network that does not say.
    """

    keypoints_in_crop: Tensor
    scores: Tensor
    visibility: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence[CropPoses]) -> CropPoses:
        """The poses of all parts, which are one model's and at least one."""
        keypoints, scores, visibility = zip(*parts, strict=True)
        return cls(torch.cat(keypoints), torch.cat(scores), None if visibility[0] is None else torch.cat(visibility))


class PosePipeline:
    """Normalisation, network, flip test and decoding of one model, on the device where its crops are.

    ``network`` maps normalised images (B, 3, H, W) to what the model's codec decodes, and visibility logits with it if
    it has them. Whoever moves ``normalize`` to another device moves the network too. What comes out is in crop pixels:
    ``model.crop_spec`` knows the way into the image.
    """

    def __init__(self, model: SavedModel, network: Callable[[Tensor], NetworkOutput]) -> None:
        self.network = network
        self.codec = model.codec
        self.normalize = CropNormalization(model.mean, model.std)
        self._mirror = torch.from_numpy(model.skeleton.mirror_permutation)

    def output(self, crops: Tensor, *, with_flip_test: bool) -> Tensor:
        """uint8 RGB crops (B, H, W, 3) -> the network's output (B, K, ...), which the codec decodes."""
        return self._output_and_visibility(crops, with_flip_test)[0]

    def __call__(self, crops: Tensor, *, with_flip_test: bool, watch: Stopwatch | None = None) -> CropPoses:
        """uint8 RGB crops (B, H, W, 3) -> the pose of each."""
        watch = watch or Stopwatch()
        with watch.part("network", crops.device):
            output, *visibility = self._output_and_visibility(crops, with_flip_test)
        with watch.part("decoding", crops.device):
            return CropPoses(*self.codec.decode(output), *visibility)

    def _output_and_visibility(self, crops: Tensor, with_flip_test: bool) -> tuple[Tensor, ...]:
        images = self.normalize(crops)
        if not with_flip_test:
            return self._of_network(images)
        self._mirror = self._mirror.to(images.device)
        return flip_test(self._of_network, images, self._mirrored)

    def _of_network(self, images: Tensor) -> tuple[Tensor, ...]:
        """The output, and the probabilities (B, K, 2) in fp32 if there are any."""
        output, visibility_logits = parts_of(self.network(images))
        return (output,) if visibility_logits is None else (output, visibility_logits.float().sigmoid())

    def _mirrored(self, of_mirrored: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        output, *visibility = of_mirrored
        exchanged = [each.index_select(1, self._mirror) for each in visibility]
        return (self.codec.mirrored(output, self._mirror), *exchanged)
