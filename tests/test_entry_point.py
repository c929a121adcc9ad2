from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, Dataset

from uniformer_pose.entry_point import (
    accept_any_argument,
    checked_config,
    config_folders_of,
    config_groups,
    overrides_first,
    prepare_command_line,
    refuse_unknown_choices,
    report_input_errors,
)
from uniformer_pose.errors import DivergedError, InputError

PROJECT = Path(__file__).parents[1]
GROUPS = {"model": {"uniformer_s", "uniformer_b"}, "data": {"coco"}, "debug": {"overfit"}, "trainer/extra": {"a"}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("trainer.max_steps=5", "++trainer.max_steps=5"),
        ("trainer.max_steps=1,2", "++trainer.max_steps=1,2"),
        ("sede=1", "++sede=1"),
        ("name='a=b c'", "++name='a=b c'"),
        ("data.root='/home/a=b'", "++data.root='/home/a=b'"),
        ("ckpt_path=", "++ckpt_path="),
        ("training={warmup_steps: 3}", "++training={warmup_steps: 3}"),
        ("model.depths=[1,2,3,4]", "++model.depths=[1,2,3,4]"),
        ("ckpt_path=https://host/a.pth?b=1#sha256=0f", '++ckpt_path="https://host/a.pth?b=1#sha256=0f"'),
        ("ckpt_path=zoo:uniformer_s,zoo:uniformer_b", "++ckpt_path=zoo:uniformer_s,zoo:uniformer_b"),
        ("ckpt_path=https://host/a.pth,https://host/b.pth", "++ckpt_path=https://host/a.pth,https://host/b.pth"),
        ("ckpt_path=runs/a=1 [b]/x.ckpt", '++ckpt_path="runs/a=1 [b]/x.ckpt"'),
        ("ckpt_path=epoch=3.ckpt", '++ckpt_path="epoch=3.ckpt"'),
        ("hydra.run.dir=my [a=b]", 'hydra.run.dir="my [a=b]"'),
        ("model.depths=[1,2", '++model.depths="[1,2"'),
    ],
)
def test_a_value_may_be_given_whether_or_not_the_yaml_files_have_its_key(given: str, expected: str) -> None:
    assert accept_any_argument([given], GROUPS) == [expected]
    OverridesParser.create().parse_override(expected)


@pytest.mark.parametrize(
    "argument",
    [
        "model=uniformer_b",
        "model@teacher=uniformer_b",
        "trainer/extra=a",
        "+trainer.max_steps=5",
        "++trainer.max_steps=5",
        "~callbacks.pictures",
        "~optimizer.weight_decay=0.01",
        "hydra.run.dir=x",
        "hydra/job_logging=none",
        "--multirun",
        "-m",
        "--config-dir=x",
        "job",
    ],
)
def test_everything_else_on_the_command_line_stays_as_it_is(argument: str) -> None:
    assert accept_any_argument([argument], GROUPS) == [argument]


def test_a_repeated_command_line_is_not_changed_again() -> None:
    once = accept_any_argument(["seed=1", "model=uniformer_b", "-m"], GROUPS)
    assert accept_any_argument(once, GROUPS) == once == ["++seed=1", "model=uniformer_b", "-m"]


def test_null_for_a_group_is_what_hydra_calls_deleting_it() -> None:
    assert accept_any_argument(["debug=null", "seed=null"], GROUPS) == ["~debug", "++seed=null"]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("data={root: x}", "data={root: x}: data= names a choice; give its values one by one, data.<key>=<value>"),
        ("model=null", "model=null: it is required; allowed: uniformer_b, uniformer_s"),
        ("model=uniformer", "model=uniformer: no such choice; did you mean one of uniformer_b, uniformer_s?"),
        ("debug=null,overfit", "debug=null: no such choice; allowed: overfit"),
        ("model=uniformr_b", "model=uniformr_b: no such choice; did you mean uniformer_b?"),
        ("model=uniformer_s,uniformer_c", "model=uniformer_c: no such choice; did you mean uniformer_s?"),
        ("+debug=zzz", "debug=zzz: no such choice; allowed: overfit"),
        ("model@teacher=xyz", "model=xyz: no such choice; allowed: uniformer_b, uniformer_s"),
    ],
)
def test_an_unknown_choice_of_a_group_is_refused_with_the_nearest_name(argument: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        refuse_unknown_choices(["seed=1", argument], GROUPS)
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["model=uniformer_s,uniformer_b", "debug=null", "seed=zzz"],
        ["model=glob(*)", "~model=zzz"],
        ["--config-path", "mine", "model=mine"],
        ["hydra.searchpath=[pkg://mine]", "model=mine"],
    ],
)
def test_a_choice_that_may_exist_is_left_to_hydra(arguments: list[str]) -> None:
    refuse_unknown_choices(arguments, GROUPS)


def test_the_groups_are_the_folders_of_yaml_files_and_parts_of_others_are_no_choices(tmp_path: Path) -> None:
    for name in ("train.yaml", "model/a.yaml", "model/_part.yaml", "model/deep/b.yaml", "model/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert config_groups(tmp_path) == {"model": {"a"}, "model/deep": {"b"}}


@pytest.mark.parametrize(
    "option", [["--config-dir", "{}"], ["--config-dir={}"], ["-cd", "{}"], ["hydra.searchpath=[file://{}]"]]
)
def test_the_choices_of_a_further_folder_count_and_others_are_refused(option: list[str], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").touch()
    folders = config_folders_of(["seed=1", *(word.format(tmp_path) for word in option), "data=mine"])
    groups = config_groups(PROJECT / "conf", *folders)
    refuse_unknown_choices(["data=mine", "data=coco_256x192"], groups)
    with pytest.raises(InputError, match="mine"):
        refuse_unknown_choices(["data=min"], groups)


def test_a_further_folder_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"^no/where: "):
        config_folders_of(["--config-dir", "no/where"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["seed=1", "--config-dir", "d", "data=x", "-m"], ["seed=1", "data=x", "--config-dir", "d", "-m"]),
        (["--cfg", "job", "a=1", "-cn=x", "b=2"], ["a=1", "b=2", "--cfg", "job", "-cn=x"]),
        (["--config-dir"], ["--config-dir"]),
        (["a=-1", "~b", "+c=2"], ["a=-1", "~b", "+c=2"]),
    ],
)
def test_overrides_may_stand_on_both_sides_of_an_option(given: list[str], expected: list[str]) -> None:
    assert overrides_first(given) == expected
    assert overrides_first(expected) == expected


@pytest.mark.parametrize(
    ("argument", "word"),
    [
        ("hparams_search=optuna", "give -m"),
        ("name=../../x", "runs/"),
        ("name=a,/b", "runs/"),
        ("name=..", "runs/"),
        ("a.password=x", "environment"),
    ],
)
def test_what_hydra_would_write_to_a_wrong_place_or_should_not_write_is_refused_before_it_runs(
    argument: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", argument])
    with pytest.raises(SystemExit) as caught:
        prepare_command_line(tmp_path)
    assert caught.value.code == 2
    assert word in capsys.readouterr().err


def test_the_command_line_is_rewritten_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.yaml").touch()
    monkeypatch.setattr(sys, "argv", ["train.py", "model=a", "seed=1"])
    prepare_command_line(tmp_path)
    assert sys.argv == ["train.py", "model=a", "++seed=1"]


def test_further_processes_get_no_folder_of_their_own_whatever_options_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(sys, "argv", ["train.py", "--config-dir", str(tmp_path), "seed=1"])
    prepare_command_line(tmp_path)
    assert sys.argv[1:3] == ["++seed=1", "hydra.run.dir=."]
    assert sys.argv[-2:] == ["--config-dir", str(tmp_path)]


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_the_choices_and_then_lets_hydra_print_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    (tmp_path / "model").mkdir()
    for name in ("small", "large", "_part"):
        (tmp_path / "model" / f"{name}.yaml").write_text("")
    monkeypatch.setattr("sys.argv", ["src/train.py", "model=small", flag])
    prepare_command_line(tmp_path)
    assert "model: large, small" in capsys.readouterr().out.splitlines()
    assert sys.argv == ["src/train.py", "model=small", "--cfg", "job"]
    prepare_command_line(tmp_path)
    assert capsys.readouterr().out == ""
    assert sys.argv == ["src/train.py", "model=small", "--cfg", "job"]


def seconds_of_cpu(command: list[str]) -> float:
    before = os.times()
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_help_imports_nothing_heavy_and_takes_less_than_two_seconds() -> None:
    command = [sys.executable, "-X", "importtime", "src/train.py", "--help"]
    finished = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, cwd=PROJECT)
    assert "coco_256x192" in finished.stdout
    assert "lr_per_256: 0.0005" in finished.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in finished.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "lightning", "cv2", "numpy", "albumentations", "timm", "wandb"}
    assert seconds_of_cpu([sys.executable, str(PROJECT / "src" / "train.py"), "--help"]) < 2


def test_an_unknown_choice_on_the_command_line_ends_with_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.yaml").touch()
    monkeypatch.setattr(sys, "argv", ["train.py", "model=b"])
    with pytest.raises(SystemExit) as caught:
        prepare_command_line(tmp_path)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: model=b: no such choice; allowed: a\n"


def reported(error: Exception, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught, report_input_errors():
        raise error
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_a_mistake_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert reported(InputError("data.root=x: no folder"), capsys) == "error: data.root=x: no folder\n"


def test_in_a_sweep_a_mistake_is_told_and_handed_on_so_that_the_other_runs_are_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    settings = SimpleNamespace(mode=RunMode.MULTIRUN, output_subdir=None, sweep=SimpleNamespace(dir="nowhere"))
    monkeypatch.setattr(HydraConfig, "get", lambda: settings)
    with pytest.raises(CompactHydraException, match=r"^no folder$"), report_input_errors():
        raise InputError("no folder")
    assert capsys.readouterr().err == "error: no folder\n"


def refuse() -> None:
    raise InputError("give two")


def use_absent_package() -> None:
    raise ModuleNotFoundError("tensorboard is not installed;\n pip install it")


def have_a_bug() -> None:
    raise ZeroDivisionError


def have_another() -> None:
    len(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "line"),
    [("refuse", "give two"), ("use_absent_package", "tensorboard is not installed; pip install it")],
)
def test_a_mistake_found_while_objects_are_built_is_one_line_too(
    target: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InstantiationException) as caught:
        instantiate({"_target_": f"{__name__}.{target}"})
    printed = reported(caught.value, capsys)
    assert printed.startswith(f"error: {line}")
    assert printed.count("\n") == 1


def test_a_training_that_diverged_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_, report_input_errors():
        raise DivergedError("the loss became NaN")
    assert exit_.value.code == 1
    assert capsys.readouterr().err == "error: the loss became NaN\n"


def test_wandb_without_an_account_is_one_line_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    from wandb.errors import UsageError

    with pytest.raises(SystemExit) as exit_, report_input_errors():
        raise UsageError("No API key configured. Use `wandb login` to log in.")
    assert exit_.value.code == 2
    assert capsys.readouterr().err == (
        "error: No API key configured. Use `wandb login` to log in. "
        "Or record without an account: logger.wandb.offline=true\n"
    )


@pytest.mark.parametrize("target", ["have_a_bug", "have_another"])
def test_an_error_in_the_users_code_or_ours_keeps_its_traceback(target: str) -> None:
    with pytest.raises(InstantiationException), report_input_errors():
        instantiate({"_target_": f"{__name__}.{target}"})


def test_hydras_switch_for_tracebacks_shows_those_of_mistakes_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    printed = reported(InputError("data.root=x: no folder"), capsys)
    assert "Traceback" in printed
    assert printed.endswith("error: data.root=x: no folder\n")


def test_an_import_that_fails_in_the_users_own_module_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "users_module.py").write_text("def make():\n    import not_installed_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InstantiationException) as caught:
        instantiate({"_target_": "users_module.make"})
    printed = reported(caught.value, capsys)
    assert "not_installed_here" in printed
    assert f"({tmp_path / 'users_module.py'}, line 2)" in printed


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "mode": "maximum", "monitor": "AP"}, "maximum"),
        (
            {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 4, "kernel_size": 1, "groups": 2},
            "divisible",
        ),
        ({"_target_": "datetime.timedelta", "parsecs": 1}, "parsecs"),
    ],
)
def test_arguments_that_a_librarys_class_refuses_are_one_line(
    node: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InstantiationException) as caught:
        instantiate(node)
    printed = reported(caught.value, capsys)
    assert words in printed
    assert node["_target_"].rpartition(".")[2] in printed
    assert printed.count("\n") == 1


class UnreadablePeople(Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise InputError("a.jpg: cut off; copy it again")


def test_a_mistake_found_by_a_data_worker_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError) as caught:
        next(iter(DataLoader(UnreadablePeople(), num_workers=1)))
    assert "\n" in str(caught.value)
    assert reported(caught.value, capsys) == "error: a.jpg: cut off; copy it again\n"


NO_VARIABLE = "a: KeyError raised while resolving interpolation: \"Environment variable 'NO_SUCH_VARIABLE' not found\""


class AnyConfig:
    """Never reached."""


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"a": {"b": "???"}, "c": "${a.b}"}, "a.b is required: give a.b=..."),
        ({"a": {"b": "${nope}"}}, "a.b: Interpolation key 'nope' not found"),
        ({"a": "${oc.env:NO_SUCH_VARIABLE}"}, NO_VARIABLE),
    ],
)
def test_a_reference_that_leads_nowhere_is_one_line(config: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        checked_config(OmegaConf.create(config), AnyConfig)
    assert str(caught.value) == expected
