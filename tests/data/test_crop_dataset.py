import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from uniformer_pose.data import crop_dataset
from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.coco import read_ground_truth
from uniformer_pose.data.crop_dataset import EvaluationImages, TrainingCrops, as_it_is
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.data.images import ImageSource, read_image_of
from uniformer_pose.data.photometric import PhotometricAugmentation
from uniformer_pose.data.sampling import pack_images
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import load_skeleton

SPEC = CropSpec(64, 48)
MIRRORED_ONLY = GeometricAugmentation(1.0, 0.0, shift_probability=0, scale_probability=0, rotation_probability=0)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name


def training(coco, spec=SPEC, on_bad_image="error", **arguments):
    return TrainingCrops(ImageSource(coco.read(), on_bad_image=on_bad_image), coco.skeleton, spec, **arguments)


def augmented(coco, **arguments):
    arguments = {"geometric": GeometricAugmentation(), "photometric": PhotometricAugmentation(), "seed": 3} | arguments
    return training(coco, **arguments)


def evaluation(boxes, spec=SPEC, **arguments):
    return EvaluationImages(ImageSource(boxes, **arguments), spec)


def spoil_image(coco, number):
    """Cut the image off in its middle."""
    path = coco.images / coco.content["images"][number]["file_name"]
    path.write_bytes(path.read_bytes()[:-500])
    return path


def test_a_training_sample_is_the_crop_of_the_padded_box_and_its_keypoints(tiny_coco):
    people = tiny_coco.read()
    sample = training(tiny_coco)[(2, 0)]
    geometry = SPEC.around([8, 4, 25, 50])
    image = read_image_of(people, 1).pixels
    assert np.array_equal(sample["crops"], geometry.crop(image))
    keypoints = np.reshape(tiny_coco.annotation(21)["keypoints"], (17, 3))
    np.testing.assert_allclose(sample["keypoints_in_crop"], geometry.to_crop(keypoints[:, :2]), atol=1e-4)
    assert sample["visibility"].tolist() == keypoints[:, 2].tolist()
    assert (sample["instance_index"], sample["replaced"]) == (2, 0)
    assert {name: value.dtype for name, value in sample.items()} == {
        "crops": np.uint8,
        "keypoints_in_crop": np.float32,
        "visibility": np.uint8,
        "instance_index": np.int64,
        "replaced": np.uint8,
    }


def test_a_mirrored_person_has_left_and_right_swapped(tiny_coco):
    keypoints = tiny_coco.annotation(11)["keypoints"]
    left_wrist, right_wrist = tiny_coco.skeleton.indices(["left_wrist", "right_wrist"])
    keypoints[3 * left_wrist + 2] = 1
    keypoints[3 * right_wrist + 2] = 0
    people = tiny_coco.read()
    spec = CropSpec(64, 48, unbiased=True)
    plain, mirrored = (training(tiny_coco, spec, geometric=drawn)[(0, 0)] for drawn in (None, MIRRORED_ONLY))
    # In the unbiased convention a mirrored crop is the plain one read from right to left.
    assert np.abs(mirrored["crops"].astype(int) - plain["crops"][:, ::-1]).max() <= 1
    expected = plain["keypoints_in_crop"][tiny_coco.skeleton.mirror_permutation]
    expected[:, 0] = SPEC.width - 1 - expected[:, 0]
    np.testing.assert_allclose(mirrored["keypoints_in_crop"], expected, atol=1e-3)
    assert plain["visibility"][[left_wrist, right_wrist]].tolist() == [1, 0]
    assert mirrored["visibility"][[left_wrist, right_wrist]].tolist() == [0, 1]
    assert people.visibility[0, left_wrist] == 1, "the annotations themselves stay"


def test_keypoints_stay_on_their_pixels_whatever_is_drawn(tiny_coco, skeleton):
    # A smooth bump of light on every keypoint in turn must appear where the sample says the keypoint is.
    image = np.zeros((60, 80, 3), dtype=np.uint8)
    points = np.reshape(tiny_coco.annotation(11)["keypoints"], (17, 3))
    points[:, :2] = np.random.default_rng(1).uniform((12, 12), (30, 40), (17, 2)).round(1)
    points[:, 2] = 0
    points[5] = (21.0, 24.0, 2)  # the left shoulder alone
    tiny_coco.annotation(11)["keypoints"] = points.ravel().tolist()
    rows, columns = np.mgrid[:60, :80]
    image[...] = (250 * np.exp(-((columns - 21) ** 2 + (rows - 24) ** 2) / 8))[..., None]
    name = tiny_coco.content["images"][0]["file_name"]
    cv2.imwrite(str(tiny_coco.images / name), image, [cv2.IMWRITE_JPEG_QUALITY, 100])
    geometric = GeometricAugmentation(shift_probability=0.5, scale_factor=0.3)
    data = training(tiny_coco, CropSpec(256, 192), geometric=geometric)
    seen = set()
    for epoch in range(30):
        sample = data[(0, epoch)]
        (shown,) = np.flatnonzero(sample["visibility"])
        x, y = sample["keypoints_in_crop"][shown]
        if not (25 < x < 165 and 25 < y < 230):
            continue
        light = sample["crops"].astype(float).sum(axis=2)
        light = np.where(light > 0.3 * light.max(), light, 0)
        crop_rows, crop_columns = np.mgrid[:256, :192]
        found = (light * crop_columns).sum() / light.sum(), (light * crop_rows).sum() / light.sum()
        assert found == pytest.approx((x, y), abs=0.75)
        seen.add(skeleton.keypoint_names[shown])
    assert seen == {"left_shoulder", "right_shoulder"}


def test_a_sample_depends_on_seed_epoch_and_index_only(tiny_coco):
    data, again = augmented(tiny_coco), augmented(tiny_coco)
    for index in (3, 0, 2):
        again[(index, 1)]  # what was read before does not matter
    for index in range(4):
        assert_same(data[(index, 5)], again[(index, 5)])
    assert not np.array_equal(data[(0, 5)]["crops"], data[(0, 6)]["crops"])
    other = training(tiny_coco, seed=4, geometric=GeometricAugmentation())
    assert not np.array_equal(data[(0, 5)]["keypoints_in_crop"], other[(0, 5)]["keypoints_in_crop"])


def test_a_bad_image_is_an_error_that_names_the_file_and_the_annotation(tiny_coco):
    path = spoil_image(tiny_coco, 1)
    with pytest.raises(InputError, match="cut off") as error:
        training(tiny_coco)[(2, 0)]
    message = str(error.value)
    assert message.startswith(f"{path}: the JPEG is cut off after")
    assert message.endswith("(annotation 21 of people.json)")
    assert "\n" not in message


def test_a_skipped_image_is_replaced_by_the_next_good_one_and_marked(tiny_coco, count_reads):
    spoil_image(tiny_coco, 0)
    data = augmented(tiny_coco, on_bad_image="skip")
    samples = [data[(index, 0)] for index in range(4)]
    assert [int(sample["instance_index"]) for sample in samples] == [2, 2, 2, 3]
    assert [int(sample["replaced"]) for sample in samples] == [1, 1, 0, 0]
    assert count_reads().count("000000000001.jpg") == 2, "not once more for the other person in it"
    assert not np.array_equal(samples[0]["crops"], samples[2]["crops"]), "each visit draws for itself"
    assert_same(samples[0], augmented(tiny_coco, on_bad_image="skip")[(0, 0)])


def test_skipping_gives_up_before_it_has_tried_every_image(tiny_coco, monkeypatch, count_reads):
    monkeypatch.setattr(crop_dataset, "_MOST_BAD_IMAGES_IN_A_ROW", 2)
    for number in range(2):
        spoil_image(tiny_coco, number)
    with pytest.raises(InputError, match="2 images in a row cannot be used"):
        augmented(tiny_coco, on_bad_image="skip")[(0, 0)]
    assert len(count_reads()) == 2


def test_training_on_nobody_or_with_another_skeleton_is_refused_with_the_reason(tiny_coco):
    people = tiny_coco.read()
    few = replace(people, keypoints_in_image=people.keypoints_in_image[:, :5])
    with pytest.raises(InputError, match=r"was read with 5 keypoints, skeleton coco_17 has 17"):
        TrainingCrops(ImageSource(few), tiny_coco.skeleton, SPEC)
    for entry in tiny_coco.content["annotations"]:
        entry["iscrowd"] = 1
    with pytest.raises(InputError, match=r"nobody to train on.*kept 0 of 4 .*left out: 4 crowd"):
        training(tiny_coco)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_training_batch_is_its_samples_and_lies_where_the_main_process_sees_it(tiny_coco, num_workers):
    spoil_image(tiny_coco, 2)
    data = augmented(tiny_coco, on_bad_image="skip")
    visits = [[(3, 0), (1, 5)], [(0, 2)]]
    loader = DataLoader(data, batch_sampler=visits, collate_fn=as_it_is, num_workers=num_workers)
    for some, batch in zip(visits, loader, strict=True):
        assert batch["crops"].is_shared() == bool(num_workers)
        samples = [data[visit] for visit in some]
        assert_same(batch, {name: np.stack([sample[name] for sample in samples]) for name in samples[0]})
        assert {name: value.numpy().dtype for name, value in batch.items()} == {
            name: value.dtype for name, value in samples[0].items()
        }


def test_an_image_with_five_boxes_is_decoded_once(tiny_coco, count_reads):
    box = tiny_coco.detections[0]
    tiny_coco.detections = [{**box, "bbox": [5 + i, 6, 30, 40]} for i in range(5)]
    boxes = tiny_coco.read_detections()
    sample = evaluation(boxes)[0]
    assert count_reads() == ["000000000001.jpg"]
    assert sample["crops"].shape == (5, 64, 48, 3)
    image = read_image_of(boxes, 0).pixels
    for i, crop in enumerate(sample["crops"]):
        geometry = SPEC.around([5 + i, 6, 30, 40])
        assert np.array_equal(crop, geometry.crop(image))
        assert sample["centers_in_image"][i].tolist() == geometry.center.tolist()
        assert sample["extents_in_image"][i].tolist() == geometry.extent.tolist()
    assert sample["instance_index"].tolist() == [0, 1, 2, 3, 4]
    assert sample["unreadable_images"].tolist() == []


def test_every_detection_is_evaluated_once_whatever_the_batches(tiny_coco, count_reads):
    boxes = tiny_coco.read_detections()
    data = evaluation(boxes)
    loader = DataLoader(data, batch_sampler=pack_images(boxes.boxes_per_image, 3), collate_fn=as_it_is)
    batches = list(loader)
    assert [batch["instance_index"].tolist() for batch in batches] == [[0, 1, 2], [3]]
    assert sorted(count_reads()) == [entry["file_name"] for entry in tiny_coco.content["images"]]


def test_a_bad_image_in_evaluation_is_an_error_or_a_sample_without_crops(tiny_coco):
    path = spoil_image(tiny_coco, 0)
    boxes = tiny_coco.read_detections()
    with pytest.raises(InputError, match=r"cut off.*\(detection 0 of detections\.json\)"):
        evaluation(boxes)[0]
    data = evaluation(boxes, on_bad_image="skip")
    batch = data.__getitems__([0, 1])
    assert batch["instance_index"].tolist() == [2]
    assert batch["crops"].shape == (1, 64, 48, 3)
    assert [boxes.image_path(i) for i in batch["unreadable_images"]] == [path]
    only_bad = data[0]
    assert only_bad["crops"].shape == (0, 64, 48, 3)
    assert only_bad["centers_in_image"].shape == (0, 2)


def test_a_batch_from_a_worker_lies_in_shared_memory_and_is_that_of_the_main_process(tiny_coco):
    boxes = tiny_coco.read_detections()
    data = evaluation(boxes)
    batches = [[0, 2], [], [1]]
    loader = DataLoader(data, batch_sampler=batches, collate_fn=as_it_is, num_workers=1)
    for images, batch in zip(batches, loader, strict=True):
        assert batch["crops"].is_shared() or not images
        assert_same(batch, data.__getitems__(images))


@pytest.mark.parametrize("unbiased", [False, True])
def test_the_crops_of_an_evaluation_are_those_of_each_box_alone(tiny_coco, unbiased):
    boxes = tiny_coco.read_detections()
    batch = evaluation(boxes, CropSpec(64, 48, 1.1, unbiased)).__getitems__([0, 1, 2])
    for index, crop in zip(batch["instance_index"], batch["crops"], strict=True):
        image = read_image_of(boxes, boxes.image_of_instance[index]).pixels
        geometry = CropSpec(64, 48, 1.1, unbiased).around(boxes.boxes_xywh[index])
        assert np.array_equal(crop, geometry.crop(image))


@pytest.fixture(scope="module")
def people_of_coco(reference_folder, tmp_path_factory):
    """People of COCO in grey pictures of their photographs' sizes: where they are is real, what is seen is not."""
    file, folder = reference_folder / "coco_people_train2017.json", tmp_path_factory.mktemp("grey")
    for image in json.loads(file.read_text())["images"]:
        grey = np.full((image["height"], image["width"], 3), 128, dtype=np.uint8)
        cv2.imwrite(str(folder / image["file_name"]), grey)
    return read_ground_truth(file, folder, load_skeleton("coco_17"))


def test_the_crops_of_real_people_are_those_of_the_reference(reference_folder, people_of_coco, skeleton):
    cases = json.loads((reference_folder / "person_crops.json").read_text())
    people = people_of_coco
    compared = 0
    for case in cases:
        if case["rotation_degrees"] or case["annotation_id"] not in people.instance_ids:
            continue
        index = int(np.flatnonzero(people.instance_ids == case["annotation_id"])[0])
        width, height = case["input_wh"]
        data = TrainingCrops(ImageSource(people), skeleton, CropSpec(height, width, unbiased=case["udp"]))
        sample = data[(index, 0)]
        labelled = sample["visibility"] > 0
        np.testing.assert_allclose(
            sample["keypoints_in_crop"][labelled], np.array(case["keypoints_in_crop"])[labelled], atol=0.01
        )
        compared += 1
    assert compared == 4
