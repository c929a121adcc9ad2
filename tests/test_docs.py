"""What README and docs/ tell people to type is accepted; what they say exists, exists."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from programs import composed, require_one_line, run_here
from uniformer_pose.config_parts import TrainConfig
from uniformer_pose.entry_point import checked_config, config_groups
from uniformer_pose.weights.zoo import read_zoo

PROJECT = Path(__file__).resolve().parents[1]
PAGES = {
    str(path.relative_to(PROJECT)): path.read_text(encoding="utf-8").replace("\\\n", " ")  # long commands on one line
    for path in (PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md")))
}
CONF = PROJECT / "conf"
GROUPS = config_groups(CONF)
COMMANDS = sorted(
    {
        (script, re.sub(r"<[^>]*>", "x", arguments).strip())
        for text in PAGES.values()
        for script, arguments in re.findall(r"(?:python |^ *)src/(\w+)\.py([^`\n#;]*)", text, flags=re.MULTILINE)
    }
)
SETTINGS = sorted(
    {
        setting
        for text in PAGES.values()
        for setting in re.findall(
            r"`((?:model|data|trainer|training|evaluation|optimizer|scheduler|precision|callbacks|debug|resume)[\w.]*=[^`<\s]+)`",
            text,
        )
    }
)
MADE_BY_THE_READER = {"horses"}


def written_examples(folder: Path) -> None:
    """The pages' YAML examples, each below the path that the text before it names."""
    for text in PAGES.values():
        for path, content in re.findall(r"`(my_conf/[\w/]+\.yaml)`:\n\n```yaml\n(.*?)```", text, flags=re.DOTALL):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content, encoding="utf-8")


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped configs, with the pages' examples among them as ``--config-dir`` would put them."""
    folder = tmp_path_factory.mktemp("conf")
    written_examples(folder)
    for path in CONF.rglob("*.yaml"):
        target = folder / "my_conf" / path.relative_to(CONF)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder / "my_conf"


def first_of_a_sweep(arguments: list[str]) -> list[str]:
    swept = "-m" in arguments
    return [a.partition(",")[0] if swept and "[" not in a else a for a in arguments if a != "-m"]


@pytest.mark.parametrize(("script", "line"), COMMANDS)
def test_every_command_is_accepted(script: str, line: str, conf: Path) -> None:
    words = first_of_a_sweep(shlex.split(line))
    if MADE_BY_THE_READER & {word.partition("=")[2] for word in words} or {"--help", "hparams_search"} & {
        word.partition("=")[0] for word in words
    }:
        pytest.skip("made by the command before it" if "--config-dir" in words else "a program of its own")
    name = words[words.index("--config-name") + 1] if "--config-name" in words else script
    arguments = [word for word in words if "=" in word and not word.startswith("hydra")]
    if script == "train":
        config = composed("train", *arguments, conf=conf)
        if config["model"]["_target_"] != "my_net.MyNet":  # which exists in docs/your_model.md and its test only
            checked_config(config, TrainConfig)
        return
    data = [argument for argument in arguments if argument.startswith("data=")]  # which some programs require
    known = {*composed(name, *data, conf=conf), *config_groups(conf)}
    for argument in arguments:
        assert argument.partition("=")[0].split(".")[0] in known, argument


def test_a_set_that_is_not_listed_is_read_as_its_two_files_say(tmp_path: Path) -> None:
    written_examples(tmp_path)
    root = tmp_path / "data" / "hands"
    keypoints = [20, 20, 2, 30, 25, 1, 40, 60, 2]
    hand = {"id": 0, "image_id": 1, "category_id": 3, "bbox": [10, 10, 60, 70], "keypoints": keypoints}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 100, "width": 90}],
        "categories": [{"id": 3, "name": "hand", "keypoints": ["Wrist", "Thumb tip", "Palm"]}],
        "annotations": [hand],
    }
    for name in ("train", "val"):
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        (root / "annotations" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    absent = run_here("check_data.py", ["--config-dir", "my_conf", "data=hands"], tmp_path)
    require_one_line(absent, "data/hands/images does not exist; ask the hand group for it")
    (root / "images").mkdir()
    found = run_here("check_data.py", ["--config-dir", "my_conf", "data=hands", "read_images=false"], tmp_path)
    assert found.returncode == 0, found.stderr
    assert "val.json, category hand: kept 1 of 1 annotations in 1 images" in found.stdout
    assert "0 errors, 0 remarks" in found.stdout


def test_every_data_set_has_its_row_in_the_table_of_sets() -> None:
    rows = re.findall(r"^\| .*`data=(\w+)` \|.*\[\d+\] \|$", PAGES["docs/data_sets.md"], flags=re.MULTILINE)
    assert set(rows) == {name for name in GROUPS["data"] if not re.match(r"coco_\d|synthetic_|joint|from_", name)}


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_is_accepted(setting: str) -> None:
    checked_config(composed("train", setting), TrainConfig)


def test_every_choice_in_the_table_of_groups_exists_and_none_is_missing() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGES["docs/configure.md"], flags=re.MULTILINE))
    for group in (
        "model",
        "data",
        "codec",
        "head",
        "loss",
        "augmentation",
        "optimizer",
        "scheduler",
        "trainer",
        "callbacks",
        "logger",
        "debug",
    ):
        named = set(re.findall(r"`(\w+)`", table[group]))
        assert named == GROUPS[group] - {"from_checkpoint"}, group


@pytest.mark.parametrize("page", PAGES)
def test_every_link_within_the_project_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGES[page]):
        assert ((PROJECT / page).parent / target).exists(), target


def test_the_readme_is_of_two_hundred_lines_at_most() -> None:
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_results_table_is_that_of_the_read_zoo() -> None:
    rows = re.findall(r"^\| UniFormer-([SB]) \| (\d+x\d+) \| (.*) \|$", PAGES["README.md"], flags=re.MULTILINE)
    written = {
        f"uniformer_{size.lower()}_coco_{resolution}": [float(cell) for cell in cells.split(" | ")]
        for size, resolution, cells in rows
    }
    published = read_zoo().pose_models
    assert written == {name: list(model.results.values()) for name, model in published.items()}


def test_there_is_a_recipe_for_every_published_model() -> None:
    for name in read_zoo().pose_models:
        recipe = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8"))
        assert recipe["name"] == name


def test_make_targets_exist() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    for text in PAGES.values():
        for target in re.findall(r"^make (\w+)|`make (\w+)`", text, flags=re.MULTILINE):
            assert f"\n{''.join(target)}:" in makefile
