"""The dataset on disk: COCO's rules, the same bytes again, and no harm to what is there already."""

import json
from pathlib import Path

import numpy as np
import pytest

from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import load_skeleton
from uniformer_pose.synthetic import write_synthetic_dataset

SMALL = {"num_train_images": 6, "num_val_images": 3, "image_height": 96, "image_width": 128, "crowd_share": 0.4}


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


def annotations(root, split="train"):
    return json.loads((root / "annotations" / f"person_keypoints_{split}.json").read_text())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic")
    assert write_synthetic_dataset(root, **SMALL)
    return root


def test_the_bytes_do_not_depend_on_the_number_of_workers(dataset, tmp_path):
    write_synthetic_dataset(tmp_path, **SMALL, workers=2)
    assert contents(tmp_path) == contents(dataset)


def test_an_image_depends_on_seed_and_split_and_not_on_how_many_others_there_are(dataset, tmp_path):
    fewer = SMALL | {"num_train_images": 2, "num_val_images": 0}
    name, ours = "images/train/000000000002.jpg", contents(dataset)
    write_synthetic_dataset(tmp_path / "same", **fewer)
    assert contents(tmp_path / "same")[name] == ours[name] != ours[name.replace("train", "val")]
    assert not (tmp_path / "same" / "annotations" / "person_keypoints_val.json").exists()
    write_synthetic_dataset(tmp_path / "other", **fewer, seed=1)
    assert contents(tmp_path / "other")[name] != ours[name]


@pytest.mark.parametrize("split", ["train", "val"])
def test_annotations_keep_cocos_rules(dataset, split):
    content = annotations(dataset, split)
    names = load_skeleton("coco_17").keypoint_names
    assert [image["id"] for image in content["images"]] == list(range(1, SMALL[f"num_{split}_images"] + 1))
    assert [a["id"] for a in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    assert content["categories"][0]["keypoints"] == list(names)
    assert [16, 14] in content["categories"][0]["skeleton"]
    for annotation in content["annotations"]:
        keypoints = np.array(annotation["keypoints"]).reshape(len(names), 3)
        x, y, width, height = annotation["bbox"]
        assert annotation["num_keypoints"] == np.count_nonzero(keypoints[:, 2])
        assert 0 <= x < x + width <= 128
        assert 0 <= y < y + height <= 96
        assert 0 < annotation["area"] <= width * height
        assert isinstance(annotation["segmentation"], dict if annotation["iscrowd"] else list)
    assert any(a["iscrowd"] for a in annotations(dataset)["annotations"])


def test_detections_find_most_people_with_slightly_wrong_boxes(tmp_path):
    write_synthetic_dataset(tmp_path, **(SMALL | {"num_train_images": 25, "num_val_images": 0}))
    detections = json.loads((tmp_path / "person_detection_results" / "train_detections.json").read_text())
    people = [a for a in annotations(tmp_path)["annotations"] if not a["iscrowd"]]
    found = 0
    for person in people:
        tolerance = 0.3 * np.array(person["bbox"][2:] * 2)
        near = [d["bbox"] for d in detections if d["image_id"] == person["image_id"] and d["score"] >= 0.6]
        found += any((np.abs(np.subtract(box, person["bbox"])) <= tolerance).all() for box in near)
    assert 0.8 * len(people) < found < len(people)
    assert any(d["score"] < 0.35 for d in detections)  # false alarms


def test_the_same_settings_write_nothing_again_and_others_are_refused_by_name_until_overwrite(tmp_path):
    write_synthetic_dataset(tmp_path, **SMALL)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert not write_synthetic_dataset(tmp_path, **SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    fewer = SMALL | {"num_train_images": 2}
    with pytest.raises(InputError, match=r"\(num_train_images\).*overwrite=true"):
        write_synthetic_dataset(tmp_path, **fewer)
    assert write_synthetic_dataset(tmp_path, **fewer, overwrite=True)
    assert len(list((tmp_path / "images" / "train").iterdir())) == 2
    assert len(annotations(tmp_path)["images"]) == 2


@pytest.mark.parametrize(
    "name",
    [
        "annotations/person_keypoints_train.json",
        "annotations/mpii_gt_val.mat",
        "images/train/000000000001.jpg",
    ],
)
def test_files_of_another_origin_are_never_replaced(tmp_path, name):
    foreign = tmp_path / name
    foreign.parent.mkdir(parents=True)
    foreign.write_text('{"info": {"description": "COCO 2017 Dataset"}}')
    with pytest.raises(InputError, match="not written by the synthetic generator"):
        write_synthetic_dataset(tmp_path, **SMALL, overwrite=True)
    assert foreign.read_text() == '{"info": {"description": "COCO 2017 Dataset"}}'


def test_an_interrupted_run_leaves_no_annotations_and_the_next_one_completes_it(dataset, tmp_path):
    def interrupt(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_synthetic_dataset(tmp_path, **SMALL, workers=2, on_progress=interrupt)
    assert not list(tmp_path.rglob("*.json"))
    assert write_synthetic_dataset(tmp_path, **SMALL)
    assert contents(tmp_path) == contents(dataset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_train_images": -1}, "num_train_images=-1"),
        ({"num_train_images": 0, "num_val_images": 0}, "nothing to write"),
        ({"people_per_image": (4, 1)}, "least, most"),
        ({"crowd_share": float("nan")}, "crowd_share=nan"),
        ({"striped_side": "middle"}, "'left', 'right' or 'random'"),
    ],
)
def test_unusable_settings_are_refused_in_one_line(tmp_path, change, message):
    with pytest.raises(InputError, match=message) as error:
        write_synthetic_dataset(tmp_path / "new", **(SMALL | change))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()
