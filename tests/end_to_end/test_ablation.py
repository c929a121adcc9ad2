"""``-m experiment=ablation``: each run lacks one part of the recipe, and the end is a table of what that costs."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from programs import composed
from uniformer_pose.entry_point import config_groups
from uniformer_pose.training.parameter_groups import ParameterGroups

PLAIN = "uniformer_s_coco_256x192"
PARTS = sorted(config_groups()["without"] - {"nothing"})
# What the plain recipe leaves to a default.
UNSAID = {f"optimizer.{name}": value for name, value in asdict(ParameterGroups()).items()}


def settings(*arguments: str) -> dict[str, Any]:
    """What a command line composes, by dotted keys, but for the run's name and the weights it starts from."""

    def flat(key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or not value:
            return {key: value}
        return {k: v for name, child in value.items() for k, v in flat(f"{key}.{name}" if key else name, child).items()}

    composition: Any = OmegaConf.to_container(composed("train", *arguments))
    del composition["name"], composition["model"]["pretrained"]
    return UNSAID | flat("", composition)


def what_changes(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The values of ``other``, None where it has none, at the keys where ``one`` has another."""
    return {key: other.get(key) for key in {*one, *other} if one.get(key) != other.get(key)}


def test_leaving_out_every_part_one_by_one_leads_back_to_the_plain_recipe() -> None:
    whole, plain = settings("experiment=ablation"), settings(f"experiment={PLAIN}", "trainer=auto")
    assert whole == settings(f"experiment={PLAIN}_plus", "trainer=auto")
    left_out = {part: what_changes(whole, settings("experiment=ablation", f"without={part}")) for part in PARTS}
    for part, changes in left_out.items():
        assert changes, part
        assert {key: plain.get(key) for key in changes} == changes, part
    together = {key: value for changes in left_out.values() for key, value in changes.items()}
    assert together == what_changes(whole, plain)
    assert len(together) == sum(map(len, left_out.values()))  # no two parts are the same


def test_the_sweep_is_over_all_parts_and_begins_with_the_whole_recipe() -> None:
    text = (Path(__file__).parents[2] / "conf" / "experiment" / "ablation.yaml").read_text(encoding="utf-8")
    first, *others = OmegaConf.create(text).hydra.sweeper.params.without.split(",")
    assert (first, sorted(others)) == ("nothing", PARTS)


@pytest.mark.slow
def test_an_ablation_ends_in_a_table_of_paired_differences(
    tiny_run: list[str], synthetic_root: Path, run_script, tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    own = [*tiny_run, "model.pretrained=null", "augmentation.stages=null"]  # one epoch has no last thirty
    own += [f"data.root={synthetic_root}", f"hydra.sweep.dir={sweep}"]
    arguments = ["-m", "experiment=ablation", "without=nothing,ema", "seed=0,1", *own]
    finished = run_script("train.py", arguments, tmp_path)
    assert finished.returncode == 0, finished.stderr
    with (sweep / "settings.csv").open(newline="") as file:
        whole, without = csv.DictReader(file)
    assert (whole["setting"], without["setting"]) == ("without=nothing", "without=ema")
    assert (whole["n"], without["n"], without["pairs"]) == ("2", "2", "2")
    assert "95 % interval" in finished.stdout
    with_ema = ["ema" in OmegaConf.load(sweep / run / "config.yaml").callbacks for run in "0123"]
    assert with_ema == [True, True, False, False]
