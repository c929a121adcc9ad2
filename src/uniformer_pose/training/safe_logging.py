"""Loggers that cannot end a training: a failure is told once, and the training goes on without what was to be logged.

``forgiving`` makes any of Lightning's loggers so. ``FallbackWandbLogger`` also finds out before it begins whether
Weights & Biases can be reached, because finding out by trying takes the library a minute and a half.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import requests
from lightning.fabric.loggers.logger import _DummyExperiment, rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_warn

from uniformer_pose.errors import InputError, one_line
from uniformer_pose.nearest_name import did_you_mean

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

SECONDS_TO_REACH = 10.0
"""For the whole question whether Weights & Biases answers, names looked up and all."""

SECONDS_TO_FINISH = 300.0
"""For the upload at the end of a run, where the user does not say another time; what is left stays on disk."""

_CALLED_BY_LIGHTNING = (
    "after_save_checkpoint",
    "finalize",
    "log_graph",
    "log_hyperparams",
    "log_image",
    "log_metrics",
    "save",
)


def forgiving(logger: Logger) -> Logger:
    """The same logger, whose failures end in one warning.

    Its class becomes one that is derived from its own, so that whoever asks for a ``WandbLogger`` still finds one. A
    logger that could not begin stays silent; one that failed later is tried again, since a disk may have space again.
    ``InputError`` passes: that is a setting, found before any training.
    """
    own = type(logger)
    methods = {name: _forgiving_method(own, name) for name in _CALLED_BY_LIGHTNING if hasattr(own, name)}
    logger.__class__ = type(own.__name__, (own,), {**methods, "experiment": property(_forgiving_experiment(own))})
    return logger


@contextmanager
def failures_of(logger: Logger) -> Iterator[None]:
    """Within it, failures of what is done with a logger's ``experiment`` end in one warning."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        _tell_once(logger, error)


def _forgiving_method(own: type[Logger], name: str) -> Callable[..., None]:
    def method(self: Logger, *arguments: Any, **named: Any) -> None:
        if not vars(self).get("_never_began"):
            with failures_of(self):
                getattr(super(type(self), self), name)(*arguments, **named)

    method.__name__, method.__doc__ = name, getattr(own, name).__doc__
    return method


def _forgiving_experiment(own: type[Logger]) -> Callable[[Logger], Any]:
    def experiment(self: Logger) -> Any:
        begun: list[Any] = []
        if not vars(self).get("_never_began"):
            with failures_of(self):
                begun.append(own.experiment.__get__(self))  # type: ignore[attr-defined]
        if begun:
            return begun[0]
        vars(self)["_never_began"] = True
        return _DummyExperiment()

    return experiment


def _tell_once(logger: Logger, error: Exception) -> None:
    if not vars(logger).get("_told"):
        vars(logger)["_told"] = True
        rank_zero_warn(
            f"{type(logger).__name__} failed ({one_line(error)}); training goes on, without what could not be logged"
        )


class FallbackWandbLogger(WandbLogger):
    """Lightning's logger for Weights & Biases, which records offline where the service or an account is missing.

    ``wandb sync <folder>`` uploads such a recording later.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> Run:
        """The run, begun on first use. Raises InputError for settings that ``wandb.init`` does not know."""
        if self._experiment is None:
            import wandb

            known = inspect.signature(wandb.init).parameters
            for name in self._wandb_init:
                if name not in known:
                    raise InputError(f"logger.wandb.{name}: no argument of wandb.init; {did_you_mean(name, known)}")
            settings = self._wandb_init.get("settings") or {}
            if isinstance(settings, dict):
                self._wandb_init["settings"] = {"finish_timeout": SECONDS_TO_FINISH, **settings}
            mode = self._wandb_init.get("mode") or os.environ.get("WANDB_MODE")
            if not self._offline and mode in (None, "online"):
                reason = _why_unreachable(settings if isinstance(settings, dict) else {})
                if reason is not None:
                    rank_zero_warn(
                        f"Weights & Biases: {reason}; recording offline into {self.save_dir}/wandb, to be uploaded "
                        "with: wandb sync <folder>"
                    )
                    self._offline, self._log_model = True, False
                    self._wandb_init["mode"] = "offline"
        return super().experiment


def _why_unreachable(settings: dict[str, Any]) -> str | None:
    """Why nothing can be sent to Weights & Biases; None if it answers and there is a key."""
    import wandb

    own = wandb.setup().settings
    address = settings.get("base_url") or own.base_url
    if not (settings.get("api_key") or own.api_key or wandb.api.api_key):
        return "there is no account (wandb login, or WANDB_API_KEY)"
    answers: list[bool] = []

    def ask() -> None:
        try:
            answers.append(requests.get(f"{address}/healthz", timeout=SECONDS_TO_REACH).status_code < 500)
        except (requests.RequestException, ValueError):
            answers.append(False)

    # In a thread because looking up a name may take a minute, and no argument limits that.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS_TO_REACH)
    return None if answers == [True] else "it cannot be reached"
