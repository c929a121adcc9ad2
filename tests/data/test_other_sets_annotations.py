"""A data set's config with another set's annotations or pictures: one line, and no training begins."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate

from programs import composed, require_one_line, run_here
from uniformer_pose.config_parts import TrainConfig
from uniformer_pose.entry_point import checked_config
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import load_skeleton

FILES = {
    "crowdpose_256x192": "crowdpose/annotations/mmpose_crowdpose_test.json",
    "mpii_256x256": "mpii/annotations/mpii_val.json",
    "aic_256x192": "aic/annotations/aic_val.json",
    "ochuman_256x192": "ochuman/annotations/ochuman_coco_format_val_range_0.00_1.00.json",
    "halpe26_256x192": "halpe/annotations/halpe_val_v1.json",
    "coco_wholebody_256x192": "coco_wholebody/annotations/coco_wholebody_val_v1.0.json",
    "ap10k_256x256": "ap10k/annotations/ap10k-val-split1.json",
    "humanart_256x192": "humanart/HumanArt/annotations/validation_humanart.json",
    "exlpose_256x192": "exlpose/annotations/ExLPose/ExLPose_test_LL-A.json",
}
PICTURES = {
    "crowdpose_256x192": "crowdpose/images",
    "ochuman_256x192": "ochuman/images",
    "humanart_256x192": "humanart",
    "exlpose_256x192": "exlpose/dark",
}
COCOS = {"ochuman_256x192", "humanart_256x192", "coco_wholebody_256x192"}  # whose files have COCO's 17 points
SAME_POINTS = {(a, b) for a in COCOS - {"coco_wholebody_256x192"} for b in COCOS - {a}}
SAME_POINTS |= {("crowdpose_256x192", "exlpose_256x192"), ("exlpose_256x192", "crowdpose_256x192")}
NEXT = dict(zip(FILES, [*FILES][1:] + [*FILES][:1], strict=True))
IN_CI = {*NEXT.items(), ("ochuman_256x192", "humanart_256x192"), ("exlpose_256x192", "crowdpose_256x192")}
REFUSALS = ("keypoint 1", "finite numbers in 'keypoints'", "is a list of MPII's people")
QUICK = ["model=uniformer_xxs", "model.pretrained=null", "trainer=cpu", "data.num_workers=0", "data.batch_size=1"]


def train(folder: Path, data: str, root: Path, **settings: Any) -> Any:
    """The program, with what is not given the same for training and evaluation."""
    given = {"train_images": ".", "val_images": ".", "val_boxes": "gt"} | settings
    arguments = [f"data={data}", f"data.root={root}", *(f"data.{name}={value}" for name, value in given.items())]
    return run_here("train.py", [*QUICK, *arguments, "name=refused"], folder)


def in_ci_or_long(pairs: set[tuple[str, str]]) -> list[Any]:
    """Some seconds each: each set with the next one in CI; the others say the same of other files."""
    return [pytest.param(*pair, marks=[] if pair in IN_CI else pytest.mark.long) for pair in sorted(pairs)]


def require_no_training(ended: Any, message: str) -> None:
    require_one_line(ended, message)
    assert "Traceback" not in ended.stderr
    assert "epoch 1/" not in ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("data", "other"), in_ci_or_long({*permutations(FILES, 2)} - SAME_POINTS))
def test_another_sets_annotations_end_a_training_before_it_begins(shared_folder, tmp_path, data, other):
    root = shared_folder / "other_datasets"
    ended = train(tmp_path, data, root, train_annotations=FILES[other], val_annotations=FILES[other])
    (said,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert any(words in said for words in REFUSALS)
    require_no_training(ended, str(root / FILES[other]))


@pytest.mark.slow
@pytest.mark.parametrize(("data", "other"), in_ci_or_long(SAME_POINTS))
def test_where_the_points_are_the_same_it_is_the_pictures_that_are_missing(shared_folder, tmp_path, data, other):
    root = shared_folder / "other_datasets"
    theirs, images = FILES[other], PICTURES[data]
    ended = train(tmp_path, data, root, train_annotations=theirs, val_annotations=theirs, train_images=images)
    require_no_training(ended, f"of {root / theirs}; give the folder of the images that it annotates")
    if data != "ochuman_256x192":  # which has none to train on
        own = {"train_annotations": FILES[data], "train_images": images, "val_images": images}
        ended = train(tmp_path, data, root, val_annotations=theirs, **own)
        require_no_training(ended, f"of {root / theirs}; give the folder of the images that it annotates")


def people_of(skeleton: str) -> dict[str, Any]:
    """A file of one person in one picture, with all that any metric needs, in the form of the skeleton's own set."""
    points = load_skeleton(skeleton)
    arrays = {"keypoints": 17} if skeleton == "humanart_21" else {"keypoints": points.num_keypoints}
    arrays |= dict(points.arrays_in_files)
    names = [] if skeleton.startswith("halpe") else list(points.names_in_files or points.keypoint_names)
    person = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 50, 60], "area": 1500, "iscrowd": 0}
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 80, "width": 70, "crowdIndex": 0.5}],
        "categories": [{"id": 1, "name": "person", "keypoints": names}],
        "annotations": [person | {name: [20, 30, 2] * count for name, count in arrays.items()}],
    }


MADE = {
    "crowdpose_256x192": "crowdpose_14",
    "mpii_256x256": "mpii_16",
    "aic_256x192": "aic_14",
    "halpe26_256x192": "halpe_26",
    "coco_wholebody_256x192": "coco_wholebody_133",
    "ap10k_256x256": "ap10k_17",
    "humanart_256x192": "humanart_21",
}


@pytest.mark.parametrize("data", MADE)
def test_made_up_annotations_of_every_other_set_are_refused_where_its_own_are_read(tmp_path, data):
    file = tmp_path / "people.json"
    (tmp_path / "a.png").touch()
    paths = ["data.train_images=.", "data.val_images=.", "data.val_boxes=gt", "data.batch_size=1"]
    files = [f"data.root={tmp_path}", f"data.train_annotations={file}", f"data.val_annotations={file}"]
    config = checked_config(composed("train", f"data={data}", *paths, *files), TrainConfig)
    for other in MADE:
        file.write_text(json.dumps(people_of(MADE[other])))
        crops = instantiate(config["data"], _convert_="all")
        if other == data == "mpii_256x256":
            with pytest.raises(InputError, match=r"mpii_gt_val\.mat does not exist"):  # all is there but the heads
                crops.setup("fit")
            continue
        if other == data or (data, other) in SAME_POINTS:
            crops.setup("fit")
            continue
        with pytest.raises(InputError, match=r"keypoint \d+ is|finite numbers in 'keypoints'") as refused:
            crops.setup("fit")
        assert str(refused.value).startswith(f"{file}: ")
        assert "\n" not in str(refused.value)


def test_pictures_that_are_another_sets_end_a_training_before_it_begins(tmp_path, rendered_coco):
    own = "annotations/person_keypoints_val2017.json"
    content = json.loads((rendered_coco / own).read_text())
    for image in content["images"]:
        image["file_name"] = f"of_another_set_{image['file_name']}"
    (tmp_path / "theirs.json").write_text(json.dumps(content))
    for train_file, val_file in ((tmp_path / "theirs.json", own), (own, tmp_path / "theirs.json")):
        files = {"train_annotations": train_file, "val_annotations": val_file}
        ended = train(tmp_path, "ochuman_256x192", rendered_coco, train_images="val2017", val_images="val2017", **files)
        require_no_training(ended, f"nor any of the first 4 of {tmp_path / 'theirs.json'}; give the folder of the")


def test_a_set_without_what_its_metric_needs_ends_a_training_before_it_begins(tmp_path):
    content = people_of("crowdpose_14")
    del content["images"][0]["crowdIndex"]
    (tmp_path / "people.json").write_text(json.dumps(content))
    (tmp_path / "a.png").touch()
    files = {"train_annotations": "people.json", "val_annotations": "people.json"}
    ended = train(tmp_path, "crowdpose_256x192", tmp_path, **files)
    require_no_training(ended, "1 images have no crowdIndex, first image 1, and CrowdPose's metric needs it")
    (tmp_path / "people.json").write_text(json.dumps(people_of("ap10k_17")))
    box = {"image_id": 1, "category_id": 1, "bbox": [5, 5, 50, 60], "score": 1}
    (tmp_path / "boxes.json").write_text(json.dumps([box]))
    ended = train(tmp_path, "ap10k_256x256", tmp_path, val_boxes="boxes.json", **files)
    require_no_training(ended, "data.metric=mean_over_categories is for annotated boxes: data.val_boxes=gt")
