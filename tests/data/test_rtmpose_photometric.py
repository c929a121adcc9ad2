"""RTMPose's changes of the pixels: what is drawn has the distributions that MMPose's config states."""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np
import pytest

from uniformer_pose.data.photometric import _albumentations
from uniformer_pose.data.rtmpose_photometric import RTMPosePhotometric
from uniformer_pose.errors import InputError

DRAWS = 4000
NO_COLOURS = {"hue_reach": 0, "saturation_reach": 0, "value_reach": 0}
NO_BLUR = {"blur_probability": 0, "median_blur_probability": 0}
NOTHING = NO_COLOURS | NO_BLUR | {"dropout_probability": 0}
KERNELS = (3, 5, 7)


def drawn(image, count=DRAWS, **arguments):
    augmentation, rng = RTMPosePhotometric(**arguments), np.random.default_rng(0)
    return [augmentation(image, rng) for _ in range(count)]


def one_colour(hue, saturation, value, shape=(1, 1)):
    return cv2.cvtColor(np.full((*shape, 3), (hue, saturation, value), np.uint8), cv2.COLOR_HSV2RGB)


def gains_of(images, hue, saturation, value):
    """What was added to hue, saturation and value of ``one_colour``, (n, 3)."""
    found = np.array([cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[0, 0] for image in images]).astype(int)
    return found - (hue, saturation, value)


def shares_of(values):
    return {int(value): float((values == value).mean()) for value in np.unique(values)}


def cumulative_distance(values, low, high):
    """Kolmogorov's distance of some values from the uniform distribution."""
    expected = (np.sort(values) - low) / (high - low)
    return np.abs(expected - np.linspace(0, 1, len(values))).max()


@pytest.fixture(scope="module")
def grey():
    """Random greys, which a way through HSV leaves as they are."""
    return np.repeat(np.random.default_rng(1).integers(0, 256, (50, 40, 1), dtype=np.uint8), 3, axis=2)


def test_hue_and_value_get_gains_of_half_the_time_cut_to_whole_numbers():
    middle = (90, 128, 220)
    gains = gains_of(drawn(one_colour(*middle), **NO_BLUR, dropout_probability=0), *middle)
    hue, value = gains[:, 0], gains[:, 2]
    # Within +-5, cut towards 0: a fifth of what is kept becomes 0, and nothing 5.
    expected = {hue: 0.6 if hue == 0 else 0.05 for hue in range(-4, 5)}
    assert shares_of(hue) == pytest.approx(expected, abs=0.025)
    assert set(value) == set(range(-29, 30))
    assert (value == 0).mean() == pytest.approx(0.5 + 0.5 / 30, abs=0.025)
    assert cumulative_distance(value[value != 0], -30, 30) < 0.04
    both = (hue != 0) & (value != 0)
    assert both.mean() == pytest.approx(0.4 * (0.5 - 0.5 / 30), abs=0.025)


def test_saturation_gets_the_same_gains():
    full = (90, 128, 255)  # at full value each saturation is a colour of its own
    arguments = NOTHING | {"saturation_reach": 30}
    saturation = gains_of(drawn(one_colour(*full), **arguments), *full)[:, 1]
    assert set(saturation) == set(range(-29, 30))
    assert (saturation == 0).mean() == pytest.approx(0.5 + 0.5 / 30, abs=0.025)
    assert cumulative_distance(saturation[saturation != 0], -30, 30) < 0.04


def test_the_hue_goes_round_and_the_others_stop_at_their_ends():
    red = gains_of(drawn(one_colour(0, 255, 255), 400, **(NOTHING | {"hue_reach": 5})), 0, 255, 255)
    assert set(red[:, 0]) == {0, 1, 2, 3, 4, 176, 177, 178, 179}
    arguments = NOTHING | {"saturation_reach": 30, "value_reach": 30}
    bright = gains_of(drawn(one_colour(0, 255, 255), 400, **arguments), 0, 255, 255)
    assert bright[:, 1:].max() == 0
    assert bright[:, 1:].min(axis=0) == pytest.approx([-29, -29], abs=1)
    assert (drawn(np.zeros((2, 2, 3), np.uint8), 400, **arguments)[0] >= 0).all()


def test_either_blur_comes_with_a_tenth_and_three_kernels_equally_often_as_albumentations_draws_them(grey):
    kinds = {
        **{("mean", k): cv2.blur(grey, (k, k)) for k in KERNELS},
        **{("median", k): cv2.medianBlur(grey, k) for k in KERNELS},
        **{("both", k, m): cv2.medianBlur(cv2.blur(grey, (k, k)), m) for k, m in product(KERNELS, KERNELS)},
        ("none",): grey,
    }
    kind_of = {image.tobytes(): kind for kind, image in kinds.items()}
    found = [kind_of[image.tobytes()] for image in drawn(grey, **NO_COLOURS, dropout_probability=0)]
    counts = {kind: found.count(kind) / DRAWS for kind in kinds}
    assert counts[("none",)] == pytest.approx(0.81, abs=0.02)
    for blur, kernel in product(("mean", "median"), KERNELS):
        assert counts[(blur, kernel)] == pytest.approx(0.03, abs=0.009)
    assert sum(share for kind, share in counts.items() if kind[0] == "both") == pytest.approx(0.01, abs=0.005)

    library = _albumentations()
    for blur, transform in (("mean", library.Blur(p=1)), ("median", library.MedianBlur(p=1))):
        transform.set_random_seed(0)
        kinds_there = {kind_of[transform(image=grey)["image"].tobytes()] for _ in range(60)}
        assert kinds_there == {(blur, kernel) for kernel in KERNELS}


def test_one_black_rectangle_of_a_fifth_to_two_fifths_lies_anywhere_in_the_crop():
    height, width = 200, 150
    black = [image[..., 0] == 0 for image in drawn(np.full((height, width, 3), 255, np.uint8), **NO_COLOURS, **NO_BLUR)]
    rows = [np.flatnonzero(each.any(axis=1)) for each in black]
    columns = [np.flatnonzero(each.any(axis=0)) for each in black]
    for image, of_rows, of_columns in zip(black, rows, columns, strict=True):
        assert image[np.ix_(of_rows, of_columns)].all()
        assert image.sum() == len(of_rows) * len(of_columns)
    sides = [(rows, height), (columns, width)]
    for found, side in sides:
        lengths = np.array([len(each) for each in found])
        assert (lengths.min(), lengths.max()) == (side // 5, side * 2 // 5 - 1)
        assert cumulative_distance(lengths / side, 0.2, 0.4) < 0.04
        place = np.array([(each[0] + 0.5) / (side - len(each) + 1) for each in found])
        assert cumulative_distance(place, 0, 1) < 0.03
        assert min(each[0] for each in found) == 0
        assert max(each[-1] for each in found) == side - 1
    heights, widths = (np.array([len(each) for each in found]) for found, _side in sides)
    assert np.corrcoef(heights, widths)[0, 1] == pytest.approx(0, abs=0.05)


def test_the_rectangle_comes_with_its_probability_and_switching_it_off_changes_nothing_else():
    image = np.random.default_rng(0).integers(1, 256, (20, 15, 3), dtype=np.uint8)
    half, never = (drawn(image, 1000, dropout_probability=probability) for probability in (0.5, 0))
    covered = np.array([(one == 0).all(axis=2).sum() >= 12 for one in half])
    assert covered.mean() == pytest.approx(0.5, abs=0.05)
    for one, other in zip(half, never, strict=True):
        seen = (one != 0).any(axis=2)
        assert np.array_equal(one[seen], other[seen])


def test_the_argument_stays_and_a_state_of_the_generator_is_one_result(grey):
    before = grey.copy()
    first, second = drawn(grey, 20), drawn(grey, 20)
    assert np.array_equal(grey, before)
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    assert len({image.tobytes() for image in first}) == 20
    assert np.array_equal(drawn(grey, 1, **NOTHING)[0], grey)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"hue_reach": 91}, "hue_reach=91: must be"),
        ({"value_reach": -1}, "value_reach=-1: must be"),
        ({"blur_probability": 1.5}, r"blur_probability=1\.5: must be"),
        ({"dropout_max_size": 0.1}, r"dropout_max_size=0\.1: must be"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, told):
    with pytest.raises(InputError, match=f"^{told}"):
        RTMPosePhotometric(**arguments)
