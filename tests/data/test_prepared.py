"""The prepared folder: the crops of the image files, and what is stale or damaged."""

import json
import os
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
from filelock import FileLock
from torch.utils.data import DataLoader

from uniformer_pose.data import prepared as prepared_module
from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.coco import read_ground_truth
from uniformer_pose.data.crop_dataset import TrainingCrops, as_it_is
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.data.images import ImageSource
from uniformer_pose.data.prepared import PreparedImages, prepare_images
from uniformer_pose.data.sampling import EpochSampler
from uniformer_pose.errors import InputError

SPEC = CropSpec(64, 48)


@pytest.fixture
def prepared(tiny_coco, tmp_path):
    """People, and the folder with their images."""
    people = tiny_coco.read()
    prepare_images(people, tmp_path / "prepared")
    return people, tmp_path / "prepared"


def crops_of(people, skeleton, folder=None, spec=SPEC, on_bad_image="error", **arguments):
    stored = None if folder is None else PreparedImages(folder, people)
    source = ImageSource(people, prepared=stored, on_bad_image=on_bad_image)
    return TrainingCrops(source, skeleton, spec, seed=3, **({"geometric": GeometricAugmentation()} | arguments))


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


def test_crops_of_real_photographs_are_those_of_their_files(shared_folder, skeleton, tmp_path):
    coco = shared_folder / "coco_mini"
    people = read_ground_truth(
        coco / "annotations" / "person_keypoints_train2017.json", coco / "train2017", skeleton
    ).first_images(4)
    prepare_images(people, tmp_path / "p")
    spec = CropSpec(256, 192)
    assert_same_samples(
        crops_of(people, skeleton, spec=spec), crops_of(people, skeleton, tmp_path / "p", spec), range(4)
    )


@pytest.mark.parametrize("deep", [False, True])
def test_files_that_are_no_jpegs_give_the_same_crops(tiny_coco, skeleton, tmp_path, deep):
    for image in tiny_coco.content["images"]:
        path = tiny_coco.images / image["file_name"]
        image["file_name"] = path.with_suffix(".png").name
        pixels = cv2.imread(str(path))
        cv2.imwrite(str(path.with_suffix(".png")), pixels.astype(np.uint16) << 4 if deep else pixels)
    people = tiny_coco.read()
    result = prepare_images(people, tmp_path / "p")
    assert len(result.remarks) == deep
    assert_same_samples(crops_of(people, skeleton), crops_of(people, skeleton, tmp_path / "p"), range(5))


def test_workers_and_a_copy_read_the_same_crops(prepared, skeleton):
    people, folder = prepared
    dataset = crops_of(people, skeleton, folder)
    assert_same_samples(dataset, pickle.loads(pickle.dumps(dataset)), range(2))
    sampler = EpochSampler(len(dataset), seed=0)
    loaders = (DataLoader(dataset, 4, sampler=sampler, num_workers=n, collate_fn=as_it_is) for n in (0, 2))
    batches = [next(iter(loader))["crops"].numpy() for loader in loaders]
    assert np.array_equal(*batches)


def test_the_image_files_need_not_be_at_hand(prepared, skeleton):
    people, folder = prepared
    plain = crops_of(people, skeleton)
    expected = [plain[(index, 0)]["crops"] for index in range(len(plain))]
    people.image_folder.rename(people.image_folder.with_name("moved"))
    dataset = crops_of(people, skeleton, folder)
    assert all(np.array_equal(dataset[(index, 0)]["crops"], crop) for index, crop in enumerate(expected))


def test_an_image_that_cannot_be_read_is_counted_and_treated_like_a_bad_file(tiny_coco, skeleton, tmp_path):
    people = tiny_coco.read()
    path = people.image_path(1)
    path.write_bytes(path.read_bytes()[:-500])
    result = prepare_images(people, tmp_path / "p")
    assert list(result.bad) == [path.name]
    assert "cut off" in result.bad[path.name]
    with pytest.raises(InputError, match=r"cut off.*annotation 21"):
        crops_of(people, skeleton, tmp_path / "p")[(2, 0)]
    skipping = [crops_of(people, skeleton, folder, on_bad_image="skip") for folder in (None, tmp_path / "p")]
    assert skipping[1][(2, 0)]["replaced"] == 1
    assert_same_samples(*skipping, range(3))


def test_a_link_out_of_the_image_folder_is_not_followed(tiny_coco, tmp_path):
    people = tiny_coco.read()
    path = people.image_folder / str(people.file_names[0])
    path.rename(tmp_path / "secret.jpg")
    path.symlink_to(tmp_path / "secret.jpg")
    assert "outside the image folder" in prepare_images(people, tmp_path / "p").bad[path.name]


def test_other_boxes_and_other_times_of_the_files_make_nothing_stale(tiny_coco, prepared, skeleton):
    tiny_coco.annotation(11)["bbox"] = [1.0, 2.0, 60.0, 50.0]
    people = tiny_coco.read()
    for index in range(people.num_images):
        os.utime(people.image_path(index), ns=(5, 5))
    assert_same_samples(crops_of(people, skeleton), crops_of(people, skeleton, prepared[1]), range(5))


def test_other_images_are_noticed_at_the_start(tiny_coco, tmp_path, prepared):
    people, folder = prepared
    prepare_images(people.first_images(2), tmp_path / "two")
    other_size = replace(people, image_heights=np.array([60, 65, 50], dtype=np.int32))
    for directory, asked, told in (
        (tmp_path / "nowhere", people, "holds no prepared images, .*; run python src/prepare.py"),
        (tmp_path / "two", people, r"1 of the 3 images are not in it, such as 0+3.jpg .*src/prepare.py"),
        (folder, people.with_orientation("displayed"), "stored, and wanted as displayed"),
        (folder, other_size, "prepared as 64x48 pixels"),
    ):
        with pytest.raises(InputError, match=told):
            PreparedImages(directory, asked)
    path = people.image_path(1)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="has changed since it was prepared"):
        PreparedImages(folder, people)


def test_pixels_that_are_missing_or_cut_off_are_noticed(prepared, skeleton):
    people, folder = prepared
    dataset = crops_of(people, skeleton, folder)
    os.truncate(folder / "pixels", 700)
    with pytest.raises(InputError, match=r"pixels: cut off.*annotation 31"):
        dataset[(3, 0)]
    with pytest.raises(InputError, match="has 700 bytes instead of"):
        PreparedImages(folder, people)
    (folder / "pixels").unlink()
    with pytest.raises(InputError, match="has 0 bytes"):
        PreparedImages(folder, people)


@pytest.mark.parametrize("start", [-2, 10**9, 2**63 - 1, "x", None])
def test_an_index_that_points_elsewhere_is_refused(prepared, start):
    people, folder = prepared
    index = json.loads((folder / "index.json").read_text())
    index["images"][0][3] = start
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"index\.json: damaged"):
        PreparedImages(folder, people)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 99}', "[" * 100_000, "\x00\xff"])
def test_an_index_that_is_none_is_refused(prepared, text):
    people, folder = prepared
    (folder / "index.json").write_text(text)
    with pytest.raises(InputError, match=r"index\.json"):
        PreparedImages(folder, people)


def test_a_folder_with_something_else_in_it_and_a_second_writer_are_refused(tiny_coco, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds other files"):
        prepare_images(tiny_coco.read(), tmp_path / "p")
    (tmp_path / "p" / "thesis.tex").unlink()
    with FileLock(tmp_path / "p" / ".lock"), pytest.raises(InputError, match="another process"):
        prepare_images(tiny_coco.read(), tmp_path / "p")


def test_a_full_disk_is_told_in_one_line_and_leaves_nothing_behind(tiny_coco, tmp_path, monkeypatch):
    people = tiny_coco.read()

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(InputError, match=r"No space left.*free space or give to="):
            prepare_images(people, tmp_path / "p")
    assert not {path.name for path in (tmp_path / "p").iterdir()} - {".lock"}
    with monkeypatch.context() as patch:
        patch.setattr(prepared_module, "_SPARE_BYTES", 10**18)
        with pytest.raises(InputError, match=r"0.0 GB are needed, .*give to="):
            prepare_images(people, tmp_path / "p")
    assert prepare_images(people, tmp_path / "p").bad == {}
