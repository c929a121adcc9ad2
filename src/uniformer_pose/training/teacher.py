"""Distillation: a network learns, beside its labels, what a trained one gives for the same crops.

What is added is a loss whose target is the teacher's output, of keypoints without label too: the mean squared
difference of heatmaps (Zhang et al., "Fast Human Pose Estimation", CVPR 2019, which divides one sum between the two
losses instead), and the divergence of the softmax of a vector from that of the teacher's, both times the loss's
``beta``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.codec import parts_of
from uniformer_pose.saved_model import SavedModel
from uniformer_pose.training.loss import KeypointKL, KeypointMSE, Loss
from uniformer_pose.weights.loading import load_model

_OF_DECODING = ("blur_kernel", "dark", "aligned_flip")


class Teacher:
    """A trained model whose weights stay as they are, in eval mode; ``weight`` is that of what it adds to the ``loss``.

    No module: whoever holds it has none of its weights among its own, to train, average, synchronise or save.
    """

    def __init__(self, model: SavedModel, loss: Loss, weight: float = 1.0) -> None:
        self.network, self.codec = model.network.eval().requires_grad_(False), model.codec
        self.weight, self.difference = weight, KeypointMSE() if model.codec.kind == "heatmap" else _of_vectors(loss)

    @classmethod
    def of(cls, address: str, student: SavedModel, loss: Loss, weight: float | None = None) -> Teacher:
        """That of a file or address (``load_model``); InputError unless it sees and says what the student does."""
        with torch.random.fork_rng(devices=[]):  # it begins with random weights
            model, _ = load_model(address)
        theirs, ours = _meaning(model), _meaning(student)
        for name in theirs | ours:
            if theirs.get(name) != ours.get(name):
                raise InputError(
                    f"training.teacher={address}: its {name} is {theirs.get(name)!s:.80}, the student's "
                    f"{ours.get(name)!s:.80}; both must see the same crops and mean the same by their output, so train "
                    "with the teacher's settings of data, or choose another"
                )
        return cls(model, loss, 1.0 if weight is None else weight)

    def __call__(self, images: Tensor, output: Tensor) -> Tensor:
        """What is added to the loss of a student that gives ``output`` for ``images``; see the module's text."""
        with torch.no_grad():
            target, _ = parts_of(self.network(images))  # visibility is learnt from labels
        every = output.new_ones(output.shape[:2])
        return self.difference(self.codec, output, target.float(), every) * self.weight

    def __deepcopy__(self, _memo: Any) -> Teacher:
        return self  # averaged weights copy whoever holds it


def _of_vectors(loss: Loss) -> Loss:
    return replace(loss if isinstance(loss, KeypointKL) else KeypointKL(), target_softmax=True)


def _meaning(model: SavedModel) -> dict[str, Any]:
    """What a network's images and its output depend on, by the names of the settings."""
    codec = {f"data.codec.{name}": value for name, value in model.codec.to_dict().items() if name not in _OF_DECODING}
    crops = {f"data.{name}": getattr(model, name) for name in ("mean", "std", "box_padding")}
    return {"keypoints": tuple(model.skeleton.keypoint_names), **codec, **crops}
