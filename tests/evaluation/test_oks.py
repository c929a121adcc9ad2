import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformer_pose.evaluation.oks import keypoint_similarities, oks_nms, pose_scores, soft_oks_nms

SIGMAS = np.array([0.05, 0.1])


def pairwise_oks(keypoints, areas, sigmas=SIGMAS):
    mean_areas = (areas[:, None] + areas[None]) / 2
    return keypoint_similarities(keypoints[:, None], keypoints[None], mean_areas, sigmas).mean(axis=-1)


def kept_by(suppress, keypoints, scores, areas, sigmas=SIGMAS, threshold=0.9):
    return suppress(keypoints, scores, areas, sigmas, threshold, np.zeros(len(scores), dtype=np.int64)).tolist()


def test_oks_of_a_known_pair_is_the_one_worked_out_by_hand():
    # Keypoint 0 is off by (3, 4), so d^2 = 25, with sigma 0.05: 2 (2 * 0.05)^2 = 0.02. Keypoint 1 is off by (0, 10),
    # so d^2 = 100, with sigma 0.1: 2 (2 * 0.1)^2 = 0.08. The areas 1000 and 3000 have mean 2000.
    keypoints = np.array([[[10.0, 10.0], [20.0, 20.0]], [[13.0, 14.0], [20.0, 30.0]]])
    expected = (math.exp(-25 / (0.02 * 2000)) + math.exp(-100 / (0.08 * 2000))) / 2
    oks = pairwise_oks(keypoints, np.array([1000.0, 3000.0]))
    assert oks[0, 1] == pytest.approx(expected, abs=1e-12)
    assert oks[0, 1] == pytest.approx(0.5352614, abs=1e-6)


def test_an_area_of_zero_and_an_absurd_distance_divide_by_nothing_and_overflow_nothing():
    point = np.zeros((1, 2, 2))
    assert keypoint_similarities(point, point, np.zeros(1), SIGMAS).tolist() == [[1.0, 1.0]]
    assert keypoint_similarities(point + 1e200, point, np.ones(1), SIGMAS).tolist() == [[0.0, 0.0]]


KEYPOINT_SCORES = np.array([[0.1, 0.5, 0.9], [0.2, 0.1, 0.0]])
BOX_SCORES = np.array([0.5, 0.8])


@pytest.mark.parametrize(
    ("score_mode", "threshold", "expected"),
    [
        ("bbox_keypoint", 0.2, [0.5 * 0.7, 0.0]),  # 0.2 is not above the threshold of 0.2
        ("bbox_keypoint", 0.6, [0.5 * 0.9, 0.0]),
        ("bbox", 0.2, [0.5, 0.8]),
        ("keypoint", 0.2, [0.5, 0.1]),
        ("bbox_rle", 0.2, [0.5 + 0.5 + 0.9, 0.8 + 0.1 + 0.2]),
    ],
)
def test_scores_of_each_mode(score_mode, threshold, expected):
    np.testing.assert_allclose(pose_scores(BOX_SCORES, KEYPOINT_SCORES, score_mode, threshold), expected, atol=1e-12)


def twins_and_a_stranger():
    """Three poses: 0 and 1 nearly the same, 2 elsewhere."""
    twin = np.array([[10.0, 10.0], [40.0, 40.0]])
    return np.stack([twin, twin + 0.5, twin + 200.0]), np.full(3, 2000.0)


def test_nms_keeps_only_the_better_of_twins_and_of_equals_the_first():
    keypoints, areas = twins_and_a_stranger()
    assert kept_by(oks_nms, keypoints, np.array([0.3, 0.9, 0.5]), areas) == [1, 2]
    assert kept_by(oks_nms, keypoints, np.full(3, 0.5), areas) == [0, 2]


def test_a_suppressed_pose_suppresses_none_itself():
    # A chain: OKS of neighbours is above the threshold, OKS of the ends is below.
    keypoints = np.array([[[0.0, 0.0]], [[3.0, 0.0]], [[6.0, 0.0]]])
    areas, sigmas = np.full(3, 2000.0), np.array([0.1])
    assert pairwise_oks(keypoints, areas, sigmas)[0].round(2).tolist() == [1.0, 0.95, 0.8]
    assert kept_by(oks_nms, keypoints, np.array([0.9, 0.8, 0.7]), areas, sigmas) == [0, 2]


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_nms_keeps_poses_unlike_each_other_and_drops_only_poses_like_a_better_one(seed, count):
    generator = np.random.default_rng(seed)
    keypoints = generator.uniform(0, 30, (count, 2, 2))
    areas, scores = generator.uniform(500, 5000, count), generator.permutation(count) / 12
    kept = kept_by(oks_nms, keypoints, scores, areas, threshold=0.5)
    oks = pairwise_oks(keypoints, areas)
    assert (np.diff(scores[kept]) < 0).all()
    assert (oks[np.ix_(kept, kept)] > 0.5).sum() == len(kept)
    for dropped in set(range(count)) - set(kept):
        assert oks[dropped, [index for index in kept if scores[index] > scores[dropped]]].max() > 0.5


def test_soft_nms_picks_a_stranger_before_a_better_scored_twin_and_twenty_poses_an_image():
    keypoints, areas = twins_and_a_stranger()
    # The twin's score falls from 0.8 to about 0.8 exp(-1 / 0.9) = 0.26, below the stranger's 0.3.
    assert kept_by(soft_oks_nms, keypoints, np.array([0.9, 0.8, 0.3]), areas) == [0, 2, 1]
    generator = np.random.default_rng(0)
    keypoints, scores = generator.uniform(0, 100, (30, 2, 2)), generator.random(30)
    assert len({*kept_by(soft_oks_nms, keypoints, scores, np.full(30, 1000.0))}) == 20


@pytest.mark.parametrize("suppress", [oks_nms, soft_oks_nms])
def test_no_poses_leave_no_poses(suppress):
    assert kept_by(suppress, np.zeros((0, 2, 2)), np.zeros(0), np.zeros(0)) == []
