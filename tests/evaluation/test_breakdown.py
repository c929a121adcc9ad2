import io
from contextlib import redirect_stdout

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from random_people import one_keypoint, random_people
from uniformer_pose.evaluation.breakdown import (
    SIZE_EDGES,
    keypoint_table,
    metrics_by_keypoint,
    metrics_by_size,
    size_table,
)
from uniformer_pose.evaluation.coco_metrics import array_metrics, coco_results, pycocotools_metrics, select_poses
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol


def pycocotools_in_range(ground_truth, predictions, least, most):
    """AP, AP50, AP75, AR of pycocotools with one range of areas of our own, from results as they would be written."""
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image_id} for image_id in ground_truth.listed_image_ids.tolist()],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": ground_truth.to_coco_annotations(),
    }
    with redirect_stdout(io.StringIO()), np.errstate(over="ignore"):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(coco_results(predictions)), "keypoints")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[least, most]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"][..., 0, 0, 0], evaluation.eval["recall"][..., 0, 0, 0]
    return [float(values.mean()) for values in (precision, precision[0], precision[5], recall)]


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=4, deadline=None)
def test_the_numbers_of_a_size_are_those_of_pycocotools_for_its_range_of_areas(seed):
    ground_truth, predictions, _ = random_people(seed, num_images=6)
    kept = select_poses(predictions, EvaluationProtocol(), ground_truth.skeleton.oks_sigmas)
    for row in metrics_by_size(ground_truth, *kept):
        most = np.nextafter((row["to_pixels"] or 1e5) ** 2, 0)
        expected = pycocotools_in_range(ground_truth, predictions, row["from_pixels"] ** 2, most)
        assert [row["AP"], row["AP50"], row["AP75"], row["AR"]] == pytest.approx(expected, abs=1e-12)


def test_sizes_share_out_the_scored_people_without_a_gap():
    ground_truth, predictions, scores = random_people(1, num_images=40)
    rows = metrics_by_size(ground_truth, predictions, scores)
    assert [row["from_pixels"] for row in rows] == list(SIZE_EDGES)
    assert [row["to_pixels"] for row in rows] == [*SIZE_EDGES[1:], None]
    assert sum(row["people"] for row in rows) == ground_truth.is_scored.sum()
    sides = np.sqrt(ground_truth.areas[ground_truth.is_scored])
    assert [row["people"] for row in rows] == np.histogram(sides, [*SIZE_EDGES, np.inf])[0].tolist()


def test_each_size_is_scored_by_its_own_people():
    ground_truth, _, _ = random_people(2, num_images=30)
    small = ground_truth.areas < 64**2
    found = np.flatnonzero(small & ground_truth.is_scored)
    count = len(found)
    predictions = PosePredictions(
        ids=np.arange(count),
        image_ids=ground_truth.image_ids[found],
        boxes_xywh=np.tile([0.0, 0.0, 10.0, 10.0], (count, 1)),
        box_scores=np.ones(count),
        areas=np.ones(count),
        keypoints_in_image=ground_truth.keypoints_in_image[found],
        keypoint_scores=np.ones((count, 17)),
    )
    recalls = [row["AR"] for row in metrics_by_size(ground_truth, predictions, np.ones(count))]
    assert min(recalls[:2]) > 0.9
    assert max(recalls[2:4]) < 0.1


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=3, deadline=None)
def test_the_numbers_of_a_keypoint_are_those_of_pycocotools_for_data_reduced_to_it(seed):
    ground_truth, predictions, scores = random_people(seed, num_images=4)
    table = metrics_by_keypoint(ground_truth, predictions, scores)
    assert list(table) == list(ground_truth.skeleton.keypoint_names)
    for index, row in enumerate(table.values()):
        reduced = one_keypoint(ground_truth, index)
        arrays = {name: getattr(predictions, name) for name in predictions.__dataclass_fields__}
        arrays |= {
            "keypoints_in_image": predictions.keypoints_in_image[:, [index]],
            "keypoint_scores": predictions.keypoint_scores[:, [index]],
        }
        expected = pycocotools_metrics(reduced, PosePredictions(**arrays), scores)
        assert {name: row[name] for name in ("AP", "AP50", "AP75", "AR")} == {
            name: expected[name] for name in ("AP", "AP50", "AP75", "AR")
        }
        assert row["people"] == reduced.is_scored.sum()


def test_a_keypoint_that_is_always_wrong_has_the_lowest_ap():
    ground_truth, _, _ = random_people(4, num_images=20)
    count = len(ground_truth.ids)
    keypoints = ground_truth.keypoints_in_image.copy()
    wrong = ground_truth.skeleton.keypoint_names.index("left_wrist")
    keypoints[:, wrong] += 5000
    predictions = PosePredictions(
        ids=np.arange(count),
        image_ids=ground_truth.image_ids,
        boxes_xywh=ground_truth.boxes_xywh,
        box_scores=np.ones(count),
        areas=np.ones(count),
        keypoints_in_image=keypoints,
        keypoint_scores=np.ones((count, 17)),
    )
    table = metrics_by_keypoint(ground_truth, predictions, np.ones(count))
    assert table["left_wrist"]["AP"] == 0
    assert min(row["AP"] for name, row in table.items() if name != "left_wrist") > 0.5
    assert 0 < array_metrics(ground_truth, predictions, np.ones(count))["AP"] < 1


def test_tables_show_a_dash_where_there_is_nobody():
    numbers = {"people": 3, "AP": 0.5, "AP50": 0.25, "AP75": 1.0, "AR": 0.125}
    nobody = {"people": 0, "AP": -1.0, "AP50": -1.0, "AP75": -1.0, "AR": -1.0}
    assert size_table(
        [{"from_pixels": 0, "to_pixels": 32, **numbers}, {"from_pixels": 32, "to_pixels": None, **nobody}]
    ) == [
        ["person size", "people", "AP", "AP50", "AP75", "AR"],
        ["0 to 32 px", "3", "0.5000", "0.2500", "1.0000", "0.1250"],
        ["32 and more px", "0", "-", "-", "-", "-"],
    ]
    assert keypoint_table({"nose": numbers})[1] == ["nose", "3", "0.5000", "0.2500", "1.0000", "0.1250"]
