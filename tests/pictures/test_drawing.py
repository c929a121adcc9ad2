from __future__ import annotations

from dataclasses import replace
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


def standing(skeleton: Skeleton, height: float) -> np.ndarray:
    """(1, K, 2) keypoints of somebody facing the camera, arms hanging, of that height in pixels from (40, 40) on."""
    place = {"nose": (0, 0.075), "head": (0, 0.0), "neck": (0, 0.15), "hip": (0, 0.5), "face-8": (0, 0.125)}
    for side, name in ((1, "left"), (-1, "right")):
        joints = {"eye": (0.02, 0.06), "ear": (0.045, 0.07), "shoulder": (0.11, 0.18), "elbow": (0.14, 0.33)}
        joints |= {"wrist": (0.15, 0.46), "hip": (0.07, 0.5), "knee": (0.075, 0.74), "ankle": (0.08, 0.95)}
        joints |= {"heel": (0.08, 0.98), "big_toe": (0.1, 1.0), "small_toe": (0.12, 0.99), "hand_root": (0.15, 0.47)}
        place |= {f"{name}_{joint}": (side * x, y) for joint, (x, y) in joints.items()}
        for finger, label in enumerate(("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")):
            for joint in range(1, 5):
                place[f"{name}_{label}{joint}"] = (side * (0.15 + 0.01 * (2 - finger)), 0.485 + 0.013 * joint)
        for point in range(8):  # the right half of each feature comes first, from 0 the outline
            angle = np.pi / 16 * point
            place[f"face-{8 + side * (8 - point)}"] = (side * 0.045 * np.cos(angle), 0.07 + 0.055 * np.sin(angle))
        half = {"17 18 19 20 21 26 25 24 23 22": (0.036, 0.05, 0.008), "31 32 35 34": (0.008, 0.085, 0.005)}
        half |= {"36 37 38 39 40 41 45 44 43 42 47 46": (0.03, 0.06, 0.004)}
        half |= {"48 49 50 60 61 59 58 67 54 53 52 64 63 55 56 65": (0.018, 0.105, 0.004)}
        for numbers, (x, y, step) in half.items():
            ours = np.array_split(numbers.split(), 2)[side > 0]
            for place_in_half, number in enumerate(ours):
                place[f"face-{number}"] = (side * (x - step * place_in_half), y + 0.004 * (place_in_half % 2))
    middle = {"27": 0.06, "28": 0.067, "29": 0.074, "30": 0.08, "33": 0.087, "51": 0.1, "62": 0.104, "66": 0.108}
    place |= {f"face-{number}": (0.0, y) for number, y in (middle | {"57": 0.112}).items()}
    points = np.array([[place[name] for name in skeleton.keypoint_names]]) * height
    return np.add(points, [0.2 * height + 40, 40])


WHOLE_BODIES = [load_skeleton("coco_wholebody_133"), load_skeleton("halpe_136")]


def grey(height: float) -> np.ndarray:
    """Room for ``standing``, as far from the dark rim as from the light colours."""
    return np.full((round(height) + 80, round(0.4 * height) + 80, 3), 137, np.uint8)


def painted(image: np.ndarray) -> np.ndarray:
    """(H, W) 0 to 1, how far each pixel is from the grey."""
    return (np.abs(image.astype(float) - 137).max(axis=-1) / 117).clip(0, 1)


def points_of(skeleton: Skeleton, start: str) -> list[int]:
    return [index for index, name in enumerate(skeleton.keypoint_names) if name.startswith(start)]


@pytest.mark.parametrize("skeleton", WHOLE_BODIES, ids=lambda skeleton: skeleton.name)
@pytest.mark.parametrize(("height", "most"), [(150, 0.6), (300, 0.4), (800, 0.25)])
def test_most_of_a_face_is_seen_under_its_keypoints(skeleton: Skeleton, height: float, most: float) -> None:
    points = standing(skeleton, height)
    face = np.zeros(grey(height).shape[:2], np.uint8)
    cv2.fillConvexPoly(face, cv2.convexHull(points[0, points_of(skeleton, "face-")].round().astype(np.int32)), 1)
    share = painted(draw_poses(grey(height), points, None, skeleton))[face > 0].mean()
    assert 0.1 < share < most


@pytest.mark.parametrize("skeleton", WHOLE_BODIES, ids=lambda skeleton: skeleton.name)
@pytest.mark.parametrize("height", [600, 1200])
def test_keypoints_of_a_face_are_dots_of_their_colour_with_gaps_between(skeleton: Skeleton, height: float) -> None:
    limbless = replace(skeleton, limbs=())
    points = standing(skeleton, height)
    drawn = draw_poses(grey(height), points, None, limbless)
    outline = [limbless.keypoint_names.index(f"face-{number}") for number in range(1, 16)]
    for keypoint in outline:
        x, y = points[0, keypoint].round().astype(int)
        around = drawn[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).tolist()
        assert any(is_near(tuple(colour), limbless.colours[keypoint]) for colour in around)
    between = (points[0, outline][1:] + points[0, outline][:-1]) / 2
    assert max(painted(drawn)[y, x] for x, y in between.round().astype(int)) < 0.5


@pytest.mark.parametrize("skeleton", WHOLE_BODIES, ids=lambda skeleton: skeleton.name)
def test_fingers_are_thin_from_their_root_and_the_forearm_is_not(skeleton: Skeleton) -> None:
    points = standing(skeleton, 600)

    def width(first: str, second: str) -> float:
        alone, without = (replace(skeleton, limbs=limbs) for limbs in (((first, second),), ()))
        changed = draw_poses(grey(600), points, None, alone) != draw_poses(grey(600), points, None, without)
        length = np.linalg.norm(np.subtract(*points[0, skeleton.indices([first, second])]))
        return float(changed.any(axis=-1).sum() / length)

    fingers = [limb for limb in skeleton.limbs if "left_ring_finger" in limb[1]]
    assert len(fingers) == 4
    assert max(width(*limb) for limb in fingers) < 4
    assert 5 < width("left_elbow", "left_wrist") <= width("left_shoulder", "left_elbow")


@pytest.mark.parametrize(
    ("name", "keypoint"), [("coco_17", "nose"), ("halpe_26", "right_ear"), ("halpe_26", "left_small_toe")]
)
@pytest.mark.parametrize("height", [40, 150, 900])
def test_keypoints_of_a_body_are_as_large_in_a_whole_skeleton_as_alone(name: str, keypoint: str, height: float) -> None:
    skeleton = load_skeleton(name)
    others = [other for other in skeleton.keypoint_names if other != keypoint]
    on_top = Skeleton(  # the last keypoint is drawn over the others
        name="on_top",
        keypoint_names=(*others, keypoint),
        sigmas=skeleton.sigmas,
        colours=(*[(10, 10, 10)] * len(others), (255, 0, 0)),
        left_right_pairs=(),
        upper_body=(),
        lower_body=(),
        limbs=(),
    )
    points = standing(on_top, height)
    ends = {points[0, :, 1].argmin(), points[0, :, 1].argmax(), len(others)}

    def size(shown: list[int]) -> int:
        scores = np.isin(np.arange(skeleton.num_keypoints), shown)[None].astype(float)
        return int((draw_poses(grey(height), points, scores, on_top) == (255, 0, 0)).all(axis=-1).sum())

    assert size(list(ends)) == size(list(range(skeleton.num_keypoints))) > 10


def test_a_dot_without_room_for_a_ring_is_filled_and_a_wrist_with_room_is_a_ring() -> None:
    skeleton = WHOLE_BODIES[0]
    points = standing(skeleton, 400)
    drawn = draw_poses(grey(400), points, None, skeleton, hollow=np.ones((1, skeleton.num_keypoints), bool))
    filled = draw_poses(grey(400), points, None, skeleton)
    mouth = points[0, points_of(skeleton, "face-48")[0]].round().astype(int)
    assert pixel(drawn, *mouth) == pixel(filled, *mouth)
    assert pixel(drawn, *points[0, skeleton.keypoint_names.index("left_knee")].round().astype(int)) == (255, 255, 255)


@pytest.mark.parametrize("height", [0, 1, 7])
@pytest.mark.parametrize("side", [1, 30])
def test_people_of_a_few_pixels_and_pictures_of_one_are_drawn(height: float, side: int) -> None:
    for skeleton in (COCO, *WHOLE_BODIES):
        points = standing(skeleton, height) - 39.5
        points[0, ::5] = np.nan
        canvas = np.full((side, side, 3), 90, np.uint8)
        drawn = draw_poses(canvas, points, None, skeleton)
        assert drawn.shape == canvas.shape
        assert (drawn != canvas).any()
        assert np.array_equal(draw_poses(canvas, points * np.nan, None, skeleton), canvas)
