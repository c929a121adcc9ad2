"""The annotation files of published sets other than COCO, in whose form small ones are made up here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uniformer_pose.data.coco import Annotations, annotations_of, categories_of, read_detections, read_ground_truth
from uniformer_pose.data.coco_json import read_annotation_file
from uniformer_pose.data.people import PersonInstances
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton, load_skeleton

PARTS = {"foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}
Made = Callable[..., Path]


def points(count: int, seed: int, visibilities: tuple[float, ...] = (0, 1, 2)) -> list[float]:
    """x, y, visibility of some points, as a file has them; those without label are at the origin."""
    rng = np.random.default_rng(seed)
    seen = rng.choice(visibilities, count)
    seen[0] = max(visibilities)
    rows = np.column_stack([rng.uniform(5, 95, (count, 2)).round(2), seen])
    rows[seen == 0] = 0
    return rows.ravel().tolist()


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Writes a file of one image of 100x100 pixels and the people given, with a category of the names given."""

    def write(people: list[dict[str, Any]], names: list[str] | None = None, **category: Any) -> Path:
        common = {"image_id": 0, "category_id": 1, "iscrowd": 0, "bbox": [5, 5, 90, 90]}
        content = {
            "categories": [{"id": 1, "name": "person", "keypoints": names or [], "skeleton": []} | category],
            "images": [{"id": 0, "file_name": "a.jpg", "height": 100, "width": 100, "crowdIndex": 0.5}],
            "annotations": [common | {"id": number} | person for number, person in enumerate(people)],
        }
        (tmp_path / "people.json").write_text(json.dumps(content))
        return tmp_path / "people.json"

    return write


def read(file: Path, skeleton: str | Skeleton) -> PersonInstances:
    return read_ground_truth(file, file.parent, load_skeleton(skeleton) if isinstance(skeleton, str) else skeleton)


def scored(file: Path, name: str) -> Annotations:
    skeleton, content = load_skeleton(name), read_annotation_file(file)
    return annotations_of(content, file, skeleton, categories_of(content, file, skeleton, None))


def test_whole_bodies_are_joined_from_five_arrays_in_their_order(made):
    arrays = {"keypoints": points(17, 0)} | {name: points(count, count) for name, count in PARTS.items()}
    valid = {name.replace("kpts", "valid"): True for name in PARTS}
    file = made([arrays | valid | {"num_keypoints": 9}], list(load_skeleton("coco_17").keypoint_names))
    people = read(file, "coco_wholebody_133")
    expected = np.concatenate([np.reshape(array, (-1, 3)) for array in arrays.values()])
    expected[17:, 2] = np.where(expected[17:, 2] > 0, 2, 0)
    np.testing.assert_allclose(people.keypoints_in_image[0], expected[:, :2], rtol=1e-6)
    assert people.visibility[0].tolist() == expected[:, 2].tolist()
    assert scored(file, "coco_wholebody_133").num_keypoints.tolist() == [-1]  # 9 is that of the body alone
    assert scored(file, "coco_17").num_keypoints.tolist() == [9]
    assert read(file, "coco_17").visibility[0].tolist() == expected[:17, 2].tolist()


def test_what_is_labelled_of_feet_faces_and_hands_is_visible_by_whatever_visibility(made):
    arrays = {name: points(count, count, (0, 0.04, 0.9, 1, 2)) for name, count in PARTS.items()}
    arrays["keypoints"] = [0] * 51
    people = read(made([arrays]), "coco_wholebody_133")
    given = np.concatenate([arrays[name][2::3] for name in PARTS])
    assert (given % 1 > 0).sum() > 20
    assert people.visibility[0, 17:].tolist() == np.where(given > 0, 2, 0).tolist()
    arrays["keypoints"][2] = 0.9  # of the body it is a mistake, as ever
    with pytest.raises(InputError, match="annotation 0 needs 399 finite numbers"):
        read(made([arrays]), "coco_wholebody_133")
    arrays["keypoints"][2], arrays["face_kpts"][2] = 0, 2.5
    with pytest.raises(InputError, match="annotation 0 needs 399 finite numbers"):
        read(made([arrays]), "coco_wholebody_133")


def test_whole_bodies_in_one_array_are_read_as_they_stand(made):
    person = {"keypoints": points(133, 3), "num_keypoints": 80}
    file = made([person], list(load_skeleton("coco_wholebody_133").keypoint_names))
    assert read(file, "coco_wholebody_133").visibility[0].tolist() == person["keypoints"][2::3]
    assert scored(file, "coco_wholebody_133").num_keypoints.tolist() == [80]


@pytest.mark.parametrize("spoilt", ["foot_kpts", "lefthand_kpts"])
@pytest.mark.parametrize("how", ["absent", "null", "short"])
def test_an_array_that_is_not_whole_is_refused_by_the_numbers_of_all(made, spoilt, how):
    arrays = {"keypoints": points(17, 0)} | {name: points(count, count) for name, count in PARTS.items()}
    if how == "short":
        arrays[spoilt] = arrays[spoilt][:-3]
    else:
        arrays[spoilt] = None
    person = {name: array for name, array in arrays.items() if array is not None or how == "null"}
    with pytest.raises(InputError, match=r"foot_kpts 18, face_kpts 204, lefthand_kpts 63, righthand_kpts 63"):
        read(made([person]), "coco_wholebody_133")
    assert len(read(made([person]), "coco_17")) == 1


def test_the_first_26_of_halpes_136_points_are_those_of_halpe_26(made):
    person = {"keypoints": points(136, 4), "num_keypoints": 11}
    expected = np.reshape(person["keypoints"], (-1, 3))
    for name, count in (("halpe_26", 26), ("halpe_136", 136)):
        people = read(made([person]), name)
        np.testing.assert_allclose(people.keypoints_in_image[0], expected[:count, :2], rtol=1e-6)
        assert people.visibility[0].tolist() == expected[:count, 2].tolist()
    assert scored(made([person]), "halpe_26").num_keypoints.tolist() == [11]  # as the set's own evaluation takes it
    with pytest.raises(InputError, match="needs 51 finite numbers in 'keypoints': x, y, visibility"):
        read(made([person]), "coco_17")
    with pytest.raises(InputError, match=r"needs 78 finite numbers in 'keypoints' \(or in its arrays: keypoints 408\)"):
        read(made([{"keypoints": points(135, 4)}]), "halpe_26")


def test_human_art_has_17_points_in_one_array_21_in_another_and_names_21_for_both(made):
    names = list(load_skeleton("humanart_21").keypoint_names)
    person = {
        "id": 15000000092347,
        "keypoints": points(17, 5, (0, 2)),
        "keypoints_21": points(21, 6, (0, 2)),
        "num_keypoints": 12,
        "num_keypoints_21": 14,
    }
    file = made([person], names)
    assert read(file, "coco_17").visibility[0].tolist() == person["keypoints"][2::3]
    assert read(file, "humanart_21").visibility[0].tolist() == person["keypoints_21"][2::3]
    assert read(file, "humanart_21").instance_ids.tolist() == [15000000092347]
    assert scored(file, "coco_17").num_keypoints.tolist() == [12]
    assert scored(file, "humanart_21").num_keypoints.tolist() == [-1]
    with pytest.raises(InputError, match=r"needs 51 finite numbers .* of skeleton coco_17"):
        read(made([{"keypoints": person["keypoints_21"]}], names), "coco_17")
    names[1:3] = names[2:0:-1]
    with pytest.raises(InputError, match="keypoint 2 is 'right_eye' in category 1 and 'left_eye' in skeleton coco_17"):
        read(made([person], names), "coco_17")


def test_crowdpose_calls_its_top_of_the_head_head_counts_the_visible_and_has_no_areas(made):
    names = [name.replace("top_head", "head") for name in load_skeleton("crowdpose_14").keypoint_names]
    hidden = {"keypoints": points(14, 7, (0, 1)), "num_keypoints": 0}
    file = made([hidden, {"keypoints": points(14, 8), "num_keypoints": 3}], names)
    people = read(file, "crowdpose_14")
    assert people.instance_ids.tolist() == [0, 1]  # ids from 0; who is hidden has labels to learn from
    assert people.visibility[0].tolist() == hidden["keypoints"][2::3]
    found = scored(file, "crowdpose_14")
    assert found.num_keypoints.tolist() == [0, 3]
    assert np.isnan(found.areas).all()
    names[12] = "neck"
    with pytest.raises(InputError, match="keypoint 13 is 'neck' in category 1 and 'top_head' in skeleton crowdpose_14"):
        read(made([hidden], names), "crowdpose_14")


def test_animals_have_names_of_their_own_and_are_told_apart_by_category(made, tmp_path):
    skeleton = load_skeleton("ap10k_17")
    file = made([{"keypoints": points(17, 9), "category_id": n} for n in (2, 1)], list(skeleton.names_in_files))
    content = json.loads(file.read_text())
    content["categories"].append(content["categories"][0] | {"id": 2, "name": "cow"})
    file.write_text(json.dumps(content))
    assert "categories person, cow together: kept 2 of 2" in read(file, skeleton).summary()
    assert scored(file, "ap10k_17").category_ids.tolist() == [2, 1]
    swapped = [n.replace("left", "*").replace("right", "left").replace("*", "right") for n in skeleton.names_in_files]
    with pytest.raises(InputError, match="keypoint 1 is 'right_eye' in category 1 and 'L_Eye' in skeleton ap10k_17"):
        read(made([{"keypoints": points(17, 9)}], swapped), skeleton)


def test_another_sets_annotations_are_refused_by_the_names_of_their_keypoints(made):
    person = {"keypoints": points(14, 1)}
    crowdpose = made([person], list(load_skeleton("crowdpose_14").names_in_files))
    with pytest.raises(InputError, match="1 is 'left_shoulder' in category 1 and 'right_shoulder' in skeleton"):
        read(crowdpose, "aic_14")
    assert len(read(made([person], ["Right Shoulder", *load_skeleton("aic_14").keypoint_names[1:]]), "aic_14")) == 1


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"image": "a.jpg", "joints_vis": [1] * 16, "joints": []}, "is a list of MPII's people"),
        ({"image_id": "a", "keypoint_annotations": {}}, "is a list of AI Challenger's images"),
    ],
)
def test_lists_of_the_sets_themselves_are_named(tmp_path, entry, said):
    (tmp_path / "train.json").write_text(json.dumps([entry]))
    with pytest.raises(InputError, match=f"train.json: {said}, not of COCO's form; src/convert_data.py"):
        read(tmp_path / "train.json", "mpii_16")


def test_boxes_that_are_corners_are_refused_where_many_show_it(made):
    file, skeleton = made([{"keypoints": points(17, 1)}]), load_skeleton("coco_17")
    boxes = file.with_name("boxes.json")

    def detections(corners: np.ndarray) -> PersonInstances:
        records = [{"image_id": 0, "category_id": 1, "bbox": row, "score": 0.5} for row in corners.tolist()]
        boxes.write_text(json.dumps(records))
        return read_detections(boxes, file, file.parent, skeleton)

    rng = np.random.default_rng(0)
    low = rng.uniform(0, 60, (12, 2)).round(1)
    high = low + rng.uniform(20, 40, (12, 2)).round(1)
    with pytest.raises(InputError, match=r"boxes.json: its boxes look like corners .* all 12 fit their images so, and"):
        detections(np.concatenate([low, high], axis=1))
    assert len(detections(np.concatenate([low, high - low], axis=1))) == 12
    assert len(detections(np.concatenate([low, high], axis=1)[:9])) == 9  # too few to tell


REAL = {
    "crowdpose/annotations/mmpose_crowdpose_test.json": ("crowdpose_14", 5, 4),
    "aic/annotations/aic_val.json": ("aic_14", 9, 9),
    "ochuman/annotations/ochuman_coco_format_val_range_0.00_1.00.json": ("coco_17", 5, 5),
    "halpe/annotations/halpe_val_v1.json": ("halpe_26", 14, 12),
    "coco_wholebody/annotations/coco_wholebody_val_v1.0.json": ("coco_wholebody_133", 14, 12),
    "ap10k/annotations/ap10k-val-split1.json": ("ap10k_17", 2, 2),
    "humanart/HumanArt/annotations/validation_humanart.json": ("coco_17", 4, 4),
    "exlpose/annotations/ExLPose/ExLPose_test_LL-A.json": ("exlpose_14", 6, 6),
}


@pytest.mark.parametrize(("name", "expected"), REAL.items())
def test_real_samples_are_read_as_they_stand_in_their_files(shared_folder, name, expected):
    file = shared_folder / "other_datasets" / name
    skeleton, num_read, num_kept = expected
    people = read_ground_truth(file, file.parent, load_skeleton(skeleton))
    assert (people.counts["read"], len(people)) == (num_read, num_kept)
    records = {record["id"]: record for record in json.loads(file.read_text())["annotations"]}
    for index, number in enumerate(people.instance_ids.tolist()):
        record = records[number]
        rows = np.reshape(sum((record.get(part, []) for part in PARTS), record["keypoints"]), (-1, 3))
        rows = rows[: people.visibility.shape[1]]
        np.testing.assert_allclose(people.keypoints_in_image[index], rows[:, :2], rtol=1e-6)
        if "foot_kpts" in record:
            rows[17:, 2] = np.where(rows[17:, 2] > 0, 2, 0)
        assert people.visibility[index].tolist() == rows[:, 2].tolist()
        assert people.image_ids[people.image_of_instance[index]] == record["image_id"]
