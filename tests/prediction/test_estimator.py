"""Four lines of Python give the poses that the evaluation would, whatever else is in the batch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from small_models import small_model
from uniformer_pose import PoseEstimator
from uniformer_pose.errors import DivergedError, InputError
from uniformer_pose.model.network import PoseNetwork
from weights_by_name import weights_by_name

RANDOM = np.random.default_rng(0)
PICTURES = [RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((90, 120), (60, 50))]
BOXES = [np.array([[10, 5, 40, 80], [60, 20, 30, 50], [-20, -20, 60, 60]]), np.array([[5, 5, 30, 40]])]


@pytest.fixture(scope="module")
def estimator() -> PoseEstimator:
    return PoseEstimator(small_model(), device="cpu")


@pytest.fixture(scope="module")
def reference_estimator(tmp_path_factory: pytest.TempPathFactory) -> PoseEstimator:
    with torch.device("meta"):
        entries = PoseNetwork(17, [3, 4, 8, 3]).state_dict()
    path = tmp_path_factory.mktemp("reference") / "reference.pth"
    torch.save(weights_by_name({name: tuple(entry.shape) for name, entry in entries.items()}), path)
    return PoseEstimator(path, input_size=(256, 192), device="cpu", announce=len)


@pytest.mark.parametrize("flip_test", [False, True], ids=["plain", "flip test"])
def test_keypoints_are_those_of_the_reference(
    reference_estimator: PoseEstimator, numbers_folder: Path, pictures_folder: Path, flip_test: bool
) -> None:
    reference = json.loads((numbers_folder / "image_keypoints_uniformer_s_256x192.json").read_text())
    images = [pictures_folder / person["file_name"] for person in reference["people"]]
    boxes = [[person["bbox_xywh"]] for person in reference["people"]]
    found = reference_estimator.predict_batch(images, boxes, flip_test=flip_test)
    expected = [person["flip_test" if flip_test else "plain"] for person in reference["people"]]
    distances = np.concatenate(
        [np.abs(p.keypoints[0] - e["keypoints_xy"]).max(axis=1) for p, e in zip(found, expected, strict=True)]
    )
    assert np.mean(distances < 0.01) >= 0.95
    scores = np.concatenate([np.abs(p.scores[0] - e["scores"]) for p, e in zip(found, expected, strict=True)])
    assert scores.max() < 5e-3


@pytest.mark.parametrize("flip_test", [False, True])
def test_a_person_has_the_same_pose_alone_and_among_others(estimator: PoseEstimator, flip_test: bool) -> None:
    together = estimator.predict_batch(PICTURES, BOXES, flip_test=flip_test)
    by_three = PoseEstimator(estimator.model, device="cpu", batch_size=3)
    for picture, boxes, people in zip(PICTURES, BOXES, together, strict=True):
        for index, box in enumerate(boxes):
            alone = by_three(picture, boxes=[box], flip_test=flip_test)
            np.testing.assert_allclose(alone.keypoints[0], people.keypoints[index], atol=1e-3)
            np.testing.assert_allclose(alone.scores[0], people.scores[index], atol=1e-5)


def test_shapes_and_boxes_are_those_asked_for(estimator: PoseEstimator) -> None:
    first, second = estimator.predict_batch(PICTURES, BOXES, box_scores=[[0.5, 1.0, 0.25], None])
    assert first.keypoints.shape == (3, 17, 2)
    assert first.scores.shape == (3, 17)
    assert np.array_equal(first.boxes, BOXES[0])
    assert first.box_scores.tolist() == [0.5, 1.0, 0.25]
    assert second.box_scores.tolist() == [1.0]
    assert first.areas[0] == pytest.approx((80 * 1.25) ** 2)  # a square crop around the longer side


def test_nobody_is_an_answer(estimator: PoseEstimator) -> None:
    assert estimator.predict_batch([]) == []
    nobody, somebody = estimator.predict_batch(PICTURES, [[], BOXES[1]])
    assert nobody.keypoints.shape == (0, 17, 2)
    assert len(somebody) == 1
    assert nobody.plot(PICTURES[0]).shape == PICTURES[0].shape
    assert nobody.to_coco(1) == []


class Knowing(torch.nn.Module):
    """A network, and visibility logits: the image's mean for "labelled", the keypoint's number less 8 for "visible"."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        labelled = images.mean((1, 2, 3))[:, None].expand(-1, 17)
        return self.network(images), torch.stack([labelled, torch.arange(-8.0, 9).expand(len(images), 17)], dim=-1)


def test_what_the_network_says_of_visibility_comes_with_the_people_and_changes_no_keypoint(
    estimator: PoseEstimator,
) -> None:
    model = replace(estimator.model, network=Knowing(estimator.model.network))
    knowing = PoseEstimator(model, device="cpu", batch_size=3, engine="eager", announce=len)
    nobody, *found = knowing.predict_batch([PICTURES[0], *PICTURES], [[], *BOXES])
    assert nobody.visibility is not None
    assert nobody.visibility.shape == (0, 17, 2)
    for people, plain in zip(found, estimator.predict_batch(PICTURES, BOXES), strict=True):
        assert plain.visibility is None
        assert people.visibility is not None
        np.testing.assert_allclose(people.keypoints, plain.keypoints, atol=1e-3)
        visible = 1 / (1 + np.exp(-np.arange(-8.0, 9)))
        np.testing.assert_allclose(people.visibility[..., 1], np.tile(visible, (len(people), 1)), rtol=1e-5)
        assert len(np.unique(people.visibility[:, 0, 0])) == len(people)  # each person's own
        assert people.to_coco(1)[-1]["visibility"] == people.visibility[-1].tolist()


def test_all_forms_of_a_picture_give_the_same(estimator: PoseEstimator, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(PICTURES[0]).save(path)
    expected = estimator(PICTURES[0], BOXES[0]).keypoints
    for picture in (path, str(path), Image.open(path)):
        np.testing.assert_array_equal(estimator(picture, BOXES[0]).keypoints, expected)


def test_heatmaps_are_those_that_keypoints_are_read_from(estimator: PoseEstimator) -> None:
    heatmaps = estimator.heatmaps(PICTURES[0], BOXES[0][0], flip_test=True)
    assert heatmaps.shape == (17, 16, 16)
    people = estimator(PICTURES[0], BOXES[0][:1], flip_test=True)
    np.testing.assert_allclose(heatmaps.max(axis=(1, 2)), people.scores[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4, 3), dtype=np.float32), r"type float32 and shape \(4, 4, 3\): give RGB uint8 pixels"),
        (np.zeros((4, 4, 4), dtype=np.uint8), r"shape \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), dtype=np.uint8), r"shape \(0, 4, 3\)"),
        (np.zeros((3, 4, 4, 3), dtype=np.uint8), r"shape \(3, 4, 4, 3\)"),
        (3, "type int"),
        (None, "type NoneType"),
        ("nowhere.jpg", "nowhere.jpg: no such image file"),
    ],
)
def test_what_is_no_picture_is_refused(estimator: PoseEstimator, picture: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        estimator(picture)


@pytest.mark.parametrize(
    "boxes",
    [
        *([[0, 0, 10, 10], odd] for odd in ([0, 0, 0, 10], [0, 0, np.nan, 10], [np.inf, 0, 10, 10], [0, 0, 1e9, 10])),
        *([1, 2, 3, 4], [[1, 2, 3]], "abc", [[1, 2, 3, 4], [1, 2]], [["a", 1, 2, 3]]),
    ],
)
def test_boxes_that_cannot_be_are_refused_by_their_picture(estimator: PoseEstimator, boxes: Any) -> None:
    with pytest.raises(InputError, match="picture 1: ") as raised:
        estimator.predict_batch(PICTURES, [BOXES[0], boxes])
    assert "\n" not in str(raised.value)


def test_boxes_outside_the_picture_give_finite_keypoints(estimator: PoseEstimator) -> None:
    boxes = [[5000, 5000, 10, 10], [-500, 0, 20, 20], [-1e6, -1e6, 3e6, 3e6], [1, 1, 0.01, 0.01]]
    assert np.isfinite(estimator(PICTURES[0], boxes).keypoints).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_size": (256, 192)}, r"input_size=\(256, 192\): the model was trained at 64x64"),
        ({"weights": "x.pth", "input_size": (256, "a")}, r"give \(height, width\) of the crop"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"keypoints": "coco_17"}, r"a SavedModel gives its own; load it with load_model\(\.\.\., skeleton="),
        ({"weights": "x.pth", "keypoints": "coco_18"}, "no skeleton 'coco_18'"),
        ({"precision": "int8"}, "precision='int8': choose auto, fp32, bf16, fp16"),
        ({"device": "tpu7"}, "device=tpu7"),
        ({"device": "cuda:99"}, "device=cuda:99: not there"),
    ],
)
def test_settings_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PoseEstimator(**({"weights": small_model()} | arguments))


def test_a_network_that_gives_nan_is_said() -> None:
    model = small_model()
    with torch.no_grad():
        model.network.head.final_layer.bias.fill_(torch.nan)
    with pytest.raises(DivergedError, match="gives NaN or infinity"):
        PoseEstimator(model, device="cpu")(PICTURES[0])
