from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from uniformer_pose.pictures.sheets import prediction_sheet, training_sheet
from uniformer_pose.skeleton import Skeleton

SPOTS = Skeleton(
    name="spots",
    keypoint_names=("left_spot", "right_spot"),
    sigmas=(0.1, 0.1),
    colours=((255, 0, 0), (0, 0, 255)),
    left_right_pairs=(("left_spot", "right_spot"),),
    upper_body=(),
    lower_body=(),
    limbs=(),
)
STRIP, GAP, SEAM = 24, 6, 2  # title or caption, between panels, between the two pictures of one
GREY = 100


def batch(people: int, height: int, width: int, *, visibility: int = 2) -> dict[str, Any]:
    """Grey crops with the left spot at a quarter and the right one at three quarters of both sides."""
    places = np.array([[0.25, 0.25], [0.75, 0.75]]) * [width, height]
    return {
        "crops": np.full((people, height, width, 3), GREY, np.uint8),
        "keypoints": np.broadcast_to(places, (people, 2, 2)).astype(np.float32),
        "visibility": np.full((people, 2), visibility, np.uint8),
    }


def train(data: dict[str, Any], heatmaps: np.ndarray | None = None, **options: Any) -> np.ndarray:
    if heatmaps is None:
        people, height, width = data["crops"].shape[:3]
        heatmaps = np.zeros((people, 2, height // 4, width // 4), np.float32)
    return training_sheet(data["crops"], data["keypoints"], data["visibility"], heatmaps, SPOTS, **options)


def predict(data: dict[str, Any], predicted: np.ndarray, **options: Any) -> np.ndarray:
    people = len(data["crops"])
    settings: dict[str, Any] = {"oks": np.full(people, 0.5), "scores": np.full(people, 0.5), **options}
    confidence = np.ones((people, 2))
    return prediction_sheet(
        data["crops"], data["keypoints"], data["visibility"], predicted, confidence, SPOTS, **settings
    )


def pictures(sheet: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The two pictures of the first person."""
    top = 2 * STRIP
    first = sheet[top : top + height, GAP : GAP + width]
    left = GAP + width + SEAM
    return first, sheet[top : top + height, left : left + width]


def test_a_predicted_keypoint_that_is_likely_hidden_is_a_ring() -> None:
    data = batch(1, 256, 192)
    sheet = predict(data, data["keypoints"], hollow=np.array([[False, True]]))
    _, predicted = pictures(sheet, 256, 192)
    assert predicted[64, 48].tolist() == list(SPOTS.colours[0])
    assert predicted[192, 144].tolist() == [255, 255, 255]


def test_a_labelled_keypoint_has_its_colour_a_hidden_one_is_a_ring_and_an_unlabelled_one_absent() -> None:
    data = batch(1, 256, 192)
    annotated, overlaid = pictures(train(data), 256, 192)
    assert annotated[64, 48].tolist() == [255, 0, 0]
    assert annotated[192, 144].tolist() == [0, 0, 255]
    assert (overlaid == GREY).all()
    data["visibility"][0] = [1, 0]
    annotated, _ = pictures(train(data), 256, 192)
    assert annotated[64, 48].tolist() == [255, 255, 255]
    assert annotated[192, 144].tolist() == [GREY] * 3


@pytest.mark.parametrize("unbiased", [False, True])
def test_a_heatmap_peak_lies_over_the_crop_pixel_that_its_cell_means_in_the_colour_of_its_keypoint(
    unbiased: bool,
) -> None:
    data = batch(1, 256, 192)
    heatmaps = np.zeros((1, 2, 64, 48), np.float32)
    heatmaps[0, 1, 40, 30] = 1.0
    _, overlaid = pictures(train(data, heatmaps, cell_size=(191 / 47, 255 / 63) if unbiased else (4.0, 4.0)), 256, 192)
    blue = overlaid[..., 2].astype(int)
    row, column = np.unravel_index(blue.argmax(), blue.shape)
    cell = np.array([40, 30])
    expected = cell * [255 / 63, 191 / 47] if unbiased else cell * 4
    assert np.abs(np.array([row, column]) - expected).max() <= 1
    assert overlaid[row, column, 2] > 190
    assert overlaid[row, column, 0] < 60
    assert overlaid[0, 0].tolist() == [GREY] * 3


def test_predictions_are_drawn_right_of_the_ground_truth_also_of_somebody_unlabelled() -> None:
    data = batch(1, 256, 192)
    truth, predicted = pictures(predict(data, data["keypoints"] + 20), 256, 192)
    assert truth[64, 48].tolist() == [255, 0, 0]
    assert truth[84, 68].tolist() == [GREY] * 3
    assert predicted[84, 68].tolist() == [255, 0, 0]
    assert predicted[64, 48].tolist() == [GREY] * 3
    data = batch(1, 256, 192, visibility=0)
    truth, predicted = pictures(predict(data, data["keypoints"], oks=[np.nan]), 256, 192)
    assert (truth == GREY).all()
    assert predicted[64, 48].tolist() == [255, 0, 0]


def test_what_is_not_a_number_or_far_away_does_not_stop_a_sheet() -> None:
    data = batch(2, 64, 48)
    predicted = data["keypoints"].astype(np.float64)
    predicted[0], predicted[1] = np.nan, 1e12
    truth, shown = pictures(predict(data, predicted, oks=[np.nan, 0.0], scores=[np.nan, 0.0]), 192, 144)
    assert (truth != GREY).any()
    assert (shown == GREY).all()
    for bad in (np.nan, np.inf, -np.inf, -5.0):
        assert train(data, np.full((2, 2, 16, 12), bad, np.float32)).dtype == np.uint8
    nobody = batch(0, 256, 192)
    for sheet in (train(nobody), predict(nobody, nobody["keypoints"])):
        assert sheet.shape == (STRIP, 384, 3)
