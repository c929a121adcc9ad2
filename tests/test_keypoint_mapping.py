"""Which keypoints of published sets are the same points: as MMPose has it; unions, parts, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformer_pose.data.people import PersonInstances
from uniformer_pose.errors import InputError
from uniformer_pose.keypoint_mapping import places_in_target, union_of
from uniformer_pose.skeleton import Skeleton, load_skeleton, mirror_pairs, places_by_name

PEOPLE = ["aic_14", "coco_17", "coco_wholebody_133", "crowdpose_14", "exlpose_14"]
PEOPLE += ["halpe_136", "halpe_26", "humanart_21", "mpii_16"]
COCO = load_skeleton("coco_17")


def skeleton_of(name: str, keypoints: tuple[str, ...], **changes: Any) -> Skeleton:
    """A skeleton of these names, with the mirror pairs that they tell."""
    count = len(keypoints)
    made = Skeleton(
        name, keypoints, (0.05,) * count, ((9, 9, 9),) * count, tuple(mirror_pairs(keypoints)[0]), (), (), ()
    )
    return replace(made, **changes)


def sided(*names: str) -> tuple[str, ...]:
    return tuple(f"{side}_{name}" for name in names for side in ("right", "left"))


# Two sets without a shipped skeleton, as MMPose names their points.
JHMDB = skeleton_of("jhmdb_15", ("neck", "belly", "head", *sided("shoulder", "hip", "elbow", "knee", "wrist", "ankle")))
POSETRACK = skeleton_of("posetrack_17", ("nose", "head_bottom", "head_top", *COCO.keypoint_names[3:]))
PUBLISHED = {
    "aic": "aic_14",
    "crowdpose": "crowdpose_14",
    "mpii": "mpii_16",
    "halpe": "halpe_136",
    "ochuman": "coco_17",
    "coco": "coco_wholebody_133",
}


def published(mapping: str) -> tuple[Skeleton, Skeleton]:
    source, target = mapping.split("_")
    own = {"jhmdb": JHMDB, "posetrack": POSETRACK}.get(source) or load_skeleton(PUBLISHED[source])
    return own, load_skeleton({"coco": "coco_17", "halpe26": "halpe_26"}[target])


@pytest.fixture(scope="module")
def reference(reference_folder: Path) -> dict[str, Any]:
    return json.loads((reference_folder / "keypoint_mappings.json").read_text())  # type: ignore[no-any-return]


def people_of(keypoints: Any, visibility: Any, weights: Any = None) -> PersonInstances:
    keypoints, visibility = np.asarray(keypoints, np.float32), np.asarray(visibility, np.uint8)
    count, one = len(keypoints), np.ones(1, np.int32)
    return PersonInstances(
        image_folder=Path(),
        image_ids=one.astype(np.int64),
        file_names=np.array(["a.jpg"]),
        image_heights=one,
        image_widths=one,
        image_of_instance=np.zeros(count, np.int32),
        instance_ids=np.arange(count),
        boxes_xywh=np.ones((count, 4)),
        box_scores=np.ones(count, np.float32),
        keypoints_in_image=keypoints,
        visibility=visibility,
        keypoint_weights=weights,
    )


def test_the_names_give_all_15_mappings_of_mmpose(reference: dict[str, Any]) -> None:
    assert len(reference["mappings"]) == 15
    for name, mapping in reference["mappings"].items():
        source, target = published(name)
        places = places_in_target(source, target)
        assert target.num_keypoints == mapping["num_keypoints"]
        assert len(places) == source.num_keypoints
        pairs = [[own, place] for own, place in enumerate(places) if place is not None]
        assert sorted(pairs) == sorted(mapping["pairs"]), name


def test_44_people_are_converted_as_mmpose_does_it_but_for_the_places_of_what_nobody_labelled(
    reference: dict[str, Any],
) -> None:
    assert len(reference["cases"]) == 44
    for case in reference["cases"]:
        source, target = published(case["mapping"])
        places = places_in_target(source, target)
        weights = np.full((1, source.num_keypoints), 0.5, np.float32)
        people = people_of([case["source_keypoints"]], [case["source_visible"]], weights)
        moved = people.with_keypoints_at(places, target.num_keypoints)
        np.testing.assert_array_equal(moved.keypoints_in_image, np.float32([case["keypoints"]]))
        np.testing.assert_array_equal(moved.visibility, [case["keypoints_visible"]])
        assert moved.keypoint_weights is not None
        np.testing.assert_array_equal(moved.keypoint_weights * 2, [case["keypoints_visible_weights"]])
        assert (moved.keypoints_in_image.dtype, moved.visibility.dtype) == (np.float32, np.uint8)
        assert people.with_keypoints_at(places, target.num_keypoints).instance_ids is people.instance_ids
        assert (
            people_of([case["source_keypoints"]], [case["source_visible"]])
            .with_keypoints_at(places, target.num_keypoints)
            .keypoint_weights
            is None
        )


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ("head_top nose", "nose head", [1, 0]),
        ("Top-Head UpperNeck", "neck head_top", [1, 0]),
        ("head head_top", "head", [0, None]),  # its own name comes first
        ("head_top top_head", "head", [None, None]),  # either could be it
        ("head head_top", "top_head head_top", [0, 1]),
        ("hip pelvis thorax head_bottom", "pelvis hip neck", [1, 0, None, None]),
        ("left_toe left_finger", "left_big_toe left_pinky_finger4", [None, None]),
    ],
)
def test_names_of_the_same_point_count_where_they_leave_the_keypoints_distinct(
    ours: str, theirs: str, expected: list[int | None]
) -> None:
    assert places_by_name(ours.split(), theirs.split()) == expected


@pytest.mark.parametrize("name", PEOPLE)
def test_an_animal_is_no_person_whatever_its_points_are_called(name: str) -> None:
    animal, person = load_skeleton("ap10k_17"), load_skeleton(name)
    for one, other in ((animal, person), (person, animal)):
        with pytest.raises(InputError, match=r"^skeletons '\w+' and '\w+' \(\w+ and \w+\) have no keypoint in common"):
            places_in_target(one, other)
        with pytest.raises(InputError, match="have no keypoint in common"):
            union_of([one, other])
    assert Skeleton.from_dict(animal.to_dict()).figure == "animal"
    horse = skeleton_of("horse_3", ("nose", "left_eye", "right_eye"), figure="animal")
    assert places_in_target(horse, animal) == (2, None, None)
    assert places_in_target(horse, animal, {"left_eye": "L_Eye", "right_eye": "R_Eye"}) == (2, 0, 1)
    # Whoever says so may learn noses from both.
    assert [*places_in_target(horse, COCO, {"nose": "nose"})] == [0, None, None]


def test_a_table_of_ones_own_comes_before_the_names() -> None:
    mine = skeleton_of("mine_4", ("skull", "head", "left_hand", "right_hand"))
    halpe = load_skeleton("halpe_26")
    assert places_in_target(mine, halpe) == (None, 17, None, None)
    hands = {"left_hand": "left_wrist", "right_hand": "right_wrist"}
    assert places_in_target(mine, halpe, {"skull": "head", "head": None} | hands) == (17, None, 9, 10)
    assert places_in_target(mine, halpe, {"skull": "head_top", "head": None}) == (17, None, None, None)
    # A set whose sides are the viewer's: all of them are exchanged.
    viewers = {a: b for pair in COCO.left_right_pairs for a, b in (pair, pair[::-1])}
    assert places_in_target(COCO, COCO, viewers) == tuple(COCO.mirror_permutation.tolist())


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"nos": "nose"}, ["'mpii_16'", "it has no keypoint nos;"]),
        ({"head_top": "noze"}, ["'mpii_16'", "noze is no free keypoint of 'coco_17'", "did you mean nose?"]),
        ({"head_top": "nose", "upper_neck": "nose"}, ["upper_neck and head_top are both nose", "null for one"]),
        ({"head_top": "left_knee"}, ["left_knee and head_top are both left_knee"]),
        ({"head_top": "left_eye"}, ["'mpii_16' and 'coco_17' disagree", "head_top is left_eye", "is not right_eye"]),
        ({"left_knee": None}, ["right_knee is right_knee, but its mirror image left_knee is not left_knee"]),
        ({"left_knee": "right_hip", "left_hip": "right_knee"}, ["right_knee and left_hip are both right_knee"]),
        (
            {"left_knee": "right_knee", "right_knee": "left_knee"},
            ["disagree on left and right", "knee", "exchange the sides of all or none"],
        ),
        (
            dict.fromkeys(load_skeleton("mpii_16").keypoint_names),
            ["'mpii_16' and 'coco_17' have no keypoint in common"],
        ),
    ],
)
def test_an_impossible_mapping_is_refused_in_one_line_that_names_both(table: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as raised:
        places_in_target(load_skeleton("mpii_16"), COCO, table)
    assert all(word in str(raised.value) for word in words), str(raised.value)
    assert "\n" not in str(raised.value)


def test_sets_whose_mirror_pairs_contradict_each_other_are_refused() -> None:
    eyes = ("nose", "left_eye", "right_eye")
    for pairs in ((), (("nose", "left_eye"),), (("right_eye", "nose"),)):
        wrong = skeleton_of("wrong_3", eyes, left_right_pairs=pairs)
        joins: list[Callable[[], Any]] = [
            partial(places_in_target, wrong, COCO),
            partial(union_of, [COCO, wrong]),
            partial(union_of, [wrong, COCO]),
        ]
        for join in joins:
            with pytest.raises(InputError, match=r"disagree on left and right: .* mirror image"):
                join()
    # One of a pair is spelt otherwise: the other must not be learnt alone.
    half = skeleton_of("half_3", ("nose", "left_eye", "eye_of_right"), left_right_pairs=(("left_eye", "eye_of_right"),))
    with pytest.raises(InputError, match="left_eye is left_eye, but its mirror image eye_of_right is not right_eye"):
        union_of([COCO, half])
    places = places_in_target(
        half, union_of([COCO, half], [None, {"eye_of_right": "right_eye"}]), {"eye_of_right": "right_eye"}
    )
    assert places == (0, 1, 2)


def test_the_union_of_coco_aic_and_mpii_has_each_point_once() -> None:
    aic, mpii = load_skeleton("aic_14"), load_skeleton("mpii_16")
    union = union_of([COCO, aic, mpii])
    assert union.name == "coco_17+aic_14+mpii_16"
    assert union.keypoint_names == (*COCO.keypoint_names, "head_top", "neck", "pelvis", "thorax")
    assert union.sigmas == (*COCO.sigmas, *aic.sigmas[12:], *mpii.sigmas[6:8])
    assert union.left_right_pairs == COCO.left_right_pairs
    assert union.upper_body == (*COCO.upper_body, "head_top", "neck", "thorax")
    assert union.lower_body == (*COCO.lower_body, "pelvis")
    assert union.limbs[: len(COCO.limbs)] == COCO.limbs
    assert {("head_top", "neck"), ("neck", "left_shoulder"), ("right_hip", "pelvis"), ("pelvis", "thorax")} <= {
        *union.limbs
    }
    assert len({*map(frozenset, union.limbs)}) == len(union.limbs)
    assert places_in_target(mpii, union)[6:10] == (19, 20, 18, 17)
    assert Skeleton.from_dict(union.to_dict()) == union
    assert union_of([mpii, aic]).keypoint_names == (*mpii.keypoint_names,)
    assert union_of([load_skeleton("halpe_26"), COCO, aic]) == load_skeleton("halpe_26")
    whole = union_of([load_skeleton("coco_wholebody_133"), load_skeleton("halpe_136")])
    assert whole.keypoint_names[133:] == ("head", "neck", "hip")
    assert whole.arrays_in_files == ()


def test_a_union_calls_points_as_it_is_told() -> None:
    mine, aic = skeleton_of("mine_3", ("skull", "nose", "tail")), load_skeleton("aic_14")
    tables = [{"skull": "head", "tail": None}, None, None]
    union = union_of([mine, aic, load_skeleton("halpe_26")], tables)
    assert union.keypoint_names[:3] == ("head", "nose", "right_shoulder")
    assert places_in_target(mine, union, tables[0]) == (0, 1, None)
    assert places_in_target(aic, union)[12] == 0
    for table, message in (
        ({"skull": "haed"}, "no skeleton has a keypoint haed"),
        ({"skul": "head"}, "'mine_3': it has no keypoint skul; did you mean skull?"),
        ({"skull": "nose"}, "skull and nose are both nose"),
    ):
        with pytest.raises(InputError, match=message):
            union_of([mine, COCO, aic], [table, None, None])
    with pytest.raises(InputError, match=r"'mine_3' and 'coco_17\+mine_3' disagree"):
        union_of([COCO, skeleton_of("mine_3", ("nose", *sided("hand")))], [None, {"left_hand": None}])


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=4),
    shuffled=st.randoms(use_true_random=False),
    seed=st.integers(0, 99),
)
def test_mirroring_and_mapping_give_the_same_in_either_order(names: list[str], shuffled: Any, seed: int) -> None:
    skeletons = [load_skeleton(name) for name in names]
    union = union_of(skeletons)
    again = union_of([*skeletons, *skeletons, union])
    assert again == union
    everyone = list(range(union.num_keypoints))
    shuffled.shuffle(everyone)
    target = union.of_keypoints(everyone)
    for source in skeletons:
        places = places_in_target(source, target)
        assert None not in places
        assert len({*places}) == source.num_keypoints
        points = np.random.default_rng(seed).uniform(1, 9, (2, source.num_keypoints, 2))
        visible = np.ones((2, source.num_keypoints))
        ours, theirs = source.mirror_permutation, target.mirror_permutation
        mapped = people_of(points, visible).with_keypoints_at(places, target.num_keypoints)
        of_mirrored = people_of(points[:, ours], visible).with_keypoints_at(places, target.num_keypoints)
        np.testing.assert_array_equal(mapped.keypoints_in_image[:, theirs], of_mirrored.keypoints_in_image)
        np.testing.assert_array_equal(mapped.visibility[:, theirs], of_mirrored.visibility)
        own = target.of_keypoints([place for place in places if place is not None])
        assert own.is_in_order_of(source.keypoint_names)
        pairs = [
            {*map(frozenset, one.indices([*sum(one.left_right_pairs, ())]).reshape(-1, 2).tolist())}
            for one in (own, source)
        ]
        assert pairs[0] == pairs[1]


def test_a_part_of_a_skeleton_keeps_what_its_points_mean() -> None:
    mpii = load_skeleton("mpii_16")
    part = mpii.of_keypoints([9, 3, 2, 15])
    assert part.keypoint_names == ("head_top", "left_hip", "right_hip", "left_wrist")
    assert part.sigmas == (0.026, 0.107, 0.107, 0.062)
    assert part.left_right_pairs == (("right_hip", "left_hip"),)
    assert (part.upper_body, part.lower_body) == (("head_top", "left_wrist"), ("right_hip", "left_hip"))
    assert part.limbs == ()
    assert part.name == "4 of mpii_16"
    assert mpii.of_keypoints(range(16)) is mpii
    feet = load_skeleton("coco_wholebody_133").of_keypoints(range(17, 23))
    assert (feet.arrays_in_files, feet.names_in_files) == ((), ())
    body = load_skeleton("halpe_136").of_keypoints(range(26))
    assert body.keypoint_names == load_skeleton("halpe_26").keypoint_names
    assert {*map(frozenset, body.limbs)} == {*map(frozenset, load_skeleton("halpe_26").limbs)}
    assert load_skeleton("ap10k_17").of_keypoints([2]).figure == "animal"
