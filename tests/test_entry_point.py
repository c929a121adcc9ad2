"""Command lines as Hydra reads them, help, and errors of one line."""

from __future__ import annotations

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

from programs import run_here
from uniformer_pose.entry_point import (
    accept_any_argument,
    checked_config,
    command_line,
    config_groups,
    help_of,
    report_input_errors,
)
from uniformer_pose.errors import DivergedError, InputError

PROJECT = Path(__file__).parents[1]
GROUPS = {"model": {"uniformer_s", "uniformer_b"}, "data": {"coco"}, "debug": {"overfit"}, "trainer/extra": {"a"}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("trainer.max_steps=1,2", "++trainer.max_steps=1,2"),
        ("name='a=b c'", "++name='a=b c'"),
        ("ckpt_path=", "++ckpt_path="),
        ("training={a: 3}", "++training={a: 3}"),
        ("model.depths=[1,2,3,4]", "++model.depths=[1,2,3,4]"),
        ("ckpt_path=https://host/a.pth?b=1#sha256=0f", '++ckpt_path="https://host/a.pth?b=1#sha256=0f"'),
        ("ckpt_path=zoo:uniformer_s,zoo:uniformer_b", "++ckpt_path=zoo:uniformer_s,zoo:uniformer_b"),
        ("ckpt_path=runs/a=1 [b]/x.ckpt", '++ckpt_path="runs/a=1 [b]/x.ckpt"'),
        ("ckpt_path=epoch=3.ckpt", '++ckpt_path="epoch=3.ckpt"'),
        ("hydra.run.dir=my [a=b]", 'hydra.run.dir="my [a=b]"'),
        ("debug=null", "~debug"),
    ],
)
def test_a_value_may_be_given_whether_or_not_the_yaml_files_have_its_key(given: str, expected: str) -> None:
    assert accept_any_argument([given], GROUPS) == [expected]
    assert accept_any_argument([expected], GROUPS) == [expected]
    OverridesParser.create().parse_override(expected)


@pytest.mark.parametrize(
    "argument",
    [
        "model=uniformer_b",
        "model@teacher=uniformer_b",
        "trainer/extra=a",
        "+trainer.max_steps=5",
        "~optimizer.weight_decay=0.01",
        "hydra.run.dir=x",
        "hydra/job_logging=none",
        "-m",
        "--config-dir=x",
    ],
)
def test_everything_else_on_the_command_line_stays_as_it_is(argument: str) -> None:
    assert accept_any_argument([argument], GROUPS) == [argument]


def test_the_groups_are_the_folders_of_yaml_files_and_parts_of_others_are_no_choices(tmp_path: Path) -> None:
    for name in ("train.yaml", "model/a.yaml", "model/_part.yaml", "model/deep/b.yaml", "model/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert config_groups(tmp_path) == {"model": {"a"}, "model/deep": {"b"}}


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("hparams_search=optuna", "give -m"),
        ("name=../../x", "below runs/"),
        ("name=a,/b", "below runs/"),
        ("a.password=x", "environment"),
    ],
)
def test_what_hydra_would_write_to_a_wrong_place_or_should_not_write_is_refused(argument: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        command_line([argument])


def test_further_processes_get_no_folder_of_their_own_whatever_options_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "1")
    own = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=stdout"]
    assert command_line(["seed=1", "--config-dir", "x"]) == ["++seed=1", *own, "--config-dir", "x"]
    assert command_line(["--config-dir", "x", "seed=1"]) == ["--config-dir", "x", "++seed=1", *own]
    assert command_line([]) == own


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["model=uniformr_b"], "model=uniformr_b: no such choice; did you mean uniformer_b?"),
        (["debug=zzz"], "debug=zzz: no such choice; allowed: fast_dev_run, overfit, profiler"),
        (["model=null"], "model is required: give model=..."),
        (["+trainer.max_steps=[1"], "+trainer.max_steps=[1: no viable alternative at input '[1'"),
        (["~nope"], "Could not delete from config. 'nope' does not exist."),
        (["name=${nope}"], "hydra.run.dir: Interpolation key 'nope' not found"),
    ],
)
def test_what_hydra_refuses_is_one_line_and_status_2(arguments: list[str], expected: str, tmp_path: Path) -> None:
    finished = run_here("train.py", arguments, tmp_path)
    assert (finished.returncode, finished.stderr) == (2, f"error: {expected}\n")
    assert not (tmp_path / "runs").exists()


def test_the_choices_of_a_further_folder_count(tmp_path: Path) -> None:
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    (tmp_path / "mine" / "optimizer" / "sgd.yaml").write_text("_target_: torch.optim.SGD\n_partial_: true\n")
    arguments = ["--config-dir", "mine", "optimizer=sgd", "--cfg", "job"]
    assert "torch.optim.SGD" in run_here("train.py", arguments, tmp_path).stdout
    assert "did you mean sgd?" in run_here("train.py", ["--config-dir", "mine", "optimizer=sdg"], tmp_path).stderr
    assert "nowhere' not found" in run_here("train.py", ["--config-dir", "nowhere"], tmp_path).stderr


def test_help_shows_a_programs_own_keys_with_comments_and_its_own_groups() -> None:
    text = help_of("predict")
    assert "source: ??? # a picture" in text
    assert "head_dim: null # for a file" in text  # of _trained.yaml
    assert "detector=torchvision: " in text
    assert "optimizer" not in text
    assert not {"hydra:", "defaults:"} & {*text.splitlines()}


def test_help_is_there_before_anything_heavy_is_imported() -> None:
    command = [sys.executable, "-X", "importtime", "src/train.py", "--help"]
    finished = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, cwd=PROJECT)
    assert "compile_step: false #" in finished.stdout
    assert "coco_256x192" in finished.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in finished.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "lightning", "cv2", "albumentations", "timm", "wandb"}


def reported(error: Exception, capsys: pytest.CaptureFixture[str], status: int = 2) -> str:
    with pytest.raises(SystemExit) as caught, report_input_errors():
        raise error
    assert caught.value.code == status
    return capsys.readouterr().err


def test_a_mistake_is_status_2_and_a_training_that_diverged_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert reported(InputError("data.root=x: no folder"), capsys) == "error: data.root=x: no folder\n"
    assert reported(DivergedError("the loss became NaN"), capsys, status=1) == "error: the loss became NaN\n"


def test_in_a_sweep_a_mistake_is_told_and_handed_on_so_that_the_other_runs_are_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: SimpleNamespace(mode=RunMode.MULTIRUN))
    with pytest.raises(CompactHydraException, match=r"^no folder$"), report_input_errors():
        raise InputError("no folder")
    assert capsys.readouterr().err == "error: no folder\n"


def test_hydras_switch_for_tracebacks_shows_those_of_mistakes_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    printed = reported(InputError("data.root=x: no folder"), capsys)
    assert "Traceback" in printed
    assert printed.endswith("error: data.root=x: no folder\n")


def refuse() -> None:
    raise InputError("give two")


def use_absent_package() -> None:
    raise ModuleNotFoundError("tensorboard is not installed;\n pip install it")


def have_a_bug() -> None:
    raise ZeroDivisionError


def have_another() -> None:
    len(3)  # type: ignore[arg-type]


def node(target: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": target if "." in target else f"{__name__}.{target}", **arguments}


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (node("refuse"), "give two"),
        (node("use_absent_package"), "tensorboard is not installed; pip install it"),
        (node("lightning.pytorch.callbacks.ModelCheckpoint", mode="maximum", monitor="AP"), "ModelCheckpoint: "),
        (node("torch.nn.Conv2d", in_channels=3, out_channels=4, kernel_size=1, groups=2), "Conv2d: "),
        (node("datetime.timedelta", parsecs=1), "parsecs"),
    ],
)
def test_a_mistake_found_while_objects_are_built_is_one_line_too(
    broken: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InstantiationException) as caught:
        instantiate(broken)
    printed = reported(caught.value, capsys)
    assert words in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("target", ["have_a_bug", "have_another"])
def test_an_error_in_the_users_code_or_ours_keeps_its_traceback(target: str) -> None:
    with pytest.raises(InstantiationException), report_input_errors():
        instantiate(node(target))


def test_an_import_that_fails_in_the_users_own_module_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "users_module.py").write_text("def make():\n    import not_installed_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InstantiationException) as caught:
        instantiate(node("users_module.make"))
    printed = reported(caught.value, capsys)
    assert "not_installed_here" in printed
    assert f"({tmp_path / 'users_module.py'}, line 2)" in printed


def test_wandb_without_an_account_is_one_line_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    from wandb.errors import UsageError

    printed = reported(UsageError("No API key configured."), capsys)
    assert printed == "error: No API key configured. Or record without an account: logger.wandb.offline=true\n"


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


class AnyConfig:
    """Never reached."""


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"a": {"b": "???"}, "c": "${a.b}"}, "a.b is required: give a.b=..."),
        ({"a": {"b": "${nope}"}}, "a.b: Interpolation key 'nope' not found"),
        ({"a": "${oc.env:NO_SUCH_VARIABLE}"}, "a: .*'NO_SUCH_VARIABLE' not found"),
    ],
)
def test_a_reference_that_leads_nowhere_is_one_line(config: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"^{words}"):
        checked_config(OmegaConf.create(config), AnyConfig)
