from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from uniformer_pose.pictures.drawing import draw_poses, save_picture
from uniformer_pose.skeleton import Skeleton, load_skeleton

COCO = load_skeleton("coco_17")
# Three keypoints in a row with one limb between the first two; K differs from COCO's on purpose.
STICK = Skeleton(
    name="stick",
    keypoint_names=("left_end", "right_end", "middle"),
    sigmas=(0.1, 0.1, 0.1),
    colours=((200, 10, 30), (10, 200, 60), (20, 40, 210)),
    left_right_pairs=(("left_end", "right_end"),),
    upper_body=(),
    lower_body=(),
    limbs=(("left_end", "right_end"),),
)
GREY = np.full((120, 160, 3), 90, np.uint8)
POINTS = np.array([[[20.0, 60.0], [140.0, 60.0], [80.0, 20.0]]])


def pixel(image: np.ndarray, x: int, y: int) -> tuple[int, ...]:
    return tuple(image[y, x].tolist())


def is_near(colour: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Smoothing lets a line one pixel wide differ a little from its colour."""
    return max(abs(a - b) for a, b in zip(colour, expected, strict=True)) <= 20


def drawn_on_grey(points: np.ndarray, scores: object = None, **options: float) -> list[bool]:
    """Whether both ends, the middle and the limb are there; every keypoint in its colour, the limb in its first's."""
    drawn = draw_poses(GREY, points, None if scores is None else np.array([scores]), STICK, **options)
    places = zip(((20, 60), (140, 60), (80, 20)), STICK.colours, strict=True)
    keypoints = [pixel(drawn, *place) == colour for place, colour in places]
    return [*keypoints, is_near(pixel(drawn, 80, 60), STICK.colours[0])]


@pytest.mark.parametrize(
    ("scores", "threshold", "expected"),
    [
        (None, 0.2, [True, True, True, True]),
        ([0.9, 0.3, 0.30001], 0.3, [True, False, True, False]),
        ([2, 0, 1], 0.2, [True, False, True, False]),  # COCO's visibility stands for scores
        ([np.nan, 1.0, 1.0], 0.2, [False, True, True, False]),
    ],
)
def test_keypoints_above_the_threshold_and_limbs_between_two_of_them_are_drawn(
    scores: object, threshold: float, expected: list[bool]
) -> None:
    assert drawn_on_grey(POINTS, scores, score_threshold=threshold) == expected


@pytest.mark.parametrize(("x", "has_limb"), [(np.nan, False), (-np.inf, False), (-1e300, False), (1e4, True)])
def test_a_wild_keypoint_is_left_out_and_the_limb_to_one_outside_is_drawn_to_the_border(
    x: float, has_limb: bool
) -> None:
    points = POINTS.copy()
    points[0, 1, 0] = x
    assert drawn_on_grey(points) == [True, False, True, has_limb]


def test_the_image_that_was_given_stays_as_it_was_even_a_mirrored_read_only_view() -> None:
    view = GREY.copy()[:, ::-1]
    view.flags.writeable = False
    assert pixel(draw_poses(view, POINTS, None, STICK), 20, 60) == STICK.colours[0]
    assert (view == 90).all()
    assert np.array_equal(draw_poses(GREY, np.zeros((0, 17, 2)), np.zeros((0, 17)), COCO), GREY)


def test_a_hollow_keypoint_is_a_ring_of_its_colour_around_white() -> None:
    image = np.full((400, 400, 3), 90, np.uint8)
    points = np.array([[[20.0, 200.0], [380.0, 200.0], [200.0, 50.0]]])
    drawn = draw_poses(image, points, None, STICK, hollow=np.array([[False, False, True]]))
    assert pixel(drawn, 200, 50) == (255, 255, 255)
    assert any(is_near(pixel(drawn, x, 50), STICK.colours[2]) for x in range(200, 215))
    assert pixel(drawn, 20, 200) == STICK.colours[0]


@pytest.mark.parametrize("skeleton", [COCO, STICK], ids=["coco", "stick"])
def test_drawing_one_keypoint_paints_that_keypoint_only_to_a_sixteenth_of_a_pixel(skeleton: Skeleton) -> None:
    points = np.full((1, skeleton.num_keypoints, 2), 50.0)
    for keypoint in range(skeleton.num_keypoints):
        scores = np.eye(skeleton.num_keypoints)[None, keypoint]
        drawn = draw_poses(GREY, points, scores, skeleton)
        assert pixel(drawn, 50, 50) == skeleton.colours[keypoint]
        assert (drawn != GREY).any(axis=-1).sum() < 80
        assert not np.array_equal(drawn, draw_poses(GREY, points + 0.25, scores, skeleton))


def test_a_saved_png_holds_the_same_pixels_and_nothing_else_is_left(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = tmp_path / "new" / "folder" / "sheet.png"
    save_picture(path, image)
    save_picture(path, image[::-1])
    assert np.array_equal(cv2.imread(str(path))[..., ::-1], image[::-1])
    assert [entry.name for entry in path.parent.iterdir()] == ["sheet.png"]
