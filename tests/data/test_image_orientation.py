"""One policy for pictures that EXIF turns, in training, evaluation, prepared folders and checks."""

import pickle

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from uniformer_pose.data import images
from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.crop_dataset import EvaluationImages, TrainingCrops, as_it_is
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.data.images import ImageFiles, read_image_of
from uniformer_pose.data.prepared.preparation import prepare_images
from uniformer_pose.data.prepared.shards import PreparedImages
from uniformer_pose.errors import InputError

SPEC = CropSpec(64, 48)
# What a camera stores so that a viewer who turns it by the orientation shows the picture.
STORES = {
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: np.swapaxes(image, 0, 1),
    6: np.rot90,
    7: lambda image: np.rot90(np.swapaxes(image, 0, 1), 2),
    8: lambda image: np.rot90(image, -1),
}


def upright_pictures(coco) -> list[np.ndarray]:
    return [np.asarray(Image.open(coco.images / entry["file_name"])) for entry in coco.content["images"]]


def turn_files(coco, orientations, *, displayed: bool, suffix: str = ".png") -> None:
    """Give the pictures EXIF orientations; ``displayed``: the pixels lie so that viewers see what was there before."""
    for entry, orientation in zip(coco.content["images"], orientations, strict=True):
        path = coco.images / entry["file_name"]
        pixels = np.asarray(Image.open(path))
        exif = Image.Exif()
        exif[0x0112] = orientation
        entry["file_name"] = path.with_suffix(suffix).name
        stored = STORES[orientation](pixels) if displayed else pixels
        options = {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}
        Image.fromarray(np.ascontiguousarray(stored)).save(path.with_suffix(suffix), exif=exif, **options)


def say(coco, orientation) -> None:
    coco.content["info"] = {"image_orientation": orientation}


def crops_of(people, skeleton, source=None) -> list[np.ndarray]:
    training = TrainingCrops(people, skeleton, SPEC, geometric=GeometricAugmentation(), images=source)
    evaluation = EvaluationImages(people, SPEC)
    return [
        *(training[(index, epoch)]["crops"] for index in range(len(people)) for epoch in (0, 1)),
        *(evaluation[index]["crops"].numpy() for index in range(people.num_images)),
    ]


def assert_same(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("orientations", [(2, 3, 4), (5, 6, 7), (8, 1, 6)])
def test_crops_of_turned_pictures_annotated_as_displayed_are_those_of_upright_ones(tiny_coco, skeleton, orientations):
    expected = crops_of(tiny_coco.read(), skeleton)
    say(tiny_coco, "displayed")
    turn_files(tiny_coco, orientations, displayed=True)
    people = tiny_coco.read()
    assert_same(crops_of(people, skeleton), expected)
    prepare_images(people, tiny_coco.folder / "p", workers=0, uncompressed_gb=0)
    assert_same(crops_of(people, skeleton, PreparedImages(tiny_coco.folder / "p", people)), expected)


@pytest.mark.parametrize("stated", ["stored", None])
def test_crops_of_turned_pictures_annotated_as_stored_are_those_of_plain_ones(tiny_coco, skeleton, stated):
    expected = crops_of(tiny_coco.read(), skeleton)
    say(tiny_coco, stated)
    turn_files(tiny_coco, (6, 3, 5), displayed=False)
    people = tiny_coco.read()
    if stated is None:
        with pytest.warns(UserWarning, match="EXIF"):
            assert_same(crops_of(people, skeleton), expected)
    else:
        assert_same(crops_of(people, skeleton), expected)
    prepare_images(people, tiny_coco.folder / "p", workers=0, uncompressed_gb=0)
    prepared = PreparedImages(tiny_coco.folder / "p", people)
    assert ["3 pictures" in line for line in prepared.remarks] == ([True] if stated is None else [])


@pytest.mark.parametrize("uncompressed_gb", [0, 1])
@pytest.mark.parametrize("stated", ["stored", "displayed"])
def test_prepared_jpegs_give_the_crops_of_their_files_under_either_policy(tiny_coco, skeleton, stated, uncompressed_gb):
    say(tiny_coco, stated)
    turn_files(tiny_coco, (6, 3, 5), displayed=stated == "displayed", suffix=".jpg")
    people = tiny_coco.read()
    prepare_images(people, tiny_coco.folder / "p", workers=0, uncompressed_gb=uncompressed_gb)
    prepared = PreparedImages(tiny_coco.folder / "p", people)
    assert_same(crops_of(people, skeleton, prepared), crops_of(people, skeleton))


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_a_picture_whose_size_is_that_of_the_displayed_one_only_is_an_error_that_says_what_to_set(
    tiny_coco, skeleton, policy
):
    turn_files(tiny_coco, (6, 1, 1), displayed=True)
    people = tiny_coco.read()
    data = TrainingCrops(people, skeleton, SPEC, on_bad_image=policy)
    if policy == "skip":
        assert data[(0, 0)]["replaced"] == 1
        return
    with pytest.raises(InputError, match=r"80x60 pixels .* 60x80; .*set data.image_orientation=displayed") as error:
        data[(0, 0)]
    assert "\n" not in str(error.value)
    TrainingCrops(people.with_orientation("displayed"), skeleton, SPEC)[(0, 0)]


def test_a_picture_whose_size_is_that_of_the_stored_one_only_names_the_other_choice(tiny_coco):
    turn_files(tiny_coco, (6, 1, 1), displayed=False)
    with pytest.raises(InputError, match=r"set data.image_orientation=stored"):
        read_image_of(tiny_coco.read().with_orientation("displayed"), 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("stated", ["stored", "displayed"])
def test_nothing_is_said_where_the_file_says_it(tiny_coco, skeleton, stated):
    say(tiny_coco, stated)
    turn_files(tiny_coco, (3, 3, 3), displayed=False)
    crops_of(tiny_coco.read(), skeleton)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_is_doubtful_is_said_once_whoever_reads(tiny_coco, tmp_path, monkeypatch, num_workers):
    said = tmp_path / "said.txt"
    monkeypatch.setattr(images, "_warn", lambda line: said.open("a").write(line + "\n"))
    turn_files(tiny_coco, (3, 3, 3), displayed=False)
    data = EvaluationImages(tiny_coco.read(), SPEC)
    for _ in range(2):
        list(DataLoader(data, batch_sampler=[[0], [1], [2]], collate_fn=as_it_is, num_workers=num_workers))
    (line,) = said.read_text().splitlines()
    assert line.startswith("people.json: pictures such as 000000000001.png ")
    assert "data.image_orientation=displayed" in line


def test_a_folder_prepared_under_the_other_policy_is_refused(tiny_coco):
    turn_files(tiny_coco, (3, 1, 1), displayed=False)
    people = tiny_coco.read()
    prepare_images(people, tiny_coco.folder / "p", workers=0)
    PreparedImages(tiny_coco.folder / "p", people.with_orientation("stored"))
    with pytest.raises(InputError, match=r"prepared=.*stored.*displayed.*src/prepare.py"):
        PreparedImages(tiny_coco.folder / "p", people.with_orientation("displayed"))
    result = prepare_images(people.with_orientation("displayed"), tiny_coco.folder / "p", workers=0)
    assert result.made == 1
    PreparedImages(tiny_coco.folder / "p", people.with_orientation("displayed"))


def test_pickled_image_files_read_the_same_pixels(tiny_coco):
    people = tiny_coco.read()
    files = ImageFiles(people)
    assert np.array_equal(pickle.loads(pickle.dumps(files)).pixels(0), files.pixels(0))
