import io
import json
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.cocoeval import COCOeval

from random_people import random_people
from uniformer_pose.evaluation import coco_matching
from uniformer_pose.evaluation.coco_matching import (
    ALL_AREAS,
    OKS_THRESHOLDS,
    RECALL_POINTS,
    People,
    Poses,
    precision_recall,
)
from uniformer_pose.evaluation.coco_metrics import (
    METRIC_NAMES,
    CocoGroundTruth,
    array_metrics,
    coco_keypoint_metrics,
    protocol_metrics,
    pycocotools_metrics,
    select_poses,
)
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol


def test_thresholds_and_recall_points_are_those_of_pycocotools():
    with redirect_stdout(io.StringIO()):
        params = COCOeval(iouType="keypoints").params
    assert OKS_THRESHOLDS.tolist() == params.iouThrs.tolist()
    assert RECALL_POINTS.tolist() == params.recThrs.tolist()
    assert params.maxDets == [20]
    assert list(ALL_AREAS) == [float(end) for end in params.areaRng[0]]


class TestEqualToPycocotools:
    """Every comparison is ``==``: the same doubles to the last digit."""

    @given(
        seed=st.integers(0, 2**32 - 1),
        num_images=st.integers(1, 12),
        most_people=st.integers(0, 8),
        poses_per_image=st.integers(1, 30),
    )
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
        predictions = PosePredictions.from_records(reference["predictions"])
        protocol = EvaluationProtocol(score_mode=score_mode, nms_mode=nms_mode)
        ours = protocol_metrics(ground_truth, predictions, protocol)
        assert ours == protocol_metrics(ground_truth, predictions, replace(protocol, matching="pycocotools"))
        assert 0 < ours["AP"] < 1

    @pytest.mark.parametrize("missing", ["poses", "people", "both"])
    def test_where_there_are_no_poses_or_no_people(self, missing):
        ground_truth, predictions, scores = random_people(0, num_images=3)
        if missing != "poses":
            nobody = np.zeros(len(ground_truth.ids), dtype=bool)
            names = ("ids", "image_ids", "boxes_xywh", "areas", "keypoints_in_image", "visibility")
            names += ("labelled_counts", "is_crowd")
            ground_truth = replace(ground_truth, **{name: getattr(ground_truth, name)[nobody] for name in names})
        if missing != "people":
            predictions, scores = PosePredictions.empty(17), np.zeros(0)
        assert array_metrics(ground_truth, predictions, scores) == pycocotools_metrics(
            ground_truth, predictions, scores
        )

    def test_where_nobody_is_to_be_scored(self):
        ground_truth, predictions, scores = random_people(0, num_images=3)
        ground_truth = replace(ground_truth, is_crowd=np.ones_like(ground_truth.is_crowd))
        metrics = array_metrics(ground_truth, predictions, scores)
        assert metrics == pycocotools_metrics(ground_truth, predictions, scores)
        assert set(metrics.values()) == {-1.0}

    def test_where_every_pose_is_exact(self):
        ground_truth, _, _ = random_people(3, num_images=4)
        count = len(ground_truth.ids)
        exact = PosePredictions(
            ids=np.arange(count),
            image_ids=ground_truth.image_ids,
            boxes_xywh=ground_truth.boxes_xywh,
            box_scores=np.ones(count),
            areas=np.ones(count),
            keypoints_in_image=ground_truth.keypoints_in_image,
            keypoint_scores=np.ones((count, 17)),
        )
        case = (ground_truth, exact, np.ones(count))
        assert array_metrics(*case) == pycocotools_metrics(*case)

    def test_on_some_of_the_images(self, tmp_path):
        ground_truth, predictions, _ = random_people(5, num_images=6)
        chosen = ground_truth.listed_image_ids[::2]
        restricted = ground_truth.restricted_to(chosen)
        expected = pycocotools_metrics(
            restricted,
            *select_poses(
                predictions.take(np.isin(predictions.image_ids, chosen)),
                EvaluationProtocol(),
                ground_truth.skeleton.oks_sigmas,
            ),
        )
        assert coco_keypoint_metrics(ground_truth, predictions, image_ids=chosen) == expected

    @given(seed=st.integers(0, 2**32 - 1))
    @settings(max_examples=10, deadline=None)
    def test_comparing_in_blocks_changes_nothing(self, seed):
        case = random_people(seed, num_images=4)
        whole = array_metrics(*case)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(coco_matching, "_BLOCK_ELEMENTS", 100)
            assert array_metrics(*case) == whole


SIGMAS = np.array([0.1])


def people(points, *, areas=None, labelled=None, crowd=None):
    """People of one keypoint each on image 1."""
    count = len(points)
    labelled = np.ones(count, dtype=bool) if labelled is None else np.array(labelled)
    crowd = np.zeros(count, dtype=bool) if crowd is None else np.array(crowd)
    return People(
        image_ids=np.ones(count, dtype=np.int64),
        boxes_xywh=np.array([[x - 10, -10, 20, 20] for x in points], dtype=np.float64),
        areas=np.full(count, 1000.0) if areas is None else np.array(areas),
        keypoints=np.array([[[x, 0.0]] for x in points]),
        labelled=labelled[:, None],
        is_crowd=crowd,
        is_scored=labelled & ~crowd,
    )


def poses(points, scores, areas=None):
    return Poses(
        image_ids=np.ones(len(points), dtype=np.int64),
        keypoints=np.array([[[x, 0.0]] for x in points]).reshape(-1, 1, 2),
        scores=np.array(scores, dtype=np.float64),
        areas=np.full(len(points), 1000.0) if areas is None else np.array(areas),
    )


def test_a_person_is_found_once_and_the_second_pose_is_wrong():
    outcome = precision_recall(people([0.0]), poses([0.0, 0.0], [0.5, 0.9]), SIGMAS)
    assert outcome.average_precision() == pytest.approx(1.0)
    outcome = precision_recall(people([0.0, 500.0]), poses([0.0, 0.0, 500.0], [0.9, 0.8, 0.7]), SIGMAS)
    # Right, wrong, right: full precision up to a recall of a half, two thirds beyond.
    assert outcome.average_precision() == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)


def test_poses_on_a_crowd_or_on_somebody_without_keypoints_count_neither_as_right_nor_as_wrong():
    outcome = precision_recall(
        people([0.0, 500.0, 900.0], labelled=[True, True, False], crowd=[False, True, False]),
        poses([500.0, 500.0, 905.0, 0.0], [0.9, 0.8, 0.7, 0.6]),
        SIGMAS,
    )
    assert outcome.num_people.tolist() == [1]
    assert outcome.average_precision() == pytest.approx(1.0)


def test_the_twenty_best_poses_of_an_image_count():
    far = [9000.0 + 100 * number for number in range(20)]
    outcome = precision_recall(people([0.0]), poses([*far, 0.0], [*np.linspace(1, 0.5, 20), 0.4]), SIGMAS)
    assert outcome.average_recall() == 0
    outcome = precision_recall(people([0.0]), poses([*far, 0.0], [*np.linspace(1, 0.5, 20), 0.51]), SIGMAS)
    assert outcome.average_recall() == 1


def test_people_and_lost_poses_of_other_sizes_are_passed_over():
    outcome = precision_recall(
        people([0.0, 500.0], areas=[100.0, 1000.0]),
        poses([0.0, 3000.0, 500.0], [0.9, 0.8, 0.7], areas=[100.0, 100.0, 1000.0]),
        SIGMAS,
        [(0.0, 1e10), (500.0, 2000.0), (5000.0, 9000.0)],
    )
    assert outcome.num_people.tolist() == [2, 1, 0]
    assert outcome.average_precision(0) < 1
    assert outcome.average_precision(1) == pytest.approx(1.0)
    assert (outcome.average_precision(2), outcome.average_recall(2, threshold=0.5)) == (-1.0, -1.0)


def many_people(num_images=5000, poses_per_image=20):
    """Annotated people and predictions of a set as large as COCO's val2017, drawn in no time."""
    rng = np.random.default_rng(0)
    template, _, _ = random_people(0, num_images=1)
    skeleton = template.skeleton
    people_per_image = rng.choice([1, 2, 3, 4, 6, 10], num_images, p=[0.45, 0.25, 0.12, 0.08, 0.06, 0.04])
    image_ids = np.arange(num_images) * 7 + 3
    count, size = int(people_per_image.sum()), (skeleton.num_keypoints, 2)
    sides = np.exp(rng.uniform(3, 6, count))
    points = rng.uniform(0, 400, (count, 1, 2)) + rng.uniform(0, 1, (count, *size)) * sides[:, None, None]
    visibility = rng.choice([0.0, 1.0, 2.0], (count, skeleton.num_keypoints), p=[0.35, 0.1, 0.55])
    visibility[rng.random(count) < 0.4] = 0
    ground_truth = CocoGroundTruth(
        file=template.file,
        skeleton=skeleton,
        category_id=1,
        listed_image_ids=image_ids,
        ids=np.arange(count) + 1,
        image_ids=np.repeat(image_ids, people_per_image),
        boxes_xywh=np.concatenate([points.min(axis=1), np.ptp(points, axis=1)], axis=1),
        areas=sides**2,
        keypoints_in_image=points,
        visibility=visibility,
        labelled_counts=(visibility > 0).sum(axis=1),
        is_crowd=rng.random(count) < 0.02,
    )
    number = num_images * poses_per_image
    image = np.repeat(np.arange(num_images), poses_per_image)
    first = np.cumsum(people_per_image) - people_per_image
    person = first[image] + rng.integers(0, 10**6, number) % people_per_image[image]
    error = np.exp(rng.normal(-2.6, 1.2, number)) * sides[person]
    keypoints = points[person] + rng.normal(0, 1, (number, *size)) * error[:, None, None]
    keypoints[rng.random(number) < 0.4] += 150
    boxes = np.concatenate([keypoints.min(axis=1), np.ptp(keypoints, axis=1)], axis=1)
    predictions = PosePredictions(
        ids=np.arange(number),
        image_ids=image_ids[image],
        boxes_xywh=boxes,
        box_scores=rng.uniform(0.1, 1, number).round(3),
        areas=boxes[:, 2:].prod(axis=1) * 1.5,
        keypoints_in_image=keypoints,
        keypoint_scores=rng.uniform(0.1, 1, keypoints.shape[:2]),
    )
    return ground_truth, predictions


@pytest.mark.slow
def test_a_hundred_thousand_poses_take_seconds_and_score_as_in_pycocotools(capsys):
    """The bound is several times what it takes: 1 s on one core of the machine it was written on."""
    ground_truth, predictions = many_people()
    start = time.process_time()
    metrics = protocol_metrics(ground_truth, predictions, EvaluationProtocol())
    seconds = time.process_time() - start
    kept = select_poses(predictions, EvaluationProtocol(), ground_truth.skeleton.oks_sigmas)
    start = time.process_time()
    array_metrics(ground_truth, *kept)
    matching_seconds = time.process_time() - start
    start = time.process_time()
    expected = pycocotools_metrics(ground_truth, *kept)
    pycocotools_seconds = time.process_time() - start
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(predictions)} poses, {len(ground_truth.ids)} people: {seconds:.2f} s to the ten numbers, "
            f"of them {matching_seconds:.2f} s matching, for which pycocotools takes {pycocotools_seconds:.1f} s\n"
        )
    assert metrics == expected
    assert seconds < 6
