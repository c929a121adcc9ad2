"""Every published set from the command line: an epoch, its own metric, and a stop amid it that changes nothing.

On the real samples beside a developer's checkout, and on rendered people in the form of the sets.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from whole_trainings import evaluated, numbers, require_same, trained

from programs import run_here
from uniformer_pose.evaluation.coco_metrics import METRIC_NAMES

SAMPLES = {
    "crowdpose_256x192": "crowdpose",
    "aic_256x192": "aic",
    "ochuman_256x192": "ochuman",
    "halpe26_256x192": "halpe",
    "coco_wholebody_256x192": "coco_wholebody",
    "ap10k_256x256": "ap10k",
    "humanart_256x192": "humanart",
    "exlpose_256x192": "exlpose",
}
PCKH = ("head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle", "PCKh", "PCKh@0.1")
FURTHER = {
    "crowdpose": [f"AP_{level}" for level in ("easy", "medium", "hard")],
    "coco_wholebody": [
        f"{name}_{part}" for part in ("body", "foot", "face", "lefthand", "righthand") for name in METRIC_NAMES
    ],
}
SMALL = ["data.codec.height=64", "data.codec.width=64", "data.codec.sigma=1.5", "data.batch_size=1"]
RENDERED = {
    "data.train_annotations": "annotations/person_keypoints_train.json",
    "data.train_images": "images/train",
    "data.val_annotations": "annotations/person_keypoints_val.json",
    "data.val_images": "images/val",
    "data.val_boxes": "gt",
}


def require_whole(folder: Path, *data: str, metric: set[str], stop_in_step: int = 0) -> None:
    """An epoch stopped amid it is the one that was not, its metric is the set's own, and src/eval.py says the same."""
    straight = trained(folder / "straight", *data, *SMALL)
    assert metric == set(numbers(straight))
    assert all(-1 <= value <= 100 for value in numbers(straight).values())
    require_same(trained(folder / "stopped", *data, *SMALL, stop_in_step=stop_in_step), straight)
    assert evaluated(folder, straight) == numbers(straight)


def names_of(data_set: str) -> set[str]:
    return {*PCKH} if data_set == "mpii" else {*METRIC_NAMES, *FURTHER.get(data_set, ())}


@pytest.mark.slow
@pytest.mark.parametrize("data", SAMPLES)
def test_a_real_sample_trains_is_scored_by_its_own_metric_and_resumes(
    data: str, shared_folder: Path, tmp_path: Path
) -> None:
    """It is trained on, too: the samples are of one split."""
    sample = SAMPLES[data]
    split = ["data.train_annotations=${data.val_annotations}", "data.train_images=${data.val_images}"]
    root = f"data.root={shared_folder / 'other_datasets' / sample}"
    require_whole(tmp_path, f"data={data}", root, *split, metric=names_of(sample))


@pytest.mark.slow
def test_mpii_as_it_is_downloaded_converts_trains_and_resumes(shared_folder: Path, tmp_path: Path) -> None:
    source, to = shared_folder / "other_datasets" / "mpii", tmp_path / "mpii_converted"
    people = source / "annotations" / "mpii_val.json"
    converted = run_here(
        "convert_data.py",
        ["from=mpii", f"source={people}", f"val_source={people}", f"images={source / 'images'}", f"to={to}"],
        tmp_path,
    )
    assert converted.returncode == 0, converted.stderr
    require_whole(tmp_path, "data=mpii_256x256", f"data.root={to}", metric=names_of("mpii"), stop_in_step=1)


@pytest.mark.slow
def test_ai_challengers_own_file_converts_trains_and_resumes(shared_folder: Path, tmp_path: Path) -> None:
    """The sample's people, written as the challenge writes them."""
    sample, to = shared_folder / "other_datasets" / "aic", tmp_path / "challenge"
    (images,) = (sample / "ai_challenger_keypoint_validation_20170911").iterdir()
    (tmp_path / "challenge.json").write_text(json.dumps(as_challenge(sample / "annotations" / "aic_val.json")))
    source = [f"{name}={tmp_path / 'challenge.json'}" for name in ("source", "val_source")]
    converted = run_here("convert_data.py", ["from=aic", *source, f"images={images}", f"to={to}"], tmp_path)
    assert converted.returncode == 0, converted.stderr
    data = ["--config-dir", str(to / "conf"), "data=challenge"]
    require_whole(tmp_path, *data, metric=names_of("aic"), stop_in_step=4)


@pytest.mark.parametrize(
    ("data", "skeleton"),
    [
        ("crowdpose_256x192", "crowdpose_14"),
        pytest.param("mpii_256x256", "mpii_16", marks=pytest.mark.slow),
        pytest.param("coco_wholebody_256x192", "coco_wholebody_133", marks=pytest.mark.slow),
    ],
)
def test_rendered_people_in_the_form_of_a_set_train_are_scored_by_its_metric_and_resume(
    data: str, skeleton: str, rendered_set: Callable[[str], Path], tmp_path: Path
) -> None:
    files = [f"{key}={value}" for key, value in RENDERED.items()]
    name = data.rpartition("_")[0]
    root = f"data.root={rendered_set(skeleton)}"
    require_whole(tmp_path, f"data={data}", root, *files, metric=names_of(name), stop_in_step=3)


def as_challenge(file: Path) -> list[dict[str, object]]:
    """COCO's JSON of AI Challenger's people -> its own list of images, whose v is 1 visible, 2 hidden, 3 unlabelled."""
    content, listed = json.loads(file.read_text()), []
    for image in content["images"]:
        people = [each for each in content["annotations"] if each["image_id"] == image["id"]]
        keypoints, boxes = {}, {}
        for number, person in enumerate(people, start=1):
            points = list(person["keypoints"])
            points[2::3] = [{2: 1, 1: 2, 0: 3}[seen] for seen in points[2::3]]
            x, y, width, height = person["bbox"]
            keypoints[f"human{number}"] = points
            boxes[f"human{number}"] = [x, y, x + width, y + height]
        listed.append(
            {
                "image_id": Path(image["file_name"]).stem,
                "keypoint_annotations": keypoints,
                "human_annotations": boxes,
            }
        )
    return listed
