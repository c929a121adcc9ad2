from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import load_skeleton

SPEC = CropSpec(256, 192)
BOX = np.array([100.0, 50.0, 60.0, 80.0])  # of the crop's aspect ratio: the extent is the box times 1.25
UPRIGHT = SPEC.around(BOX)
NOTHING = {
    "flip_probability": 0.0,
    "half_body_probability": 0.0,
    "shift_probability": 0.0,
    "scale_probability": 0.0,
    "rotation_probability": 0.0,
}
EVERYTHING_LABELLED = np.full(17, 2, dtype=np.uint8)


@pytest.fixture
def keypoints():
    return np.random.default_rng(5).uniform((100, 50), (160, 130), size=(17, 2))


def draw(augmentation, skeleton, keypoints, *, count=1, seed=0, visibility=EVERYTHING_LABELLED, spec=SPEC):
    rng = np.random.default_rng(seed)
    return [augmentation(rng, BOX, keypoints, visibility, skeleton, spec) for _ in range(count)]


def only(part, **arguments):
    return GeometricAugmentation(**(NOTHING | {f"{part}_probability": 1.0} | arguments))


def values(geometries, name):
    """One number of each crop; ``center`` and ``extent`` are those along x."""
    found = np.array([getattr(geometry, name) for geometry in geometries])
    return found if found.ndim == 1 else found[:, 0]


def numbers(geometries):
    """All that tells crops apart."""
    return [(g.spec, *g.center, *g.extent, g.rotation_degrees, g.mirrored) for g in geometries]


def half_body_extent(keypoints):
    """The crop around points: their extent times 1.5 about their mean, grown to the crop's aspect ratio."""
    width, height = np.ptp(keypoints, axis=0) * 1.5
    return max(width, height * SPEC.width / SPEC.height), max(height, width * SPEC.height / SPEC.width)


def test_with_all_probabilities_at_zero_the_crop_is_that_of_the_box(skeleton, keypoints):
    drawn = draw(GeometricAugmentation(**NOTHING), skeleton, keypoints, count=3)
    assert numbers(drawn) == numbers([UPRIGHT] * 3)


def test_switching_one_part_off_changes_no_other(skeleton, keypoints):
    full = draw(GeometricAugmentation(half_body_probability=0), skeleton, keypoints, count=50)
    without_flip = draw(
        GeometricAugmentation(half_body_probability=0, flip_probability=0), skeleton, keypoints, count=50
    )
    for name in ("center", "extent", "rotation_degrees"):
        assert values(full, name).tolist() == values(without_flip, name).tolist()


@pytest.mark.parametrize("distribution", ["truncated_normal", "original"])
def test_each_part_happens_with_its_probability(skeleton, keypoints, distribution):
    geometries = draw(
        GeometricAugmentation(half_body_probability=0, distribution=distribution),
        skeleton,
        keypoints,
        count=4000,
    )
    assert values(geometries, "mirrored").mean() == pytest.approx(0.5, abs=0.025)
    assert (values(geometries, "rotation_degrees") != 0).mean() == pytest.approx(0.6, abs=0.025)
    assert (values(geometries, "center") != UPRIGHT.center[0]).mean() == pytest.approx(0.3, abs=0.025)
    assert (values(geometries, "extent") != UPRIGHT.extent[0]).all()


@pytest.mark.parametrize(
    ("part", "distribution", "deviation", "share_at_the_ends"),
    [
        ("rotation", "truncated_normal", 43.2, 0.0),
        ("rotation", "original", 38.4, 0.0455),
        ("scale", "truncated_normal", 0.270, 0.0),
        ("scale", "original", 0.359, 0.317),
    ],
)
def test_rotation_and_scale_have_the_stated_distribution(
    skeleton, keypoints, part, distribution, deviation, share_at_the_ends
):
    drawn = draw(only(part, distribution=distribution), skeleton, keypoints, count=4000)
    if part == "rotation":
        sizes, reach = values(drawn, "rotation_degrees"), 80
    else:
        sizes, reach = values(drawn, "extent") / UPRIGHT.extent[0] - 1, 0.5
    assert np.abs(sizes).max() <= reach + 1e-9
    assert sizes.std() == pytest.approx(deviation, rel=0.03)
    assert sizes.mean() == pytest.approx(0, abs=reach / 40)
    assert np.isclose(np.abs(sizes), reach).mean() == pytest.approx(share_at_the_ends, abs=0.02)


@pytest.mark.parametrize(
    ("distribution", "factor", "deviation"),
    [("truncated_normal", 0.16 * 1.5, 0.5396), ("original", 0.2, 1 / np.sqrt(3))],  # of the padded box, of the box
)
def test_shift_is_measured_by_the_box_on_each_axis(skeleton, keypoints, distribution, factor, deviation):
    shift_factor = 0.16 if distribution == "truncated_normal" else 0.2
    augmentation = only("shift", distribution=distribution, shift_factor=shift_factor)
    geometries = draw(augmentation, skeleton, keypoints, count=4000, spec=CropSpec(256, 192, padding=1.5))
    shifts = np.array([geometry.center - UPRIGHT.center for geometry in geometries]) / (factor * BOX[2:])
    assert np.abs(shifts).max() <= 1 + 1e-9
    assert shifts.std(axis=0) == pytest.approx(deviation, rel=0.03)
    assert np.corrcoef(shifts.T)[0, 1] == pytest.approx(0, abs=0.05)


def test_the_shift_of_a_slim_person_is_measured_before_the_box_grows_to_the_crop(skeleton, keypoints):
    slim = np.array([0.0, 0.0, 10.0, 80.0])
    rng = np.random.default_rng(0)
    centers = [
        only("shift", shift_factor=1.0)(rng, slim, keypoints, EVERYTHING_LABELLED, skeleton, SPEC).center[0]
        for _ in range(500)
    ]
    assert 11 < np.abs(np.array(centers) - 5).max() <= 12.5


@pytest.mark.parametrize("half", ["upper", "lower"])
def test_half_body_shows_the_labelled_keypoints_of_one_half(skeleton, keypoints, half):
    visibility = EVERYTHING_LABELLED.copy()
    visibility[[0, 16]] = 0
    augmentation = only("half_body", half_body_upper_probability=float(half == "upper"))
    (geometry,) = draw(augmentation, skeleton, keypoints, visibility=visibility)
    names = skeleton.upper_body if half == "upper" else skeleton.lower_body
    shown = keypoints[[i for i in skeleton.indices(names) if visibility[i]]]
    assert geometry.center == pytest.approx(shown.mean(axis=0))
    assert tuple(geometry.extent) == pytest.approx(half_body_extent(shown))


@pytest.mark.parametrize(
    ("upper", "lower", "shown"),
    [
        (8, 0, None),  # fewer than nine labelled
        (9, 0, "upper"),
        (9, 2, "upper"),  # too few below, whatever is preferred
        (8, 3, "either"),
        (2, 3, None),
    ],
)
def test_half_body_needs_enough_keypoints(skeleton, keypoints, upper, lower, shown):
    visibility = np.zeros(17, dtype=np.uint8)
    visibility[skeleton.indices(skeleton.upper_body)[:upper]] = 1
    visibility[skeleton.indices(skeleton.lower_body)[:lower]] = 1
    centers = {
        "box": UPRIGHT.center[0],
        "upper": keypoints[skeleton.indices(skeleton.upper_body)[:upper], 0].mean(),
        "lower": keypoints[skeleton.indices(skeleton.lower_body)[:lower], 0].mean() if lower else np.nan,
    }
    for prefer_upper in (0.0, 1.0):
        augmentation = only("half_body", half_body_upper_probability=prefer_upper)
        (geometry,) = draw(augmentation, skeleton, keypoints, visibility=visibility)
        expected = {None: "box", "either": "upper" if prefer_upper else "lower"}.get(shown, shown)
        assert geometry.center[0] == pytest.approx(centers[expected])


def test_half_body_takes_no_notice_of_face_and_hands_which_are_in_neither_half():
    skeleton = load_skeleton("coco_wholebody_133")
    keypoints = np.random.default_rng(0).uniform(20, 80, (133, 2))
    keypoints[23:] += 200
    (geometry,) = draw(
        only("half_body", half_body_upper_probability=0.0), skeleton, keypoints, visibility=np.ones(133, dtype=np.uint8)
    )
    assert geometry.center == pytest.approx(keypoints[11:23].mean(axis=0))  # hips to heels


def test_keypoints_in_one_row_give_a_crop_and_in_one_point_the_box(skeleton, keypoints):
    row = keypoints.copy()
    row[:, 1] = 70.0
    (geometry,) = draw(only("half_body", half_body_upper_probability=1.0), skeleton, row)
    shown = row[skeleton.indices(skeleton.upper_body)]
    assert geometry.extent[0] == pytest.approx(1.5 * np.ptp(shown[:, 0]))
    assert geometry.center[1] == 70.0
    assert numbers(draw(only("half_body"), skeleton, np.full((17, 2), 70.0))) == numbers([UPRIGHT])


@pytest.fixture
def original():
    """What ``augmentation=original`` makes."""
    with initialize_config_dir(str(Path(__file__).parents[2] / "conf"), version_base="1.3"):
        return instantiate(compose("train", overrides=["augmentation=original"]).augmentation.geometric)


def test_the_originals_draws_are_those_of_its_code(skeleton, keypoints, original):
    """pose_estimation/ of Sense-X/UniFormer: topdown_coco_dataset.py (shift), top_down_transform.py (the rest)."""
    whole = draw(original, skeleton, keypoints, count=6000, visibility=np.zeros(17, dtype=np.uint8))
    shift_x = (values(whole, "center") - UPRIGHT.center[0]) / BOX[2]
    assert np.abs(shift_x).max() == pytest.approx(0.2, abs=0.002)
    assert (shift_x != 0).mean() == pytest.approx(0.3, abs=0.02)

    upper, lower = (
        keypoints[skeleton.indices(names)].mean(axis=0) for names in (skeleton.upper_body, skeleton.lower_body)
    )
    drawn = draw(original, skeleton, keypoints, count=6000)
    centers = np.array([geometry.center for geometry in drawn])
    of_upper, of_lower = (np.isclose(centers, mean, atol=1e-9).all(axis=1) for mean in (upper, lower))
    # Half a body is 0.3 of the visits, is not shifted, and is the upper half where a standard normal is below 0.5.
    assert (of_upper | of_lower).sum() / 6000 == pytest.approx(0.3, abs=0.02)
    assert of_upper.sum() / (of_upper | of_lower).sum() == pytest.approx(0.6915, abs=0.03)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"flip_probability": 1.5}, r"flip_probability=1\.5: must be"),
        ({"rotation_probability": float("nan")}, "rotation_probability=nan"),
        ({"scale_factor": 1.0}, r"scale_factor=1\.0"),
        ({"half_body_padding": 0}, "half_body_padding=0"),
        ({"distribution": "normal"}, "distribution='normal': must be 'truncated_normal' or 'original'"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, expected):
    with pytest.raises(InputError, match=expected):
        GeometricAugmentation(**arguments)
