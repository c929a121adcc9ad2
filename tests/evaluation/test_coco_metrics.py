import json
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from random_people import as_predicted, poses_of_records
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation import CocoGroundTruth, PosePredictions, coco_keypoint_metrics, coco_results
from uniformer_pose.evaluation.coco_metrics import METRIC_NAMES, select_poses
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.skeleton import Skeleton, load_skeleton

REFERENCE_NAMES = dict(
    zip(
        METRIC_NAMES,
        ("AP", "AP .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)"),
        strict=True,
    )
)
MODES = [
    ("bbox_keypoint", "oks_nms"),
    ("bbox_keypoint", "none"),
    ("bbox_keypoint", "soft_oks_nms"),
    ("bbox", "oks_nms"),
    ("keypoint", "oks_nms"),
    ("bbox_rle", "oks_nms"),
]
NO_NMS = EvaluationProtocol(nms_mode="none")
NAN = float("nan")


def make_content(num_keypoints=17, num_images=3, people_per_image=2):
    """COCO file content: people of 150 x 200 pixels with all keypoints labelled."""
    generator = np.random.default_rng(0)
    annotations = []
    for number in range(num_images * people_per_image):
        points = generator.integers(0, 150, (num_keypoints, 2)) + 200 * (number % people_per_image)
        keypoints = np.concatenate([points, np.full((num_keypoints, 1), 2)], axis=1)
        annotations.append(
            {
                "id": number + 1,
                "image_id": number // people_per_image,
                "category_id": 1,
                "bbox": [200.0 * (number % people_per_image), 0.0, 150.0, 200.0],
                "area": 20000.0,
                "keypoints": keypoints.reshape(-1).tolist(),
                "num_keypoints": num_keypoints,
                "iscrowd": 0,
            }
        )
    images = [{"id": image_id} for image_id in range(num_images)]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


class People:
    """A file of people, and predictions that are exact."""

    def __init__(self, folder, skeleton=None):
        self.skeleton = skeleton or load_skeleton("coco_17")
        self.file = folder / "people.json"
        self.content = make_content(self.skeleton.num_keypoints)
        self.predictions = as_predicted(self.load())

    @property
    def annotations(self):
        return self.content["annotations"]

    def load(self, **options):
        self.file.write_text(json.dumps(self.content))
        return CocoGroundTruth.load(self.file, self.skeleton, **options)

    def metrics(self, predictions=None, **options):
        return coco_keypoint_metrics(self.load(), self.predictions if predictions is None else predictions, **options)


@pytest.fixture
def people(tmp_path):
    return People(tmp_path)


@pytest.fixture
def reference(reference_folder):
    content = json.loads((reference_folder / "coco_evaluation.json").read_text())
    return content | {"predictions": poses_of_records(content["predictions"])}


class TestReference:
    @pytest.mark.parametrize(("score_mode", "nms_mode"), MODES)
    def test_metrics_kept_poses_and_scores_equal_those_of_mmpose(
        self, reference, reference_folder, score_mode, nms_mode
    ):
        (expected,) = [
            evaluation
            for evaluation in reference["evaluations"]
            if (evaluation["score_mode"], evaluation["nms_mode"]) == (score_mode, nms_mode)
        ]
        file, predictions = reference_folder / reference["annotation_file"], reference["predictions"]
        protocol = EvaluationProtocol(score_mode=score_mode, nms_mode=nms_mode)
        metrics = coco_keypoint_metrics(file, predictions, protocol)
        named = {REFERENCE_NAMES[name]: value for name, value in metrics.items()}
        assert named == pytest.approx(expected["metrics"], abs=1e-6)
        results = coco_results(predictions, protocol)
        assert len(results) == expected["results_kept"]
        assert np.mean([result["score"] for result in results]) == pytest.approx(expected["mean_score"], abs=1e-6)

    def test_every_reference_evaluation_is_compared(self, reference):
        assert sorted(MODES) == sorted((e["score_mode"], e["nms_mode"]) for e in reference["evaluations"])

    def test_order_does_not_matter_and_repeats_are_refused(self, reference, reference_folder):
        file, poses = reference_folder / reference["annotation_file"], reference["predictions"]
        order = np.random.default_rng(0).permutation(len(poses))
        assert coco_keypoint_metrics(file, poses.take(order)) == coco_keypoint_metrics(file, poses)
        with pytest.raises(InputError, match=r"50 of .* predictions repeat the image id and id of an earlier one"):
            coco_keypoint_metrics(file, poses.take(np.concatenate([order, order[:50]])))


def fourteen(poses):
    return replace(
        poses,
        keypoints_in_image=poses.keypoints_in_image[:, :14],
        keypoint_scores=poses.keypoint_scores[:, :14],
    )


class TestMetrics:
    def test_ground_truth_written_as_predictions_scores_one(self, people, capfd):
        metrics = people.metrics()
        assert metrics == pytest.approx({name: -1.0 if name in ("APM", "ARM") else 1.0 for name in METRIC_NAMES})
        assert tuple(metrics) == METRIC_NAMES
        assert {type(value) for value in metrics.values()} == {float}
        assert capfd.readouterr() == ("", "")

    def test_half_the_people_found_gives_half_the_recall(self, people):
        assert people.metrics(people.predictions.take(np.array([0, 2, 4])))["AR"] == pytest.approx(0.5)

    def test_only_the_asked_images_are_evaluated(self, people):
        first_image = people.predictions.take(np.array([0, 1]))
        assert people.metrics(first_image)["AR"] == pytest.approx(1 / 3)
        assert coco_keypoint_metrics(people.load().restricted_to([0]), first_image)["AR"] == pytest.approx(1.0)
        with pytest.raises(InputError, match=r"does not list 1 of the images \(ids 77\)"):
            people.load().restricted_to([0, 77])

    def test_no_predictions_score_zero_with_a_warning(self, people):
        with pytest.warns(UserWarning, match="no predictions on any of its 3 evaluated images"):
            metrics = people.metrics([])
        assert (metrics["AP"], metrics["AR"], metrics["AP50"], metrics["APL"]) == (0.0, 0.0, 0.0, 0.0)

    @pytest.mark.parametrize("with_predictions", [True, False])
    def test_a_file_without_people_is_evaluated_to_minus_one(self, people, with_predictions):
        people.content["annotations"] = []
        with warnings.catch_warnings():
            warnings.simplefilter("error" if with_predictions else "ignore")
            metrics = people.metrics(people.predictions if with_predictions else PosePredictions.empty(17))
        assert set(metrics.values()) == {-1.0}

    def test_a_prediction_on_an_image_without_people_is_a_false_positive(self, people):
        people.content["annotations"] = [person for person in people.annotations if person["image_id"] != 0]
        # The two best-scored poses are wrong, four after them right: precision 4/6 at every recall.
        assert people.metrics()["AP"] == pytest.approx(4 / 6)

    def test_predictions_that_are_not_finite_never_score(self, people):
        people.predictions.keypoints_in_image[:] = np.nan
        with pytest.raises(InputError, match=r"6 of 6 predictions hold NaN or infinity .*, first image 0 id 0"):
            people.metrics()
        with pytest.raises(InputError, match="6 of 6"):
            coco_results(people.predictions)

    def test_absurdly_far_predictions_score_nothing_and_raise_nothing(self, people):
        people.predictions.keypoints_in_image[:] = 1e200
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert people.metrics(protocol=EvaluationProtocol(nms_mode="none"))["AP"] == 0.0

    def test_predictions_on_unknown_images_or_of_another_skeleton_are_named(self, people):
        elsewhere = replace(people.predictions, image_ids=np.arange(100, 106))
        expected = r"does not list 6 of the images \(ids 100, 101, 102, 103, 104, \.\.\.\)"
        with pytest.raises(InputError, match=expected):
            people.metrics(elsewhere)
        with pytest.raises(InputError, match="predictions have 14 keypoints, skeleton 'coco_17' has 17"):
            people.metrics(fourteen(people.predictions))

    def test_twins_on_different_images_both_stay(self, people):
        twins = people.predictions.take(np.array([0, 0]))
        twins.image_ids[1] = 2
        kept, scores = select_poses(twins, EvaluationProtocol(), people.skeleton.oks_sigmas)
        assert kept.image_ids.tolist() == [0, 2]
        assert len(scores) == 2


class TestOtherSkeleton:
    STAR = Skeleton(
        "star", ("a", "b", "c", "d", "e"), (0.02, 0.04, 0.06, 0.08, 0.1), ((255, 0, 0),) * 5, (), (), (), ()
    )

    def test_number_of_keypoints_and_sigmas_are_those_of_the_skeleton(self, tmp_path):
        # Keypoint a is off by d: its similarity is exp(-d^2 / (2 (2 * 0.02)^2 20000)) = exp(-d^2 / 64), the others'
        # is 1. With d = 8 the OKS is (4 + exp(-1)) / 5 = 0.874: right at the 8 thresholds .50 to .85 of 10.
        stars = People(tmp_path, self.STAR)
        assert stars.metrics()["AP"] == pytest.approx(1.0)
        stars.predictions.keypoints_in_image[:, 0, 0] += 8.0
        assert stars.metrics()["AP"] == pytest.approx(0.8)
        for record in [*stars.annotations, *stars.content["categories"]]:
            record["category_id" if "bbox" in record else "id"] = 7
        assert stars.metrics()["AP"] == pytest.approx(0.8)

    def test_a_file_is_not_evaluated_with_another_skeleton(self, tmp_path):
        stars = People(tmp_path, self.STAR)
        with pytest.raises(InputError, match=r"annotation 1 needs 51 finite numbers in 'keypoints': .*coco_17"):
            coco_keypoint_metrics(stars.file, stars.predictions)


class TestAnnotations:
    """What is refused for training too is tested there (``tests/data/test_coco.py``)."""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"area": None}, "1 of 6 annotations have no 'area' .* first annotation 2, .* data.area=box"),
            ({"area": -4.0}, "1 of 6 annotations have no 'area'"),
            ({"area": NAN}, "1 of 6 annotations have no 'area'"),
            ({"area": 10**400}, r"annotations\[1\]: Number out of range - at `\$.area`"),
            ({"keypoints": [1, 2, 3] * 17}, "annotation 2 needs .* visibility"),
            ({"num_keypoints": -1}, r"annotations\[1\]: .* at `\$.num_keypoints`"),
        ],
    )
    def test_a_defect_is_named_with_file_and_annotation(self, people, change, message):
        people.annotations[1].update(change)
        with pytest.raises(InputError, match=message) as caught:
            people.load()
        assert str(caught.value).startswith(str(people.file))
        assert "\n" not in str(caught.value)

    def test_missing_counts_and_crowd_marks_are_derived(self, people):
        people.annotations[0]["keypoints"] = [0] * 51  # nothing labelled: not scored
        for annotation in people.annotations:
            del annotation["num_keypoints"], annotation["iscrowd"]
        ground_truth = people.load()
        assert ground_truth.labelled_counts.tolist() == [0, 17, 17, 17, 17, 17]
        assert not ground_truth.is_crowd.any()
        assert people.metrics(people.predictions.take(np.arange(1, 6)))["AP"] == pytest.approx(1.0)

    def test_crowds_are_neither_missed_nor_scored_and_need_no_keypoints(self, people):
        people.annotations[0].update(iscrowd=1, keypoints=[])
        assert people.metrics(people.predictions.take(np.arange(1, 6)))["AR"] == pytest.approx(1.0)

    def test_counts_that_contradict_the_keypoints_are_reported(self, people):
        people.annotations[2]["num_keypoints"] = 0
        (doubt,) = people.load().doubts()
        assert re.search(r"num_keypoints contradicts .* in 1 annotations, first 3", doubt)

    def test_sound_annotations_give_no_warning(self, reference_folder):
        for name in ("train2017", "val2017"):
            assert CocoGroundTruth.load(reference_folder / f"coco_people_{name}.json").doubts() == []

    @pytest.mark.parametrize(
        ("area", "expected"),
        [
            (lambda n: 1, "6 of 6 people .* annotation 1 with 1 in a box of 150 x 200: AP is too low, .*0.0079"),
            (lambda n: 150 * 200, "area of 6 of 6 people is width x height of their box, as OCHuman, .*1.4 times"),
            (lambda n: 150 * 200 if n > 4 else 20000, "area of 2 of 6 people is width x height"),
            (lambda n: 150 * 199, "6 of 6 people .* with 29850 .*too high, .*1.4 times"),
            (lambda n: 20000 if n > 2 else 31000, "2 of 6 people .*too high"),
            (lambda n: 20000 / 4, "6 of 6 people .*too low"),  # of pictures of half the size
            (lambda n: 0 if n == 3 else 20000, "1 of 6 people .* first annotation 3 with 0 .*too low"),
        ],
    )
    def test_areas_that_do_not_fit_their_boxes_are_counted_with_their_effect(self, people, area, expected):
        for person in people.annotations:
            person["area"] = area(person["id"])
        (doubt,) = people.load().doubts()
        assert re.search(expected, doubt)
        with pytest.warns(UserWarning, match=expected):
            coco_keypoint_metrics(people.file, people.predictions)
        assert people.load(area="box").areas.tolist() == [0.53 * 150 * 200] * 6
        assert people.load(area="box").doubts() == []


class TestOtherDatasets:
    def skeleton_of_mmpose(self, shared_folder, name, annotation_file):
        """The names of an annotation file with MMPose's sigmas: enough to score by."""
        listed = json.loads((shared_folder / "reference" / "other_datasets_skeletons.json").read_text())[name]
        names = tuple(json.loads(annotation_file.read_text())["categories"][0]["keypoints"])
        return Skeleton(name, names, tuple(listed["sigmas"]), ((255, 0, 0),) * len(names), (), (), (), ())

    def test_the_mean_over_categories_that_are_scored_alone_is_the_figure_of_ap_10k(self, shared_folder):
        expected = json.loads((shared_folder / "reference" / "other_datasets_ap10k_synthetic.json").read_text())
        (evaluation,) = [e for e in expected["evaluations"] if (e["score_mode"], e["nms_mode"]) == MODES[1]]
        file, poses = shared_folder / expected["annotation_file"], expected["predictions"]
        skeleton = self.skeleton_of_mmpose(shared_folder, "ap10k", file)
        species = {annotation["category_id"] for annotation in json.loads(file.read_text())["annotations"]}
        truths = {number: CocoGroundTruth.load(file, skeleton, categories=[number]) for number in species}
        each = [
            coco_keypoint_metrics(
                truth, poses_of_records([pose for pose in poses if pose["category_id"] == number]), NO_NMS
            )["AP"]
            for number, truth in truths.items()
        ]
        together = coco_keypoint_metrics(CocoGroundTruth.load(file, skeleton), poses_of_records(poses), NO_NMS)
        assert np.mean(each) == pytest.approx(evaluation["metrics"]["AP"], abs=1e-6)
        assert together["AP"] == pytest.approx(0.5886, abs=1e-4)  # one class, which is another figure

    def test_data_sets_whose_area_is_the_box_are_named(self, shared_folder):
        folder = shared_folder / "other_datasets" / "ochuman" / "annotations"
        (doubt,) = CocoGroundTruth.load(folder / "ochuman_coco_format_val_range_0.00_1.00.json").doubts()
        assert "area of 5 of 5 people is width x height of their box, as OCHuman" in doubt

    def test_crowdpose_is_scored_by_boxes_as_mmpose_does(self, shared_folder):
        expected = json.loads((shared_folder / "reference" / "other_datasets_crowdpose.json").read_text())
        (evaluation,) = [e for e in expected["evaluations"] if e.get("iou_type") == "keypoints"]
        file = shared_folder / expected["annotation_file"]
        skeleton = self.skeleton_of_mmpose(shared_folder, "crowdpose", file)
        with pytest.raises(InputError, match=r"no 'area'.*data\.area=box"):
            CocoGroundTruth.load(file, skeleton)
        truth = CocoGroundTruth.load(file, skeleton, area="box")
        protocol = EvaluationProtocol(score_mode=evaluation["score_mode"], nms_mode=evaluation["nms_mode"])
        metrics = coco_keypoint_metrics(truth, poses_of_records(expected["predictions"]), protocol)
        assert metrics == pytest.approx({n: evaluation["metrics"][REFERENCE_NAMES[n]] for n in METRIC_NAMES}, abs=1e-6)


class TestResults:
    def scored_by_pycocotools(self, file, results, folder):
        (folder / "results.json").write_text(json.dumps(results))
        coco = COCO(str(file))
        evaluation = COCOeval(coco, coco.loadRes(str(folder / "results.json")), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return dict(zip(METRIC_NAMES, evaluation.stats.tolist(), strict=True))

    def test_results_have_cocos_entries_and_come_by_image_and_best_first(self, people):
        results = coco_results(people.predictions.take(np.array([5, 1, 0, 3, 4, 2])))
        assert [result["image_id"] for result in results] == [0, 0, 1, 1, 2, 2]
        assert results[0]["score"] > results[1]["score"]
        assert set(results[0]) == {"image_id", "category_id", "keypoints", "score", "bbox"}
        expected = np.array(people.annotations[0]["keypoints"], dtype=np.float64).reshape(-1, 3)
        expected[:, 2] = 0.9
        assert results[0]["keypoints"] == expected.reshape(-1).tolist()
        assert results[0]["bbox"] == people.annotations[0]["bbox"]
        assert coco_results(PosePredictions.empty(17)) == []

    @pytest.mark.parametrize(("score_mode", "nms_mode"), MODES)
    def test_results_give_the_same_ten_numbers_in_pycocotools(
        self, tmp_path, reference_folder, reference, score_mode, nms_mode
    ):
        file = reference_folder / reference["annotation_file"]
        protocol = EvaluationProtocol(score_mode=score_mode, nms_mode=nms_mode)
        results = coco_results(reference["predictions"], protocol)
        metrics = coco_keypoint_metrics(file, reference["predictions"], protocol)
        assert self.scored_by_pycocotools(file, results, tmp_path) == metrics

    @pytest.mark.parametrize("with_boxes", [True, False])
    def test_results_can_be_scored_as_they_are(self, tmp_path, reference_folder, reference, with_boxes):
        file = reference_folder / reference["annotation_file"]
        results = coco_results(reference["predictions"], with_boxes=with_boxes)
        scored = self.scored_by_pycocotools(file, results, tmp_path)
        assert coco_keypoint_metrics(file, results) == scored
        # Without boxes the area of a pose is another one in pycocotools.
        whole = coco_keypoint_metrics(file, reference["predictions"])
        assert {name for name in METRIC_NAMES if scored[name] != whole[name]} <= (
            set() if with_boxes else {"APM", "APL"}
        )

    def test_results_may_hold_numbers_and_arrays_of_numpy(self, people):
        results = coco_results(people.predictions)
        odd = [result | {"score": np.float32(1), "keypoints": np.array(result["keypoints"])} for result in results]
        assert people.metrics(odd)["AP"] == pytest.approx(1.0)

    def test_results_of_other_categories_are_left_out_aloud_and_alone_they_are_an_error(self, people):
        results = coco_results(people.predictions)
        results[0]["category_id"] = 18
        with pytest.warns(UserWarning, match="1 of 6 results are of categories that do not count"):
            assert people.metrics(results)["AR"] == pytest.approx(5 / 6)
        for result in results:
            result["category_id"] = 0
        with pytest.raises(InputError, match=r"they are of 0, and 1 \(person\) counts"):
            people.metrics(results)

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"score": ...}, "missing required field `score` - at `$[3]`"),
            ({"keypoints": [1.0, 2.0, 1.0] * 16}, "prediction record 3: 'keypoints' has 48 numbers"),
            ({"image_id": 77}, "does not list 1 of the images"),
            ({"score": NAN}, "hold NaN"),
            ({"score": "0.5"}, "Expected `float`, got `str` - at `$[3].score`"),
        ],
    )
    def test_a_defect_of_a_result_is_named(self, people, change, expected):
        results = coco_results(people.predictions)
        results[3] = {name: value for name, value in (results[3] | change).items() if value is not ...}
        with pytest.raises(InputError, match=re.escape(expected)):
            people.metrics(results)
