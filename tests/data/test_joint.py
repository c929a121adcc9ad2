"""Training on several sets: order, crops, keypoints and evaluation of each."""

import json
from collections import Counter
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.data.joint import JointCrops
from uniformer_pose.data.sampling import JointEpochSampler
from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.skeleton import load_skeleton

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
CODEC = HeatmapCodec(64, 64, sigma=1.5)


@pytest.fixture
def sets(tiny_coco):
    """The four people of ``tiny_coco``, with COCO's keypoints and with CrowdPose's, where 31 has a neck alone.

    CrowdPose's points of a person are COCO's, its head and neck are at (1, 1) and (2, 2).
    """
    coco, crowdpose = load_skeleton("coco_17"), load_skeleton("crowdpose_14")
    tiny_coco.write()
    content = json.loads(json.dumps(tiny_coco.content))
    for entry in content["annotations"]:
        points = dict(zip(coco.keypoint_names, np.reshape(entry["keypoints"], (17, 3)).tolist(), strict=True))
        points |= {"top_head": [1, 1, 2], "neck": [2, 2, 1]}
        if entry["id"] == 31:
            points = {name: [0, 0, 0] for name in points} | {"neck": [2, 2, 2]}
        entry["keypoints"] = list(chain.from_iterable(points[name] for name in crowdpose.keypoint_names))
        del entry["num_keypoints"]
    content["categories"][0]["keypoints"] = list(crowdpose.keypoint_names)
    (tiny_coco.folder / "crowd.json").write_text(json.dumps(content))
    files = {"root": str(tiny_coco.folder), "train_images": "images", "val_images": "images"}
    return {
        "coco": files | {"train_annotations": "people.json", "val_annotations": "people.json"},
        "crowdpose": files
        | {"train_annotations": "crowd.json", "val_annotations": "crowd.json", "skeleton": "crowdpose_14"},
    }


def make(sets, **settings):
    data = JointCrops(
        **({"sets": sets, "codec": CODEC, "mean": MEAN, "std": STD, "batch_size": 1, "num_workers": 0} | settings)
    )
    data.setup("fit")
    return data


def epoch_of(data, epoch=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def persons(data, epoch=0):
    return [int(index) for batch in epoch_of(data, epoch) for index in batch["instance_index"]]


def test_an_epoch_shows_all_people_of_all_sets_in_the_models_keypoints(sets):
    data = make(sets)

    batches = epoch_of(data)

    assert sorted(int(batch["instance_index"][0]) for batch in batches) == [*range(7)]  # 31 has nothing of COCO's
    for batch in batches:
        place = int(batch["instance_index"][0])
        of_set, index = ("coco", place) if place < 4 else ("crowdpose", place - 4)
        own = data.sets[of_set].train_people
        labelled = batch["visibility"][0] > 0
        face = [0, 1, 2, 3, 4]
        assert labelled.sum() == (17 if of_set == "coco" else 12)
        assert of_set == "coco" or not labelled[face].any()
        assert data.describe_person(place).startswith(f"{of_set}: ")
        assert str(own.instance_ids[index]) in data.describe_person(place)


def test_a_persons_points_are_the_same_whichever_set_they_are_from(sets):
    data = make(sets)
    coco, crowd = data.sets["coco"].train_people, data.sets["crowdpose"].train_people

    np.testing.assert_array_equal(crowd.keypoints_in_image[:, 5:], coco.keypoints_in_image[:3, 5:])
    np.testing.assert_array_equal(crowd.keypoints_in_image[:, :5], 0)
    assert crowd.counts["without any of the model's keypoints"] == 1


def test_a_union_has_the_keypoints_of_all_sets(sets):
    data = make(sets, skeleton="union")

    assert data.skeleton.keypoint_names == (*load_skeleton("coco_17").keypoint_names, "top_head", "neck")
    assert [len(each.scored_places) for each in data.val_sets] == [17, 14]
    assert data.sets["crowdpose"].train_people.visibility[:, -2:].tolist() == [[2, 1]] * 3 + [[0, 2]]
    assert data.sets["coco"].train_people.visibility[:, -2:].max() == 0


def test_what_a_set_is_alone_it_is_first_among_several(sets):
    """The same crops, to the last bit, for a person and epoch."""
    drawn = {"geometric": GeometricAugmentation(), "seed": 5}
    shared = {"codec": CODEC, "mean": MEAN, "std": STD, "batch_size": 1, "num_workers": 0}
    alone = PersonCrops(**sets["coco"], val_boxes="gt", skeleton="coco_17", **shared, **drawn)
    alone.setup("fit")
    one, joint = make({"coco": sets["coco"]}, **drawn), make(sets, **drawn)

    expected = epoch_of(alone, 3)

    assert all(torch.equal(a[n], b[n]) for a, b in zip(expected, epoch_of(one, 3), strict=True) for n in a)
    by_person = {int(batch["instance_index"][0]): batch for batch in epoch_of(joint, 3)}
    assert all(torch.equal(batch["crops"], by_person[int(batch["instance_index"][0])]["crops"]) for batch in expected)


def test_sets_draw_independently_of_each_other(sets):
    data = make({"one": sets["coco"], "two": sets["coco"]}, geometric=GeometricAugmentation())

    crops = {int(batch["instance_index"][0]): batch["crops"] for batch in epoch_of(data)}

    assert not any(torch.equal(crops[index], crops[index + 4]) for index in range(4))


def test_order_and_crops_do_not_depend_on_workers(sets):
    epochs = [
        epoch_of(make(sets, batch_size=3, num_workers=workers, geometric=GeometricAugmentation()), 2)
        for workers in (0, 2)
    ]
    assert all(torch.equal(a[name], b[name]) for a, b in zip(*epochs, strict=True) for name in a)


def test_processes_share_an_epoch(sets):
    shares = []
    for rank in range(2):
        data = make(sets)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        shares.append(persons(data, 1))

    mixed = list(chain.from_iterable(zip(*shares, strict=True)))
    assert mixed[:7] == persons(make(sets), 1)


def test_a_resumed_epoch_goes_on_where_it_stood(sets):
    whole, data = persons(make(sets), 2), make(sets)
    data.load_state_dict({"epoch": 2, "batch": 3, "people": 7, "batch_size": 1})
    assert persons(data, 2) == whole[3:]


def test_balanced_sets_are_visited_as_often(sets):
    data = make({"coco": sets["coco"] | {"max_images": 1}, "crowdpose": sets["crowdpose"]}, sampling="balanced")

    visited = Counter(index for epoch in range(6) for index in persons(data, epoch))

    assert data.num_visits == 6  # 2 people, and 3
    assert sum(visited[index] for index in range(2)) == 18 == sum(visited[index] for index in range(2, 5))
    assert {visited[0], visited[1]} == {9}
    assert {visited[index] for index in range(2, 5)} == {6}


def test_a_person_visited_again_in_an_epoch_is_drawn_again(sets):
    data = make(sets, sampling={"coco": 3.0}, geometric=GeometricAugmentation())

    batches = epoch_of(data)
    crops = [batch["crops"] for batch in batches if int(batch["instance_index"][0]) == 1]

    assert len(batches) == 15
    assert len(crops) == 3
    assert not any(torch.equal(crops[a], crops[b]) for a, b in ((0, 1), (1, 2), (0, 2)))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    rates=st.lists(st.floats(0.1, 4), min_size=3, max_size=3),
    epochs=st.integers(1, 5),
)
def test_whatever_the_rates_people_of_a_set_come_equally_often(sizes, rates, epochs):
    visits = [max(1, round(size * rate)) for size, rate in zip(sizes, rates, strict=False)]
    sampler = JointEpochSampler(sizes, visits, seed=1)
    seen = [Counter[int]() for _ in sizes]
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        samples = [number for number, _ in sampler]
        assert len(samples) == len(set(samples)) == sum(visits)
        for number in samples:
            place = int(np.searchsorted(sampler.first_samples, number, side="right")) - 1
            seen[place][(number - int(sampler.first_samples[place])) % sizes[place]] += 1
    for size, visited, of_epoch in zip(sizes, seen, visits, strict=True):
        assert visited.total() == of_epoch * epochs
        assert max(visited.values()) - min(visited[index] for index in range(size)) <= 1


def test_each_set_is_evaluated_in_its_own_keypoints(sets):
    data = make(sets)

    coco, crowd = data.val_sets

    assert (coco.name, crowd.name) == ("coco", "crowdpose")
    assert coco.scored_places == [*range(17)]
    assert crowd.scored_places == [*range(5, 17)]
    assert crowd.ground_truth.skeleton.keypoint_names == load_skeleton("crowdpose_14").keypoint_names[:12]
    assert crowd.ground_truth.keypoints_in_image.shape == (4, 12, 2)
    assert crowd.ground_truth.is_scored.tolist() == [True, True, True, False]
    of_each = [
        sorted(each.val_people.instance_ids[torch.cat([b["instance_index"] for b in loader]).numpy()].tolist())
        for each, loader in zip(data.val_sets, data.val_dataloader(), strict=True)
    ]
    assert of_each == [[11, 12, 21, 31]] * 2


def test_a_set_without_a_split_for_training_is_evaluated_only(sets):
    only = {"ochuman": sets["coco"] | {"train_annotations": None}}
    data, expected = make(sets | only), make(sets)

    assert [each.name for each in data.val_sets] == ["coco", "crowdpose", "ochuman"]
    assert len(data.val_dataloader()) == 3
    assert data.num_visits == 7
    assert persons(data) == persons(expected)
    with pytest.raises(InputError, match=r"data.sets=\[ochuman\]: no split for training"):
        make(only)


def test_a_set_may_have_its_own_augmentation(sets):
    upright = {"crowdpose": sets["crowdpose"] | {"geometric": None}, "coco": sets["coco"]}
    crops = [
        {int(batch["instance_index"][0]): batch["crops"] for batch in epoch_of(make(upright, **drawn))}
        for drawn in ({}, {"geometric": GeometricAugmentation()})
    ]
    same = [torch.equal(crops[0][index], crops[1][index]) for index in range(8)]
    assert same == [True] * 4 + [False] * 4


def test_weights_of_one_sets_keypoints_leave_the_others_at_one(sets, tmp_path):
    results = [
        {"image_id": 1, "category_id": 1, "file_name": "000000000001.jpg", "image_height": 60, "image_width": 80}
        | {"bbox": [5, 6, 30, 40], "score": 0.9, "keypoints": [20.0, 20.0, 0.5] * 17}
    ]
    (tmp_path / "poses.json").write_text(json.dumps(results))
    poses = {"train_annotations": None, "train_poses": "poses.json", "weight_by_score": True}
    data = make({"coco": sets["coco"] | poses, "crowdpose": sets["crowdpose"]})

    weights = {int(b["instance_index"][0]): b["keypoint_weights"][0] for b in epoch_of(data)}

    assert data.train_poses == "poses.json"
    assert weights[0].tolist() == [0.5] * 17
    assert weights[1].tolist() == [1.0] * 17


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"sets": {}}, "name the sets"),
        ({"sampling": {"aic": 2.0}}, "data.sampling: aic is no set to train on; those are coco, crowdpose"),
        ({"coco": {"batch_size": 4}}, "data.sets.coco.batch_size: is the same for all sets"),
        ({"coco": {"train_imags": "x"}}, "data.sets.coco.train_imags='x': no such argument"),
        ({"coco": {"root": None}}, "data.sets.coco.root=null"),
        ({"coco": {"name": "x"}}, "data.sets.coco.name: the program sets it"),
        (
            {"crowdpose": {"val_annotations": "gone.json"}},
            "crowdpose: .*gone.json does not exist; set data.sets.crowdp",
        ),
        ({"crowdpose": {"skeleton": "coco_17"}}, "crowdpose: .*'left_shoulder' .* and 'nose' in skeleton coco_17"),
        ({"crowdpose": {"keypoint_mapping": {"neck": "chin"}}}, "chin"),
        ({"crowdpose": {"keypoint_mapping": {"left_wrist": "right_wrist"}}}, "left_wrist|right_wrist"),
        ({"batch_size": 9}, "coco, crowdpose: 7 people on 1 processes do not fill one batch of 9"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(sets, change, line):
    sets = {name: of_set | change.pop(name, {}) for name, of_set in sets.items()}
    with pytest.raises(InputError, match=line) as refused:
        make(**({"sets": sets} | change))
    assert "\n" not in str(refused.value)


def test_sets_without_a_keypoint_in_common_are_refused(sets):
    with pytest.raises(InputError, match="ap10k_17"):
        make({"coco": sets["coco"], "animals": sets["coco"] | {"skeleton": "ap10k_17"}})
