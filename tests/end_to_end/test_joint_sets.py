"""Three sets at once from the command line: trained, each scored by its own metric, stopped, exported, predicted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from whole_trainings import TINY, evaluated, numbers, require_same, trained

from programs import require_one_line, run_here, run_in_own_process
from uniformer_pose.evaluation.coco_metrics import METRIC_NAMES
from uniformer_pose.evaluation.pckh import PCKH_NAMES
from uniformer_pose.weights.loading import load_model

SKELETONS = {"coco": "coco_17", "crowdpose": "crowdpose_14", "mpii": "mpii_16"}
SMALL = ["data.codec.height=64", "data.codec.width=64", "data.codec.sigma=1.5", "data.batch_size=4"]
LEVELS = ("AP_easy", "AP_medium", "AP_hard")


@pytest.fixture(scope="module")
def joint(rendered_set: Callable[[str], Path]) -> list[str]:
    """A command's words for COCO's, CrowdPose's and MPII's rendered people, CrowdPose's with a detector's boxes."""
    words = ["data=joint", f"data.sets=[{','.join(SKELETONS)}]", *SMALL]
    for name, skeleton in SKELETONS.items():
        files = {
            "root": str(rendered_set(skeleton)),
            "train_annotations": "annotations/person_keypoints_train.json",
            "train_images": "images/train",
            "val_annotations": "annotations/person_keypoints_val.json",
            "val_images": "images/val",
            "val_boxes": "person_detection_results/val_detections.json" if name == "crowdpose" else "gt",
        }
        words += [f"data.sets.{name}.{key}={value}" for key, value in files.items()]
    return words


@pytest.fixture(scope="module")
def straight(joint: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of an epoch that nothing disturbed, of a model of all sets' keypoints."""
    return trained(tmp_path_factory.mktemp("joint"), *joint, "data.skeleton=union")


def test_each_set_is_scored_by_its_own_metric_in_training_and_by_eval(straight: Path, tmp_path: Path) -> None:
    found = numbers(straight)
    assert set(found) == {*METRIC_NAMES, *(f"crowdpose/{name}" for name in (*METRIC_NAMES, *LEVELS))} | {
        f"mpii/{name}" for name in PCKH_NAMES
    }
    by_set = json.loads((straight / "metrics_by_set.json").read_text())
    assert [*by_set] == [*SKELETONS]
    assert by_set["mpii"] == {name: found[f"mpii/{name}"] for name in PCKH_NAMES}
    assert evaluated(tmp_path, straight) == found
    assert load_model(straight / "checkpoints" / "best.ckpt")[0].skeleton.num_keypoints == 21


@pytest.mark.slow
def test_with_workers_stopped_amid_the_epoch_and_continued_it_is_the_same_training(
    joint: list[str], straight: Path, tmp_path: Path
) -> None:
    words = [*joint, "data.skeleton=union"]
    require_same(trained(tmp_path / "workers", *words, "data.num_workers=2"), straight)
    require_same(trained(tmp_path / "stopped", *words, stop_in_step=3), straight)


@pytest.mark.slow
def test_two_processes_are_evaluated_as_one(joint: list[str], tmp_path: Path) -> None:
    """And end, though they have different numbers of batches of every set."""
    given = [
        *joint,
        *TINY,
        "trainer.devices=2",
        "+trainer.strategy=ddp",
        "trainer.max_epochs=4",
        "data.sampling=balanced",
    ]
    given += ["data.batch_size=2", "data.eval_batch_size=1", "data.max_images=5", f"run_dir={tmp_path / 'run'}"]
    finished = run_in_own_process("train.py", given, tmp_path)
    assert finished.returncode == 0, finished.stderr
    log = finished.stdout + finished.stderr
    assert log.count("a batch of 2 holds on average") == 1
    assert evaluated(tmp_path, tmp_path / "run", "data.max_images=5") == pytest.approx(
        numbers(tmp_path / "run"), abs=1e-6
    )


def test_a_run_is_not_continued_with_its_sets_in_another_order(
    joint: list[str], straight: Path, tmp_path: Path
) -> None:
    checkpoint = f"ckpt_path={straight / 'checkpoints' / 'last.ckpt'}"
    words = [
        *joint,
        *TINY,
        "data.skeleton=union",
        "data.sets=[coco,mpii,crowdpose]",
        "trainer.max_epochs=2",
        checkpoint,
    ]
    refused = run_here("train.py", words, tmp_path)
    require_one_line(refused, "data.sets coco,crowdpose,mpii is now coco,mpii,crowdpose")


def test_points_of_one_set_alone_are_exported_and_predicted(
    straight: Path, rendered_set: Callable[[str], Path], tmp_path: Path
) -> None:
    checkpoint = straight / "checkpoints" / "best.ckpt"
    exported = run_here(
        "export.py", [f"ckpt_path={checkpoint}", "keypoints=coco_17", "output=coco.safetensors"], tmp_path
    )
    assert exported.returncode == 0, exported.stderr
    picture = rendered_set("coco_17") / "images" / "val" / "000000000001.jpg"
    poses = []
    for number, source in enumerate((f"ckpt_path={checkpoint}", f"ckpt_path={tmp_path / 'coco.safetensors'}")):
        words = [
            source,
            f"source={picture}",
            "boxes=full",
            f"output=poses_{number}",
            "keypoints=coco_17",
            "engine=eager",
        ]
        predicted = run_here("predict.py", words, tmp_path)
        assert predicted.returncode == 0, predicted.stderr
        found = json.loads((tmp_path / f"poses_{number}" / "poses.json").read_text())
        poses.append([person["keypoints"] for person in found])
    assert poses[0] == poses[1]
    assert len(poses[0][0]) == 3 * 17


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["data.sets=[coco,crowdpos]"], "crowdpos"),
        (["data.sets.aic.root=nowhere"], "data.sets.aic.train_annotations=..., or aic in data.sets=[...]"),
        (["data=coco_256x192"], "data.sets=[...] is for data=joint"),
        (["data.sampling=evenly"], "data.sampling"),
        (["data.root=somewhere"], "data.root"),
    ],
)
def test_what_does_not_fit_is_one_line(joint: list[str], tmp_path: Path, words: list[str], line: str) -> None:
    require_one_line(run_here("train.py", [*joint, *TINY, *words], tmp_path), line)
