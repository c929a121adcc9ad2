import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.cocoeval import Params

from random_people import as_predicted, one_keypoint, poses_of_records, pycocotools_metrics, random_people
from uniformer_pose.evaluation import oks
from uniformer_pose.evaluation.coco_matching import (
    ALL_AREAS,
    OKS_THRESHOLDS,
    RECALL_POINTS,
    precision_recall,
)
from uniformer_pose.evaluation.coco_metrics import (
    METRIC_NAMES,
    SIZE_EDGES,
    array_metrics,
    coco_keypoint_metrics,
    metrics_by_keypoint,
    metrics_by_size,
    select_poses,
)
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol

SEEDS = st.integers(0, 2**32 - 1)
SHOWN = ("AP", "AP50", "AP75", "AR")


def test_thresholds_and_recall_points_are_those_of_pycocotools():
    params = Params(iouType="keypoints")
    assert OKS_THRESHOLDS.tolist() == params.iouThrs.tolist()
    assert RECALL_POINTS.tolist() == params.recThrs.tolist()
    assert params.maxDets == [20]
    assert list(ALL_AREAS) == [float(end) for end in params.areaRng[0]]


class TestEqualToPycocotools:
    """Every comparison is ``==``: the same doubles to the last digit."""

    @given(seed=SEEDS, num_images=st.integers(1, 12), most_people=st.integers(0, 8), poses_per_image=st.integers(1, 30))
    @settings(max_examples=40, deadline=None)
    def test_on_random_people_and_poses(self, seed, num_images, most_people, poses_per_image):
        case = random_people(seed, num_images=num_images, most_people=most_people, poses_per_image=poses_per_image)
        assert array_metrics(*case) == pycocotools_metrics(*case)

    def test_on_many_people_with_crowds_and_more_than_twenty_poses_an_image(self):
        case = random_people(7, num_images=40, most_people=14, poses_per_image=30)
        ground_truth, _, scores = case
        assert ground_truth.is_crowd.any()
        assert (~ground_truth.is_scored & ~ground_truth.is_crowd).any()
        assert len(np.unique(scores)) < len(scores)
        metrics = array_metrics(*case)
        assert metrics == pycocotools_metrics(*case)
        assert all(0 < metrics[name] < 1 for name in METRIC_NAMES)

    @pytest.mark.parametrize("nms_mode", ["oks_nms", "none", "soft_oks_nms"])
    @pytest.mark.parametrize("score_mode", ["bbox_keypoint", "bbox", "keypoint", "bbox_rle"])
    def test_on_the_reference_predictions(self, reference_folder, score_mode, nms_mode):
        reference = json.loads((reference_folder / "coco_evaluation.json").read_text())
        ground_truth = CocoGroundTruth.load(reference_folder / reference["annotation_file"])
        predictions = poses_of_records(reference["predictions"])
        protocol = EvaluationProtocol(score_mode=score_mode, nms_mode=nms_mode)
        ours = coco_keypoint_metrics(ground_truth, predictions, protocol)
        reported = select_poses(predictions, protocol, ground_truth.skeleton.oks_sigmas)
        assert ours == pycocotools_metrics(ground_truth, *reported)
        assert 0 < ours["AP"] < 1

    @pytest.mark.parametrize("missing", ["poses", "people", "both", "scored"])
    def test_where_there_are_no_poses_or_no_people(self, missing):
        ground_truth, predictions, scores = random_people(0, num_images=3)
        if missing in ("people", "both"):
            ground_truth = replace(ground_truth.restricted_to([]), listed_image_ids=ground_truth.listed_image_ids)
        if missing in ("poses", "both"):
            predictions, scores = PosePredictions.empty(17), np.zeros(0)
        if missing == "scored":
            ground_truth = replace(ground_truth, is_crowd=np.ones_like(ground_truth.is_crowd))
        metrics = array_metrics(ground_truth, predictions, scores)
        assert metrics == pycocotools_metrics(ground_truth, predictions, scores)
        assert missing == "poses" or set(metrics.values()) == {-1.0}

    def test_on_some_of_the_images_and_where_every_pose_is_exact(self):
        ground_truth, predictions, _ = random_people(5, num_images=6)
        chosen = ground_truth.listed_image_ids[::2]
        there = predictions.take(np.isin(predictions.image_ids, chosen))
        reported = select_poses(there, EvaluationProtocol(), ground_truth.skeleton.oks_sigmas)
        expected = pycocotools_metrics(ground_truth.restricted_to(chosen), *reported)
        assert coco_keypoint_metrics(ground_truth.restricted_to(chosen), there) == expected
        exact = (ground_truth, as_predicted(ground_truth), np.ones(len(ground_truth.ids)))
        assert array_metrics(*exact) == pycocotools_metrics(*exact)

    @given(seed=SEEDS)
    @settings(max_examples=10, deadline=None)
    def test_comparing_in_blocks_changes_nothing(self, seed):
        ground_truth, poses, _ = random_people(seed, num_images=4)
        whole = coco_keypoint_metrics(ground_truth, poses)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(oks, "BLOCK_ELEMENTS", 100)
            assert coco_keypoint_metrics(ground_truth, poses) == whole

    @given(seed=SEEDS)
    @settings(max_examples=4, deadline=None)
    def test_for_people_of_one_size(self, seed):
        case = random_people(seed, num_images=6)
        for row in metrics_by_size(*case):
            most = float(np.nextafter((row["to_pixels"] or 1e5) ** 2, 0))
            expected = pycocotools_metrics(*case, (row["from_pixels"] ** 2, most))
            assert {name: row[name] for name in SHOWN} == pytest.approx(expected, abs=1e-12)

    @given(seed=SEEDS)
    @settings(max_examples=3, deadline=None)
    def test_for_data_reduced_to_one_keypoint(self, seed):
        ground_truth, predictions, scores = random_people(seed, num_images=4)
        table = metrics_by_keypoint(ground_truth, predictions, scores)
        assert list(table) == list(ground_truth.skeleton.keypoint_names)
        for index, row in enumerate(table.values()):
            one = replace(
                predictions,
                keypoints_in_image=predictions.keypoints_in_image[:, [index]],
                keypoint_scores=predictions.keypoint_scores[:, [index]],
            )
            expected = pycocotools_metrics(one_keypoint(ground_truth, index), one, scores)
            assert {name: row[name] for name in SHOWN} == {name: expected[name] for name in SHOWN}
            assert row["people"] == one_keypoint(ground_truth, index).is_scored.sum()


def test_sizes_share_out_the_scored_people_without_a_gap_and_are_scored_by_their_own():
    ground_truth, predictions, scores = random_people(1, num_images=40)
    rows = metrics_by_size(ground_truth, predictions, scores)
    assert [(row["from_pixels"], row["to_pixels"]) for row in rows] == list(
        zip(SIZE_EDGES, [*SIZE_EDGES[1:], None], strict=True)
    )
    sides = np.sqrt(ground_truth.areas[ground_truth.is_scored])
    assert [row["people"] for row in rows] == np.histogram(sides, [*SIZE_EDGES, np.inf])[0].tolist()
    small = np.flatnonzero((ground_truth.areas < 64**2) & ground_truth.is_scored)
    recalls = [
        row["AR"] for row in metrics_by_size(ground_truth, as_predicted(ground_truth, small), np.ones(len(small)))
    ]
    assert min(recalls[:2]) > 0.9
    assert max(recalls[2:4]) < 0.1


def outcome_of(
    points, predicted, scores, *, areas=1000.0, labelled=None, crowd=False, pose_areas=1000.0, ranges=(ALL_AREAS,)
):
    """Of people and poses with one keypoint each, at an x, all in image 1."""
    count = len(points)
    template = one_keypoint(random_people(0, num_images=1)[0], 0)
    seen = np.ones(count, dtype=np.int64) if labelled is None else np.array(labelled)
    people = replace(
        template,
        image_ids=np.ones(count, dtype=np.int64),
        boxes_xywh=np.array([[x - 10, -10, 20, 20] for x in points], dtype=np.float64),
        areas=np.broadcast_to(areas, count),
        keypoints_in_image=np.array([[[x, 0.0]] for x in points]),
        visibility=seen[:, None] * 2.0,
        labelled_counts=seen,
        is_crowd=np.broadcast_to(crowd, count),
    )
    sides = np.sqrt(np.broadcast_to(pose_areas, len(predicted)))
    poses = PosePredictions(
        ids=np.arange(len(predicted)),
        image_ids=np.ones(len(predicted), dtype=np.int64),
        boxes_xywh=np.column_stack([sides, sides, sides, sides]),
        box_scores=np.array(scores),
        areas=sides**2,
        keypoints_in_image=np.array([[[x, 0.0]] for x in predicted]),
        keypoint_scores=np.ones((len(predicted), 1)),
    )
    return precision_recall(people, poses, poses.box_scores, np.array([0.1]), ranges)


def test_a_person_is_found_once_and_the_second_pose_is_wrong():
    outcome = outcome_of([0.0, 500.0], [0.0, 0.0, 500.0], [0.9, 0.8, 0.7])
    # Right, wrong, right: full precision up to a recall of a half, two thirds beyond.
    assert outcome.average_precision() == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)


def test_poses_on_a_crowd_or_on_somebody_without_keypoints_count_neither_as_right_nor_as_wrong():
    outcome = outcome_of(
        [0.0, 500.0, 900.0],
        [500.0, 500.0, 905.0, 0.0],
        [0.9, 0.8, 0.7, 0.6],
        labelled=[1, 1, 0],
        crowd=[False, True, False],
    )
    assert outcome.num_people.tolist() == [1]
    assert outcome.average_precision() == pytest.approx(1.0)


@pytest.mark.parametrize(("score", "recall"), [(0.4, 0), (0.51, 1)])
def test_the_twenty_best_poses_of_an_image_count(score, recall):
    far = [9000.0 + 100 * number for number in range(20)]
    outcome = outcome_of([0.0], [*far, 0.0], [*np.linspace(1, 0.5, 20), score])
    assert outcome.average_recall() == recall


def test_people_and_lost_poses_of_other_sizes_are_passed_over():
    outcome = outcome_of(
        [0.0, 500.0],
        [0.0, 3000.0, 500.0],
        [0.9, 0.8, 0.7],
        areas=[100.0, 1000.0],
        pose_areas=[100.0, 100.0, 1000.0],
        ranges=[(0.0, 1e10), (500.0, 2000.0), (5000.0, 9000.0)],
    )
    assert outcome.num_people.tolist() == [2, 1, 0]
    assert outcome.average_precision(0) < 1
    assert outcome.average_precision(1) == pytest.approx(1.0)
    assert (outcome.average_precision(2), outcome.average_recall(2, threshold=0.5)) == (-1.0, -1.0)
