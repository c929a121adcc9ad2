import json
from functools import reduce
from operator import getitem

import numpy as np
import pytest
import yaml
from pycocotools.cocoeval import Params

from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton, load_skeleton, mirror_pairs


@pytest.fixture
def fields():
    """A figure of five points, as its YAML file holds it."""
    return {
        "name": "stick_5",
        "keypoints": {
            name: {"sigma": 0.05, "colour": [10, 20, 30]}
            for name in ("head", "left_hand", "right_hand", "left_foot", "right_foot")
        },
        "left_right_pairs": [["left_hand", "right_hand"], ["left_foot", "right_foot"]],
        "upper_body": ["head", "left_hand", "right_hand"],
        "lower_body": ["left_foot", "right_foot"],
        "limbs": [["head", "left_hand"], ["head", "right_foot"]],
    }


def test_coco_has_its_keypoints_in_the_order_of_its_files_with_the_sigmas_of_pycocotools():
    skeleton = load_skeleton("coco_17")
    np.testing.assert_allclose(skeleton.oks_sigmas, Params("keypoints").kpt_oks_sigmas, rtol=1e-12)
    assert skeleton.mirror_permutation.tolist() == [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
    assert sorted(skeleton.upper_body + skeleton.lower_body) == sorted(skeleton.keypoint_names)
    assert skeleton.indices(skeleton.lower_body).tolist() == [11, 12, 13, 14, 15, 16]


SHIPPED = {
    "crowdpose_14": "crowdpose",
    "mpii_16": "mpii",
    "aic_14": "aic",
    "halpe_26": "halpe26",
    "halpe_136": "halpe",
    "coco_wholebody_133": "coco_wholebody",
    "ap10k_17": "ap10k",
    "humanart_21": "humanart21",
    "exlpose_14": "exlpose",
}


@pytest.mark.parametrize(("name", "published"), SHIPPED.items())
def test_the_skeletons_of_published_sets_are_theirs_point_by_point(name, published, reference_folder):
    expected = json.loads((reference_folder / "skeletons.json").read_text())[published]
    skeleton = load_skeleton(name)
    assert skeleton.name == name
    assert list(skeleton.keypoint_names) == expected["keypoints"]
    assert list(skeleton.sigmas) == expected["sigmas"]
    assert skeleton.limb_indices.tolist() == expected["limbs"]
    pairs = [skeleton.indices(pair).tolist() for pair in skeleton.left_right_pairs]
    assert pairs == expected["left_right_pairs"]
    upper, lower = (skeleton.indices(half).tolist() for half in (skeleton.upper_body, skeleton.lower_body))
    if name == "ap10k_17":  # there the right front paw is in the lower half, and the left one is not
        assert {*lower, 10} == {*expected["lower_body"]}
    else:
        assert [upper, lower] == [expected["upper_body"], expected["lower_body"]]
    mirrored = skeleton.mirror_permutation
    assert all({*mirrored[half].tolist()} == {*half} for half in (upper, lower))
    assert skeleton.sides_without_partner() is None


@pytest.mark.parametrize("name", ["coco_17", *SHIPPED])
def test_colours_tell_left_from_right(name):
    skeleton = load_skeleton(name)
    colours = dict(zip(skeleton.keypoint_names, skeleton.colours, strict=True))
    for left, right in skeleton.left_right_pairs:
        assert np.abs(np.subtract(colours[left], colours[right])).max() >= 100, (left, right)


def test_a_keypoint_may_be_in_neither_half_of_the_body():
    skeleton = load_skeleton("coco_wholebody_133")
    assert {*skeleton.keypoint_names[:23]} == {*skeleton.upper_body, *skeleton.lower_body}


def test_any_other_figure_is_read_from_its_file(fields, tmp_path):
    (tmp_path / "stick.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    skeleton = load_skeleton(tmp_path / "stick.yaml")
    assert Skeleton.from_dict(yaml.safe_load(yaml.safe_dump(skeleton.to_dict(), sort_keys=False))) == skeleton
    assert skeleton.num_keypoints == 5
    assert skeleton.mirror_permutation.tolist() == [0, 2, 1, 4, 3]
    assert skeleton.limb_indices.tolist() == [[0, 1], [0, 4]]
    empty = Skeleton.from_dict(fields | {"left_right_pairs": [], "upper_body": [], "lower_body": [], "limbs": []})
    assert empty.limb_indices.shape == (0, 2)
    assert empty.mirror_permutation.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("keypoints",), {}, "has no keypoints; list at least one"),
        (("limbs", 0), ["head", "tail"], "names tail, which is none of its keypoints (head, left_hand,"),
        (("left_right_pairs", 0), ["head", "head"], "head stands more than once in left_right_pairs"),
        (("lower_body",), ["left_foot", "head"], "hold a keypoint once or not at all; check head"),
        (("keypoints", "head", "sigma"), float("nan"), "every sigma must be a positive number"),
        (("keypoints", "head", "colour"), [1, 2], "Expected `array` of length 3"),
        (("keypoints", "head", "sigma"), "wide", "Expected `float`, got `str`"),
        (("limbs",), None, "Expected `array`, got `null`"),
        (("colour",), "red", "unknown field `colour`"),
    ],
)
def test_a_skeleton_that_contradicts_itself_is_refused_in_one_line(fields, path, value, expected):
    *owner, last = path
    reduce(getitem, owner, fields)[last] = value
    with pytest.raises(InputError) as raised:
        Skeleton.from_dict(fields, source="stick.yaml")
    assert expected in str(raised.value)
    assert "stick" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("text", "expected"), [("a: [", "cannot be read as YAML"), ("words", "Expected `object`")])
def test_a_file_that_is_no_skeleton_is_refused_by_name(tmp_path, text, expected):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=f"mine.yaml: .*{expected}") as raised:
        load_skeleton(tmp_path / "mine.yaml")
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=r"no skeleton 'coco_18'; give one of aic_14, ap10k_17, .*, or the path"):
        load_skeleton("coco_18")


def test_a_yaml_file_runs_no_code(tmp_path):
    marker = tmp_path / "marker"
    (tmp_path / "evil.yaml").write_text(f"name: !!python/object/apply:os.system ['touch {marker}']")
    with pytest.raises(InputError, match=r"evil\.yaml: cannot be read as YAML"):
        load_skeleton(tmp_path / "evil.yaml")
    assert not marker.exists()


@pytest.mark.parametrize(
    "names",
    [
        "left_eye right_eye",
        "leftear rightear left_paw right_paw",
        "L_Ear R_Ear",
        "earLeft earRight",
        "LFrontPaw RFrontPaw LRearPaw RRearPaw",
        "L_F_Paw R_F_Paw L_R_Paw R_R_Paw",  # R: right and rear
        "paw_fl paw_fr paw_rl paw_rr",
        "lear rear leye reye",
        "Lt_ear Rt_ear",
        "L1 R1 L2 R2",
        "left_eye_left_corner right_eye_right_corner left_eye_right_corner right_eye_left_corner",
        "left_Öhr right_Öhr left_Ähr right_Ähr",
    ],
)
def test_names_that_differ_in_their_side_are_mirror_partners(names):
    names = names.split()
    pairs, lone = mirror_pairs([*reversed(names), "snout", "lower_lip", "root"])
    assert sorted(pairs) == sorted(zip(names[::2], names[1::2], strict=True))
    assert lone == []


@pytest.mark.parametrize(
    "names",
    [
        "lip lower_lip rump leg bright copyright cleft root",
        "L1 L2 L3 L4 L5 S1",
        "a b c d e f g h i j k l m n o p q r s t",
        " ".join(f"pt_{letter}" for letter in "abcdefghijklmnopqrst"),
        " ".join(f"mark{letter}" for letter in "klmnopqrs"),
    ],
)
def test_words_and_series_have_no_sides(names):
    assert mirror_pairs(names.split()) == ([], [])


@pytest.mark.parametrize(
    ("names", "lone"),
    [
        ("left_ear rigth_ear", "left_ear"),
        ("leftear righthear left_paw right_paw", "leftear righthear"),
        ("earleft nose", "earleft"),
        ("left_eye_l left_eye_r right_eye_l right_eye_r", "left_eye_l left_eye_r right_eye_l right_eye_r"),
    ],
)
def test_a_sided_name_without_exactly_one_partner_is_told(names, lone):
    assert mirror_pairs(names.split())[1] == lone.split()


def test_the_pairs_of_well_known_skeletons_follow_from_their_names(reference_folder):
    for skeleton in json.loads((reference_folder / "skeletons.json").read_text()).values():
        names = skeleton["keypoints"]
        pairs, lone = mirror_pairs(names)
        assert lone == []
        expected = [{names[one], names[other]} for one, other in skeleton["left_right_pairs"]]
        expected = [pair for pair in expected if not min(pair).startswith("face-")]  # numbered, without sides
        assert sorted(map(sorted, pairs)) == sorted(map(sorted, expected))


def test_a_skeleton_names_its_sided_keypoints_without_partner_and_the_way_out(fields):
    assert load_skeleton("coco_17").sides_without_partner() is None
    assert Skeleton.from_dict(fields).sides_without_partner() is None
    fields["keypoints"] |= {name: {"sigma": 0.05, "colour": [1, 2, 3]} for name in ("leftEar", "rigthEar")}
    fields |= {"upper_body": [], "lower_body": [], "left_right_pairs": [["left_foot", "right_foot"]]}
    sentence = Skeleton.from_dict(fields).sides_without_partner()
    assert "left_hand, right_hand, leftEar" in sentence
    assert "foot" not in sentence
    assert "augmentation.geometric.flip_probability=0 evaluation.flip_test=false" in sentence


def test_a_skeleton_names_pairs_that_their_names_contradict(fields):
    fields["left_right_pairs"] = [["left_hand", "left_foot"], ["right_hand", "right_foot"]]
    sentence = Skeleton.from_dict(fields).sides_without_partner()
    assert "left_hand (paired with left_foot instead of right_hand)" in sentence
    assert "head" not in sentence


def test_what_annotation_files_call_keypoints_is_kept_with_the_skeleton(fields):
    names = {"names_in_files": ["skull", "hand_l", "hand_r", "foot_l", "foot_r"]}
    arrays = {"arrays_in_files": {"keypoints": 3, "foot_kpts": 6}}
    skeleton = Skeleton.from_dict(fields | names | arrays)
    assert Skeleton.from_dict(skeleton.to_dict()) == skeleton
    assert skeleton.names_in_files[0] == "skull"
    assert skeleton.arrays_in_files == (("keypoints", 3), ("foot_kpts", 6))
    assert not {"names_in_files", "arrays_in_files"} & Skeleton.from_dict(fields).to_dict().keys()
    with pytest.raises(InputError, match="has 5 keypoints and 4 in arrays_in_files"):
        Skeleton.from_dict(fields | {"arrays_in_files": {"keypoints": 4}})
    with pytest.raises(InputError, match="Invalid enum value 'toes'"):
        Skeleton.from_dict(fields | {"arrays_in_files": {"toes": 5}})
