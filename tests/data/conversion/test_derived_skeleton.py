"""Skeletons from names."""

from __future__ import annotations

from typing import Any

import pytest

from uniformer_pose.data.conversion.derived_skeleton import derive_skeleton, limbs_from_coco, order_by_name
from uniformer_pose.data.conversion.source import Log
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton, load_skeleton

COCO = load_skeleton("coco_17")


def derive(names: Any, **given: Any) -> tuple[Skeleton, list[str]]:
    log = Log()
    return derive_skeleton("mine", names, log, **given), log.notes


def test_pairs_come_from_names_or_flip_indices_with_the_left_one_first() -> None:
    skeleton, _ = derive(["R_Paw", "tail", "L_Paw"])
    assert skeleton.left_right_pairs == (("L_Paw", "R_Paw"),)
    skeleton, _ = derive(["a", "b", "right_x", "left_x"], flip_indices=[1, 0, 3, 2])
    assert skeleton.left_right_pairs == (("a", "b"), ("left_x", "right_x"))
    skeleton, notes = derive(["lips", "ribs", "leftover"], limbs=[(0, 2)])
    assert skeleton.left_right_pairs == ()
    assert skeleton.limbs == (("lips", "leftover"),)
    assert any("no left-right pairs" in note for note in notes)


@pytest.mark.parametrize("flips", [[1, 2, 0], [0, 1], [0, 1, 3]])
def test_flip_indices_must_go_both_ways(flips: list[int]) -> None:
    with pytest.raises(InputError, match="flip_idx"):
        derive(["a", "b", "c"], flip_indices=flips)


def test_keypoints_that_coco_has_get_its_sigma_and_the_others_are_told() -> None:
    skeleton, notes = derive(["nose", "tail"])
    assert skeleton.sigmas == (0.026, 0.05)
    assert notes[0].startswith("sigma 0.05 is assumed for 1 of 2 keypoints (tail)")


@pytest.mark.parametrize("step", [1, -1])
def test_the_names_of_coco_are_its_skeleton_in_the_spelling_and_order_of_the_source(step: int) -> None:
    spelt = tuple(name.replace("_", " ").title() for name in COCO.keypoint_names)[::step]
    skeleton, notes = derive(spelt)
    assert notes == []
    assert skeleton.keypoint_names == spelt
    assert skeleton.sigmas == COCO.sigmas[::step]
    assert skeleton.colours == COCO.colours[::step]
    order = [16 - i if step < 0 else i for i in range(17)]
    assert [order[i] for i in skeleton.mirror_permutation[order]] == COCO.mirror_permutation.tolist()
    assert [[order[i] for i in limb] for limb in skeleton.limb_indices] == COCO.limb_indices.tolist()
    assert (len(skeleton.upper_body), len(skeleton.lower_body)) == (11, 6)


@pytest.mark.parametrize("names", [["a", ""], ["left_ear", "Left Ear"]])
def test_keypoints_need_names_of_their_own(names: list[str]) -> None:
    with pytest.raises(InputError, match="needs a name of its own"):
        derive(names)


@pytest.mark.parametrize(
    ("limbs", "pairs", "told"),
    [
        ([[1, 2], [3, 2]], [(0, 1), (2, 1)], None),
        ([["1", 2.0], ["3", "2"]], [(0, 1), (2, 1)], None),
        (None, [], None),
        *((junk, [], "no limbs are drawn") for junk in ([[1, 2], [1, 4]], "x", [[0, 1]])),
    ],
)
def test_limbs_count_from_1_as_in_coco_and_others_are_told(limbs: object, pairs: Any, told: str | None) -> None:
    log = Log()
    assert limbs_from_coco(limbs, 3, "f", log) == pairs
    assert [told in note for note in log.notes if told is not None] == ([] if told is None else [True])


def test_keypoints_are_matched_by_name() -> None:
    log = Log()
    assert order_by_name(COCO.keypoint_names, [n.upper() for n in COCO.keypoint_names], "f", log).tolist()[:2] == [0, 1]
    assert log.notes == []
    assert order_by_name(["!", "?"], ["?", "!"], "f", Log()).tolist() == [1, 0]  # no letters to go by
    names = [name.replace("_", " ").title() for name in reversed(COCO.keypoint_names)]
    assert order_by_name(COCO.keypoint_names, names, "f", log).tolist() == list(range(16, -1, -1))
    assert "order" in log.notes[0]
    for others, words in (
        (["snout", *names[:-1]], "without nose and with snout"),
        (["a"], "its 1 keypoints are not the 17"),
    ):
        with pytest.raises(InputError, match=words):
            order_by_name(COCO.keypoint_names, others, "f", log)
