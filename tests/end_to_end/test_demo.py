"""``python src/demo.py`` as a user starts and ends it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hydra import compose, initialize_config_dir

from demo import DemoConfig, detector_maker, newest_demo_checkpoint
from demo_pages import random_model
from uniformer_pose.entry_point import accept_any_argument, checked_config, config_groups
from uniformer_pose.errors import InputError
from uniformer_pose.weights.export import save_pretrained

PROJECT = Path(__file__).resolve().parents[2]
CONF = PROJECT / "conf"


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / "src" / "demo.py"), *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background hands down a SIGINT that is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def composed(*arguments: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("demo", overrides=accept_any_argument(arguments, config_groups(CONF)))
    return checked_config(config, DemoConfig)


@pytest.mark.parametrize("stop", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_the_page_is_served_until_it_is_told_to_end(tmp_path: Path, stop: signal.Signals) -> None:
    save_pretrained(random_model(), tmp_path / "runs" / "demo" / "first")
    arguments = [f"ckpt_path={tmp_path / 'runs' / 'demo' / 'first'}", "port=0", "detector=none"]
    with started(tmp_path, *arguments, "examples.num_val_images=1") as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        line = next(line for line in lines if line.startswith("the page is at"))
        address = urlsplit(line.split()[4])
        assert address.hostname == "127.0.0.1"
        client = http.client.HTTPConnection("127.0.0.1", address.port or 0, timeout=60)
        client.request("GET", "/api/about")
        about = json.loads(client.getresponse().read())
        process.send_signal(stop)
        assert process.wait(timeout=60) == 0
        assert process.stdout.read() == "the page is closed\n"
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert about["crop"] == {"height": 128, "width": 96}
    assert (len(about["examples"]), about["can_detect"], len(about["notes"])) == (1, False, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]  # nothing is left behind


def test_without_a_model_one_line_says_what_to_do(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.count("\n") == 1
    assert "run `make demo` first" in errors
    assert "ckpt_path=" in errors


def test_the_newest_demo_run_is_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seconds in (("b", 100), ("a", 300), ("c", 200)):
        checkpoint = tmp_path / "runs" / "demo" / name / "checkpoints" / "best.ckpt"
        checkpoint.parent.mkdir(parents=True)
        checkpoint.touch()
        os.utime(checkpoint, (seconds, seconds))
    assert newest_demo_checkpoint() == "runs/demo/a/checkpoints/best.ckpt"


def test_the_page_is_for_this_machine_only_unless_told_otherwise() -> None:
    assert composed()["host"] == "127.0.0.1"
    assert composed("host=0.0.0.0")["host"] == "0.0.0.0"


@pytest.mark.parametrize("argument", ["prot=7860", "port=many", "limits.megapixel=3", "examples.poses_=any"])
def test_a_misspelt_setting_is_refused(argument: str) -> None:
    with pytest.raises(InputError) as caught:
        composed(argument)
    assert "\n" not in str(caught.value)


def test_a_detector_whose_weights_are_not_there_is_told_in_a_friendly_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIFORMER_POSE_CACHE", str(tmp_path))
    monkeypatch.setenv("UNIFORMER_POSE_OFFLINE", "1")
    make = detector_maker(composed()["detector"])
    assert make is not None
    with pytest.raises(InputError, match="Draw a box around each person") as caught:
        make()
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_detectors_own_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    make = detector_maker(composed(f"detector.model.weights={tmp_path / 'none.pth'}")["detector"])
    assert make is not None
    with pytest.raises(InputError, match=r"The person detector cannot be used: .*none\.pth"):
        make()


def test_without_a_detector_none_is_made() -> None:
    assert detector_maker(composed("detector=none")["detector"]) is None
