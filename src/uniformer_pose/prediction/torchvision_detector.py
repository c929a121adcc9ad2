"""Pictures -> people, with a detection model of torchvision (BSD-3-Clause, trained on COCO)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from uniformer_pose.prediction.detection import Image, PersonBoxes, boxes_from_corners, check_pictures
from uniformer_pose.weights.fetch import digest_in_name, download
from uniformer_pose.weights.file_contents import FileContents, read_weight_file

_SCORE_FLOOR = 0.05
_CPU_BATCH_SIZE = 1  # more take longer, and more memory
_GPU_BATCH_SIZE = 8
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
    own, once, and checks their digest. ``device``: None takes the GPU if there is one.

    Pictures of one size go through the network together, up to ``batch_size`` (None: 1 on a CPU, 8 on a GPU). Of
    different sizes they do not: the smaller would be padded, and its boxes depend on its company. Works in float32,
    without gradients. Safe to call from several threads.

    Raises InputError for an unknown architecture, weights that cannot be had or do not fit, a device that there is
    not, and pictures of another form.
    """

    def __init__(
        self,
        architecture: str = "fasterrcnn_mobilenet_v3_large_fpn",
        *,
        weights: str | None = None,
        device: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size={batch_size}: give 1 or more pictures per step, or null")
        url, categories = _published_weights(architecture)
        self.architecture = architecture
        self.device = _usable_device(device)
        default_batch_size = _CPU_BATCH_SIZE if self.device.type == "cpu" else _GPU_BATCH_SIZE
        self.batch_size = default_batch_size if batch_size is None else batch_size
        self._person_label = categories.index("person")
        self._network = _network(architecture, len(categories), _weight_file(architecture, url, weights), url)
        self._network.to(self.device)
        self._longest_side = _network_size(self._network)[1]

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image]) -> list[PersonBoxes]:
        """The people of each picture, in the order of the pictures."""
        check_pictures(images)
        found = [PersonBoxes.empty()] * len(images)
        for batch in _of_one_size(images, self.batch_size):
            height, width = images[batch[0]].shape[:2]
            shrunk = [_within_longest_side(images[index]) for index in batch]
            # Once its long side fits into the network, less than a pixel of the other is left: nothing to be seen.
            if min(shrunk[0].shape[:2]) * self._longest_side < max(shrunk[0].shape[:2]):
                continue
            outputs = self._network([_tensor(image, self.device) for image in shrunk])
            # From the edges of the shrunk picture to those of the whole one.
            stretch = np.array([width / shrunk[0].shape[1], height / shrunk[0].shape[0]] * 2)
            for index, output in zip(batch, outputs, strict=True):
                found[index] = self._people(output, stretch)
        return found

    def _people(self, output: dict[str, Tensor], stretch: np.ndarray[Any, Any]) -> PersonBoxes:
        is_person = output["labels"] == self._person_label
        corners = output["boxes"][is_person].double().cpu().numpy() * stretch
        return boxes_from_corners(corners, output["scores"][is_person].double().cpu().numpy())


def _published_weights(architecture: str) -> tuple[str, list[str]]:
    """Address of torchvision's weights for an architecture, and the names of the classes by label."""
    architectures = list_models(module=torchvision_detection)
    if architecture not in architectures:
        raise InputError(
            f"architecture={architecture}: torchvision has no such detection model; "
            f"{did_you_mean(architecture, architectures)}"
        )
    published = get_model_weights(architecture)["COCO_V1"]
    return published.url, published.meta["categories"]


def _weight_file(architecture: str, url: str, weights: str | None) -> FileContents:
    if weights is not None:
        contents = read_weight_file(weights)
        digits = digest_in_name(contents.path.name)
        # A file fetched by hand, under the name it has there, is held to the digest in that name.
        if contents.path.name == Path(url).name and not contents.sha256.startswith(digits or ""):
            raise InputError(
                f"{contents.path}: damaged or altered: its name says sha256 {digits}, the file has "
                f"{contents.sha256[:8]}; fetch it again"
            )
        return contents
    try:
        return read_weight_file(download(url))
    except InputError as error:
        raise InputError(
            f"no weights for the person detector {architecture}: {error} (detector.model.weights=<file>), or do "
            "without a detector: boxes=full, or boxes=<detections.json>"
        ) from error


def _network(architecture: str, num_classes: int, file: FileContents, url: str) -> nn.Module:
    """The network with its weights, as torchvision's own builder makes it when that fetches them itself."""
    state = file.contents.get("model", file.contents)  # torchvision's training script keeps weights under "model"
    network: nn.Module = get_model(architecture, weights=None, weights_backbone=None, num_classes=num_classes)
    network.eval()
    # The builder makes the backbone's norms trainable where it is given no weights. Trained files hold frozen ones: the
    # same numbers without a count of batches.
    frozen_epsilon = 0.0 if Path(url).name in _WITHOUT_EPSILON else None
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d) and f"{name}.num_batches_tracked" not in state:
            norm = FrozenBatchNorm2d(module.num_features, eps=module.eps if frozen_epsilon is None else frozen_epsilon)
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, norm)
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        first = " ".join(str(error).split())[:160]
        raise InputError(
            f"{file.path}: not the weights of a {architecture} with {num_classes} classes ({first} ...); give "
            "the file that belongs to detector.model.architecture"
        ) from error
    network.requires_grad_(False)
    heads: Any = getattr(network, "roi_heads", None)
    if heads is not None:
        heads.mask_roi_pool = heads.keypoint_roi_pool = None  # whoever has none of these skips what follows them
    last: Any = network if heads is None else heads
    last.score_thresh, last.detections_per_img = _SCORE_FLOOR, _MOST_BOXES
    return network


def _network_size(network: nn.Module) -> tuple[int, int]:
    """What torchvision resizes pictures to: the shorter side, and the most that the longer may then have."""
    transform: Any = network.transform
    if transform.fixed_size is not None:
        return min(transform.fixed_size), max(transform.fixed_size)
    return transform.min_size[-1], transform.max_size


def _usable_device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"device={name}: not on this machine ({reason}); give cpu, cuda or cuda:<number>") from error
    return device


def _of_one_size(images: Sequence[Image], batch_size: int) -> Iterator[list[int]]:
    """Indices of pictures of the same size, at most ``batch_size`` at a time."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        by_size.setdefault(image.shape, []).append(index)
    for indices in by_size.values():
        for start in range(0, len(indices), batch_size):
            yield indices[start : start + batch_size]


def _within_longest_side(image: Image) -> Image:
    height, width = image.shape[:2]
    scale = _LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _tensor(image: Image, device: torch.device) -> Tensor:
    """Pixels from 0 to 1 (3, H, W); they travel as bytes, a quarter of the way's cost."""
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).to(device)
    return pixels.permute(2, 0, 1).float().div_(255)
