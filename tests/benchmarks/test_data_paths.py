from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_training import coco_arguments

from uniformer_pose.benchmarks.evaluation import benchmark_evaluation, with_boxes_per_image
from uniformer_pose.benchmarks.loader import benchmark_loader, training_dataset
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.errors import InputError


def test_the_loader_is_compared_with_decoding_and_warping_alone(coco: PersonCrops) -> None:
    result = benchmark_loader(coco, None, rounds=2, samples=4, workers=[0])

    one_core, batches = result.comparisons
    assert [side.name for side in one_core.sides] == ["bare imread + warpAffine", "bare imread", "plain images"]
    assert all(side.units == [4, 4] for side in [*one_core.sides, *batches.sides])
    assert -0.5 < result.facts["overhead_over_bare_loop"] < 5
    assert "src/prepare.py" in result.verdict[-1]


def test_prepared_crops_stand_beside_plain_images(coco: PersonCrops) -> None:
    result = benchmark_loader(coco, coco, rounds=1, samples=4, workers=[])

    assert [side.name for side in result.comparisons[0].sides][-1] == "prepared crops"
    assert result.facts["prepared_times_plain"] == pytest.approx(1, abs=0.9)


def test_the_bare_loop_makes_the_same_crops(coco: PersonCrops) -> None:
    import cv2

    from uniformer_pose.benchmarks.loader import _files_and_matrices

    dataset = training_dataset(coco)
    for visit, (path, matrix) in zip([(0, 0), (1, 3)], _files_and_matrices(coco, [(0, 0), (1, 3)]), strict=True):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        crop = cv2.warpAffine(image, matrix, (coco.codec.width, coco.codec.height), flags=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(crop, dataset[visit]["crops"])


def test_more_samples_than_people_go_through_several_epochs(coco: PersonCrops) -> None:
    people = len(training_dataset(coco))

    result = benchmark_loader(coco, None, rounds=1, samples=people + 1, workers=[])

    assert result.comparisons[0].sides[0].units == [people + 1]


def test_evaluation_is_compared_by_the_number_of_boxes(coco: PersonCrops) -> None:
    result = benchmark_evaluation(coco, rounds=1, images=2, people_per_image=[1, 3])

    assert [comparison.sides[1].units for comparison in result.comparisons] == [[2], [6]]
    assert {"gain_at_1_boxes", "gain_at_3_boxes"} <= result.facts.keys()


def test_an_image_s_own_boxes_come_first_and_the_copies_differ(coco: PersonCrops) -> None:
    people = coco.val_people
    assert people is not None
    own = people.boxes_per_image

    many = with_boxes_per_image(people, int(own.max()) + 2, seed=0)

    assert set(many.boxes_per_image.tolist()) == {int(own.max()) + 2}
    starts, new_starts = np.cumsum(own) - own, np.cumsum(many.boxes_per_image) - many.boxes_per_image
    for start, new_start, count in zip(starts, new_starts, own, strict=True):
        np.testing.assert_array_equal(
            many.boxes_xywh[new_start : new_start + count], people.boxes_xywh[start : start + count]
        )
    assert len(np.unique(many.boxes_xywh, axis=0)) == len(many)
    assert (many.boxes_xywh[:, 2:] > 0).all()


def test_no_boxes_and_no_samples_are_refused(coco: PersonCrops) -> None:
    assert coco.val_people is not None
    with pytest.raises(InputError, match="at least 1 box"):
        with_boxes_per_image(replace(coco.val_people), 0, seed=0)
    with pytest.raises(InputError, match="samples=0"):
        benchmark_loader(coco, None, rounds=1, samples=0, workers=[])


def test_data_must_be_ready(rendered_coco) -> None:
    data = PersonCrops(**coco_arguments(rendered_coco))

    with pytest.raises(RuntimeError, match="set up"):
        benchmark_evaluation(data, rounds=1, images=1, people_per_image=[1])
