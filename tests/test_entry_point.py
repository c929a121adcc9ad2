"""Command lines as Hydra reads them, help, and errors of one line."""

from __future__ import annotations

import re
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
from torch.utils.data import DataLoader, Dataset

from programs import composed, run_here
from uniformer_pose.entry_point import (
    accept_any_argument,
    command_line,
    config_groups,
    help_of,
    report_input_errors,
)
from uniformer_pose.errors import DivergedError, InputError

PROJECT = Path(__file__).parents[1]
GROUPS = {"model": {"uniformer_s", "uniformer_b"}, "data": {"coco"}, "debug": {"overfit"}, "trainer/extra": {"a"}}


AS_TYPED = [
    *("model=uniformer_b", "model@teacher=uniformer_b", "trainer/extra=a", "+trainer.max_steps=5", "-m"),
    *("~optimizer.weight_decay=0.01", "hydra.run.dir=x", "hydra/job_logging=none", "--config-dir=x"),
]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("trainer.max_steps=1,2", "++trainer.max_steps=1,2"),
        ("name='a=b c'", "++name='a=b c'"),
        ("ckpt_path=", "++ckpt_path="),
        ("model.depths=[1,2,3,4]", "++model.depths=[1,2,3,4]"),
        ("ckpt_path=https://host/a.pth?b=1#sha256=0f", '++ckpt_path="https://host/a.pth?b=1#sha256=0f"'),
        ("ckpt_path=zoo:uniformer_s,zoo:uniformer_b", "++ckpt_path=zoo:uniformer_s,zoo:uniformer_b"),
        ("ckpt_path=runs/a=1 [b]/x.ckpt", '++ckpt_path="runs/a=1 [b]/x.ckpt"'),
        ("debug=null", "~debug"),
        *((argument, argument) for argument in AS_TYPED),
    ],
)
def test_a_value_may_be_given_whether_or_not_the_yaml_files_have_its_key(given: str, expected: str) -> None:
    assert accept_any_argument([given], GROUPS) == [expected]
    assert accept_any_argument([expected], GROUPS) == [expected]
    if not expected.startswith("-"):
        OverridesParser.create().parse_override(expected)


def test_further_processes_get_no_folder_of_their_own_whatever_options_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "1")
    own = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=stdout"]
    assert command_line(["seed=1", "--config-dir", "x"]) == ["++seed=1", *own, "--config-dir", "x"]
    assert command_line(["--config-dir", "x", "seed=1"]) == ["--config-dir", "x", "++seed=1", *own]
    assert command_line([]) == own


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("model=uniformr_b", "model=uniformr_b: no such choice; uniformer_b?"),
        ("model=null", "model is required: give model=..."),
        ("+trainer.max_steps=[1", "+trainer.max_steps=[1:"),
        ("~nope", "'nope' does not exist"),
        ("name=${nope}", "hydra.run.dir: 'nope' not found"),
        ("hydra.run.dir=/proc/x", "hydra.run.dir=/proc/x: cannot be made give another"),
        ("hparams_search=optuna", "hparams_search=optuna: give -m"),
        ("name=../../x", "../../x below runs/"),
        ("a.password=x", "a.password environment"),
        ("logger.csv.b=${nope}", "logger.csv.b: 'nope' not found"),
        ("trainer.max_steps=${oc.env:NO_SUCH_VARIABLE}", "trainer.max_steps: 'NO_SUCH_VARIABLE' not found"),
        ("data.root=${data.val_boxes} data.val_boxes=???", "data.val_boxes is required: give data.val_boxes=..."),
    ],
)
def test_what_hydra_or_we_refuse_of_a_command_line_is_one_line_and_status_2(
    argument: str, words: str, tmp_path: Path
) -> None:
    finished = run_here("train.py", argument.split(), tmp_path)
    assert (finished.returncode, finished.stderr.count("\n")) == (2, 1)
    assert all(word in finished.stderr for word in words.split()), finished.stderr


def test_the_choices_of_a_further_folder_count(tmp_path: Path) -> None:
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    (tmp_path / "mine" / "optimizer" / "sgd.yaml").write_text("_target_: torch.optim.SGD\n_partial_: true\n")
    arguments = ["--config-dir", "mine", "optimizer=sgd", "--cfg", "job"]
    assert "torch.optim.SGD" in run_here("train.py", arguments, tmp_path).stdout
    assert "did you mean sgd?" in run_here("train.py", ["--config-dir", "mine", "optimizer=sdg"], tmp_path).stderr
    assert "nowhere' not found" in run_here("train.py", ["--config-dir", "nowhere"], tmp_path).stderr


@pytest.mark.parametrize("program", ["train", "predict", "check_data"])
def test_help_shows_each_key_of_a_program_once_with_its_own_value_and_its_own_groups(program: str) -> None:
    keys = re.findall(r"^(\w+):", help_of(program), flags=re.M)
    assert len(keys) == len({*keys})
    assert not {"hydra", "defaults"} & {*keys}
    config = composed(program, *(["data=coco_256x192"] if program == "check_data" else []))
    assert {*keys} <= config.keys()
    assert config.keys() - {*keys} <= config_groups().keys()


def test_help_is_there_before_anything_heavy_is_imported() -> None:
    command = [sys.executable, "-X", "importtime", "src/train.py", "--help"]
    finished = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, cwd=PROJECT)
    for words in ("compile_step: false #", "coco_256x192", "float32_matmul_precision: high #"):
        assert words in finished.stdout
    assert "detector=" not in finished.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in finished.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "lightning", "cv2", "albumentations", "timm", "wandb"}


def test_a_mistake_ends_a_real_run_with_status_2_before_torch_is_imported(tmp_path: Path) -> None:
    script = """
import atexit, runpy, sys
atexit.register(lambda: print("imported:", *({"torch", "lightning", "cv2"} & sys.modules.keys())))
sys.argv[0] = script = sys.argv.pop(1)
runpy.run_path(script, run_name="__main__")
"""
    command = [sys.executable, "-c", script, str(PROJECT / "src" / "train.py"), "sede=5"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (2, "error: sede=5: no such key; did you mean seed?\n")
    assert done.stdout == "imported:\n"


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


class UnreadablePeople(Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise InputError("a.jpg: cut off; copy it again")


def read_unreadable() -> None:
    next(iter(DataLoader(UnreadablePeople(), num_workers=1)))


def use_absent_package() -> None:
    raise ModuleNotFoundError("tensorboard is not installed;\n pip install it")


def have_no_account() -> None:
    from wandb.errors import UsageError

    raise UsageError("No API key configured.")


def have_a_bug() -> None:
    raise ZeroDivisionError


def have_another() -> None:
    len(3)  # type: ignore[arg-type]


def node(target: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": target if "." in target else f"{__name__}.{target}", **arguments}


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (node("read_unreadable"), "error: a.jpg: cut off; copy it again"),
        (node("use_absent_package"), "tensorboard is not installed; pip install it"),
        (node("have_no_account"), "logger.wandb.offline=true"),
        (node("users_module.make"), "not_installed_here users_module.py, line 2"),
        (node("lightning.pytorch.callbacks.ModelCheckpoint", mode="maximum", monitor="AP"), "ModelCheckpoint: "),
        (node("lightning.pytorch.Trainer", num_nodes=0), "Trainer: num_nodes positive"),
    ],
)
def test_a_mistake_found_while_objects_are_built_is_one_line_too(
    broken: dict[str, Any],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "users_module.py").write_text("def make():\n    import not_installed_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InstantiationException) as caught:
        instantiate(broken)
    printed = reported(caught.value, capsys)
    assert all(word in printed for word in words.split())
    assert printed.count("\n") == 1


@pytest.mark.parametrize("target", ["have_a_bug", "have_another"])
def test_an_error_in_the_users_code_or_ours_keeps_its_traceback(target: str) -> None:
    with pytest.raises(InstantiationException), report_input_errors():
        instantiate(node(target))
