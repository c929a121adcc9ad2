from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from uniformer_pose.errors import InputError
from uniformer_pose.pictures.drawing import draw_poses, save_picture, stroke_width
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


def thickness_at_the_middle(image: np.ndarray) -> int:
    return sum(is_near(pixel(image, 80, y), STICK.colours[0]) for y in range(len(image)))


def test_every_keypoint_has_its_own_colour_and_a_limb_that_of_its_first_end() -> None:
    drawn = draw_poses(GREY, POINTS, None, STICK)
    assert pixel(drawn, 20, 60) == STICK.colours[0]
    assert pixel(drawn, 140, 60) == STICK.colours[1]
    assert pixel(drawn, 80, 20) == STICK.colours[2]
    assert is_near(pixel(drawn, 80, 60), STICK.colours[0])
    assert pixel(drawn, 80, 100) == (90, 90, 90)


def test_the_image_that_was_given_stays_as_it_was() -> None:
    image = GREY.copy()
    drawn = draw_poses(image, POINTS, None, STICK)
    assert np.array_equal(image, GREY)
    assert drawn is not image
    assert drawn.shape == image.shape


def test_a_mirrored_read_only_view_can_be_drawn_on() -> None:
    view = GREY[:, ::-1]
    view.flags.writeable = False
    assert pixel(draw_poses(view, POINTS, None, STICK), 20, 60) == STICK.colours[0]


def test_only_keypoints_above_the_threshold_and_limbs_between_two_of_them_are_drawn() -> None:
    drawn = draw_poses(GREY, POINTS, np.array([[0.9, 0.3, 0.30001]]), STICK, score_threshold=0.3)
    assert pixel(drawn, 20, 60) == STICK.colours[0]
    assert pixel(drawn, 140, 60) == (90, 90, 90)
    assert pixel(drawn, 80, 60) == (90, 90, 90)
    assert pixel(drawn, 80, 20) == STICK.colours[2]


def test_visibility_stands_for_scores() -> None:
    drawn = draw_poses(GREY, POINTS, np.array([[2, 0, 1]], np.uint8), STICK)
    assert pixel(drawn, 20, 60) == STICK.colours[0]
    assert pixel(drawn, 140, 60) == (90, 90, 90)
    assert pixel(drawn, 80, 20) == STICK.colours[2]


def test_a_hollow_keypoint_is_a_ring_of_its_colour_around_white() -> None:
    image = np.full((400, 400, 3), 90, np.uint8)
    points = np.array([[[20.0, 200.0], [380.0, 200.0], [200.0, 50.0]]])
    drawn = draw_poses(image, points, None, STICK, hollow=np.array([[False, False, True]]))
    assert pixel(drawn, 200, 50) == (255, 255, 255)
    assert any(is_near(pixel(drawn, x, 50), STICK.colours[2]) for x in range(200, 215))
    assert pixel(drawn, 20, 200) == STICK.colours[0]


def test_lines_are_wider_for_a_larger_person() -> None:
    image = np.full((1000, 1000, 3), 90, np.uint8)
    large = np.array([[[5.0, 500.0], [995.0, 500.0], [80.0, 900.0]]])
    small = np.array([[[60.0, 500.0], [100.0, 500.0], [80.0, 490.0]]])
    assert thickness_at_the_middle(draw_poses(image, large, None, STICK)) >= 10
    assert 1 <= thickness_at_the_middle(draw_poses(image, small, None, STICK)) <= 2


@pytest.mark.parametrize(("extent", "expected"), [(0, 1), (90, 1), (180, 2), (450, 5), (5000, 12)])
def test_the_stroke_is_a_ninetieth_of_the_person_between_one_and_twelve_pixels(extent: int, expected: int) -> None:
    points = np.array([[0.0, 0.0], [3.0, float(extent)]])
    assert stroke_width(points, height=6000, width=6000) == expected


def test_what_lies_outside_the_image_does_not_widen_the_stroke() -> None:
    assert stroke_width(np.array([[0.0, 0.0], [9e5, 0.0]]), height=180, width=181) == 2


def test_a_person_without_keypoints_has_the_thinnest_stroke() -> None:
    assert stroke_width(np.zeros((0, 2)), height=100, width=100) == 1


@pytest.mark.parametrize("wild", [np.nan, np.inf, -np.inf, 1e7, -1e300])
def test_a_wild_keypoint_is_left_out_with_its_limbs_and_the_others_drawn(wild: float) -> None:
    points = POINTS.copy()
    points[0, 1, 0] = wild
    drawn = draw_poses(GREY, points, None, STICK)
    assert pixel(drawn, 80, 60) == (90, 90, 90)
    assert pixel(drawn, 20, 60) == STICK.colours[0]
    assert pixel(drawn, 80, 20) == STICK.colours[2]


@pytest.mark.parametrize("far", [1e4, 1e6])
def test_a_limb_to_a_keypoint_outside_the_image_is_drawn_up_to_the_border(far: float) -> None:
    points = POINTS.copy()
    points[0, 1, 0] = far
    assert is_near(pixel(draw_poses(GREY, points, None, STICK), 159, 60), STICK.colours[0])


def test_a_score_that_is_not_a_number_hides_its_keypoint() -> None:
    drawn = draw_poses(GREY, POINTS, np.array([[np.nan, 1.0, 1.0]]), STICK)
    assert pixel(drawn, 20, 60) == (90, 90, 90)


def test_no_people_leave_a_plain_copy() -> None:
    assert np.array_equal(draw_poses(GREY, np.zeros((0, 17, 2)), np.zeros((0, 17)), COCO), GREY)


def test_the_sixteenth_of_a_pixel_moves_the_drawing() -> None:
    shifted = draw_poses(GREY, POINTS + 0.25, None, STICK)
    assert not np.array_equal(shifted, draw_poses(GREY, POINTS, None, STICK))


def test_keypoints_of_another_skeleton_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, 2\) do not fit skeleton 'coco_17': \(P, 17, 2\)"):
        draw_poses(GREY, POINTS, None, COCO)


def test_a_saved_png_holds_the_same_pixels_and_nothing_else_is_left(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = tmp_path / "new" / "folder" / "sheet.png"
    save_picture(path, image)
    save_picture(path, image[::-1])
    read = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    assert np.array_equal(read, image[::-1])
    assert [entry.name for entry in path.parent.iterdir()] == ["sheet.png"]


def test_a_picture_that_cannot_be_written_says_where_and_why_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sheet.png"
    save_picture(path, GREY)
    before = path.read_bytes()

    def write_half(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(InputError) as caught:
        save_picture(path, GREY)
    assert str(caught.value) == (
        f"cannot write the picture {path} (No space left on device); "
        "give a folder that can be written to and has space left"
    )
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write the picture .*sheet\.png \("):
        save_picture(tmp_path / "file" / "sheet.png", GREY)


@pytest.mark.parametrize("skeleton", [COCO, STICK], ids=["coco", "stick"])
def test_drawing_one_keypoint_paints_that_keypoint_only(skeleton: Skeleton) -> None:
    for keypoint in range(skeleton.num_keypoints):
        scores: Any = np.zeros((1, skeleton.num_keypoints))
        scores[0, keypoint] = 1
        points = np.full((1, skeleton.num_keypoints, 2), 50.0)
        drawn = draw_poses(GREY, points, scores, skeleton)
        assert pixel(drawn, 50, 50) == skeleton.colours[keypoint]
        assert (drawn != GREY).any(axis=-1).sum() < 80
