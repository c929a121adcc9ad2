"""Secrets in settings, commands, messages and Hydra's own records."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from uniformer_pose.redaction import (
    command_without_secrets,
    redact_hydra_records,
    redact_log_messages,
    text_without_secrets,
    without_secrets,
)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://me:hunter2@host.org/x", "https://<redacted>@host.org/x"),
        ("https://hunter2@host.org/x.ckpt", "https://<redacted>@host.org/x.ckpt"),
        ("https://host.org/x.ckpt?X-Amz-Signature=hunter2#sha256=abc", "https://host.org/x.ckpt?<redacted>#sha256=abc"),
        ("https://host.org/x.ckpt#sha256=abc", "https://host.org/x.ckpt#sha256=abc"),
        ("hf://owner/repo@main/file.safetensors", "hf://owner/repo@main/file.safetensors"),
        ("photos/?.jpg", "photos/?.jpg"),
    ],
)
def test_of_an_address_login_and_query_are_not_written(address: str, expected: str) -> None:
    assert without_secrets({"ckpt_path": address}) == {"ckpt_path": expected}
    assert command_without_secrets([f"ckpt_path={address}"]) == [f"ckpt_path={expected}"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("logger.csv.api_key='hunter2': no argument", "logger.csv.api_key=<redacted>: no argument"),
        ("logger={'api_key': 'hunter2', 'a': 1}: must be", "logger={'api_key': <redacted>, 'a': 1}: must be"),
        ("#0 : ++logger.wandb.api_key=hunter2 seed=1", "#0 : ++logger.wandb.api_key=<redacted> seed=1"),
        ("3 missing keys: norm1, norm2", "3 missing keys: norm1, norm2"),
        ("a.token is required: give a.token=...", "a.token is required: give a.token=..."),
    ],
)
def test_a_message_quotes_no_secret_and_stays_readable(text: str, expected: str) -> None:
    assert text_without_secrets(text) == expected


@pytest.fixture
def _own_log_records() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


@pytest.mark.usefixtures("_own_log_records")
def test_nothing_secret_is_logged_and_wrong_arguments_are_left_to_logging(caplog: pytest.LogCaptureFixture) -> None:
    redact_log_messages()
    redact_log_messages()
    log = logging.getLogger("a test")
    log.warning("#%d : %s", 0, "++logger.wandb.api_key=hunter2")
    log.warning("%d people", 3)
    assert [record.getMessage() for record in caplog.records] == [
        "#0 : ++logger.wandb.api_key=<redacted>",
        "3 people",
    ]
    assert caplog.records[1].args == (3,)


@pytest.fixture
def hydra_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of one run of a sweep, as Hydra leaves it before it calls the program."""
    run = tmp_path / "sweep" / "0"
    (run / ".hydra").mkdir(parents=True)
    override = "++logger.wandb.api_key=hunter2"
    records = {
        run / ".hydra" / "config.yaml": {"logger": {"wandb": {"api_key": "hunter2", "project": "pose"}}, "seed": 0},
        run / ".hydra" / "overrides.yaml": [override, "++seed=0"],
        run / ".hydra" / "hydra.yaml": {"hydra": {"job": {"override_dirname": f"{override},++seed=0"}}},
        tmp_path / "sweep" / "multirun.yaml": {"hydra": {"overrides": {"task": [override]}}},
    }
    for file, content in records.items():
        file.write_text(yaml.safe_dump(content))
    settings = SimpleNamespace(
        mode=RunMode.MULTIRUN,
        output_subdir=".hydra",
        runtime=SimpleNamespace(output_dir=str(run)),
        sweep=SimpleNamespace(dir=str(tmp_path / "sweep")),
    )
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: settings)
    return run


def test_what_hydra_has_recorded_is_cleared_of_secrets_and_else_the_same(hydra_run: Path) -> None:
    redact_hydra_records()
    files = [*(hydra_run / ".hydra").iterdir(), hydra_run.parent / "multirun.yaml"]
    assert len(files) == 4
    assert not any("hunter2" in file.read_text() for file in files)
    config = yaml.safe_load((hydra_run / ".hydra" / "config.yaml").read_text())
    assert config == {"logger": {"wandb": {"api_key": "<redacted>", "project": "pose"}}, "seed": 0}
    assert yaml.safe_load((hydra_run / ".hydra" / "overrides.yaml").read_text())[1] == "++seed=0"
    dirname = yaml.safe_load((hydra_run / ".hydra" / "hydra.yaml").read_text())["hydra"]["job"]["override_dirname"]
    assert dirname == "++logger.wandb.api_key=<redacted>"


def test_a_record_without_secrets_stays_as_hydra_wrote_it(hydra_run: Path) -> None:
    file = hydra_run / ".hydra" / "config.yaml"
    file.write_text("# by hand\nnum_keypoints:   17\nurl: https://host.org/x\n")
    redact_hydra_records()
    assert file.read_text() == "# by hand\nnum_keypoints:   17\nurl: https://host.org/x\n"


def test_a_record_that_cannot_be_replaced_is_deleted(hydra_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", without_space)
    redact_hydra_records()
    assert not (hydra_run / ".hydra" / "config.yaml").exists()
