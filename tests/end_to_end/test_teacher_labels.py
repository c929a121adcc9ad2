"""Half of the pictures have annotations; a trained model labels the others, and teaches a student on both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from programs import RunProgram, require_one_line

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def half(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The annotations of the first six of twelve images, in a folder of their own."""
    content = json.loads((synthetic_root / "annotations" / "person_keypoints_train.json").read_text())
    images = content["images"][:6]
    ids = {image["id"] for image in images}
    people = [person for person in content["annotations"] if person["image_id"] in ids]
    file = tmp_path_factory.mktemp("half") / "half.json"
    file.write_text(json.dumps(content | {"images": images, "annotations": people}))
    return file


def test_what_predict_and_eval_write_trains_a_student(
    synthetic_root: Path, trained_run: Path, half: Path, tiny_run: list[str], run_script: RunProgram, tmp_path: Path
) -> None:
    teacher = next((trained_run / "checkpoints").glob("best*.ckpt"))
    pictures, annotations = synthetic_root / "images" / "train", synthetic_root / "annotations"
    boxes = annotations / "person_keypoints_train.json"
    predict = [f"source={pictures}", f"boxes={boxes}", f"ckpt_path={teacher}", "output=labels", "draw=false"]
    assert run_script("predict.py", predict, tmp_path).returncode == 0
    evaluate = [
        f"ckpt_path={teacher}",
        f"data.root={synthetic_root}",
        "split=train",
        "hydra.run.dir=scored",
        "trainer=cpu",
    ]
    scored = run_script("eval.py", evaluate, tmp_path)
    assert scored.returncode == 0, scored.stderr
    settings = [f"data.root={synthetic_root}", "data.min_keypoint_score=0", "data.weight_by_score=true"]
    for poses, images in (("labels/poses.json", half), ("scored/predictions.json", boxes)):
        labels = [
            f"data.train_annotations={images}",
            f"data.train_poses={tmp_path / poses}",
            f"training.teacher={teacher}",
        ]
        student = run_script("train.py", [*tiny_run, *settings, *labels, f"name={Path(poses).stem}"], tmp_path)
        assert student.returncode == 0, student.stderr
        summary = student.stdout + student.stderr
        assert f"{images.name}, category person, and {Path(poses).name}: kept " in summary
        assert "on pictures with annotated people" in summary
    assert "in 12 images" in summary


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.train_annotations=null"], "data.train_annotations=null needs data.train_poses"),
        (["data.train_poses=nowhere.json"], "nowhere.json does not exist"),
        (["data.min_keypoint_score=-1"], "data.min_keypoint_score=-1"),
        (["training.teacher=nowhere.ckpt"], "nowhere.ckpt"),
        (["training.teacher_weight=-1"], "training.teacher_weight=-1"),
    ],
)
def test_settings_that_cannot_be_are_one_line(
    synthetic_root: Path, tiny_run: list[str], run_script: RunProgram, tmp_path: Path, settings: list[str], message: str
) -> None:
    refused = run_script("train.py", [*tiny_run, f"data.root={synthetic_root}", *settings], tmp_path)
    require_one_line(refused, message)
