"""The metric of a data set in a pass over its evaluation images: chosen by ``data.metric``, logged by its names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

from uniformer_pose.data.coco import read_ground_truth
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation import CocoGroundTruth, EvaluationProtocol, keypoint_metrics
from uniformer_pose.evaluation import data_set_metrics as facts
from uniformer_pose.evaluation.coco_metrics import METRIC_NAMES
from uniformer_pose.evaluation.data_set_metrics import data_set_scoring
from uniformer_pose.evaluation.pose_metric import PoseMetric
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.skeleton import load_skeleton

SPEC = CropSpec(256, 256)
CONF = Path(__file__).resolve().parents[2] / "conf"


def evaluated(data_set, file, folder):
    """A pass that finds everybody with a random error, and the metric by its public name of the same poses."""
    scoring = data_set_scoring(data_set)
    skeleton = load_skeleton(scoring.skeleton)
    people = read_ground_truth(file, folder, skeleton)
    truth = CocoGroundTruth.load(file, skeleton, area=scoring.area, as_published=True)
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
            if name in known and name != "mpii":
                data = compose("train", overrides=[f"data={file.stem}"])["data"]
                scoring = data_set_scoring(name)
                assert (data.skeleton, data.area, data.metric) == (scoring.skeleton, scoring.area, scoring.metric), name
