import json
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest

from random_people import as_predicted, pycocotools_metrics, random_people
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation import (
    CocoGroundTruth,
    EvaluationProtocol,
    PosePredictions,
    coco_results,
    keypoint_metrics,
)
from uniformer_pose.evaluation.body_parts import part_metrics
from uniformer_pose.evaluation.by_category import mean_over_categories
from uniformer_pose.evaluation.coco_metrics import METRIC_NAMES, array_metrics, reported_poses, select_poses
from uniformer_pose.evaluation.data_set_metrics import data_set_scoring
from uniformer_pose.skeleton import Skeleton, load_skeleton

REFERENCE_NAMES = {
    **{"AP": "AP", "AP50": "AP .5", "AP75": "AP .75", "APM": "AP (M)", "APL": "AP (L)"},
    **{"AR": "AR", "AR50": "AR .5", "AR75": "AR .75", "ARM": "AR (M)", "ARL": "AR (L)"},
    **{"AP_easy": "AP(E)", "AP_medium": "AP(M)", "AP_hard": "AP(H)"},
}
PARTS = {"body": 17, "foot": 6, "face": 68, "lefthand": 21, "righthand": 21}
SETS = ["crowdpose", "aic", "ochuman", "halpe", "coco_wholebody", "ap10k", "humanart", "exlpose"]


def with_our_names(metrics):
    return {ours: metrics[theirs] for ours, theirs in REFERENCE_NAMES.items() if theirs in metrics}


def evaluated(name, expected, folder, evaluation):
    return keypoint_metrics(
        name,
        folder / expected["annotation_file"],
        expected["predictions"],
        score_mode=evaluation["score_mode"],
        nms_mode=evaluation["nms_mode"],
    )


def assert_equal_to_mmpose(name, file, folder):
    """In all score and NMS modes; of another metric of the same file there is a test of its own."""
    expected = json.loads(file.read_text())
    evaluations = [e for e in expected["evaluations"] if e.get("sigmas") != "halpe26" and "iou_type" not in e]
    assert len(evaluations) == 6
    for evaluation in evaluations:
        metrics = evaluated(name, expected, folder, evaluation)
        if name != "coco_wholebody":
            metrics, evaluation["metrics"] = {"all": metrics}, {"all": evaluation["metrics"]}
        assert metrics.keys() == evaluation["metrics"].keys()
        for part, numbers in evaluation["metrics"].items():
            wanted = with_our_names(numbers)
            assert wanted
            assert {key: metrics[part][key] for key in wanted} == pytest.approx(wanted, abs=1e-6)


class TestReference:
    @pytest.mark.parametrize("name", ["crowdpose", "ap10k"])
    def test_the_numbers_of_made_up_sets_are_those_of_mmpose(self, reference_folder, name):
        assert_equal_to_mmpose(name, reference_folder / f"{name}_synthetic.json", reference_folder)

    @pytest.mark.parametrize("name", SETS)
    def test_the_numbers_of_real_samples_are_those_of_mmpose_without_a_warning(self, shared_folder, name):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            assert_equal_to_mmpose(name, shared_folder / "reference" / f"other_datasets_{name}.json", shared_folder)

    def test_coco_is_what_it_was(self, reference_folder):
        expected = json.loads((reference_folder / "coco_evaluation.json").read_text())
        for evaluation in expected["evaluations"]:
            wanted = with_our_names(evaluation["metrics"])
            assert evaluated("coco", expected, reference_folder, evaluation) == pytest.approx(wanted, abs=1e-12)

    @pytest.mark.parametrize("num_keypoints", [26, 136])
    def test_halpe26_scores_the_first_keypoints_of_halpes_file(self, shared_folder, num_keypoints):
        expected = json.loads((shared_folder / "reference" / "other_datasets_halpe.json").read_text())
        (evaluation,) = [e for e in expected["evaluations"] if e["sigmas"] == "halpe26"]
        for pose in expected["predictions"]:
            pose["keypoints"] = pose["keypoints"][:num_keypoints]
            pose["keypoint_scores"] = pose["keypoint_scores"][:num_keypoints]
        wanted = with_our_names(evaluation["metrics"])
        assert evaluated("halpe26", expected, shared_folder, evaluation) == pytest.approx(wanted, abs=1e-6)

    def test_cocos_own_rule_on_crowdposes_people_is_the_other_number_of_mmpose(self, reference_folder):
        # There, whoever has a labelled keypoint is scored, not only whoever has a visible one.
        expected = json.loads((reference_folder / "crowdpose_synthetic.json").read_text())
        (evaluation,) = [e for e in expected["evaluations"] if "iou_type" in e]
        truth = CocoGroundTruth.load(
            reference_folder / expected["annotation_file"], load_skeleton("crowdpose_14"), area="box"
        )
        poses = PosePredictions.from_boxed_poses(expected["predictions"])
        truth = replace(truth, labelled_counts=(truth.visibility > 0).sum(axis=1))
        metrics = array_metrics(truth, *reported_poses(truth, poses, EvaluationProtocol()))
        assert metrics == pytest.approx(with_our_names(evaluation["metrics"]), abs=1e-6)

    @pytest.mark.parametrize("name", ["crowdpose", "ap10k"])
    def test_as_many_poses_with_the_same_scores_are_kept(self, reference_folder, name):
        expected = json.loads((reference_folder / f"{name}_synthetic.json").read_text())
        poses = PosePredictions.from_boxed_poses(expected["predictions"])
        sigmas = load_skeleton(data_set_scoring(name).skeleton).oks_sigmas
        for evaluation in expected["evaluations"]:
            protocol = EvaluationProtocol(score_mode=evaluation["score_mode"], nms_mode=evaluation["nms_mode"])
            kept, scores = select_poses(poses, protocol, sigmas)
            assert len(kept) == evaluation["results_kept"]
            assert scores.mean() == pytest.approx(evaluation["mean_score"], abs=1e-6)


def whole_bodies(seed):
    """Random people and poses with 133 keypoints: those of COCO's 17 over and over, of other visibility."""
    truth, poses, scores = random_people(seed, num_images=20)
    rng, places = np.random.default_rng(seed), np.arange(sum(PARTS.values())) % 17
    visibility = rng.choice([0.0, 1.0, 2.0], (len(truth.ids), len(places)), p=[0.6, 0.2, 0.2])
    visibility[rng.random(len(visibility)) < 0.3, :17] = 0
    truth = replace(
        truth,
        skeleton=load_skeleton("coco_wholebody_133"),
        keypoints_in_image=truth.keypoints_in_image[:, places],
        visibility=visibility,
    )
    shown = poses.keypoints_in_image[:, places] + rng.normal(0, 1, (len(poses), len(places), 2))
    scored = np.tile(poses.keypoint_scores, 8)[:, : len(places)]
    return truth, replace(poses, keypoints_in_image=shown, keypoint_scores=scored), scores


def part_of(skeleton, chosen):
    names = skeleton.keypoint_names[chosen]
    return Skeleton("part", names, skeleton.sigmas[chosen], skeleton.colours[chosen], (), (), (), ())


class TestWholeBody:
    @pytest.mark.parametrize("seed", range(3))
    def test_each_part_has_the_numbers_that_pycocotools_gives_of_it_alone(self, seed):
        truth, poses, scores = whole_bodies(seed)
        body = poses.keypoints_in_image[:, :17]
        poses = poses.take(np.abs(body).max(axis=(1, 2)) < 1e6)
        scores, body = scores[np.abs(body).max(axis=(1, 2)) < 1e6], poses.keypoints_in_image[:, :17]
        boxes = np.concatenate([body.min(axis=1), np.ptp(body, axis=1)], axis=1)
        metrics = part_metrics(truth, poses, scores)
        start = 0
        for name, count in [*PARTS.items(), ("wholebody", 133)]:
            chosen = slice(start, start + count) if name != "wholebody" else slice(133)
            alone = replace(truth.of_keypoints(chosen), skeleton=part_of(truth.skeleton, chosen))
            expected = pycocotools_metrics(alone, replace(poses.of_keypoints(chosen), boxes_xywh=boxes), scores)
            assert metrics[name] == expected
            start += count
        assert len({numbers["AP"] for numbers in metrics.values()}) == 6

    def test_keypoints_of_feet_face_and_hands_are_read_and_whatever_is_above_zero_is_labelled(self, tmp_path):
        flat = [[float(x), float(y), 2.0] for x, y in zip(range(133), range(10, 143), strict=True)]
        flat[130][2], flat[131][2] = 0.041, 0.0
        arrays, start = {}, 0
        for name, count in zip(
            ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts"), PARTS.values(), strict=True
        ):
            arrays[name] = [number for point in flat[start : start + count] for number in point]
            start += count
        file = tmp_path / "whole.json"
        person = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 150, 150], "area": 9000, "num_keypoints": 17}
        content = {"images": [{"id": 1}], "annotations": [person | arrays], "categories": [{"id": 1, "name": "person"}]}
        file.write_text(json.dumps(content))
        truth = CocoGroundTruth.load(file, load_skeleton("coco_wholebody_133"))
        assert truth.keypoints_in_image[0].tolist() == [point[:2] for point in flat]
        assert truth.visibility[0, 129:].tolist() == [2, 2, 0, 2]
        assert keypoint_metrics("coco_wholebody", file, as_predicted(truth))["righthand"]["AP"] == pytest.approx(1.0)
        del person["num_keypoints"]
        content["annotations"][0].pop("face_kpts")
        file.write_text(json.dumps(content))
        with pytest.raises(InputError, match="annotation 1 needs 399 finite numbers"):
            keypoint_metrics("coco_wholebody", file, as_predicted(truth))


class TestCategories:
    def test_each_number_is_the_mean_over_categories_that_are_scored_alone(self):
        truth, poses, scores = random_people(5, num_images=40)
        rng = np.random.default_rng(1)
        truth = replace(truth, category_ids=rng.choice([3, 5, 9], len(truth.ids)))
        poses = replace(poses, category_ids=rng.choice([3, 5, 9, 11], len(poses)))
        each = []
        for number in (3, 5, 9):
            shown = poses.category_ids == number
            people = truth.people_at(truth.category_ids == number)
            each.append(pycocotools_metrics(people, poses.take(shown), scores[shown]))
        expected = {name: np.mean([numbers[name] for numbers in each]) for name in METRIC_NAMES}
        assert mean_over_categories(truth, poses, scores) == pytest.approx(expected, abs=1e-12)

    def test_predictions_need_the_category_of_their_box(self, reference_folder):
        expected = json.loads((reference_folder / "ap10k_synthetic.json").read_text())
        del expected["predictions"][7]["category_id"]
        with pytest.raises(InputError, match="needs the category_id of every prediction"):
            evaluated("ap10k", expected, reference_folder, expected["evaluations"][0])


class TestIds:
    @pytest.fixture
    def file(self, tmp_path):
        """Three people as ExLPose counts them: images and annotations from 0."""
        points = [number for place in range(14) for number in (10 * place, 7 * place, 2)]
        people = [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [0, 0, 140, 100], "keypoints": points} for n in range(3)
        ]
        content = {"images": [{"id": n, "crowdIndex": 0} for n in range(3)], "annotations": people}
        (tmp_path / "people.json").write_text(json.dumps(content))
        return tmp_path / "people.json"

    def test_a_person_with_id_0_is_found_like_any_other(self, file):
        truth = CocoGroundTruth.load(file, load_skeleton("exlpose_14"), area="box")
        assert keypoint_metrics("exlpose", file, as_predicted(truth))["AP"] == pytest.approx(1.0)

    def test_levels_without_images_are_minus_one(self, file):
        truth = CocoGroundTruth.load(file, load_skeleton("crowdpose_14"), area="box")
        metrics = keypoint_metrics("crowdpose", file, as_predicted(truth))
        assert tuple(metrics) == (*METRIC_NAMES, "AP_easy", "AP_medium", "AP_hard")
        assert [metrics[f"AP_{level}"] for level in ("easy", "medium", "hard")] == [1.0, -1.0, -1.0]


class TestBadInput:
    def test_a_file_without_crowd_indices_is_named(self, reference_folder, tmp_path):
        expected = json.loads((reference_folder / "crowdpose_synthetic.json").read_text())
        content = json.loads((reference_folder / expected["annotation_file"]).read_text())
        del content["images"][3]["crowdIndex"]
        (tmp_path / expected["annotation_file"]).write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"1 images have no crowdIndex, first image 100021.*CrowdPose's own file"):
            evaluated("crowdpose", expected, tmp_path, expected["evaluations"][0])

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("crowdpos", "no data set 'crowdpos'; its metric is known of coco, crowdpose, mpii"),
            ("aic", "keypoint 1 is 'left_shoulder' in category 1 and 'right_shoulder' in skeleton aic_14"),
            ("ap10k", "keypoint 1 is 'left_shoulder' in category 1 and 'L_Eye' in skeleton ap10k_17"),
            ("mpii", "PCKh needs the sizes of heads: give headbox_file"),
        ],
    )
    def test_a_set_with_another_sets_annotations_is_named(self, reference_folder, name, expected):
        content = json.loads((reference_folder / "crowdpose_synthetic.json").read_text())
        with pytest.raises(InputError, match=re.escape(expected)):
            evaluated(name, content, reference_folder, content["evaluations"][0])

    def test_poses_of_several_skeletons_or_without_a_field_are_named(self, reference_folder):
        content = json.loads((reference_folder / "crowdpose_synthetic.json").read_text())
        content["predictions"][5]["keypoints"].pop()
        with pytest.raises(InputError, match="differ in their number of keypoints"):
            evaluated("crowdpose", content, reference_folder, content["evaluations"][0])
        with pytest.raises(InputError, match="score_mode is 'best'; choose one of bbox_keypoint"):
            keypoint_metrics("crowdpose", reference_folder / content["annotation_file"], [], score_mode="best")
        del content["predictions"][5]["keypoints"]
        with pytest.raises(InputError, match=r"are no predicted poses \(.*missing required field `keypoints`"):
            evaluated("crowdpose", content, reference_folder, content["evaluations"][0])

    def test_no_predictions_score_zero_with_a_warning(self, reference_folder):
        for name, count in (("crowdpose", 60), ("ap10k", 40)):
            with pytest.warns(UserWarning, match=f"no predictions on any of its {count} evaluated images"):
                metrics = keypoint_metrics(name, reference_folder / f"{name}_synthetic_annotations.json", [])
            assert set(metrics.values()) == {0.0}
        truth, _, _ = whole_bodies(0)
        none = part_metrics(truth, PosePredictions.empty(0), np.zeros(0))
        assert {numbers["AP"] for numbers in none.values()} == {0.0}

    def test_results_after_nms_give_the_same_numbers(self, reference_folder):
        expected = json.loads((reference_folder / "crowdpose_synthetic.json").read_text())
        poses = PosePredictions.from_boxed_poses(expected["predictions"])
        results = coco_results(poses, skeleton=load_skeleton("crowdpose_14"))
        file = reference_folder / expected["annotation_file"]
        assert keypoint_metrics("crowdpose", file, results) == keypoint_metrics("crowdpose", file, poses)
