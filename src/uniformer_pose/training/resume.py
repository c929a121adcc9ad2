"""``resume=auto``: which run a configuration continues, and which of its settings may change on the way.

Without torch: whether a run is finished is known at once.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from uniformer_pose.errors import InputError
from uniformer_pose.run_directory import FinishedTraining, finished_training

# They say where a run's files are, how it is started and how fast it reads, none of which changes what is learnt.
_WITHOUT_EFFECT = (
    "ckpt_path",
    "data.eval_batch_size",
    "data.if_missing",
    "data.num_workers",
    "data.prepared",
    "data.worker_timeout",
    "logger",
    "callbacks.pictures",
    "callbacks.resume_points",
    "callbacks.throughput",
    "model.checkpointed_blocks",
    "name",
    "resume",
    "run_dir",
    "run_id",
    "trainer.default_root_dir",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
)
# Another one of these is another experiment, except for what the second line lists; so is what an optimizer is, but not
# its numbers.
_OF_THE_EXPERIMENT = ("model", "data", "seed")
_CHANGES_ON_THE_WAY = ("data.root", "data.batch_size", "data.on_bad_image")
# Part of the state that a checkpoint restores.
_KEPT = ("callbacks.early_stopping.patience",)
_LIMITS = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_time")
_WANDB_ID = "wandb_run_id.txt"


@dataclass(frozen=True)
class Change:
    """A setting that has an effect on training, as it was and as it is asked for now; None where it is absent."""

    name: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name} {_shown(self.before)} is now {_shown(self.now)}"

    @property
    def outcome(self) -> str:
        """What becomes of it where a training is resumed."""
        restored = self.before is not None and self.now is not None and _is_among(self.name, _KEPT)
        return "kept from the checkpoint" if restored else "applied"

    @property
    def is_another_experiment(self) -> bool:
        """Whether no resumed training can have it: it would be neither the one nor the other."""
        if self.name.startswith("optimizer."):
            return not all(value is None or is_numeric(value) for value in (self.before, self.now))
        return _is_among(self.name, _OF_THE_EXPERIMENT) and not _is_among(self.name, _CHANGES_ON_THE_WAY)


def is_numeric(value: Any) -> bool:
    """Whether a setting is a number or numbers (lr, betas): those of an optimizer may change between two steps."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in values)


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """The settings with an effect that differ between two configurations.

    Sections that ``before`` does not have at all were not recorded, and are not compared.
    """
    old, new = dict(_leaves(before)), dict(_leaves(now))
    return [
        Change(name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if name.partition(".")[0] in before
        and not _is_without_effect(name)
        and not (old.get(name) == new.get(name) or old.get(name) == "<redacted>")  # by an earlier version
    ]


def require_same_experiment(source: Path, changes: Sequence[Change]) -> None:
    """Raise InputError, naming what differs, where the changes are those of another experiment than ``source``'s."""
    others = [change for change in changes if change.is_another_experiment]
    if others:
        raise InputError(
            f"{source}: is of another experiment ({_listed(others)}); resume it with its settings, or start a run of "
            "its own: name=<another> or run_id=<another>, no ckpt_path, model.pretrained=<file> for the weights only"
        )


def finished_as_asked(run_dir: Path, config: Mapping[str, Any]) -> FinishedTraining | None:
    """The finished training in ``run_dir``, if it is the one that ``config`` describes; None if there is more to do.

    Raises InputError, naming what differs, where the finished training was another one.
    """
    finished = finished_training(run_dir)
    if finished is None:
        return None
    changes = changed_settings(finished.config or _config_of_last_start(run_dir), config)
    if any(_goes_further(change) for change in changes):
        return None
    others = [change for change in changes if change.name not in _LIMITS]
    if others:
        further = f", to train this one further with them a trainer.max_epochs above {finished.max_epochs}"
        raise InputError(
            f"{run_dir}: is finished, with other settings ({_listed(others)}), so nothing is trained with these; for a "
            "run of their own give name=<another> or run_id=<another>"
            + ("" if any(change.is_another_experiment for change in others) else further)
        )
    return finished


def _goes_further(change: Change) -> bool:
    """Whether a limit of the training was raised, or lifted (null or -1); with a time nobody can say, so it is."""
    if change.name == "trainer.max_time":
        return True
    endless = math.inf
    before, now = (endless if value in (None, -1) else value for value in (change.before, change.now))
    return change.name in _LIMITS and bool(now > before)


def _config_of_last_start(run_dir: Path) -> dict[str, Any]:
    """What ``config.yaml`` holds: for trainings that finished before their configuration was noted with that."""
    file = run_dir / "config.yaml"
    try:
        return dict(yaml.safe_load(file.read_text(encoding="utf-8"))) if file.is_file() else {}
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{file}: cannot be read ({type(error).__name__}); restore it or delete it") from error


def keep_replaced_config(run_dir: Path) -> None:
    """Rename the ``config.yaml`` of an earlier start to ``config_1.yaml``, ``config_2.yaml``, ..."""
    file = run_dir / "config.yaml"
    if file.is_file():
        number = 1
        while (run_dir / f"config_{number}.yaml").exists():
            number += 1
        file.rename(run_dir / f"config_{number}.yaml")


def same_logger_runs(loggers: Mapping[str, Any], run_dir: Path) -> dict[str, Any]:
    """The logger settings with Weights & Biases told which of its runs this directory is; a new one gets an id."""
    told = dict(loggers)
    for name, node in told.items():
        if isinstance(node, Mapping) and str(node.get("_target_", "")).endswith("WandbLogger") and not node.get("id"):
            file = run_dir / _WANDB_ID
            if file.is_file():
                told[name] = {**node, "id": file.read_text(encoding="utf-8").strip(), "resume": "allow"}
            else:
                told[name] = {**node, "id": secrets.token_hex(4)}
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(told[name]["id"] + "\n", encoding="utf-8")
    return told


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, child in value.items():
            yield from _leaves(child, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _is_without_effect(name: str) -> bool:
    own = name.removeprefix("callbacks.")
    if own != name and own.partition(".")[2] in ("dirpath", "folder"):
        return True
    return _is_among(name, _WITHOUT_EFFECT)


def _is_among(name: str, settings: Sequence[str]) -> bool:
    """Whether a setting is one of these, or below one of them."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in settings)


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _listed(changes: Sequence[Change]) -> str:
    return ", ".join(map(str, changes))
