import json
import warnings
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.datamodule import PersonCrops, evaluation_arguments
from uniformer_pose.data.prepared import prepare_images
from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.skeleton import load_skeleton


@pytest.fixture
def make_data(tiny_coco):
    """The data module of ``tiny_coco``'s three images and four people; arguments replace single settings."""

    def make(**settings):
        tiny_coco.write()
        arguments = {
            "root": str(tiny_coco.folder),
            "train_annotations": "people.json",
            "train_images": "images",
            "val_annotations": "people.json",
            "val_images": "images",
            "val_boxes": "gt",
            "skeleton": "coco_17",
            "codec": HeatmapCodec(64, 64, sigma=1.5),
            "mean": [123.675, 116.28, 103.53],
            "std": [58.395, 57.12, 57.375],
            "batch_size": 1,
            "eval_batch_size": 2,
            "num_workers": 0,
        }
        return PersonCrops(**(arguments | settings))

    return make


def as_process(data, rank, world_size):
    """The data module as process ``rank`` of ``world_size`` sees it."""
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
    return data


def training_order(data, epoch):
    """Annotation ids in the order of one training epoch."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [int(data.train_people.instance_ids[index]) for batch in loader for index in batch["instance_index"]]


def evaluated(data):
    """Annotation ids batch by batch of one evaluation."""
    return [data.val_people.instance_ids[batch["instance_index"].numpy()].tolist() for batch in data.val_dataloader()]


def test_a_training_batch_holds_crops_keypoints_visibility_and_indices(make_data):
    data = make_data(batch_size=4)
    data.setup("fit")

    (batch,) = data.train_dataloader()

    assert batch["crops"].shape == (4, 64, 64, 3)
    assert batch["crops"].dtype == torch.uint8
    assert batch["keypoints_in_crop"].shape == (4, 17, 2)
    assert batch["visibility"].unique().tolist() == [2]
    assert sorted(batch["instance_index"].tolist()) == [0, 1, 2, 3]
    assert batch["replaced"].sum() == 0
    inside = (batch["keypoints_in_crop"] > 0) & (batch["keypoints_in_crop"] < 64)
    assert inside.all()


def test_an_incomplete_last_batch_is_left_out_of_training_and_kept_in_evaluation(make_data):
    data = make_data(batch_size=3, eval_batch_size=3)
    data.setup("fit")

    assert data.train_batches == len(data.train_dataloader()) == 1
    assert sorted(chain.from_iterable(evaluated(data))) == [11, 12, 21, 31]


def test_order_and_crops_do_not_depend_on_workers_and_prefetching(make_data):
    epochs = []
    for settings in (
        {"num_workers": 0},
        {"num_workers": 1, "prefetch": 1},
        {"num_workers": 2},
        {"num_workers": "auto"},
    ):
        data = make_data(batch_size=2, geometric=GeometricAugmentation(), **settings)
        data.setup("fit")
        loader = data.train_dataloader()
        loader.sampler.set_epoch(7)
        epochs.append(list(loader))

    for other in epochs[1:]:
        for one, two in zip(epochs[0], other, strict=True):
            assert all(torch.equal(one[name], two[name]) for name in one)


def test_iterating_draws_nothing_from_the_global_random_state(make_data):
    data = make_data(geometric=GeometricAugmentation())
    data.setup("fit")
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    expected = torch.random.get_rng_state().clone(), np.random.get_state()[1].copy()  # noqa: NPY002

    list(data.train_dataloader())
    list(data.val_dataloader())

    assert torch.equal(torch.random.get_rng_state(), expected[0])
    assert (np.random.get_state()[1] == expected[1]).all()  # noqa: NPY002


def test_processes_share_the_evaluation_without_repeats(make_data):
    shares = []
    for rank in range(2):
        data = as_process(make_data(eval_batch_size=1), rank, 2)
        data.setup("validate")
        shares.append(list(chain.from_iterable(evaluated(data))))

    assert shares == [[11, 12, 31], [21]]


def test_a_process_without_any_image_gets_one_empty_batch(make_data):
    """So that it takes part in the evaluation, and the others need not wait for it."""
    data = as_process(make_data(eval_batch_size=64), 2, 3)
    data.setup("validate")

    (batch,) = data.val_dataloader()

    assert len(batch["crops"]) == 0
    assert batch["crops"].dtype == torch.uint8
    assert batch["instance_index"].shape == batch["unreadable_images"].shape == (0,)


def test_max_images_shortens_both_splits(make_data):
    data = make_data(max_images=2)
    data.setup("fit")
    assert data.train_people.instance_ids.tolist() == data.val_people.instance_ids.tolist() == [11, 12, 21]


def test_detector_boxes_are_found_below_the_root_or_as_the_path_stands(make_data, tiny_coco, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "boxes.json"
    elsewhere.write_text(json.dumps(tiny_coco.detections[:1]))
    below, as_it_stands = make_data(val_boxes="detections.json"), make_data(val_boxes=str(elsewhere))
    below.setup("validate")
    as_it_stands.setup("validate")

    assert below.val_people.box_scores.tolist() == [0.5] * 4
    assert below.val_people.record == "detection"
    assert len(as_it_stands.val_people) == 1
    assert as_it_stands.val_annotation_file == tiny_coco.annotation_file


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"root": "/no/such/root"}, "/no/such/root/people.json"),
        ({"val_annotations": "val.json"}, "val.json"),
        ({"val_images": "val"}, "val"),
        ({"val_boxes": "boxes.json"}, "boxes.json"),
    ],
)
def test_missing_data_is_named_with_what_to_do(make_data, settings, missing):
    with pytest.raises(InputError) as raised:
        make_data(if_missing="draw it: make synthetic", **settings).setup("validate")
    assert missing in str(raised.value)
    assert str(raised.value).endswith("does not exist; draw it: make synthetic")
    assert "\n" not in str(raised.value)

    with pytest.raises(InputError, match=r"does not exist; set data[.]root=<folder>"):
        make_data(**settings).setup("validate")


def test_a_batch_larger_than_the_data_is_refused_before_training(make_data):
    with pytest.raises(InputError, match=r"4 people on 1 processes do not fill one batch of 5; lower data.batch_size"):
        make_data(batch_size=5).setup("fit")

    with pytest.raises(InputError, match=r"4 people on 2 processes do not fill one batch of 3"):
        as_process(make_data(batch_size=3), 0, 2).setup("fit")

    make_data(batch_size=5).setup("validate")  # nobody trains


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("num_workers", -1),
        ("num_workers", "all"),
        ("max_images", 0),
        ("mean", (0.485, 0.456, 0.406)),
        ("std", (0.0, 1.0, 1.0)),
        ("on_bad_image", "ignore"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(make_data, name, value):
    with pytest.raises(InputError, match=f"data.{name}"):
        make_data(**{name: value})


def test_a_validation_set_without_people_is_refused_with_the_reason(make_data, tiny_coco):
    for annotation in tiny_coco.content["annotations"]:
        annotation["iscrowd"] = 1

    with pytest.raises(InputError, match=r"nobody to evaluate. people.json.* kept 0 of 4 annotations.*4 crowd.*give"):
        make_data().setup("validate")


def test_a_loaded_position_is_where_the_next_training_starts(make_data):
    straight, resumed = make_data(), make_data()
    straight.setup("fit")
    resumed.setup("fit")
    resumed.load_state_dict({"epoch": 2, "batch": 3})

    loader = resumed.train_dataloader()  # Lightning takes its iterator before it names the epoch
    positions = [batch["instance_index"].tolist() for batch in loader]

    whole = [int(resumed.train_people.instance_ids[index]) for (index,) in positions]
    assert whole == training_order(straight, 2)[3:]


# ------------------------------------------------------------------------------------- which images are evaluated

ARGUMENTS = {
    "train_annotations": "train.json",
    "train_images": "train",
    "val_annotations": "val.json",
    "val_images": "val",
    "val_boxes": "val_boxes.json",
    "test_annotations": "test.json",
    "test_images": "test",
    "test_boxes": "test_boxes.json",
}


@pytest.mark.parametrize(
    ("split", "boxes", "expected"),
    [
        ("val", None, ("val.json", "val", "val_boxes.json")),
        ("val", "detector", ("val.json", "val", "val_boxes.json")),
        ("val", "gt", ("val.json", "val", "gt")),
        ("train", None, ("train.json", "train", "gt")),
        ("test", "detector", ("test.json", "test", "test_boxes.json")),
        ("test", "mine.json", ("test.json", "test", "mine.json")),
    ],
)
def test_split_and_boxes_decide_what_is_evaluated(split, boxes, expected):
    changed = evaluation_arguments(ARGUMENTS, split, boxes)
    assert (changed["val_annotations"], changed["val_images"], changed["val_boxes"]) == expected
    assert changed["train_annotations"] == "train.json"


@pytest.mark.parametrize(
    ("changes", "split", "boxes", "message"),
    [
        ({}, "test", "gt", "boxes=gt: the test set's ground truth is not public; give boxes=detector or boxes=<file>"),
        ({"test_boxes": None}, "test", None, "split=test: the data names no detector boxes for it; give boxes=<file"),
        ({"test_images": None}, "test", None, "split=test: the data has no test set; choose data that has one, such"),
        ({"val_boxes": "gt"}, "val", "detector", "split=val: the data names no detector boxes for it; give boxes="),
        ({}, "train", "detector", "split=train: the data names no detector boxes for it; give boxes=<file"),
    ],
)
def test_a_split_or_boxes_that_the_data_does_not_have_are_refused(changes, split, boxes, message):
    with pytest.raises(InputError) as raised:
        evaluation_arguments(ARGUMENTS | changes, split, boxes)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_images_without_annotations_are_evaluated_with_detector_boxes(make_data, tiny_coco):
    tiny_coco.write()
    content = {"images": tiny_coco.content["images"], "categories": [{"id": 1, "name": "person"}]}
    (tiny_coco.folder / "image_info.json").write_text(json.dumps(content))
    data = make_data(val_annotations="image_info.json", val_boxes="detections.json")
    data.setup("validate")

    assert list(chain.from_iterable(evaluated(data))) == [0, 1, 2, 3]


def test_prepared_images_give_the_training_batches_of_the_files(make_data, tiny_coco, tmp_path):
    prepare_images(tiny_coco.read(), tmp_path / "prepared")
    batches = []
    for prepared in (None, str(tmp_path / "prepared")):
        data = make_data(geometric=GeometricAugmentation(), prepared=prepared, batch_size=4)
        data.setup("fit")
        batches.append(next(iter(data.train_dataloader())))
    assert all(torch.equal(batches[0][name], batches[1][name]) for name in batches[0])


@pytest.mark.parametrize("flip_probability", [0.5, 0])
def test_training_tells_of_a_side_without_partner_only_where_something_is_mirrored(make_data, flip_probability):
    coco = load_skeleton("coco_17")
    without_ears = [pair for pair in coco.left_right_pairs if "left_ear" not in pair]
    skeleton = replace(coco, left_right_pairs=tuple(without_ears))
    data = make_data(skeleton=skeleton, geometric=GeometricAugmentation(flip_probability=flip_probability))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.setup("fit")

    about_sides = [str(w.message) for w in caught if "left_ear, right_ear" in str(w.message)]
    assert bool(about_sides) == bool(flip_probability)
    assert all("augmentation.geometric.flip_probability=0" in sentence for sentence in about_sides)


def test_people_whose_images_have_no_boxes_at_all_are_counted(make_data, tiny_coco):
    tiny_coco.detections = tiny_coco.detections[:2]  # both in the first image
    data = make_data(val_boxes="detections.json")
    data.setup("validate")
    with pytest.warns(UserWarning, match="2 of 4 people to score are in images without a box"):
        _ = data.ground_truth
