"""Skeletons from names."""

from __future__ import annotations

import pytest

from uniformer_pose.data.conversion.derived_skeleton import derive_skeleton, limbs_from_coco, order_by_name
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import load_skeleton


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_eye", "right_eye"),
        ("Left Eye", "Right Eye"),
        ("eyeLeft", "eyeRight"),
        ("l_eye", "r_eye"),
        ("eye-L", "eye-R"),
        ("L_F_Paw", "R_F_Paw"),
    ],
)
def test_names_that_differ_in_left_and_right_are_mirror_partners(left: str, right: str) -> None:
    skeleton, _ = derive_skeleton("s", [right, "tail", left], default_sigma=0.05)
    assert skeleton.left_right_pairs == ((left, right),)
    assert skeleton.mirror_permutation.tolist() == [2, 1, 0]


def test_a_word_that_only_begins_like_a_side_is_none() -> None:
    skeleton, notes = derive_skeleton("s", ["lips", "ribs", "leftover"], default_sigma=0.05)
    assert skeleton.left_right_pairs == ()
    assert any("no left-right pairs" in note for note in notes)


def test_a_side_without_partner_is_told_though_another_pair_was_found() -> None:
    skeleton, notes = derive_skeleton("s", ["left_ear", "rigth_ear", "L_Paw", "R_Paw"], default_sigma=0.05)
    assert skeleton.left_right_pairs == (("L_Paw", "R_Paw"),)
    (note,) = [note for note in notes if "left_ear" in note and "sigma" not in note]
    assert "is rigth_ear its partner?" in note
    assert "flip_probability=0" in note
    assert "flip_test=false" in note


def test_flip_indices_give_the_pairs_with_the_left_one_first() -> None:
    skeleton, _ = derive_skeleton("s", ["a", "b", "right_x", "left_x"], default_sigma=0.05, flip_indices=[1, 0, 3, 2])
    assert skeleton.left_right_pairs == (("a", "b"), ("left_x", "right_x"))


@pytest.mark.parametrize("flips", [[1, 2, 0], [0, 0, 2], [0, 1], [0, 1, 3]])
def test_flip_indices_must_go_both_ways(flips: list[int]) -> None:
    with pytest.raises(InputError, match="flip_idx"):
        derive_skeleton("s", ["a", "b", "c"], default_sigma=0.05, flip_indices=flips)


def test_keypoints_that_coco_has_get_its_sigma_and_the_others_are_told() -> None:
    skeleton, notes = derive_skeleton("s", ["nose", "tail"], default_sigma=0.07)
    assert skeleton.sigmas == (0.026, 0.07)
    assert notes[0].startswith("sigma 0.07 is assumed for 1 of 2 keypoints (tail)")


def test_the_names_of_coco_are_its_skeleton_in_the_sources_spelling() -> None:
    coco = load_skeleton("coco_17")
    spelt = [name.replace("_", " ").title() for name in coco.keypoint_names]
    skeleton, notes = derive_skeleton("mine", spelt, default_sigma=0.05)
    assert notes == []
    assert skeleton.name == "mine"
    assert skeleton.keypoint_names == tuple(spelt)
    assert skeleton.sigmas == coco.sigmas
    assert skeleton.limb_indices.tolist() == coco.limb_indices.tolist()
    assert skeleton.mirror_permutation.tolist() == coco.mirror_permutation.tolist()
    assert len(skeleton.upper_body) == 11


@pytest.mark.parametrize("names", [["a", "a"], ["a", ""], ["a", " a "], ["left_ear", "Left Ear"]])
def test_keypoints_need_names_of_their_own(names: list[str]) -> None:
    with pytest.raises(InputError, match="needs a name of its own"):
        derive_skeleton("s", names, default_sigma=0.05)


def test_limbs_count_from_1_as_in_coco() -> None:
    assert limbs_from_coco([[1, 2], [3, 2]], 3, "f") == ([(0, 1), (2, 1)], [])


def test_limbs_that_count_from_0_are_understood_and_told() -> None:
    limbs, notes = limbs_from_coco([[0, 1], [2, 1]], 3, "f")
    assert limbs == [(0, 1), (2, 1)]
    assert notes == ["f: 'skeleton' counts keypoints from 0, unlike COCO; read so"]


@pytest.mark.parametrize("limbs", [[[1, 2], [1, 4]], [[1]], "x", [[1, "b"]], [[-1, 1]], [[0, 3]], [3], [[1, [2]]]])
def test_limbs_of_another_figure_are_left_out_and_told(limbs: object) -> None:
    found, (note,) = limbs_from_coco(limbs, 3, "f")
    assert found == []
    assert "no limbs are drawn" in note


def test_limbs_may_be_written_as_text() -> None:
    assert limbs_from_coco([["1", 2.0], ["3", "2"]], 3, "f") == ([(0, 1), (2, 1)], [])


def test_keypoints_in_another_order_are_found_by_name() -> None:
    coco = load_skeleton("coco_17")
    assert order_by_name(coco, [name.upper() for name in coco.keypoint_names], "f")[1] == []
    names = [name.replace("_", " ").title() for name in reversed(coco.keypoint_names)]
    order, notes = order_by_name(coco, names, "f")
    assert order.tolist() == list(range(16, -1, -1))
    assert "order of skeleton coco_17" in notes[0]


def test_a_given_skeleton_must_have_the_sources_keypoints() -> None:
    coco = load_skeleton("coco_17")
    names = ["snout" if name == "nose" else name for name in coco.keypoint_names]
    with pytest.raises(InputError, match="without nose and with snout of its own"):
        order_by_name(coco, names, "f")
    with pytest.raises(InputError, match="its 2 keypoints are not the 17"):
        order_by_name(coco, ["nose", "tail"], "f")


def test_the_names_of_coco_in_another_order_keep_theirs_with_the_rest_of_its_skeleton() -> None:
    coco = load_skeleton("coco_17")
    skeleton, notes = derive_skeleton("mine", coco.keypoint_names[::-1], default_sigma=0.05)
    assert notes == []
    assert skeleton.keypoint_names == coco.keypoint_names[::-1]
    assert skeleton.sigmas == coco.sigmas[::-1]
    assert skeleton.colours == coco.colours[::-1]
    assert sorted(skeleton.left_right_pairs) == sorted(coco.left_right_pairs)
    assert skeleton.lower_body == coco.lower_body
