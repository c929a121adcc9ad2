"""Pictures -> people, with a detection model of torchvision (BSD-3-Clause, trained on COCO)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import detection as torchvision_detection
from torchvision.models import get_model, get_model_weights, list_models
from torchvision.ops import FrozenBatchNorm2d

from uniformer_pose.errors import InputError
from uniformer_pose.nearest_name import did_you_mean
from uniformer_pose.prediction.boxes import Image, PersonBoxes
from uniformer_pose.training.precision import find_device
from uniformer_pose.weights.fetch import download
from uniformer_pose.weights.file_contents import FileContents, read_weight_file

_SCORE_FLOOR = 0.05
_MOST_BOXES = 300  # of all classes together; torchvision's 100 cuts off the weaker people of a crowd

# The networks see 1333 pixels at most. What is longer than twice that is first averaged down: it saves gigabytes on a
# panorama, and torchvision's own resizing takes one pixel in three there, without averaging.
_LONGEST_SIDE = 2667

# These weights were trained when torchvision's frozen norms had no epsilon (pytorch/vision#2933).
_WITHOUT_EPSILON = {
    "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
    "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
    "keypointrcnn_resnet50_fpn_coco-fc266e95.pth",
    "retinanet_resnet50_fpn_coco-eeacb38b.pth",
}


class TorchvisionDetector:
    """RGB uint8 pictures (H, W, 3) of any sizes -> the people in each: boxes of at least score 0.05, best first.

    ``architecture``: a detection model of torchvision; conf/detector/torchvision.yaml compares them. Of those that also
    give masks or keypoints only the boxes are computed. ``weights``: a file of such weights; None fetches torchvision's
    own, once, and checks their digest. ``device``: None takes the GPU if there is one. Pictures go through the network
    one by one, in float32: together the smaller would be padded, and its boxes depend on its company.

    Raises InputError for an unknown architecture, weights that cannot be had or do not fit, and a device that there is
    not.
    """

    def __init__(
        self,
        architecture: str = "fasterrcnn_mobilenet_v3_large_fpn",
        *,
        weights: str | None = None,
        device: str | None = None,
    ) -> None:
        architectures = list_models(module=torchvision_detection)
        if architecture not in architectures:
            raise InputError(
                f"architecture={architecture}: torchvision has no such detection model; "
                f"{did_you_mean(architecture, architectures)}"
            )
        published = get_model_weights(architecture)["COCO_V1"]
        categories = published.meta["categories"]
        self.device = find_device(device)
        self._person = categories.index("person")
        file = read_weight_file(weights) if weights is not None else _weight_file(architecture, published.url)
        self._network = _network(architecture, len(categories), file, published.url).to(self.device)
        transform: Any = self._network.transform
        self._longest_side = max(transform.fixed_size) if transform.fixed_size else transform.max_size

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image]) -> list[PersonBoxes]:
        """The people of each picture, in the order of the pictures."""
        return [self._people(image) for image in images]

    def _people(self, image: Image) -> PersonBoxes:
        shrunk = _within_longest_side(image)
        # Once its long side fits into the network, less than a pixel of the other is left: nothing to be seen.
        if min(shrunk.shape[:2]) * self._longest_side < max(shrunk.shape[:2]):
            return PersonBoxes(np.empty((0, 4)), np.empty(0))
        pixels = torch.from_numpy(np.require(shrunk, requirements=["C", "W"])).to(self.device)
        (output,) = self._network([pixels.permute(2, 0, 1).float().div_(255)])
        people = output["labels"] == self._person
        # From the edges of the shrunk picture to those of the whole one.
        stretch = [image.shape[1] / shrunk.shape[1], image.shape[0] / shrunk.shape[0]] * 2
        corners = output["boxes"][people].double()
        return PersonBoxes.from_corners(corners * corners.new_tensor(stretch), output["scores"][people])


def _weight_file(architecture: str, url: str) -> FileContents:
    try:
        return read_weight_file(download(url))
    except InputError as error:
        raise InputError(
            f"no weights for the person detector {architecture}: {error} (detector.model.weights=<file>), or do "
            "without a detector: boxes=full, or boxes=<detections.json>"
        ) from error


def _network(architecture: str, num_classes: int, file: FileContents, url: str) -> nn.Module:
    """The network with its weights, as torchvision's own builder makes it when that fetches them itself."""
    state: dict[str, Tensor] = file.contents
    network: nn.Module = get_model(architecture, weights=None, weights_backbone=None, num_classes=num_classes)
    # The builder makes the backbone's norms trainable where it is given no weights. Trained files hold frozen ones: the
    # same numbers without a count of batches.
    without_epsilon = Path(url).name in _WITHOUT_EPSILON
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d) and f"{name}.num_batches_tracked" not in state:
            frozen = FrozenBatchNorm2d(module.num_features, eps=0.0 if without_epsilon else module.eps)
            network.set_submodule(name, frozen)
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        first = " ".join(str(error).split())[:160]
        raise InputError(
            f"{file.path}: not the weights of a {architecture} with {num_classes} classes ({first} ...); give "
            "the file that belongs to detector.model.architecture"
        ) from error
    last: Any = getattr(network, "roi_heads", network)
    last.mask_roi_pool = last.keypoint_roi_pool = None  # whoever has none of these skips what follows them
    last.score_thresh, last.detections_per_img = _SCORE_FLOOR, _MOST_BOXES
    return network.eval().requires_grad_(False)


def _within_longest_side(image: Image) -> Image:
    height, width = image.shape[:2]
    scale = _LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
