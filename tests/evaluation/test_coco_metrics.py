import copy
import json
import re
import warnings

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from uniformer_pose.errors import InputError
from uniformer_pose.evaluation import (
    CocoGroundTruth,
    PosePredictions,
    coco_keypoint_metrics,
    coco_results,
    format_metrics_table,
    write_coco_results,
)
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


@pytest.fixture(scope="module")
def coco_17():
    return load_skeleton("coco_17")


def make_content(num_keypoints=17, num_images=3, people_per_image=2, seed=0):
    """COCO file content: people of 150 x 200 pixels with all keypoints labelled."""
    generator = np.random.default_rng(seed)
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
    return {
        "images": [{"id": image_id, "height": 400, "width": 400} for image_id in range(num_images)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }


def as_predictions(content):
    """The ground truth, written as if it had been predicted."""
    people = content["annotations"]
    keypoints = np.array([person["keypoints"] for person in people], dtype=np.float64)
    keypoints = keypoints.reshape(len(people), -1, 3)
    boxes = np.array([person["bbox"] for person in people])
    return PosePredictions(
        ids=np.arange(len(people)),
        image_ids=np.array([person["image_id"] for person in people]),
        boxes_xywh=boxes,
        box_scores=np.linspace(1.0, 0.5, len(people)),
        areas=boxes[:, 2] * boxes[:, 3],
        keypoints_in_image=keypoints[..., :2],
        keypoint_scores=np.full(keypoints.shape[:2], 0.9),
    )


@pytest.fixture
def content():
    return make_content()


@pytest.fixture
def annotation_file(tmp_path, content):
    path = tmp_path / "people.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def reference(reference_folder):
    return json.loads((reference_folder / "coco_evaluation.json").read_text())


def with_values(predictions, **changes):
    arrays = {name: getattr(predictions, name).copy() for name in predictions.__dataclass_fields__}
    return PosePredictions(**arrays | changes)


class TestReference:
    @pytest.mark.parametrize(("score_mode", "nms_mode"), MODES)
    def test_metrics_equal_those_of_mmpose(self, reference, reference_folder, score_mode, nms_mode):
        (expected,) = [
            evaluation["metrics"]
            for evaluation in reference["evaluations"]
            if (evaluation["score_mode"], evaluation["nms_mode"]) == (score_mode, nms_mode)
        ]
        metrics = coco_keypoint_metrics(
            reference_folder / reference["annotation_file"], reference["predictions"], score_mode, nms_mode
        )
        assert {REFERENCE_NAMES[name]: value for name, value in metrics.items()} == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize(("score_mode", "nms_mode"), MODES)
    def test_kept_results_and_their_scores_equal_those_of_mmpose(self, reference, score_mode, nms_mode):
        (expected,) = [
            evaluation
            for evaluation in reference["evaluations"]
            if (evaluation["score_mode"], evaluation["nms_mode"]) == (score_mode, nms_mode)
        ]
        protocol = EvaluationProtocol(score_mode=score_mode, nms_mode=nms_mode)
        results = coco_results(reference["predictions"], protocol)
        assert len(results) == expected["results_kept"]
        mean_score = np.mean([result["score"] for result in results])
        assert mean_score == pytest.approx(expected["mean_score"], abs=1e-6)

    def test_every_reference_evaluation_is_compared(self, reference):
        assert sorted(MODES) == sorted((e["score_mode"], e["nms_mode"]) for e in reference["evaluations"])

    def test_order_and_repeats_of_records_do_not_matter(self, reference, reference_folder):
        file = reference_folder / reference["annotation_file"]
        order = np.random.default_rng(0).permutation(len(reference["predictions"]))
        shuffled = [reference["predictions"][index] for index in [*order, *order[:50]]]
        assert coco_keypoint_metrics(file, shuffled) == coco_keypoint_metrics(file, reference["predictions"])


class TestMetrics:
    def test_ground_truth_written_as_predictions_scores_one(self, annotation_file, content):
        metrics = coco_keypoint_metrics(annotation_file, as_predictions(content))
        assert metrics == pytest.approx({name: -1.0 if name in ("APM", "ARM") else 1.0 for name in METRIC_NAMES})

    def test_real_ground_truth_written_as_predictions_scores_one(self, reference_folder):
        file = reference_folder / "coco_people_val2017.json"
        content = json.loads(file.read_text())
        content["annotations"] = [a for a in content["annotations"] if a["num_keypoints"] and not a["iscrowd"]]
        metrics = coco_keypoint_metrics(file, as_predictions(content), nms_mode="none")
        assert metrics["AP"] == pytest.approx(1.0)
        assert metrics["AR"] == pytest.approx(1.0)

    def test_half_the_people_found_gives_half_the_recall(self, annotation_file, content):
        found = as_predictions(content).take(np.array([0, 2, 4]))
        metrics = coco_keypoint_metrics(annotation_file, found)
        assert metrics["AR"] == pytest.approx(0.5)

    def test_metrics_are_plain_floats_under_their_names(self, annotation_file, content):
        metrics = coco_keypoint_metrics(annotation_file, as_predictions(content))
        assert tuple(metrics) == METRIC_NAMES
        assert {type(value) for value in metrics.values()} == {float}

    def test_nothing_is_printed(self, annotation_file, content, capfd):
        coco_keypoint_metrics(annotation_file, as_predictions(content))
        assert capfd.readouterr() == ("", "")

    def test_predictions_are_left_as_they_were(self, annotation_file, content):
        records = as_predictions(content).to_records()
        before = copy.deepcopy(records)
        coco_keypoint_metrics(annotation_file, records)
        assert records == before

    def test_ground_truth_read_once_evaluates_again_and_again(self, annotation_file, content):
        ground_truth = CocoGroundTruth.load(annotation_file)
        annotation_file.unlink()
        half = as_predictions(content).take(np.array([0, 2, 4]))
        first = coco_keypoint_metrics(ground_truth, half)
        assert coco_keypoint_metrics(ground_truth, as_predictions(content))["AP"] == pytest.approx(1.0)
        assert coco_keypoint_metrics(ground_truth, half) == first

    def test_only_the_asked_images_are_evaluated(self, annotation_file, content):
        first_image = as_predictions(content).take(np.array([0, 1]))
        metrics = coco_keypoint_metrics(annotation_file, first_image, image_ids=[0])
        assert metrics["AR"] == pytest.approx(1.0)
        assert coco_keypoint_metrics(annotation_file, first_image)["AR"] == pytest.approx(1 / 3)

    def test_predictions_on_other_images_do_not_disturb_the_asked_ones(self, annotation_file, content):
        wrong = as_predictions(content)
        wrong.keypoints_in_image[2:] += 500.0
        assert coco_keypoint_metrics(annotation_file, wrong, image_ids=[0])["AP"] == pytest.approx(1.0)

    def test_asking_for_an_image_that_the_file_lacks_is_an_error(self, annotation_file, content):
        with pytest.raises(InputError, match=r"does not list 1 images that image_ids names \(ids 77\)"):
            coco_keypoint_metrics(annotation_file, as_predictions(content), image_ids=[0, 77])

    def test_no_predictions_score_zero_with_a_warning(self, annotation_file):
        with pytest.warns(UserWarning, match="no predictions on any of its 3 evaluated images"):
            metrics = coco_keypoint_metrics(annotation_file, [])
        assert (metrics["AP"], metrics["AR"], metrics["AP50"], metrics["APL"]) == (0.0, 0.0, 0.0, 0.0)

    @pytest.mark.parametrize("with_predictions", [True, False])
    def test_a_file_without_people_is_evaluated_to_minus_one(self, tmp_path, content, with_predictions):
        path = tmp_path / "nobody.json"
        path.write_text(json.dumps(content | {"annotations": []}))
        poses = as_predictions(content) if with_predictions else PosePredictions.empty(17)
        with warnings.catch_warnings():
            warnings.simplefilter("error" if with_predictions else "ignore")
            assert set(coco_keypoint_metrics(path, poses).values()) == {-1.0}

    def test_a_prediction_on_an_image_without_people_is_a_false_positive(self, tmp_path, content):
        predictions = as_predictions(content)
        content["annotations"] = [person for person in content["annotations"] if person["image_id"] != 0]
        path = tmp_path / "people.json"
        path.write_text(json.dumps(content))
        # The two best-scored poses are wrong, four after them right: precision 4/6 at every recall.
        assert coco_keypoint_metrics(path, predictions)["AP"] == pytest.approx(4 / 6)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_predictions_that_are_not_finite_never_score(self, annotation_file, content, value):
        predictions = as_predictions(content)
        predictions.keypoints_in_image[:] = value
        with pytest.raises(InputError, match="6 of 6 predictions hold NaN or infinity, first image 0 id 0"):
            coco_keypoint_metrics(annotation_file, predictions)
        with pytest.raises(InputError, match="6 of 6"):
            coco_results(predictions)

    def test_absurdly_far_predictions_score_nothing_and_raise_nothing(self, annotation_file, content):
        predictions = as_predictions(content)
        predictions.keypoints_in_image[:] = 1e200
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert coco_keypoint_metrics(annotation_file, predictions, nms_mode="none")["AP"] == 0.0

    def test_predictions_on_unknown_images_are_named(self, annotation_file, content):
        predictions = with_values(as_predictions(content), image_ids=np.arange(100, 106))
        expected = r"does not list 6 images that the predictions name \(ids 100, 101, 102, 103, 104, \.\.\.\)"
        with pytest.raises(InputError, match=expected):
            coco_keypoint_metrics(annotation_file, predictions)

    def test_predictions_of_another_number_of_keypoints_are_refused(self, annotation_file):
        with pytest.raises(InputError, match="predictions have 14 keypoints, skeleton 'coco_17' has 17"):
            coco_keypoint_metrics(annotation_file, as_predictions(make_content(num_keypoints=14)))

    def test_an_unknown_nms_mode_is_refused_with_the_choices(self, annotation_file, content):
        with pytest.raises(InputError, match="nms_mode is 'nms'; choose one of oks_nms, none, soft_oks_nms"):
            coco_keypoint_metrics(annotation_file, as_predictions(content), nms_mode="nms")

    @pytest.mark.parametrize("threshold", [0.0, 1.5, float("nan")])
    def test_an_nms_threshold_that_is_no_similarity_is_refused(self, annotation_file, content, threshold):
        with pytest.raises(InputError, match="nms_threshold is"):
            coco_keypoint_metrics(annotation_file, as_predictions(content), nms_threshold=threshold)


class TestOtherSkeleton:
    SKELETON = Skeleton(
        name="star",
        keypoint_names=("a", "b", "c", "d", "e"),
        sigmas=(0.02, 0.04, 0.06, 0.08, 0.1),
        colours=((255, 0, 0),) * 5,
        left_right_pairs=(),
        upper_body=(),
        lower_body=(),
        limbs=(),
    )

    @pytest.fixture
    def star_content(self):
        return make_content(num_keypoints=5)

    @pytest.fixture
    def star_file(self, tmp_path, star_content):
        path = tmp_path / "stars.json"
        path.write_text(json.dumps(star_content))
        return path

    def test_five_keypoints_are_evaluated(self, star_file, star_content):
        metrics = coco_keypoint_metrics(star_file, as_predictions(star_content), skeleton=self.SKELETON)
        assert metrics["AP"] == pytest.approx(1.0)

    def test_the_sigmas_are_those_of_the_skeleton(self, star_file, star_content):
        # Keypoint a is off by d: its similarity is exp(-d^2 / (2 (2 * 0.02)^2 20000)) = exp(-d^2 / 64), the others'
        # is 1. With d = 8 the OKS is (4 + exp(-1)) / 5 = 0.874: right at the 8 thresholds .50 to .85 of 10.
        predictions = as_predictions(star_content)
        predictions.keypoints_in_image[:, 0, 0] += 8.0
        metrics = coco_keypoint_metrics(star_file, predictions, skeleton=self.SKELETON)
        assert metrics["AP"] == pytest.approx(0.8)

    def test_a_file_of_another_skeleton_names_annotation_and_numbers(self, star_file, star_content):
        with pytest.raises(InputError, match=r"annotation 1 has 15 numbers in 'keypoints'; it needs 51 .*coco_17"):
            coco_keypoint_metrics(star_file, as_predictions(star_content))

    def test_loaded_ground_truth_is_not_evaluated_with_another_skeleton(self, star_file, star_content, coco_17):
        ground_truth = CocoGroundTruth.load(star_file, self.SKELETON)
        with pytest.raises(InputError, match="was loaded with skeleton 'star', not 'coco_17'"):
            coco_keypoint_metrics(ground_truth, as_predictions(star_content), skeleton=coco_17)

    def test_the_one_category_of_a_file_is_the_one_evaluated(self, star_file, star_content):
        for record in [*star_content["annotations"], *star_content["categories"]]:
            record["category_id" if "bbox" in record else "id"] = 7
        star_file.write_text(json.dumps(star_content))
        metrics = coco_keypoint_metrics(star_file, as_predictions(star_content), skeleton=self.SKELETON)
        assert metrics["AP"] == pytest.approx(1.0)


def drop(name):
    return lambda content: content["annotations"][1].pop(name)


def put(name, value):
    return lambda content: content["annotations"][1].update({name: value})


def put_all(name, values):
    def change(content):
        for annotation, value in zip(content["annotations"], values, strict=False):
            annotation[name] = value

    return change


class TestAnnotationDefects:
    @pytest.mark.parametrize(
        ("defect", "message"),
        [
            (drop("area"), "1 of 6 annotations have no 'area', first annotation 2, .* data.area=box"),
            (put("area", None), "1 of 6 annotations have no 'area', first annotation 2, .* data.area=box"),
            (drop("bbox"), "annotation 2 has no 'bbox'"),
            (drop("keypoints"), "annotation 2 has no 'keypoints'"),
            (drop("image_id"), "annotation 2 has no 'image_id'"),
            (drop("category_id"), "annotation 2 has no 'category_id'"),
            (drop("id"), "annotation number 2 has no 'id'"),
            (put("id", 0), "annotation number 2 has 0 in 'id'; expected `int` >= 1"),
            (put("id", "2"), "annotation number 2 has '2' in 'id'"),
            (put("id", 1), "annotation id 1 is given to 2 annotations"),
            (put("image_id", 99), "in 1 images that the annotation file does not list .*99"),
            (put("image_id", "0"), "annotation 2 has '0' in 'image_id'"),
            (put("area", -4.0), "annotation 2 has -4 in 'area'"),
            (put("area", float("nan")), "annotation 2 has nan in 'area'"),
            (put("area", float("inf")), "annotation 2 has inf in 'area'"),
            (put("area", 10**400), "annotation 2 has 1000.* in 'area'"),
            (put("area", "20000"), "annotation 2 has '20000' in 'area'"),
            (put("bbox", [1, 2, 3]), "annotation 2 has 3 numbers in 'bbox'; it needs 4"),
            (put("bbox", [1, 2, 3, "4"]), "annotation 2 has '4' in 'bbox'"),
            (put("keypoints", [1, 2, 2] * 14), "annotation 2 has 42 numbers in 'keypoints'; it needs 51"),
            (put("keypoints", [None] * 51), "annotation 2 has None in 'keypoints'"),
            (put("keypoints", {}), "annotation 2 has {} in 'keypoints'"),
            (put("keypoints", [1, 2, 3] * 17), "annotation 2 has a visibility other than 0"),
            (put("num_keypoints", "many"), "annotation 2 has 'many' in 'num_keypoints'"),
            (put("num_keypoints", -1), "annotation 2 has -1 in 'num_keypoints'"),
            (put("iscrowd", None), "annotation 2 has None in 'iscrowd'"),
            (put_all("category_id", [3, 5, 3, 3, 3, 3]), r"they are of 3, 5, and in people.json 1 \(person\) counts"),
            (lambda content: content.pop("annotations"), "has no list 'annotations'"),
            (lambda content: content.update(images=[1, 2]), "image number 1 is 1; expected"),
            (lambda content: content["images"][0].pop("id"), "image number 1 has no 'id'"),
            (lambda content: content["images"][0].update(id=1), "image id 1 is given to 2 images"),
        ],
    )
    def test_a_defect_is_named_with_file_and_annotation(self, annotation_file, content, defect, message):
        predictions = as_predictions(content)
        defect(content)
        annotation_file.write_text(json.dumps(content))
        with pytest.raises(InputError, match=message) as caught:
            coco_keypoint_metrics(annotation_file, predictions)
        assert str(caught.value).startswith(str(annotation_file))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "not valid JSON"),
            ('{"images": [', "not valid JSON"),
            ("[1, 2]", "not a list"),
            ("[" * 200_000, "not valid JSON"),
        ],
    )
    def test_a_file_that_is_no_coco_json_is_named(self, tmp_path, text, message):
        path = tmp_path / "odd.json"
        path.write_text(text)
        with pytest.raises(InputError, match=re.escape(str(path)) + ".*" + message):
            CocoGroundTruth.load(path)

    def test_a_number_beyond_every_float_is_refused(self, annotation_file, content):
        annotation_file.write_text(json.dumps(content).replace("20000.0", "1e999", 1))
        with pytest.raises(InputError, match="annotation 1 has inf in 'area'"):
            CocoGroundTruth.load(annotation_file)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(InputError, match=r"absent\.json: cannot be read \(No such file"):
            coco_keypoint_metrics(tmp_path / "absent.json", [])

    def test_missing_counts_and_crowd_marks_are_derived(self, annotation_file, content):
        content["annotations"][0]["keypoints"] = [0] * 51  # nothing labelled: not scored
        predictions = as_predictions(content).take(np.arange(1, 6))
        for annotation in content["annotations"]:
            del annotation["num_keypoints"], annotation["iscrowd"]
        annotation_file.write_text(json.dumps(content))
        ground_truth = CocoGroundTruth.load(annotation_file)
        assert ground_truth.labelled_counts.tolist() == [0, 17, 17, 17, 17, 17]
        assert not ground_truth.is_crowd.any()
        assert coco_keypoint_metrics(ground_truth, predictions)["AP"] == pytest.approx(1.0)

    def test_crowds_are_neither_missed_nor_scored(self, annotation_file, content):
        content["annotations"][0]["iscrowd"] = 1
        annotation_file.write_text(json.dumps(content))
        predictions = as_predictions(content).take(np.arange(1, 6))
        assert coco_keypoint_metrics(annotation_file, predictions)["AR"] == pytest.approx(1.0)

    def test_people_without_area_are_reported(self, annotation_file, content):
        content["annotations"][2]["area"] = 0
        annotation_file.write_text(json.dumps(content))
        with pytest.warns(
            UserWarning, match="1 of 6 people have an implausible area, first annotation 3 with 0 .*too low"
        ):
            CocoGroundTruth.load(annotation_file)

    def test_counts_that_contradict_the_keypoints_are_reported(self, annotation_file, content):
        content["annotations"][2]["num_keypoints"] = 0
        annotation_file.write_text(json.dumps(content))
        with pytest.warns(UserWarning, match="num_keypoints contradicts .* in 1 annotations, first 3"):
            CocoGroundTruth.load(annotation_file)

    def test_sound_annotations_give_no_warning(self, reference_folder):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for name in ("train2017", "val2017"):
                CocoGroundTruth.load(reference_folder / f"coco_people_{name}.json")


def skeleton_of_mmpose(shared_folder, name, annotation_file):
    """The names of an annotation file with MMPose's sigmas: enough to score by."""
    listed = json.loads((shared_folder / "reference" / "other_datasets_skeletons.json").read_text())[name]
    names = tuple(json.loads(annotation_file.read_text())["categories"][0]["keypoints"])
    return Skeleton(name, names, tuple(listed["sigmas"]), ((255, 0, 0),) * len(names), (), (), (), ())


def test_the_mean_over_categories_that_are_scored_alone_is_the_figure_of_ap_10k(shared_folder):
    expected = json.loads((shared_folder / "reference" / "other_datasets_ap10k_synthetic.json").read_text())
    (evaluation,) = [e for e in expected["evaluations"] if (e["score_mode"], e["nms_mode"]) == MODES[1]]
    file = shared_folder / expected["annotation_file"]
    skeleton = skeleton_of_mmpose(shared_folder, "ap10k", file)
    species = {annotation["category_id"] for annotation in json.loads(file.read_text())["annotations"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its areas are those of the boxes
        each = [
            coco_keypoint_metrics(
                CocoGroundTruth.load(file, skeleton, categories=[number]),
                [pose for pose in expected["predictions"] if pose["category_id"] == number],
                *MODES[1],
            )
            for number in species
        ]
        together = coco_keypoint_metrics(CocoGroundTruth.load(file, skeleton), expected["predictions"], *MODES[1])
    assert np.mean([metrics["AP"] for metrics in each]) == pytest.approx(evaluation["metrics"]["AP"], abs=1e-6)
    assert together["AP"] == pytest.approx(0.5886, abs=1e-4)  # one class, which is another figure


class TestAreas:
    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (
                lambda person: 1,
                "6 of 6 people .* annotation 1 with 1 in a box of 150 x 200: AP is too low, .*0.0079",
            ),
            (lambda person: 150 * 200, "6 of 6 people .* with 30000 .*too high, .*1.4 times"),
            (lambda person: 20000 if person["id"] > 2 else 31000, "2 of 6 people .*too high"),
            (lambda person: 20000 / 4, "6 of 6 people .*too low"),  # of pictures of half the size
            (lambda person: 20000 * 4, "6 of 6 people .*too high"),
            (lambda person: 0.6, "6 of 6 people .*too low"),
        ],
    )
    def test_areas_that_do_not_fit_their_boxes_are_counted_with_their_effect(
        self, annotation_file, content, change, expected
    ):
        for person in content["annotations"]:
            person["area"] = change(person)
        annotation_file.write_text(json.dumps(content))
        with pytest.warns(UserWarning, match=expected):
            CocoGroundTruth.load(annotation_file)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert CocoGroundTruth.load(annotation_file, area="box").areas.tolist() == [0.53 * 150 * 200] * 6

    def test_data_sets_whose_area_is_the_box_are_named_and_those_without_need_the_box(self, shared_folder, coco_17):
        folder = shared_folder / "other_datasets"
        ochuman = folder / "ochuman" / "annotations" / "ochuman_coco_format_val_range_0.00_1.00.json"
        with pytest.warns(UserWarning, match="5 of 5 people have an implausible area"):
            CocoGroundTruth.load(ochuman, coco_17)

    def test_crowdpose_is_scored_by_boxes_as_mmpose_does(self, shared_folder):
        expected = json.loads((shared_folder / "reference" / "other_datasets_crowdpose.json").read_text())
        (evaluation,) = [e for e in expected["evaluations"] if e.get("iou_type") == "keypoints"]
        file = shared_folder / expected["annotation_file"]
        skeleton = skeleton_of_mmpose(shared_folder, "crowdpose", file)
        with pytest.raises(InputError, match=r"no 'area'.*data\.area=box"):
            CocoGroundTruth.load(file, skeleton)
        metrics = coco_keypoint_metrics(
            CocoGroundTruth.load(file, skeleton, area="box"),
            expected["predictions"],
            evaluation["score_mode"],
            evaluation["nms_mode"],
        )
        expected_metrics = {name: evaluation["metrics"][REFERENCE_NAMES[name]] for name in METRIC_NAMES}
        assert metrics == pytest.approx(expected_metrics, abs=1e-6)


class TestResults:
    def test_written_results_read_back_the_same(self, tmp_path, content):
        results = coco_results(as_predictions(content))
        path = tmp_path / "run" / "results.json"
        write_coco_results(path, results)
        assert json.loads(path.read_text()) == results

    def test_a_result_has_the_entries_of_the_coco_format(self, content):
        result = coco_results(as_predictions(content).take(np.array([3])), category_id=1)[0]
        person = content["annotations"][3]
        assert set(result) == {"image_id", "category_id", "keypoints", "score", "bbox"}
        assert result["bbox"] == person["bbox"]
        assert (result["image_id"], result["category_id"]) == (person["image_id"], 1)
        expected = np.array(person["keypoints"], dtype=np.float64).reshape(-1, 3)
        expected[:, 2] = 0.9
        assert result["keypoints"] == expected.reshape(-1).tolist()

    def scored_by_pycocotools(self, file, results_file):
        coco = COCO(str(file))
        evaluation = COCOeval(coco, coco.loadRes(str(results_file)), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return dict(zip(METRIC_NAMES, evaluation.stats.tolist(), strict=True))

    @pytest.mark.parametrize(("score_mode", "nms_mode"), MODES)
    def test_written_results_give_the_same_ten_numbers_in_pycocotools(
        self, tmp_path, reference_folder, reference, score_mode, nms_mode
    ):
        file = reference_folder / reference["annotation_file"]
        protocol = EvaluationProtocol(score_mode=score_mode, nms_mode=nms_mode)
        write_coco_results(tmp_path / "results.json", coco_results(reference["predictions"], protocol))
        metrics = coco_keypoint_metrics(file, reference["predictions"], score_mode, nms_mode)
        assert self.scored_by_pycocotools(file, tmp_path / "results.json") == metrics

    @pytest.mark.parametrize("with_boxes", [True, False])
    def test_written_results_can_be_scored_as_they_are(self, tmp_path, reference_folder, reference, with_boxes):
        file = reference_folder / reference["annotation_file"]
        results = coco_results(reference["predictions"], with_boxes=with_boxes)
        write_coco_results(tmp_path / "results.json", results)
        with (tmp_path / "results.json").open() as stream:
            metrics = coco_keypoint_metrics(file, json.load(stream))
        assert metrics == self.scored_by_pycocotools(file, tmp_path / "results.json")

    def test_results_of_other_categories_are_left_out_aloud_and_alone_they_are_an_error(self, annotation_file, content):
        results = coco_results(as_predictions(content))
        results[0]["category_id"] = 18
        with pytest.warns(UserWarning, match="1 of 6 results are of categories that do not count"):
            assert coco_keypoint_metrics(annotation_file, results)["AR"] == pytest.approx(5 / 6)
        for result in results:
            result["category_id"] = 0
        with pytest.raises(InputError, match=r"they are of 0, and in people\.json 1 \(person\) counts"):
            coco_keypoint_metrics(annotation_file, results)

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (lambda result: result.pop("score"), "lacks score"),
            (lambda result: result.update(keypoints=[1.0, 2.0, 1.0] * 16), "'keypoints' must be 51 numbers"),
            (lambda result: result.update(image_id=77), "does not list 1 images that the predictions name"),
            (lambda result: result.pop("category_id"), "result number 3 has no whole number for 'category_id'"),
            (lambda result: result.update(score=float("nan")), "hold NaN"),
        ],
    )
    def test_a_defect_of_a_result_is_named(self, annotation_file, content, change, expected):
        results = coco_results(as_predictions(content))
        change(results[3])
        with pytest.raises(InputError, match=expected):
            coco_keypoint_metrics(annotation_file, results)

    def test_results_without_boxes_have_another_area_in_pycocotools(self, tmp_path, reference_folder, reference):
        file = reference_folder / reference["annotation_file"]
        write_coco_results(tmp_path / "results.json", coco_results(reference["predictions"], with_boxes=False))
        scored = self.scored_by_pycocotools(file, tmp_path / "results.json")
        metrics = coco_keypoint_metrics(file, reference["predictions"])
        assert {name for name in METRIC_NAMES if scored[name] != metrics[name]} <= {"APM", "APL"}
        assert scored["AP"] == metrics["AP"]

    def test_results_that_json_cannot_hold_leave_no_file(self, tmp_path):
        path = tmp_path / "results.json"
        with pytest.raises(ValueError, match="JSON"):
            write_coco_results(path, [{"score": float("nan")}])
        assert not path.exists()

    def test_results_come_by_image_and_best_first(self, content):
        shuffled = as_predictions(content).take(np.array([5, 1, 0, 3, 4, 2]))
        results = coco_results(shuffled)
        assert [result["image_id"] for result in results] == [0, 0, 1, 1, 2, 2]
        assert results[0]["score"] > results[1]["score"]

    def test_no_predictions_give_no_results(self):
        assert coco_results([]) == []

    def test_twins_on_different_images_both_stay(self, content, coco_17):
        predictions = as_predictions(content).take(np.array([0, 0]))
        predictions.image_ids[1] = 2
        kept, scores = select_poses(predictions, EvaluationProtocol(), coco_17.oks_sigmas)
        assert kept.image_ids.tolist() == [0, 2]
        assert len(scores) == 2


def test_the_metrics_table_shows_names_over_values_and_a_dash_for_what_is_not_there():
    metrics = {name: 0.5 + 0.01 * n for n, name in enumerate(METRIC_NAMES)} | {"APM": -1.0}
    names, values = format_metrics_table(metrics).splitlines()
    assert names.split() == list(METRIC_NAMES)
    assert values.split()[:5] == ["0.5000", "0.5100", "0.5200", "-", "0.5400"]
    assert len(names) == len(values)
