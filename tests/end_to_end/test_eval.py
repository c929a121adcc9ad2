"""Scoring a checkpoint from the command line, from nothing but its path."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from eval import evaluate
from programs import composed
from uniformer_pose.config_parts import EvalConfig
from uniformer_pose.entry_point import checked_config
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import load_skeleton


def run_eval(run_script, folder: Path, *arguments: str) -> dict[str, float]:
    finished = run_script("eval.py", ["trainer=cpu", f"hydra.run.dir={folder / 'eval'}", *arguments], folder)
    assert finished.returncode == 0, finished.stderr
    metrics: dict[str, float] = json.loads((folder / "eval" / "metrics.json").read_text())
    return metrics


def test_the_checkpoint_alone_gives_the_numbers_of_its_training(trained_run: Path, run_script, tmp_path: Path) -> None:
    metrics = run_eval(run_script, tmp_path, f"ckpt_path={trained_run / 'checkpoints' / 'best.ckpt'}")
    assert metrics == json.loads((trained_run / "metrics.json").read_text())
    results = json.loads((tmp_path / "eval" / "predictions.json").read_text())
    assert {len(result["keypoints"]) for result in results} == {51}
    assert (tmp_path / "eval" / "pictures" / "predictions.png").is_file()
    for name in ("metrics_by_size.json", "metrics_by_keypoint.json", "timing.json", "report.md"):
        assert (tmp_path / "eval" / name).is_file()


def evaluate_here(*arguments: str) -> float:
    """What src/eval.py does with a command line, in this process: torch need not be imported again."""
    return evaluate(checked_config(composed("eval", *arguments, "trainer=cpu"), EvalConfig))


def test_real_coco_images_are_scored_with_ground_truth_and_with_detector_boxes(
    trained_run: Path, tmp_path: Path, shared_folder: Path
) -> None:
    evaluate_here(
        f"ckpt_path={trained_run / 'checkpoints' / 'best.ckpt'}",
        *["data=coco_256x192", f"data.root={shared_folder / 'coco_mini'}", "boxes=[gt,detector]"],
        f"run_dir={tmp_path}",
    )
    assert json.loads((tmp_path / "gt" / "error_types.json").read_text())["nose"]["right"] >= 0
    ground_truth_boxes = json.loads((tmp_path / "gt" / "predictions.json").read_text())
    detector_boxes = json.loads((tmp_path / "detector" / "predictions.json").read_text())
    assert len(ground_truth_boxes) <= 12 < len(detector_boxes) <= 118


def test_several_sources_of_boxes_are_scored_in_one_run(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = evaluate_here(
        f"ckpt_path={trained_run / 'checkpoints' / 'best.ckpt'}", "boxes=[gt,detector]", f"run_dir={tmp_path}"
    )

    by_boxes = json.loads((tmp_path / "metrics_by_boxes.json").read_text())
    assert list(by_boxes) == ["gt", "detector"]
    for name, metrics in by_boxes.items():
        folder = tmp_path / name
        assert json.loads((folder / "metrics.json").read_text()) == metrics
        assert (folder / "pictures" / "predictions.png").is_file()
        assert list(json.loads((folder / "timing.json").read_text())["seconds"])[-1] == "total"
    assert by_boxes["detector"] == json.loads((trained_run / "metrics.json").read_text())
    assert value == pytest.approx(by_boxes["detector"]["AP"])
    assert json.loads((tmp_path / "metrics.json").read_text()) == by_boxes["detector"]
    boxes = [json.loads((tmp_path / name / "predictions.json").read_text())[0]["bbox"] for name in by_boxes]
    assert boxes[0] != boxes[1]
    table = capsys.readouterr().out.splitlines()[-4:]
    assert table[0].split() == ["boxes", *by_boxes["gt"]]
    assert [line.split()[0] for line in table[1:3]] == ["gt", "detector"]


@pytest.fixture
def crowd_root(synthetic_root: Path, tmp_path: Path) -> Path:
    """The rendered people to evaluate on, with CrowdPose's points."""
    coco, crowdpose = load_skeleton("coco_17"), load_skeleton("crowdpose_14")
    content = json.loads((synthetic_root / "annotations" / "person_keypoints_val.json").read_text())
    for entry in content["annotations"]:
        points = dict(zip(coco.keypoint_names, np.reshape(entry["keypoints"], (17, 3)).tolist(), strict=True))
        rows = [points.get(name, [1, 1, 2]) for name in crowdpose.keypoint_names]
        entry |= {"keypoints": [number for row in rows for number in row], "num_keypoints": 14}
    content["categories"][0]["keypoints"] = list(crowdpose.keypoint_names)
    for number, image in enumerate(content["images"]):
        image["crowdIndex"] = number / 6
    root = tmp_path / "crowd"
    root.mkdir()
    (root / "images").symlink_to(synthetic_root / "images" / "val")
    (root / "people.json").write_text(json.dumps(content))
    return root


def test_a_set_of_other_points_is_scored_in_those_that_the_model_has(
    trained_run: Path, crowd_root: Path, tmp_path: Path, run_script
) -> None:
    files = ["data.val_annotations=people.json", "data.val_images=images", "data.val_boxes=gt"]
    checkpoint = f"ckpt_path={trained_run / 'checkpoints' / 'best.ckpt'}"
    arguments = [checkpoint, "data=crowdpose_256x192", f"data.root={crowd_root}", *files, "trainer=cpu"]
    finished = run_script("eval.py", [*arguments, f"hydra.run.dir={tmp_path / 'eval'}"], tmp_path)
    assert finished.returncode == 0, finished.stderr
    said = finished.stdout + finished.stderr
    assert said.count("evaluated without top_head, neck, which the model does not have") == 1
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert {"AP", "AP_easy", "AP_medium", "AP_hard"} < set(metrics)
    results = json.loads((tmp_path / "eval" / "predictions.json").read_text())
    assert {len(result["keypoints"]) for result in results} == {36}
    by_keypoint = json.loads((tmp_path / "eval" / "metrics_by_keypoint.json").read_text())
    assert list(by_keypoint) == list(load_skeleton("crowdpose_14").keypoint_names[:12])


def test_a_model_of_several_sets_is_scored_on_each_with_each_source_of_boxes(
    trained_run: Path, crowd_root: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    contents = torch.load(trained_run / "checkpoints" / "best.ckpt", weights_only=True)
    data = contents["uniformer_pose"]["config"]["data"]
    shared = ("codec", "mean", "std", "box_padding", "batch_size", "num_workers", "eval_batch_size")
    files = ("root", "train_annotations", "train_images", "val_annotations", "val_images", "val_boxes")
    of_coco = {name: data[name] for name in files}
    boxes = str(synthetic_root / data["val_boxes"])
    of_crowd = of_coco | {"root": str(crowd_root), "val_annotations": "people.json", "val_images": "images"}
    of_crowd |= {"skeleton": "crowdpose_14", "metric": "crowd_levels", "val_boxes": boxes}
    contents["uniformer_pose"]["config"]["data"] = {name: data[name] for name in shared} | {
        "_target_": "uniformer_pose.data.joint.JointCrops",
        "sets": {"coco": of_coco, "crowd": of_crowd},
    }
    torch.save(contents, tmp_path / "joint.ckpt")
    checkpoint = f"ckpt_path={tmp_path / 'joint.ckpt'}"

    value = evaluate_here(checkpoint, f"run_dir={tmp_path / 'one'}", "evaluation.monitor=val/crowd/AP_hard")
    alone = json.loads((trained_run / "metrics.json").read_text())
    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert json.loads((tmp_path / "one" / "coco" / "metrics.json").read_text()) == alone
    crowd = json.loads((tmp_path / "one" / "crowd" / "metrics.json").read_text())
    assert metrics == alone | {f"crowd/{name}": number for name, number in crowd.items()}
    assert value == pytest.approx(crowd["AP_hard"])
    assert (tmp_path / "one" / "crowd" / "pictures" / "predictions.png").is_file()

    evaluate_here(checkpoint, f"run_dir={tmp_path / 'two'}", "boxes=[gt,detector]")
    names = ["coco/gt", "coco/detector", "crowd/gt", "crowd/detector"]
    assert list(json.loads((tmp_path / "two" / "metrics_by_set.json").read_text())) == names
    assert all((tmp_path / "two" / name / "report.md").is_file() for name in names)
    with pytest.raises(InputError, match=r"^crowd: absent/people.json does not exist; set data\.sets\.crowd\.root"):
        evaluate_here(checkpoint, f"run_dir={tmp_path / 'three'}", "data.sets.crowd.root=absent")


def test_a_test_set_without_annotations_gives_the_file_for_cocos_server(
    trained_run: Path, synthetic_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotated = synthetic_root / "annotations" / "person_keypoints_val.json"
    images = json.loads(annotated.read_text())["images"]
    (tmp_path / "root" / "annotations").mkdir(parents=True)
    (tmp_path / "root" / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps({"images": images}))
    (tmp_path / "root" / "test2017").symlink_to(synthetic_root / "images" / "val")
    boxes = synthetic_root / "person_detection_results" / "val_detections.json"

    value = evaluate_here(
        f"ckpt_path={trained_run / 'checkpoints' / 'best.ckpt'}",
        *["data=coco_256x192", f"data.root={tmp_path / 'root'}", f"boxes={boxes}"],
        *["split=test", "name=tiny", f"run_dir={tmp_path / 'run'}"],
    )

    assert math.isnan(value)
    name = "person_keypoints_test-dev2017_tiny_results"
    assert f"to upload           {tmp_path / 'run' / name}.zip" in capsys.readouterr().out
    results = json.loads((tmp_path / "run" / f"{name}.json").read_text())
    written = json.loads((trained_run / "predictions.json").read_text())
    assert results == [{key: value for key, value in pose.items() if key != "bbox"} for pose in written]
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("split=test", "split=test: the data has no test set; choose data that has one, such as"),
        ("boxes=[gt,mine.json]", r"mine\.json does not exist"),
        ("boxes=[gt,gt]", r"boxes=\[gt,gt\]: give gt, detector, files .* different names"),
        ("boxes=[a/x.json,b/x.json]", r"different names"),
        ("boxes=[]", r"boxes=\[\]: give gt, detector, files"),
    ],
)
def test_what_cannot_be_evaluated_is_told_before_anything_is_written(
    trained_run: Path, tmp_path: Path, argument: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        evaluate_here(f"ckpt_path={trained_run / 'checkpoints' / 'best.ckpt'}", argument, f"run_dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ckpt_path=nowhere.ckpt"], "no such file: nowhere.ckpt"),
        ([], "ckpt_path is required"),
        (["ckpt_path=x", "split=dev"], "split='dev': must be 'val', 'train' or 'test'"),
    ],
)
def test_a_wrong_command_ends_in_one_line(arguments: list[str], message: str, run_script, tmp_path: Path) -> None:
    finished = run_script("eval.py", arguments, tmp_path)
    assert finished.returncode == 2
    assert message in finished.stderr.replace('"', "'")
    assert "Traceback" not in finished.stderr


@pytest.fixture(scope="module")
def limited_checkpoint(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a training on two images that put up with bad ones."""
    checkpoint = torch.load(trained_run / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["uniformer_pose"]["config"]["data"] |= {"max_images": 2, "on_bad_image": "skip"}
    path = tmp_path_factory.mktemp("limited") / "limited.ckpt"
    torch.save(checkpoint, path)
    return path


def test_limits_of_the_training_do_not_limit_its_evaluation(
    limited_checkpoint: Path, trained_run: Path, tmp_path: Path
) -> None:
    evaluate_here(f"ckpt_path={limited_checkpoint}", f"run_dir={tmp_path}")

    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads((trained_run / "metrics.json").read_text())


@pytest.mark.parametrize("limit", ["data.max_images=2", "trainer.limit_val_batches=1"])
def test_a_partial_evaluation_is_marked_wherever_its_numbers_stand(
    limited_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], limit: str
) -> None:
    arguments = [f"ckpt_path={limited_checkpoint}", f"run_dir={tmp_path}", "boxes=[gt,detector]"]
    evaluate_here(*arguments, limit, "data.eval_batch_size=1")

    metrics = json.loads((tmp_path / "gt" / "metrics.json").read_text())
    assert metrics["partial"] is True
    assert metrics["of"] == 6
    assert json.loads((tmp_path / "metrics_by_boxes.json").read_text())["gt"] == metrics
    part = f"{metrics['images']} of 6 images"
    assert f"Partial evaluation: {part}" in (tmp_path / "gt" / "report.md").read_text()
    assert f"gt ({part})" in capsys.readouterr().out


def test_an_evaluation_of_nothing_is_an_error(limited_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="limit_val_batches=0: nothing is evaluated"):
        evaluate_here(f"ckpt_path={limited_checkpoint}", f"run_dir={tmp_path}", "trainer.limit_val_batches=0")
