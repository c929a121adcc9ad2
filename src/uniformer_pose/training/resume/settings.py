"""Which settings of a training may change when it is resumed, and whether it is finished; without torch."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from uniformer_pose.errors import InputError
from uniformer_pose.files import write_json

# They say where a run's files are, how it is started and how fast it reads, none of which changes what is learnt.
_WITHOUT_EFFECT = (
    *("ckpt_path", "logger", "model.checkpointed_blocks", "name", "resume", "run_dir", "run_id"),
    *("callbacks.pictures", "callbacks.resume_checkpoints", "callbacks.throughput"),
    *("data.eval_batch_size", "data.if_missing", "data.num_workers", "data.prefetch"),
    *("data.prepared", "data.prepared_cache_gb", "data.worker_timeout"),
    "evaluation.monitor",  # the callbacks that it has an effect on have it too
    *("trainer.default_root_dir", "trainer.enable_progress_bar", "trainer.log_every_n_steps"),
)
# Another one of these is another experiment, except for the second line's; so is an optimizer, but not its numbers.
_OF_THE_EXPERIMENT = ("model", "data", "seed")
_CHANGES_ON_THE_WAY = ("data.root", "data.batch_size", "data.on_bad_image")
_WITH_OR_WITHOUT = ("optimizer.layer_decay", "optimizer.head_lr_scale")  # makes other groups of parameters
_LIMITS = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_time")
_FINISHED = "finished.json"
_SCORE_BEFORE = "average_precision"  # its name in files of earlier versions


class Change(NamedTuple):
    """A setting that has an effect on training, as it was and as it is asked for now; None where it is absent."""

    name: str
    before: Any
    now: Any

    def __str__(self) -> str:
        before, now = ("nothing" if value is None else value for value in (self.before, self.now))
        return f"{self.name} {before} is now {now}"

    @property
    def is_another_experiment(self) -> bool:
        """Whether no resumed training can have it: it would be neither the one nor the other."""
        if self.name.startswith("optimizer."):
            may_lack = self.name not in _WITH_OR_WITHOUT
            return not all((may_lack and value is None) or is_numeric(value) for value in (self.before, self.now))
        return _is_among(self.name, _OF_THE_EXPERIMENT) and not _is_among(self.name, _CHANGES_ON_THE_WAY)


def is_numeric(value: Any) -> bool:
    """Whether a setting is a number or numbers (lr, betas): those of an optimizer may change between two steps."""
    values = value if isinstance(value, list | tuple) else [value]
    return all(isinstance(number, int | float) and not isinstance(number, bool) for number in values)


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """The settings with an effect that differ; sections that ``before`` does not have were not recorded."""
    old, new = dict(_leaves(before)), dict(_leaves(now))
    return [
        Change(name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if name.partition(".")[0] in before and not _is_without_effect(name) and old.get(name) != new.get(name)
    ]


def write_finished(run_dir: Path, config: Mapping[str, Any], score: float) -> None:
    """Note that the training that ``config`` describes came to its end, early or not; the best score may be NaN."""
    write_json(run_dir / _FINISHED, {"score": score, "config": config})


def finished_as_asked(run_dir: Path, config: Mapping[str, Any]) -> float | None:
    """The score of the finished training in ``run_dir``; None if there is none, or its limits are others now.

    Raises InputError, naming what differs, where the finished training was another one.
    """
    try:
        noted = json.loads((run_dir / _FINISHED).read_text(encoding="utf-8"))
        score, before = noted["score" if "score" in noted else _SCORE_BEFORE], noted["config"]
    except (OSError, ValueError, KeyError, TypeError):  # not finished, or not by this version
        return None
    changes = changed_settings(before, config)
    if any(change.name in _LIMITS for change in changes):
        return None
    if changes:
        raise InputError(
            f"{run_dir}: is finished, with other settings ({', '.join(map(str, changes))}), so nothing is trained with "
            "these; for a run of their own give name=<another> or run_id=<another>"
        )
    return math.nan if score is None else float(score)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        if name == "data.sets":
            yield name, ",".join(value)  # in which order: people are numbered by it, and the first set is judged by
        for key, child in value.items():
            yield from _leaves(child, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _is_without_effect(name: str) -> bool:
    is_path = name.startswith("callbacks.") and name.rpartition(".")[2] in ("dirpath", "folder")
    return is_path or _is_among(name, _WITHOUT_EFFECT)


def _is_among(name: str, settings: Sequence[str]) -> bool:
    """Whether a setting is one of these, or below one of them; one set's of several is as if it were the only one."""
    name = re.sub(r"^data\.sets\.[^.]+\.", "data.", name)
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in settings)
