"""Several data sets in one evaluation: each in its own keypoints and by its own metric, as if it were the only one."""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
from scipy.io import savemat

from uniformer_pose.data.joint import JointCrops
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation import CocoGroundTruth, EvaluationProtocol, coco_keypoint_metrics
from uniformer_pose.evaluation.coco_metrics import METRIC_NAMES
from uniformer_pose.evaluation.pckh import PCKH_NAMES
from uniformer_pose.evaluation.report import write_reports
from uniformer_pose.skeleton import Skeleton, load_skeleton
from uniformer_pose.training.pictures import Pictures
from uniformer_pose.training.pose_module import logged_names

COCO, CROWDPOSE, MPII = (load_skeleton(name) for name in ("coco_17", "crowdpose_14", "mpii_16"))


@pytest.fixture
def sets(tiny) -> dict[str, dict[str, Any]]:
    """Arguments of the six people's set, and of two in which they have CrowdPose's and MPII's points."""
    content = json.loads((tiny.folder / "people.json").read_text())
    (tiny.folder / "crowd.json").write_text(json.dumps(in_points_of(CROWDPOSE, content)))
    (tiny.folder / "mpii.json").write_text(json.dumps(in_points_of(MPII, content)))
    savemat(tiny.folder / "heads.mat", {"headboxes_src": np.array([[[0.0] * 7] * 2, [[12.0] * 7] * 2])})
    files = {"root": str(tiny.folder), "train_images": "images", "val_images": "images"}
    of_metric: dict[str, dict[str, Any]] = {
        "people": {},
        "crowd": {"skeleton": "crowdpose_14", "metric": "crowd_levels"},
        "mpii": {"skeleton": "mpii_16", "metric": "pckh", "headbox_file": "heads.mat"},
    }
    return {
        name: files | {f"{split}_annotations": f"{name}.json" for split in ("train", "val")} | own
        for name, own in of_metric.items()
    }


def in_points_of(skeleton: Skeleton, content: dict[str, Any]) -> dict[str, Any]:
    """The same people in another set's points, those that COCO lacks at (1, 2)."""
    content = json.loads(json.dumps(content))
    for entry in content["annotations"]:
        points = dict(zip(COCO.keypoint_names, np.reshape(entry["keypoints"], (17, 3)).tolist(), strict=True))
        rows = [points.get(name, [1, 2, 2]) for name in skeleton.keypoint_names]
        entry |= {"keypoints": list(chain.from_iterable(rows)), "num_keypoints": len(rows)}
    content["categories"][0]["keypoints"] = list(skeleton.keypoint_names)
    for image in content["images"]:
        image["crowdIndex"] = 0.5
    return content


def joint(tiny, sets: dict[str, dict[str, Any]], **settings: Any) -> JointCrops:
    how = {"codec": tiny.codec, "mean": (0.0,) * 3, "std": (1.0,) * 3, "batch_size": 2, "eval_batch_size": 3}
    return JointCrops(sets=sets, num_workers=0, **(how | settings))


def evaluated(tiny, sets: dict[str, dict[str, Any]], **settings: Any) -> tuple[Any, dict[str, float]]:
    """The module after one evaluation with weights that were never trained, and what was logged."""
    module, trainer = tiny.module(protocol=EvaluationProtocol(**settings)), tiny.trainer()
    trainer.validate(module, datamodule=joint(tiny, sets), verbose=False)
    return module, {name: value.item() for name, value in trainer.callback_metrics.items()}


@pytest.mark.filterwarnings("ignore:.*mpii.json. has 6 of the 7 people")
def test_each_set_gets_the_numbers_that_it_gets_alone(tiny, sets):
    module, logged = evaluated(tiny, sets)

    assert [*module.evaluations] == ["people", "crowd", "mpii"]
    assert [name for name in logged if name in ("val/AP", "val/crowd/AP_medium", "val/mpii/PCKh")] == [
        *("val/AP", "val/crowd/AP_medium", "val/mpii/PCKh"),
    ]
    assert set(logged) == set(logged_names(joint(tiny, sets).val_sets))
    assert {f"val/{name}" for name in METRIC_NAMES} < set(logged) > {f"val/mpii/{name}" for name in PCKH_NAMES}
    for name in sets:
        alone, _ = evaluated(tiny, {"people": sets["people"], name: sets[name]})
        assert alone.evaluations[name].metrics == module.evaluations[name].metrics
    single, trainer = tiny.module(protocol=EvaluationProtocol()), tiny.trainer()
    trainer.validate(single, datamodule=tiny.data(mean=(0.0,) * 3, std=(1.0,) * 3), verbose=False)
    assert single.evaluation.metrics == module.evaluation.metrics
    assert 0 < module.evaluations["mpii"].metrics["PCKh"] < 100
    assert module.evaluations["mpii"].metrics["head"] == -1  # its top is none of the model's points


@pytest.mark.filterwarnings("ignore:.*mpii.json. has 6 of the 7 people")
def test_a_set_is_scored_in_the_points_that_the_model_has(tiny, sets):
    module, _ = evaluated(tiny, sets)

    crowd, people = module.evaluations["crowd"], module.evaluations["people"]
    assert crowd.ground_truth.skeleton.keypoint_names == CROWDPOSE.keypoint_names[:12]
    places = [COCO.keypoint_names.index(name) for name in CROWDPOSE.keypoint_names[:12]]
    np.testing.assert_array_equal(
        crowd.predictions.keypoints_in_image, people.predictions.keypoints_in_image[:, places]
    )
    (tiny.folder / "part.json").write_text(
        json.dumps(
            in_points_of(CROWDPOSE.of_keypoints(range(12)), json.loads((tiny.folder / "people.json").read_text()))
        )
    )
    truth = CocoGroundTruth.load(tiny.folder / "part.json", CROWDPOSE.of_keypoints(range(12)))
    expected = coco_keypoint_metrics(truth, people.predictions.of_keypoints(places))
    assert {name: crowd.metrics[name] for name in METRIC_NAMES} == expected


@pytest.mark.filterwarnings("ignore:.*mpii.json. has 6 of the 7 people")
def test_reports_are_by_set_with_a_comparison_and_the_numbers_that_were_logged(tiny, sets):
    module, logged = evaluated(tiny, sets)
    text = write_reports(tiny.folder / "run", module.evaluations, module.protocol)

    for name, evaluation in module.evaluations.items():
        folder = tiny.folder / "run" / name
        assert json.loads((folder / "metrics.json").read_text()) == evaluation.metrics
        assert (folder / "report.md").is_file()
    together = json.loads((tiny.folder / "run" / "metrics.json").read_text())
    assert {f"val/{name}": value for name, value in together.items()} == pytest.approx(logged)
    assert [*json.loads((tiny.folder / "run" / "metrics_by_set.json").read_text())] == [*sets]
    table = [line.split() for line in text.splitlines()[-7:-1]]
    assert table[0] == ["set", *METRIC_NAMES, "AP_easy", "AP_medium", "AP_hard"]
    assert [row[0] for row in table[1:3]] == ["people", "crowd"]
    assert table[1][-3:] == ["-", "-", "-"]
    assert table[4] == ["set", *PCKH_NAMES]


@pytest.mark.filterwarnings("ignore:.*mpii.json. has 6 of the 7 people")
def test_a_training_may_be_judged_by_a_further_set_and_draws_each(tiny, sets):
    monitor = "val/mpii/PCKh"
    best = pl.callbacks.ModelCheckpoint(tiny.folder / "ckpt", filename="best", monitor=monitor, mode="max")
    module = tiny.module(protocol=EvaluationProtocol(flip_test=False, monitor=monitor))
    trainer = tiny.trainer(callbacks=[best, Pictures(str(tiny.folder / "pictures"))])
    trainer.fit(module, datamodule=joint(tiny, sets))

    assert best.best_model_score == trainer.callback_metrics[monitor]
    assert trainer.callback_metrics["train/loss"] > 0
    for name in sets:
        assert (tiny.folder / "pictures" / f"predictions_{name}_epoch_000.png").is_file()
    with pytest.raises(InputError, match=r"evaluation\.monitor=val/crowd/PCKh: did you mean val/.*"):
        evaluated(tiny, sets, monitor="val/crowd/PCKh")
