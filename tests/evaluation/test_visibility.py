"""Whether keypoints are labelled and visible: how well a network knows, in numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from random_people import as_predicted
from uniformer_pose.evaluation.error_types import error_types
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.evaluation.visibility import (
    judge,
    judge_visibility,
    reliability_table,
    rescored,
    visibility_metrics,
    visibility_table,
)
from uniformer_pose.skeleton import load_skeleton

SKELETON = load_skeleton("coco_17")


def judged_flat(given: np.ndarray, truths: np.ndarray) -> dict[str, Any]:
    """All of one keypoint."""
    return judge(given[:, None], truths[:, None], np.ones((len(given), 1), dtype=bool))


def people(visibility: Any) -> CocoGroundTruth:
    """People who stand side by side on one image, with COCO's v (G, 17)."""
    count = len(visibility)
    left = 200.0 * np.arange(count)[:, None]
    points = (
        np.random.default_rng(3).uniform(10, 90, (count, 17, 2)) + np.concatenate([left, left * 0], axis=1)[:, None]
    )
    visibility = np.asarray(visibility, dtype=np.float64)
    return CocoGroundTruth(
        file=Path("people.json"),
        skeleton=SKELETON,
        category_id=1,
        listed_image_ids=np.array([7]),
        ids=np.arange(count),
        image_ids=np.full(count, 7),
        boxes_xywh=np.concatenate([left, left * 0, left * 0 + 100, left * 0 + 100], axis=1),
        areas=np.full(count, 5000.0),
        keypoints_in_image=points,
        visibility=visibility,
        labelled_counts=(visibility > 0).sum(axis=1),
        category_ids=np.ones(len(visibility), dtype=np.int64),
        crowd_indices=np.full(1, np.nan),
        is_crowd=np.zeros(count, dtype=bool),
    )


def test_roc_auc_is_the_share_of_pairs_in_the_right_order_with_ties_as_half() -> None:
    rng = np.random.default_rng(0)
    truths = rng.random(300) < 0.3
    given = np.clip(0.3 * truths + rng.random(300), 0, 1).round(1)  # many ties
    true, false = given[truths][:, None], given[~truths][None]
    expected = ((true > false) + 0.5 * (true == false)).mean()
    assert 0.6 < expected < 0.9
    assert judged_flat(given, truths)["roc_auc"] == pytest.approx(expected, abs=1e-12)
    assert judged_flat(1 - given, truths)["roc_auc_of_same"] == pytest.approx(1 - expected, abs=1e-12)
    assert judged_flat(np.full(300, 0.5), truths)["roc_auc"] == 0.5


def test_who_knows_only_how_often_each_keypoint_is_true_gains_nothing_among_pairs_of_the_same_keypoint() -> None:
    rng = np.random.default_rng(0)
    often = rng.uniform(0.1, 0.9, 17)
    truths, asked = rng.random((200, 17)) < often, rng.random((200, 17)) < 0.8
    frequencies = judge(np.broadcast_to(often, (200, 17)), truths, asked)
    assert frequencies["roc_auc"] > 0.7
    assert frequencies["roc_auc_of_same"] == 0.5
    given = 0.3 * often + 0.5 * rng.random((200, 17)) + 0.2 * truths
    pairs = [
        (true > false)
        for p, t, w in zip(given.T, truths.T, asked.T, strict=True)
        for true in p[t & w]
        for false in p[~t & w]
    ]
    assert judge(given, truths, asked)["roc_auc_of_same"] == pytest.approx(np.mean(pairs), abs=1e-12)


def test_accuracy_and_calibration_are_those_of_ten_bins_of_equal_width() -> None:
    judged = judged_flat(np.array([0.0, 0.05, 0.3, 0.39, 0.5, 0.95, 1.0, 1.0]), np.array([0, 0, 1, 0, 1, 1, 1, 0]) == 1)
    assert (judged["keypoints"], judged["share"]) == (8, 0.5)
    assert judged["accuracy"] == 6 / 8  # 0.5 says yes
    counted = {of["from"]: (of["keypoints"], of["mean_probability"], of["share"]) for of in judged["bins"]}
    assert len(counted) == 10
    assert counted[0.0] == (2, 0.025, 0.0)
    assert counted[0.3] == (2, pytest.approx(0.345), 0.5)
    assert counted[0.5] == (1, 0.5, 1.0)
    assert counted[0.9] == (3, pytest.approx(2.95 / 3), pytest.approx(2 / 3))
    assert counted[0.7][0] == 0
    assert math.isnan(counted[0.7][1])
    assert judged["calibration_error"] == pytest.approx((2 * 0.025 + 2 * 0.155 + 0.5 + 0.95) / 8)


def test_what_has_no_meaning_is_nan_and_a_dash_never_zero() -> None:
    one_kind = judged_flat(np.array([0.9, 0.8]), np.array([True, True]))
    nothing = judged_flat(np.zeros(0), np.zeros(0, dtype=bool))
    assert math.isnan(one_kind["roc_auc"])
    assert one_kind["accuracy"] == 1
    assert all(
        math.isnan(nothing[name]) for name in ("share", "accuracy", "roc_auc", "roc_auc_of_same", "calibration_error")
    )
    table = visibility_table({"labelled": one_kind, "visible": nothing})
    assert table[1:] == [
        ["labelled", "2", "1.0000", "1.0000", "-", "-", "0.1500"],
        ["visible", "0", "-", "-", "-", "-", "-"],
    ]
    reliability = reliability_table({"labelled": one_kind, "visible": nothing})
    assert len(reliability) == 11
    assert reliability[10] == ["0.9 to 1.0", "1", "0.9000", "1.0000", "0", "-", "-"]


def test_people_are_judged_by_the_pose_that_lies_on_them_and_who_was_not_found_is_not_judged() -> None:
    v = np.random.default_rng(1).choice([0, 1, 2], (4, 17), p=[0.2, 0.3, 0.5])
    truth = people(v)
    knows = np.stack([np.where(v > 0, 0.9, 0.2), np.where(v == 2, 0.8, 0.1)], axis=-1)
    found = [3, 0, 2]  # as detector boxes: in another order, and one person without
    poses = replace(as_predicted(truth, np.array(found)), visibility=knows[found])
    judged = judge_visibility(error_types(truth, poses))
    labelled = v[found][v[found] > 0]
    assert {name: of["keypoints"] for name, of in judged.items()} == {"labelled": 51, "visible": len(labelled)}
    assert judged["visible"]["share"] == pytest.approx((labelled == 2).mean())
    metrics = visibility_metrics(judged)
    assert len(metrics) == 8
    assert metrics["visibility_labelled_accuracy"] == metrics["visibility_visible_roc_auc"] == 1
    share = (v[found] > 0).mean()
    assert metrics["visibility_labelled_calibration_error"] == pytest.approx(0.1 * share + 0.2 * (1 - share))
    shuffled = replace(poses, visibility=knows[[0, 2, 3]])
    assert judge_visibility(error_types(truth, shuffled))["visible"]["accuracy"] < 0.8


def test_rescoring_takes_a_keypoints_score_times_the_probability_that_it_is_labelled() -> None:
    truth = people(np.full((2, 17), 2))
    poses = replace(as_predicted(truth), visibility=np.full((2, 17, 2), [0.5, 0.1]))
    np.testing.assert_allclose(rescored(poses).keypoint_scores, 0.45)
    assert np.array_equal(rescored(poses).keypoints_in_image, poses.keypoints_in_image)
