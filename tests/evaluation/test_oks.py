import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformer_pose.errors import InputError
from uniformer_pose.evaluation import oks as oks_module
from uniformer_pose.evaluation.oks import (
    keypoint_similarities,
    oks_nms,
    pairwise_oks,
    pose_scores,
    soft_oks_nms,
)

SIGMAS = np.array([0.05, 0.1])


def make_poses(generator, count, num_keypoints=2, spread=100.0):
    return generator.uniform(0, spread, (count, num_keypoints, 2))


def test_oks_of_a_known_pair_is_the_one_worked_out_by_hand():
    # Keypoint 0 is off by (3, 4), so d^2 = 25, with sigma 0.05: 2 (2 * 0.05)^2 = 0.02. Keypoint 1 is off by (0, 10),
    # so d^2 = 100, with sigma 0.1: 2 (2 * 0.1)^2 = 0.08. The areas 1000 and 3000 have mean 2000.
    keypoints = np.array([[[10.0, 10.0], [20.0, 20.0]], [[13.0, 14.0], [20.0, 30.0]]])
    expected = (math.exp(-25 / (0.02 * 2000)) + math.exp(-100 / (0.08 * 2000))) / 2
    oks = pairwise_oks(keypoints, np.array([1000.0, 3000.0]), SIGMAS)
    assert oks[0, 1] == pytest.approx(expected, abs=1e-12)
    assert oks[0, 1] == pytest.approx(0.5352614, abs=1e-6)


def test_an_area_of_zero_and_an_absurd_distance_divide_by_nothing_and_overflow_nothing():
    point = np.zeros((1, 2, 2))
    assert keypoint_similarities(point, point, np.zeros(1), SIGMAS).tolist() == [[1.0, 1.0]]
    assert keypoint_similarities(point + 1e200, point, np.ones(1), SIGMAS).tolist() == [[0.0, 0.0]]


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 6), zoom=st.floats(0.1, 10))
@settings(max_examples=30, deadline=None)
def test_oks_is_symmetric_and_keeps_under_shift_and_zoom(seed, count, zoom):
    generator = np.random.default_rng(seed)
    keypoints, areas = make_poses(generator, count), generator.uniform(100, 5000, count)
    oks = pairwise_oks(keypoints, areas, SIGMAS)
    np.testing.assert_allclose(oks, oks.T, rtol=0, atol=1e-12)
    moved = pairwise_oks(keypoints * zoom + 17.0, areas * zoom**2, SIGMAS)
    np.testing.assert_allclose(moved, oks, rtol=0, atol=1e-9)


def test_comparing_in_blocks_changes_nothing(monkeypatch):
    generator = np.random.default_rng(0)
    keypoints, areas = make_poses(generator, 7), generator.uniform(100, 5000, 7)
    whole = pairwise_oks(keypoints, areas, SIGMAS)
    monkeypatch.setattr(oks_module, "_BLOCK_ELEMENTS", 30)
    np.testing.assert_array_equal(pairwise_oks(keypoints, areas, SIGMAS), whole)


KEYPOINT_SCORES = np.array([[0.1, 0.5, 0.9], [0.2, 0.1, 0.0]])
BOX_SCORES = np.array([0.5, 0.8])


@pytest.mark.parametrize(
    ("score_mode", "expected"),
    [
        ("bbox_keypoint", [0.5 * 0.7, 0.0]),  # 0.2 is not above the threshold of 0.2
        ("bbox", [0.5, 0.8]),
        ("keypoint", [0.5, 0.1]),
        ("bbox_rle", [0.5 + 0.5 + 0.9, 0.8 + 0.1 + 0.2]),
    ],
)
def test_scores_of_each_mode(score_mode, expected):
    np.testing.assert_allclose(pose_scores(BOX_SCORES, KEYPOINT_SCORES, score_mode), expected, atol=1e-12)


def test_the_keypoint_score_threshold_decides_which_scores_are_averaged():
    scores = pose_scores(BOX_SCORES, KEYPOINT_SCORES, "bbox_keypoint", keypoint_score_threshold=0.6)
    np.testing.assert_allclose(scores, [0.5 * 0.9, 0.0], atol=1e-12)
    with pytest.raises(InputError, match="score_mode is 'box'; choose one of bbox_keypoint, bbox, keypoint, "):
        pose_scores(BOX_SCORES, KEYPOINT_SCORES, "box")


def twins_and_a_stranger():
    """Three poses: 0 and 1 nearly the same, 2 elsewhere."""
    twin = np.array([[10.0, 10.0], [40.0, 40.0]])
    return np.stack([twin, twin + 0.5, twin + 200.0]), np.full(3, 2000.0)


@pytest.mark.parametrize("suppress", [oks_nms, soft_oks_nms])
def test_the_better_of_twins_goes_first(suppress):
    keypoints, areas = twins_and_a_stranger()
    assert suppress(keypoints, np.array([0.3, 0.9, 0.1]), areas, SIGMAS)[0] == 1
    assert suppress(keypoints, np.array([0.9, 0.3, 0.1]), areas, SIGMAS)[0] == 0


def test_nms_keeps_only_the_better_of_twins_and_of_equals_the_first():
    keypoints, areas = twins_and_a_stranger()
    assert oks_nms(keypoints, np.array([0.3, 0.9, 0.5]), areas, SIGMAS).tolist() == [1, 2]
    assert oks_nms(keypoints, np.full(3, 0.5), areas, SIGMAS).tolist() == [0, 2]


def test_a_suppressed_pose_suppresses_none_itself():
    # A chain: OKS of neighbours is above the threshold, OKS of the ends is below.
    keypoints = np.array([[[0.0, 0.0]], [[3.0, 0.0]], [[6.0, 0.0]]])
    areas, sigmas = np.full(3, 2000.0), np.array([0.1])
    assert pairwise_oks(keypoints, areas, sigmas)[0].round(2).tolist() == [1.0, 0.95, 0.8]
    assert oks_nms(keypoints, np.array([0.9, 0.8, 0.7]), areas, sigmas, threshold=0.9).tolist() == [0, 2]


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_nms_keeps_poses_unlike_each_other_and_drops_only_poses_like_a_better_one(seed, count):
    generator = np.random.default_rng(seed)
    keypoints = make_poses(generator, count, spread=30.0)
    areas, scores = generator.uniform(500, 5000, count), generator.permutation(count) / 12
    kept = oks_nms(keypoints, scores, areas, SIGMAS, threshold=0.5)
    oks = pairwise_oks(keypoints, areas, SIGMAS)
    assert (np.diff(scores[kept]) < 0).all()
    assert (oks[np.ix_(kept, kept)] > 0.5).sum() == len(kept)
    for dropped in set(range(count)) - set(kept.tolist()):
        assert oks[dropped, kept[scores[kept] > scores[dropped]]].max() > 0.5


def test_soft_nms_picks_a_stranger_before_a_better_scored_twin():
    keypoints, areas = twins_and_a_stranger()
    # The twin's score falls from 0.8 to about 0.8 exp(-1 / 0.9) = 0.26, below the stranger's 0.3.
    assert soft_oks_nms(keypoints, np.array([0.9, 0.8, 0.3]), areas, SIGMAS).tolist() == [0, 2, 1]


def test_soft_nms_keeps_no_more_poses_than_asked():
    generator = np.random.default_rng(0)
    keypoints, scores = make_poses(generator, 30), generator.random(30)
    assert len(soft_oks_nms(keypoints, scores, np.full(30, 1000.0), SIGMAS)) == 20
    kept = soft_oks_nms(keypoints, scores, np.full(30, 1000.0), SIGMAS, max_poses=3)
    assert len(set(kept.tolist())) == 3


@pytest.mark.parametrize("suppress", [oks_nms, soft_oks_nms])
def test_no_poses_leave_no_poses(suppress):
    assert suppress(np.zeros((0, 2, 2)), np.zeros(0), np.zeros(0), SIGMAS).tolist() == []
