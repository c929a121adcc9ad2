"""The programs of ``src/``, run as a user would run them: in this process, which has torch already, or in another."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import runpy
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hydra import compose, initialize_config_dir
from hydra.core.singleton import Singleton
from omegaconf import DictConfig

import uniformer_pose.run  # noqa: F401 - registers a resolver, which is part of the state that Hydra keeps
from uniformer_pose.entry_point import CONF, accept_any_argument, config_groups, users_mistake
from uniformer_pose.errors import InputError

SOURCES = Path(__file__).resolve().parents[1] / "src"
RunProgram = Callable[..., subprocess.CompletedProcess[str]]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


def run_in_own_process(
    script: str, arguments: Sequence[str], folder: Path, *, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """``python src/<script> <arguments>`` in ``folder``: seconds of imports before it begins."""
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [sys.executable, str(SOURCES / script), *arguments],
        cwd=folder,
        # Without the address of the tests' own service of wandb, which would write a run's records when it likes.
        env={**{k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"}, **ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def require_one_line(refused: subprocess.CompletedProcess[str], message: str) -> None:
    """That a program has ended with status 2, and with one line that holds this message."""
    assert refused.returncode == 2
    lines = [line for line in refused.stderr.splitlines() if message in line]
    assert len(lines) == 1, refused.stderr


def run_here(
    script: str, arguments: Sequence[str], folder: Path, *, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The same in this process, whose state is afterwards what it was; the time limit is the test's."""
    folder.mkdir(parents=True, exist_ok=True)
    out, err = io.StringIO(), io.StringIO()
    with (
        _state_of_this_process(),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        _log_handlers_to(err),
        warnings.catch_warnings(),
    ):
        os.environ.update({**ENVIRONMENT, **environment})
        sys.argv[:] = [str(SOURCES / script), *arguments]
        _warn_as_a_program_does()
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
            status = 1
    return subprocess.CompletedProcess([script, *arguments], status, out.getvalue(), err.getvalue())


def composed(program: str, *arguments: str, conf: Path = CONF) -> DictConfig:
    """What ``src/<program>.py`` gets for a command line; InputError with the one line of what Hydra refuses."""
    accepted = accept_any_argument(arguments, config_groups(conf))
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            config = compose(program, overrides=accepted)
    except Exception as error:
        raise InputError(users_mistake(error) or repr(error)) from error
    if "run_dir" in config and not any(argument.lstrip("+").startswith("run_dir=") for argument in arguments):
        config.run_dir = "runs/here"  # Hydra's own folder, which is there in a run only
    return config


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that ``make`` fills, once for all processes of the tests; whoever comes first makes it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not (done := Path(f"{folder}.done")).exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            done.touch()
    return folder


@contextlib.contextmanager
def _state_of_this_process() -> Iterator[None]:
    arguments, environment, hydra = sys.argv[:], dict(os.environ), Singleton.get_state()
    root, factory = logging.getLogger(), logging.getLogRecordFactory()
    handlers, level = root.handlers[:], root.level
    lightnings = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric")]
    of_lightning = [(logger.handlers[:], logger.propagate, logger.level) for logger in lightnings]
    for logger in lightnings:  # a program imports Lightning after Hydra has made its handlers, and it then adds none
        logger.handlers.clear()
        logger.propagate = True
    precision, deterministic = torch.get_float32_matmul_precision(), torch.get_deterministic_debug_mode()
    on_signal = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        sys.argv[:] = arguments
        os.environ.clear()
        os.environ.update(environment)
        Singleton.set_state(hydra)
        root.handlers[:], root.level = handlers, level
        for logger, (own_handlers, logger.propagate, logger.level) in zip(lightnings, of_lightning, strict=True):
            logger.handlers[:] = own_handlers
        logging.setLogRecordFactory(factory)
        torch.set_float32_matmul_precision(precision)
        torch.set_deterministic_debug_mode(deterministic)
        for number, handler in on_signal.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _log_handlers_to(stream: io.StringIO) -> Iterator[None]:
    """Libraries' loggers write where standard error was when they were imported, which may be closed by now.

    Hydra closes all handlers there are when it sets up a run's own, and absl's then close what they write to: pytest's
    own file. Hence the list of all, which the standard library keeps to itself.
    """
    every = [reference() for reference in logging._handlerList]  # type: ignore[attr-defined]
    handlers = [
        handler
        for handler in every
        if isinstance(handler, logging.StreamHandler)
        and not isinstance(handler, (logging.FileHandler, type(logging.lastResort)))
        and handler.stream is not None  # torch has one that opens its file when it is written to
        and not type(handler).__module__.startswith("_pytest")
    ]
    before = [handler.stream for handler in handlers]
    try:
        for handler in handlers:
            handler.stream = stream  # setStream would flush the one before
        yield
    finally:
        for handler, own in zip(handlers, before, strict=True):
            handler.stream = own


def _warn_as_a_program_does() -> None:
    """Python's own filters, and on standard error, instead of pytest's list."""
    warnings.resetwarnings()
    for ignored in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", ignored, append=True)

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))

    warnings.showwarning = show
