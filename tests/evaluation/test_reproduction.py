"""Published and measured numbers side by side, and those that differ marked."""

from __future__ import annotations

from uniformer_pose.evaluation.reproduction import Reproduction, as_json, as_markdown

AGREES = Reproduction("uniformer_s_coco_256x192", {"AP": 74.0, "AR": 79.5}, {"AP": 74.1, "AR": 79.46})
DIFFERS = Reproduction("uniformer_b_coco_384x288", {"AP": 76.7, "AR": 81.9}, {"AP": 76.71, "AR": 81.52})


def test_a_difference_is_measured_minus_published_and_a_tenth_is_still_within_a_tenth() -> None:
    assert round(DIFFERS.differences["AR"], 6) == -0.38
    assert AGREES.beyond(0.1) == []
    assert AGREES.beyond(0.09) == ["AP"]


def test_the_markdown_has_one_row_a_model_and_what_differs_in_bold() -> None:
    lines = as_markdown([AGREES, DIFFERS], tolerance=0.1, conditions="On two images.").splitlines()
    assert lines[0] == "On two images."
    assert "| model | AP | AR |" in lines
    assert "| uniformer_s_coco_256x192 | 74.0 / 74.10 (+0.10) | 79.5 / 79.46 (-0.04) |" in lines
    assert "| uniformer_b_coco_384x288 | 76.7 / 76.71 (+0.01) | **81.9 / 81.52 (-0.38)** |" in lines
    assert lines[-1] == "3 of 4 numbers agree within 0.1"


def test_the_json_names_the_numbers_that_differ() -> None:
    model = as_json([DIFFERS], tolerance=0.1, conditions="")["models"]["uniformer_b_coco_384x288"]
    assert (model["beyond_tolerance"], model["measured"]) == (["AR"], {"AP": 76.71, "AR": 81.52})
