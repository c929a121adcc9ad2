import json
import os
import pickle

import numpy as np
import pytest
from torch.utils.data import DataLoader

from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.coco import read_ground_truth
from uniformer_pose.data.crop_dataset import TrainingCrops
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.data.prepared.preparation import prepare_images
from uniformer_pose.data.prepared.shards import PreparedImages
from uniformer_pose.data.sampling import EpochSampler
from uniformer_pose.errors import InputError

SPEC = CropSpec(64, 48)


@pytest.fixture
def prepared(tiny_coco, tmp_path):
    """People, and the folder with their images."""
    people = tiny_coco.read()
    prepare_images(people, tmp_path / "prepared", workers=0, images_per_shard=2)
    return people, tmp_path / "prepared"


def crops_of(people, skeleton, folder=None, spec=SPEC, **arguments):
    images = None if folder is None else PreparedImages(folder, people)
    arguments = {"geometric": GeometricAugmentation(), "images": images} | arguments
    return TrainingCrops(people, skeleton, spec, seed=3, **arguments)


def assert_same_samples(one, other, epochs):
    for index in range(len(one)):
        for epoch in epochs:
            first, second = one[(index, epoch)], other[(index, epoch)]
            for name in first:
                assert np.array_equal(first[name], second[name]), (index, epoch, name)


@pytest.mark.parametrize(
    "settings",
    [{}, {"spec": CropSpec(64, 128)}, {"spec": CropSpec(64, 48, 2.5, unbiased=True)}, {"geometric": None}],
)
def test_prepared_crops_are_those_of_the_files_for_every_draw(prepared, skeleton, settings):
    people, folder = prepared
    one, other = crops_of(people, skeleton, **settings), crops_of(people, skeleton, folder, **settings)
    assert_same_samples(one, other, range(12))


@pytest.mark.parametrize("uncompressed_gb", [0, 6_000e-9, 1])
def test_uncompressed_images_give_the_same_crops(tiny_coco, skeleton, tmp_path, uncompressed_gb):
    people = tiny_coco.read()
    result = prepare_images(people, tmp_path / "p", workers=0, uncompressed_gb=uncompressed_gb)
    assert result.uncompressed == {0: 0, 6_000e-9: 1, 1: 3}[uncompressed_gb]
    assert_same_samples(crops_of(people, skeleton), crops_of(people, skeleton, tmp_path / "p"), range(12))


def test_crops_of_real_photographs_are_those_of_their_files(shared_folder, skeleton, tmp_path):
    coco = shared_folder / "coco_mini"
    people = read_ground_truth(
        coco / "annotations" / "person_keypoints_train2017.json", coco / "train2017", skeleton
    ).first_images(4)
    result = prepare_images(people, tmp_path / "p", workers=0, uncompressed_gb=0)
    assert not result.whole
    assert result.bytes < 1.08 * result.source_bytes
    size = {"spec": CropSpec(256, 192)}
    one, other = crops_of(people, skeleton, **size), crops_of(people, skeleton, tmp_path / "p", **size)
    assert_same_samples(one, other, range(4))


def test_a_file_that_is_no_jpeg_gives_the_same_crops(tiny_coco, skeleton, tmp_path):
    import cv2

    for image in tiny_coco.content["images"]:
        path = tiny_coco.images / image["file_name"]
        image["file_name"] = path.with_suffix(".png").name
        cv2.imwrite(str(path.with_suffix(".png")), cv2.imread(str(path)))
    people = tiny_coco.read()
    assert prepare_images(people, tmp_path / "p", workers=0).whole == {"no JPEG": 3}
    assert_same_samples(crops_of(people, skeleton), crops_of(people, skeleton, tmp_path / "p"), range(5))


def test_workers_and_a_copy_read_the_same_crops(prepared, skeleton):
    people, folder = prepared
    dataset = crops_of(people, skeleton, folder)
    assert_same_samples(dataset, pickle.loads(pickle.dumps(dataset)), range(2))
    sampler = EpochSampler(len(dataset), seed=0)
    batches = [
        next(iter(DataLoader(dataset, sampler=sampler, batch_size=4, num_workers=workers)))["crops"].numpy()
        for workers in (0, 2)
    ]
    assert np.array_equal(*batches)


def test_the_image_files_need_not_be_at_hand(prepared, skeleton):
    people, folder = prepared
    plain = crops_of(people, skeleton)
    expected = [plain[(index, 0)]["crops"] for index in range(len(plain))]
    people.image_folder.rename(people.image_folder.with_name("moved"))
    dataset = crops_of(people, skeleton, folder)
    assert all(np.array_equal(dataset[(index, 0)]["crops"], crop) for index, crop in enumerate(expected))


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_an_image_that_could_not_be_prepared_is_treated_like_a_bad_file(tiny_coco, skeleton, tmp_path, policy):
    people = tiny_coco.read()
    path = people.image_path(1)
    path.write_bytes(path.read_bytes()[:-500])
    prepare_images(people, tmp_path / "p", workers=0)
    one = crops_of(people, skeleton, on_bad_image=policy)
    other = crops_of(people, skeleton, tmp_path / "p", on_bad_image=policy)
    if policy == "skip":
        assert other[(2, 0)]["replaced"] == 1
        assert_same_samples(one, other, range(3))
        return
    messages = []
    for dataset in (one, other):
        with pytest.raises(InputError) as error:
            dataset[(2, 0)]
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert "annotation 21" in messages[0]


@pytest.mark.parametrize("damage", ["zeros", "cut off"])
def test_a_record_that_went_bad_after_preparing_is_skipped_like_a_bad_file(prepared, skeleton, damage):
    people, folder = prepared
    expected = crops_of(people, skeleton)[(2, 0)]
    dataset = crops_of(people, skeleton, folder, on_bad_image="skip")
    shard = folder / "shard_00000.tar"
    offsets = json.loads((folder / "manifest.json").read_text())["images"]["offsets"]
    if damage == "zeros":
        data = bytearray(shard.read_bytes())
        data[offsets[0] : offsets[0] + 3000] = bytes(3000)
        shard.write_bytes(data)
        assert [int(dataset[(index, 0)]["replaced"]) for index in range(4)] == [1, 1, 0, 0]
        assert np.array_equal(dataset[(2, 0)]["crops"], expected["crops"])
    else:
        os.truncate(shard, offsets[1] + 700)
        assert [int(dataset[(index, 0)]["replaced"]) for index in range(4)] == [0, 0, 1, 0]
    with pytest.raises(InputError, match=r"image 0+\d.jpg: .*annotation \d+ of people.json"):
        [crops_of(people, skeleton, images=dataset.images)[(index, 0)] for index in range(4)]


def test_an_annotation_file_with_more_images_is_noticed(tiny_coco, tmp_path):
    people = tiny_coco.read()
    prepare_images(people.first_images(2), tmp_path / "p", workers=0)
    with pytest.raises(InputError, match=r"1 of the 3 images .* not in it, such as 0+3.jpg; run python src/prepare.py"):
        PreparedImages(tmp_path / "p", people)


def test_an_annotation_file_with_other_sizes_is_noticed(tiny_coco, prepared):
    tiny_coco.content["images"][1]["height"] = 65
    with pytest.raises(InputError, match=r"prepared as 64x48 pixels .* says 65x48"):
        PreparedImages(prepared[1], tiny_coco.read())


def test_other_boxes_make_nothing_stale(tiny_coco, prepared, skeleton):
    tiny_coco.annotation(11)["bbox"] = [1.0, 2.0, 60.0, 50.0]
    people = tiny_coco.read()
    assert_same_samples(crops_of(people, skeleton), crops_of(people, skeleton, prepared[1]), range(5))


def test_a_changed_image_file_is_noticed(prepared):
    people, folder = prepared
    path = people.image_path(1)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="has changed since it was prepared"):
        PreparedImages(folder, people)


def test_a_copy_of_the_images_with_other_times_is_accepted(prepared, skeleton):
    people, folder = prepared
    for index in range(people.num_images):
        os.utime(people.image_path(index), ns=(5, 5))
    assert len(crops_of(people, skeleton, folder)) == 4


def test_a_folder_that_was_never_prepared_or_not_finished_is_told_apart(prepared, tmp_path):
    people, folder = prepared
    with pytest.raises(InputError, match="holds no prepared images"):
        PreparedImages(tmp_path / "nowhere", people)
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match="was not finished"):
        PreparedImages(folder, people)


def test_a_missing_or_shorter_shard_is_noticed_at_the_start(prepared):
    people, folder = prepared
    shard = folder / "shard_00001.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(InputError, match="bytes instead of"):
        PreparedImages(folder, people)
    shard.unlink()
    with pytest.raises(InputError, match="missing"):
        PreparedImages(folder, people)


def test_a_shard_whose_bytes_have_changed_is_named_when_it_is_read(prepared, skeleton):
    people, folder = prepared
    shard = folder / "shard_00000.tar"
    shard.write_bytes(b"\0" * shard.stat().st_size)
    dataset = crops_of(people, skeleton, folder)
    with pytest.raises(InputError, match=r"shard_00000.tar, image 0+1.jpg: damaged .*; run python src/prepare.py"):
        dataset[(0, 0)]


def test_a_shard_that_is_cut_off_during_training_is_named(prepared, skeleton):
    people, folder = prepared
    dataset = crops_of(people, skeleton, folder)
    os.truncate(folder / "shard_00000.tar", 700)
    with pytest.raises(InputError, match="cut off"):
        dataset[(0, 0)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("offsets", -1),
        ("offsets", 10**9),
        ("lengths", 10**9),
        ("lengths", 2**63 - 1),
        ("shards", 7),
        ("shards", -5),
        ("scan_starts", 10**8),
        ("table_starts", 10**8),
        ("heights", "x"),
        ("heights", None),
    ],
)
def test_a_manifest_that_points_elsewhere_is_refused(prepared, name, value):
    people, folder = prepared
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["images"][name][0] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"manifest\.json: damaged"):
        PreparedImages(folder, people)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1}', "[" * 100_000, "\x00\xff"])
def test_a_manifest_that_is_none_is_refused(prepared, text):
    people, folder = prepared
    (folder / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json"):
        PreparedImages(folder, people)
