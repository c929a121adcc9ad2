"""Published and measured numbers side by side, and those that differ marked."""

from __future__ import annotations

from uniformer_pose.evaluation.reproduction import reproduction_table

MODELS = {
    "uniformer_s": {"published": {"AP": 74.0, "AR": 79.5}, "measured": {"AP": 74.1, "AR": 79.46}},  # a tenth is allowed
    "uniformer_b": {"published": {"AP": 76.7, "AR": 81.9}, "measured": {"AP": 76.71, "AR": 81.52}},
}


def test_the_table_has_one_row_a_model_and_what_differs_in_bold() -> None:
    lines = reproduction_table(MODELS, tolerance=0.1, conditions="On two images.").splitlines()
    assert lines[0] == "On two images."
    assert "| model | AP | AR |" in lines
    assert "| uniformer_s | 74.0 / 74.10 (+0.10) | 79.5 / 79.46 (-0.04) |" in lines
    assert "| uniformer_b | 76.7 / 76.71 (+0.01) | **81.9 / 81.52 (-0.38)** |" in lines
    assert lines[-1] == "3 of 4 numbers agree within 0.1"
    assert "**74.0 / 74.10 (+0.10)**" in reproduction_table(MODELS, tolerance=0.09, conditions="")
