"""Skeletons from names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from uniformer_pose.data.conversion.derived_skeleton import order_by_name, skeleton_and_order
from uniformer_pose.data.conversion.source import Log, Source
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton, load_skeleton

COCO = load_skeleton("coco_17")


def derive(names: Any, **given: Any) -> tuple[Skeleton, list[str]]:
    log = Log()
    return skeleton_and_order(Source(names, "x", {}, **given), "mine", None, log)[0], log.notes


def test_pairs_come_from_names_or_flip_indices_with_the_left_one_first() -> None:
    skeleton, _ = derive(["R_Paw", "tail", "L_Paw"])
    assert skeleton.left_right_pairs == (("L_Paw", "R_Paw"),)
    skeleton, _ = derive(["a", "b", "right_x", "left_x"], flip_indices=[1, 0, 3, 2])
    assert skeleton.left_right_pairs == (("a", "b"), ("left_x", "right_x"))
    skeleton, notes = derive(["lips", "ribs", "leftover"], limbs=[(0, 2)])
    assert (skeleton.left_right_pairs, skeleton.limbs) == ((), (("lips", "leftover"),))
    assert any("no left-right pairs" in note for note in notes)


def test_keypoints_that_coco_has_get_its_sigma_and_the_others_are_told() -> None:
    skeleton, notes = derive(["Nose", "tail"])
    assert skeleton.sigmas == (0.026, 0.05)
    assert notes[0].startswith("sigma 0.05 is assumed for 1 of 2 keypoints (tail)")


def test_the_names_of_coco_in_any_spelling_and_order_are_its_skeleton() -> None:
    names = [name.replace("_", " ").title() for name in reversed(COCO.keypoint_names)]
    skeleton, order = skeleton_and_order(Source(names, "x", {}), "mine", None, Log())
    assert skeleton.to_dict() == {**COCO.to_dict(), "name": "mine"}
    assert order.tolist() == list(range(16, -1, -1))


@pytest.mark.parametrize(
    ("names", "flips", "words"),
    [
        (["a", ""], None, "needs a name of its own"),
        (["left_ear", "Left Ear"], None, "needs a name of its own"),
        *((["a", "b", "c"], flips, "flip_idx") for flips in ([1, 2, 0], [0, 1], [0, 1, 3])),
    ],
)
def test_names_and_flip_indices_that_contradict_themselves_are_refused(names: Any, flips: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        derive(names, flip_indices=flips)


def test_keypoints_are_matched_by_name() -> None:
    log = Log()
    in_order = order_by_name(COCO.keypoint_names, [n.upper() for n in COCO.keypoint_names], "f", log)
    np.testing.assert_array_equal(in_order, np.arange(17))
    assert log.notes == []
    assert order_by_name(["!", "?"], ["?", "!"], "f", log).tolist() == [1, 0]  # no letters to go by
    assert "order" in log.notes[0]
    with pytest.raises(InputError, match=r"its 1 keypoints are not the 17 .* without nose, .* and with snout"):
        order_by_name(COCO.keypoint_names, ["snout"], "f", log)
