"""The detector of torchvision, with random weights: torchvision's own numbers, and one line for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torchvision.models import detection as torchvision_detection
from torchvision.models import get_model, get_model_weights, list_models
from torchvision.models._api import WeightsEnum

from uniformer_pose.errors import InputError
from uniformer_pose.prediction.detectors import torchvision_detector
from uniformer_pose.prediction.detectors.torchvision_detector import TorchvisionDetector

CONF = Path(__file__).parents[2] / "conf" / "detector"
SMALLEST = "ssdlite320_mobilenet_v3_large"
FAST = "fasterrcnn_mobilenet_v3_large_320_fpn"
ARCHITECTURES = list_models(module=torchvision_detection)
CLASS_BIASES = ("classification_head.module_list", "cls_score", "cls_logits")


def pictures(*sizes: tuple[int, int], seed: int = 0) -> list[np.ndarray[Any, Any]]:
    """Coloured noise, smooth enough that a network answers with more than one box."""
    generator = np.random.default_rng(seed)
    coarse = [generator.integers(0, 256, (12, 16, 3), dtype=np.uint8) for _ in sizes]
    return [
        np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC))
        for image, (height, width) in zip(coarse, sizes, strict=True)
    ]


def random_state(architecture: str) -> dict[str, torch.Tensor]:
    """Weights as the published file has them: of the frozen norms no count of batches. They see people often."""
    torch.manual_seed(0)
    categories = get_model_weights(architecture)["COCO_V1"].meta["categories"]
    network = get_model(architecture, weights=None, weights_backbone=None, num_classes=len(categories)).eval()
    network.transform.min_size = (200,)  # for speed
    for module in network.modules():  # statistics that fit, without which hardly anything of a picture arrives
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train()
            module.momentum = None
    with torch.inference_mode():
        network([torch.from_numpy(picture).permute(2, 0, 1) / 255 for picture in pictures((90, 120), (90, 120))])
    state: dict[str, torch.Tensor] = network.state_dict()
    if "ssd" not in architecture and not architecture.endswith("_v2"):
        for name in [name for name in state if name.endswith("num_batches_tracked")]:
            del state[name]
    for name, values in state.items():
        of_classes = any(part in name for part in CLASS_BIASES) and values.numel() % len(categories) == 0
        if name.endswith("bias") and of_classes:
            values.view(-1, len(categories))[:, categories.index("person")] += 3.0
    return {name: values.clone() for name, values in state.items()}


def weight_file(folder: Path, architecture: str) -> str:
    path = folder / f"{architecture}.pth"
    if not path.exists():
        torch.save(random_state(architecture), path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def detector(folder: Path) -> TorchvisionDetector:
    return TorchvisionDetector(SMALLEST, weights=weight_file(folder, SMALLEST), device="cpu")


# -- the numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "architecture",
    [SMALLEST, FAST]
    # One of each other family; all thirteen were compared once.
    + [
        pytest.param(name, marks=[pytest.mark.slow, pytest.mark.long])
        for name in ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "fcos_resnet50_fpn", "ssd300_vgg16")
    ],
)
def test_people_are_those_of_torchvisions_own_model(
    architecture: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pictures((130, 180))[0]
    path = weight_file(folder, architecture)
    detector = TorchvisionDetector(architecture, weights=path, device="cpu")
    detector._network.transform.min_size = (200,)  # for speed, of both
    found = detector([image])[0]

    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: torch.load(path, weights_only=True))
    published = get_model_weights(architecture)["COCO_V1"]
    theirs = get_model(architecture, weights=published).eval()
    theirs.transform.min_size = (200,)
    heads = getattr(theirs, "roi_heads", theirs)
    heads.score_thresh, heads.detections_per_img = 0.05, 300  # what the detector sets
    with torch.inference_mode():
        output = theirs([torch.from_numpy(image).permute(2, 0, 1) / 255])[0]
    people = output["labels"] == published.meta["categories"].index("person")
    people &= (output["boxes"][:, 2:] > output["boxes"][:, :2]).all(dim=1)  # clipped to nothing
    boxes = output["boxes"][people].numpy().astype(np.float64)
    assert len(found) >= 3
    np.testing.assert_array_equal(found.boxes_xywh[:, :2], boxes[:, :2])
    np.testing.assert_allclose(found.boxes_xywh[:, 2:], boxes[:, 2:] - boxes[:, :2], atol=1e-9)
    np.testing.assert_array_equal(found.scores, output["scores"][people].numpy().astype(np.float64))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (33, 20000)])
def test_pictures_of_odd_sizes_have_a_result_and_may_be_a_view(
    detector: TorchvisionDetector, size: tuple[int, int]
) -> None:
    image = np.zeros((*size, 3), np.uint8)[:, ::-1]
    image.setflags(write=False)
    assert detector([image])[0].boxes_xywh.shape[1] == 4


def test_boxes_of_a_very_large_picture_are_in_its_own_pixels(
    detector: TorchvisionDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision_detector, "_LONGEST_SIDE", 400)
    small = pictures((150, 400))[0]
    large = np.asarray(cv2.resize(small, (1600, 600), interpolation=cv2.INTER_NEAREST))
    np.testing.assert_allclose(detector([large])[0].boxes_xywh, 4 * detector([small])[0].boxes_xywh, atol=1e-3)


# -- the weights ------------------------------------------------------------------------------------------------------


def test_without_a_network_one_line_says_what_else_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNIFORMER_POSE_CACHE", str(tmp_path))
    monkeypatch.setenv("UNIFORMER_POSE_OFFLINE", "1")
    with pytest.raises(InputError) as caught:
        TorchvisionDetector(device="cpu")
    line = str(caught.value)
    assert line.startswith("no weights for the person detector fasterrcnn_mobilenet_v3_large_fpn: https://")
    for way_out in ("by hand", "detector.model.weights=<file>", "boxes=full", "boxes=<detections.json>"):
        assert way_out in line
    assert line.isprintable()


def test_weights_of_another_architecture_are_one_line(folder: Path) -> None:
    with pytest.raises(InputError, match=f"not the weights of a {FAST} with 91 classes") as caught:
        TorchvisionDetector(FAST, weights=weight_file(folder, SMALLEST), device="cpu")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"architecture": "fcos_resnet50"},
            r"torchvision has no such detection model; did you mean fcos_resnet50_fpn\?",
        ),
        ({"architecture": "resnet50"}, "architecture=resnet50: torchvision has no such detection model"),
        ({"device": "cuda:99"}, "device=cuda:99: not there"),
        ({"device": "quantum"}, "device=quantum: not there"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments: dict[str, Any], said: str, folder: Path) -> None:
    with pytest.raises(InputError, match=said) as caught:
        TorchvisionDetector(**{"architecture": SMALLEST, "weights": weight_file(folder, SMALLEST), **arguments})
    assert str(caught.value).isprintable()
