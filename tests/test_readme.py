"""What the README says exists, exists; what it tells people to type is accepted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from train import checked_train_config
from uniformer_pose.entry_point import accept_any_argument, config_groups, refuse_unknown_choices
from uniformer_pose.weights.published_models import published_models

PROJECT = Path(__file__).resolve().parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")  # long commands on one line
CONF = PROJECT / "conf"
GROUPS = config_groups(CONF)


def commands(script: str) -> list[str]:
    """Every ``python src/<script>`` of the README, in code blocks and in the text, without what stands for a file."""
    found = re.findall(rf"python src/{script}\.py([^`\n#]*)", README)
    return sorted({re.sub(r"<[^>]*>", "", arguments).strip() for arguments in found})


def settings(text: str) -> list[str]:
    """``key=value`` in backticks, such as `trainer.max_epochs=20`."""
    return sorted(set(re.findall(r"`((?:model|data|trainer|precision|callbacks|debug)[\w.]*=[^`<\s]+)`", text)))


def accepted_by_train(arguments: list[str]) -> None:
    arguments = [a for a in arguments if a != "-m"]
    arguments = [a.partition(",")[0] if "[" not in a else a for a in arguments]  # of a sweep, the first run
    refuse_unknown_choices(arguments, GROUPS)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        checked_train_config(compose("train", [*accept_any_argument(arguments, GROUPS), "++run_dir=runs/here"]))


@pytest.mark.parametrize(
    "arguments", [c for c in commands("train") if not {"hparams_search", "--config-dir"} & set(re.split("[ =]", c))]
)
def test_every_training_command_of_the_readme_is_accepted(arguments: str) -> None:
    accepted_by_train(shlex.split(arguments))


@pytest.mark.parametrize("setting", settings(README))
def test_every_setting_of_the_readme_is_accepted(setting: str) -> None:
    accepted_by_train([setting])


@pytest.mark.parametrize(
    "script",
    [
        "eval",
        "export",
        "reproduce",
        "predict",
        "prepare",
        "replay",
        "check_data",
        "demo",
        "convert_data",
        "make_synthetic",
    ],
)
def test_every_other_command_of_the_readme_sets_keys_that_exist(script: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        known = {*compose(script), *GROUPS}
    for arguments in commands(script):
        for argument in shlex.split(arguments):
            name = argument.partition("=")[0]
            if argument.startswith("--config") or "=" not in argument:  # a folder or file of configs
                continue
            assert name.split(".")[0] in known, argument


def test_every_choice_in_the_table_of_groups_exists_and_none_is_missing() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", README, flags=re.MULTILINE))
    for group in ("model", "data", "augmentation", "optimizer", "trainer", "callbacks", "logger", "debug"):
        named = set(re.findall(r"`(\w+)`", table[group]))
        assert named == GROUPS[group] - {"from_checkpoint"}, group


def test_the_file_map_names_every_file_of_the_package_and_no_other() -> None:
    block = README.split("## File map")[1].split("```text\n")[1].split("```")[0]
    named = set(re.findall(r"([\w/]+\.(?:py|yaml))\s", block))
    folders = (PROJECT / "src", PROJECT / "notebooks")
    files = {path.name for folder in folders for path in folder.rglob("*.py") if path.name != "__init__.py"}
    listed = {Path(name).name for name in named if name.endswith(".py")}
    assert listed == files


def test_the_results_table_is_that_of_the_published_models() -> None:
    rows = re.findall(r"^\| UniFormer-([SB]) \| (\d+x\d+) \| (.*) \|$", README, flags=re.MULTILINE)
    written = {
        f"uniformer_{size.lower()}_coco_{resolution}": [float(cell) for cell in cells.split(" | ")]
        for size, resolution, cells in rows
    }
    published = published_models().pose_models
    assert written == {name: list(model.results.values()) for name, model in published.items()}


def test_there_is_a_recipe_for_every_published_model() -> None:
    for name in published_models().pose_models:
        recipe = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8"))
        assert recipe["name"] == name


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`?make (\w+)", README)) & {"demo", "test", "help", "lock"}:
        assert f"\n{target}:" in makefile
