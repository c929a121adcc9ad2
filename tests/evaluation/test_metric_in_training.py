"""The metric of a data set in a pass over its evaluation images: chosen by ``data.metric``, logged by its names."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

from uniformer_pose.data.coco import read_ground_truth
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.data.mpii_json import read_mpii_file
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation import CocoGroundTruth, EvaluationProtocol, keypoint_metrics
from uniformer_pose.evaluation import data_set_metrics as facts
from uniformer_pose.evaluation.coco_metrics import METRIC_NAMES
from uniformer_pose.evaluation.data_set_metrics import data_set_scoring, metric_names, metric_of
from uniformer_pose.evaluation.pckh import head_sizes_of
from uniformer_pose.evaluation.pose_metric import PoseMetric
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.report import Evaluation, write_report
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.skeleton import load_skeleton

SPEC = CropSpec(256, 256)
CONF = Path(__file__).resolve().parents[2] / "conf"


def evaluated(data_set, file, folder):
    """A pass that finds everybody with a random error, and the metric by its public name of the same poses."""
    scoring = data_set_scoring(data_set)
    skeleton = load_skeleton(scoring.skeleton)
    people = read_ground_truth(file, folder, skeleton)
    truth = CocoGroundTruth.load(file, skeleton, area=scoring.area)
    crops = SPEC.around(people.boxes_xywh)
    rng = np.random.default_rng(0)
    found = people.keypoints_in_image + rng.normal(0, 0.03, people.keypoints_in_image.shape) * crops.extent[:, None]
    metric = PoseMetric(people, SPEC, EvaluationProtocol(), truth, kind=scoring.metric)
    batch = {
        "instance_index": torch.arange(len(people)),
        "centers_in_image": torch.from_numpy(crops.center),
        "extents_in_image": torch.from_numpy(crops.extent),
        "unreadable_images": torch.zeros(0, dtype=torch.int64),
    }
    scores = torch.from_numpy(rng.uniform(0.3, 1, found.shape[:2]))
    metric.update(batch, torch.from_numpy(crops.to_crop(found)), scores)
    return metric.compute(), keypoint_metrics(data_set, file, metric.predictions)


def test_ap_is_the_mean_over_species_and_that_by_level_has_its_name(reference_folder, tmp_path):
    for name, further in (("ap10k", ()), ("crowdpose", ("AP_easy", "AP_medium", "AP_hard"))):
        logged, expected = evaluated(name, reference_folder / f"{name}_synthetic_annotations.json", tmp_path)
        assert logged == expected
        assert tuple(logged) == (*METRIC_NAMES, *further)
        assert 0.2 < logged["AP"] < 0.9


def test_ap_of_the_whole_body_is_plain_and_that_of_a_part_has_its_name(shared_folder, tmp_path):
    file = shared_folder / "other_datasets" / "coco_wholebody" / "annotations" / "coco_wholebody_val_v1.0.json"
    logged, expected = evaluated("coco_wholebody", file, tmp_path)
    assert {name: logged[name] for name in METRIC_NAMES} == expected["wholebody"]
    assert {name: logged[f"{name}_lefthand"] for name in METRIC_NAMES} == expected["lefthand"]
    assert len(logged) == 60


def data_of(folder, file, skeleton, **settings):
    codec = HeatmapCodec(height=256, width=256, sigma=2.0, method="msra")
    arguments = {"val_annotations": file.name, "val_images": ".", "val_boxes": "gt"} | settings
    data = PersonCrops(
        str(folder), None, ".", skeleton=skeleton, codec=codec, mean=(0, 0, 0), std=(1, 1, 1), **arguments
    )
    data.setup("validate")
    return data


def as_converted(mpii_file, folder):
    """MPII's list as src/convert_data.py writes it: ids from the places and names, joints from 0."""
    people = read_mpii_file(mpii_file)
    joints = np.where(people.annotated[..., None], people.joints_from_one - 1, 0)
    rows = np.concatenate([joints, 2.0 * people.annotated[..., None]], axis=2)
    box = {"category_id": 1, "bbox": [0, 0, 50, 50], "area": 1325, "iscrowd": 0}
    content = {
        "images": [
            {"id": int(number), "file_name": f"{number:09}.jpg", "height": 50, "width": 50}
            for number in np.unique(people.image_ids)
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": load_skeleton("mpii_16").keypoint_names}],
        "annotations": [
            box | {"id": place, "image_id": int(number), "keypoints": row.ravel().tolist()}
            for place, (number, row) in enumerate(zip(people.image_ids, rows, strict=True))
        ],
    }
    (folder / "val.json").write_text(json.dumps(content))
    return folder / "val.json"


def assert_pckh_of_converted_people_is_that_of_the_list(reference, folder, tmp_path):
    expected = json.loads(reference.read_text())
    listed, heads = folder / expected["annotation_file"], folder / expected["headbox_file"]
    poses = PosePredictions.from_boxed_poses(expected["predictions"])
    truth = CocoGroundTruth.load(as_converted(listed, tmp_path), load_skeleton("mpii_16"))
    truth = replace(truth, head_sizes=head_sizes_of(heads, truth))
    with warnings.catch_warnings(action="error"):
        found = metric_of("pckh", truth, poses, None)
    assert found == pytest.approx(keypoint_metrics("mpii", listed, poses, headbox_file=heads), abs=1e-9)
    assert found["PCKh"] == pytest.approx(expected["evaluations"][0]["metrics"]["PCK"], abs=1e-5)
    assert set(found) == set(metric_names("pckh", truth.skeleton))
    return truth, poses, found


def test_pckh_of_a_real_sample_is_that_of_the_list_it_was_converted_from(shared_folder, tmp_path):
    reference = shared_folder / "reference" / "other_datasets_mpii.json"
    assert_pckh_of_converted_people_is_that_of_the_list(reference, shared_folder, tmp_path)


def test_pckh_of_converted_people_is_that_of_the_list_and_its_report_shows_it_by_joint(reference_folder, tmp_path):
    reference = reference_folder / "mpii_synthetic.json"
    truth, poses, found = assert_pckh_of_converted_people_is_that_of_the_list(reference, reference_folder, tmp_path)
    some = truth.restricted_to(np.unique(truth.image_ids)[:20])  # as with data.max_images
    few = metric_of("pckh", some, poses.take(np.isin(poses.image_ids, some.image_ids)), None)
    assert 0 < few["PCKh"] != found["PCKh"]

    evaluation = Evaluation(found, poses, truth, complete=True, kind="pckh")
    text = write_report(tmp_path / "report", evaluation, EvaluationProtocol())
    lines = [line.split() for line in text.splitlines()]
    assert lines[1] == [*metric_names("pckh", truth.skeleton)]
    assert lines[2][0] == f"{found['PCKh']:.4f}"
    assert "AP" not in text.split()
    by_joint = json.loads((tmp_path / "report" / "metrics_by_keypoint.json").read_text())
    assert by_joint["head_top"]["PCKh"] == pytest.approx(found["head"])
    assert by_joint["head_top"]["people"] == (truth.visibility[:, 9] > 0).sum()
    assert ["head_top", str(by_joint["head_top"]["people"]), f"{found['head']:.4f}"] in [line[:3] for line in lines]
    sides = [by_joint[f"{side}_wrist"]["PCKh@0.1"] for side in ("left", "right")]
    assert all(0 <= share < found["wrist"] for share in sides)
    assert not (tmp_path / "report" / "metrics_by_size.json").exists()
    assert json.loads((tmp_path / "report" / "metrics.json").read_text()) == found
    assert len(json.loads((tmp_path / "report" / "predictions.json").read_text())) == len(poses)  # PCKh knows no NMS


def test_the_heads_of_mpiis_people_are_asked_for_before_an_evaluation(reference_folder, tmp_path):
    file = as_converted(reference_folder / "mpii_synthetic_annotations.json", tmp_path)
    heads = reference_folder / "mpii_synthetic_gt_val.mat"
    settings = {"metric": "pckh", "headbox_file": str(heads)}
    assert data_of(tmp_path, file, "mpii_16", **settings).ground_truth.head_sizes.min() > 0
    with pytest.raises(InputError, match=r"val\.json: PCKh needs the sizes of heads: give data\.headbox_file"):
        _ = data_of(tmp_path, file, "mpii_16", metric="pckh").ground_truth
    with pytest.raises(InputError, match=r"absent\.mat does not exist"):
        _ = data_of(tmp_path, file, "mpii_16", **settings | {"headbox_file": "absent.mat"}).ground_truth

    content = json.loads(file.read_text())
    left_out = content["annotations"].pop()
    file.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"has 156 of the 157 people of .*, so PCKh is not MPII's own"):
        _ = data_of(tmp_path, file, "mpii_16", **settings).ground_truth
    content["annotations"].append(left_out | {"id": 157})
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"has the heads of 157 people, .* has ids from 0 to 157; give files of the"):
        _ = data_of(tmp_path, file, "mpii_16", **settings).ground_truth


def test_what_a_metric_needs_is_asked_for_before_an_evaluation(reference_folder, tmp_path):
    file = tmp_path / "people.json"
    content = json.loads((reference_folder / "crowdpose_synthetic_annotations.json").read_text())
    for image in content["images"]:
        del image["crowdIndex"]
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="60 images have no crowdIndex"):
        _ = data_of(tmp_path, file, "crowdpose_14", area="box", metric="crowd_levels").ground_truth
    with pytest.raises(InputError, match="skeleton 'crowdpose_14' has no parts; metric body_parts is for"):
        _ = data_of(tmp_path, file, "crowdpose_14", area="box", metric="body_parts").ground_truth
    box = {"image_id": content["images"][1]["id"], "category_id": 1, "bbox": [5, 5, 50, 50], "score": 1}
    (tmp_path / "boxes.json").write_text(json.dumps([box]))
    settings = {"area": "box", "metric": "mean_over_categories", "val_boxes": "boxes.json"}
    with pytest.raises(InputError, match=r"mean_over_categories is for annotated boxes: data\.val_boxes=gt"):
        _ = data_of(tmp_path, file, "crowdpose_14", **settings).ground_truth
    with pytest.raises(InputError, match="metric"):
        data_of(tmp_path, file, "crowdpose_14", metric="crowd")


def test_the_configs_of_data_sets_say_the_same_as_their_scoring():
    known = yaml.safe_load(Path(facts.__file__).with_name("data_sets.yaml").read_text())
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for file in (CONF / "data").glob("*_256x*.yaml"):
            name = file.stem.rsplit("_", 1)[0]
            if name in known:
                data = compose("train", overrides=[f"data={file.stem}"])["data"]
                scoring = data_set_scoring(name)
                assert (data.skeleton, data.area, data.metric) == (scoring.skeleton, scoring.area, scoring.metric), name
