"""After a sweep (``-m``): one table of all runs, best first, in the sweep's folder and on the screen.

Where runs differ by their seed alone, a second table has one row per setting. Beside the entry points this is the only
file that Hydra calls: it is a Hydra callback, named in conf/_run.yaml.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra.experimental.callback import Callback

from uniformer_pose.headline import headline
from uniformer_pose.progress import text_table


class SweepRun(NamedTuple):
    """One run of a sweep: its number, its overrides, its metrics (none where it failed), and which of them counts."""

    number: str
    overrides: list[str]
    metrics: dict[str, Any]
    monitor: str

    @property
    def score(self) -> float | None:
        """The metric that counts; None where there is none."""
        value = self.metrics.get(self.monitor)
        return None if value is None else float(value)


class SweepSummary(Callback):
    """Writes ``summary.csv`` into the sweep's folder from each run's ``metrics.json`` and overrides.

    With several seeds of a setting also ``settings.csv``, as ``SettingScore`` explains it; the setting of the first
    run is what the others are compared with.
    """

    def on_multirun_end(self, config: Any, **_: Any) -> None:
        """Read what the runs left on disk: that works for every launcher, and for runs of an earlier attempt."""
        folder = Path(str(config.hydra.sweep.dir))
        runs = sweep_runs(folder)
        if not runs:
            return
        rows = [_summary_row(run) for run in runs]
        _write_csv(folder / "summary.csv", rows)
        labels = _what_differs([run.overrides for run in runs])
        scored = " or ".join(dict.fromkeys(run.monitor for run in runs))
        table = [["run", "overrides", scored, ""]]
        for run, row, label in zip(runs, rows, labels, strict=True):
            part = f"{row['images']} of {row['of']} images" if row.get("partial") else ""
            table.append([row["run"], label, row.get(run.monitor, "failed"), part])
        sys.stdout.write(f"{text_table(table)}\nwritten to {folder / 'summary.csv'}\n")
        scores = _scores_by_setting(runs)
        if max(map(len, scores.values())) > 1:
            from uniformer_pose.seed_statistics import compare_settings  # needs scipy, which takes its time

            found = {name: asdict(score) for name, score in compare_settings(scores).items()}
            _write_csv(folder / "settings.csv", [{"setting": name} | numbers for name, numbers in found.items()])
            sys.stdout.write(f"\n{_settings_table(found, scored)}\nwritten to {folder / 'settings.csv'}\n")


def sweep_runs(folder: Path) -> list[SweepRun]:
    """The runs below ``folder``, best first."""
    runs = []
    for overrides_file in folder.glob("*/.hydra/overrides.yaml"):
        run = overrides_file.parent.parent
        overrides = yaml.safe_load(overrides_file.read_text(encoding="utf-8")) or []
        metrics_file = run / "metrics.json"
        metrics = json.loads(metrics_file.read_text(encoding="utf-8")) if metrics_file.is_file() else {}
        words = [str(override).removeprefix("++") for override in overrides]
        runs.append(SweepRun(run.name, words, metrics, _monitor(run / "config.yaml")))
    return sorted(runs, key=_best_first)


def _monitor(recorded_config: Path) -> str:
    """The name in ``metrics.json`` of what the run's ``evaluation.monitor`` says; AP where nothing was recorded."""
    config = yaml.safe_load(recorded_config.read_text(encoding="utf-8")) if recorded_config.is_file() else {}
    return str(config.get("evaluation", {}).get("monitor") or headline("coco")).removeprefix("val/")


def _best_first(run: SweepRun) -> tuple[float, int, str]:
    return (math.inf if run.score is None else -run.score, *_order(run.number))


def _order(number: str) -> tuple[int, str]:
    return len(number), number  # 10 comes after 9


def _summary_row(run: SweepRun) -> dict[str, str]:
    metrics = {
        name: f"{value:.4f}" if isinstance(value, float) else str(value)
        for name, value in run.metrics.items()
        if value is not None
    }
    return {"run": run.number, "overrides": " ".join(run.overrides)} | metrics


def _what_differs(every: Sequence[Sequence[str]]) -> list[str]:
    """Of each list of overrides those that not all have; of a single one all."""
    everywhere = set(every[0]).intersection(*every) if len(every) > 1 else set()
    return [" ".join(word for word in words if word not in everywhere) for words in every]


def _scores_by_setting(runs: Sequence[SweepRun]) -> dict[str, dict[str, float]]:
    """The score by seed, by the other overrides, in the order of the runs; of a run that failed none."""
    scores: dict[tuple[str, ...], dict[str, float]] = {}
    for run in sorted(runs, key=lambda run: _order(run.number)):
        seed = next((word for word in run.overrides if word.startswith("seed=")), "")
        of_setting = scores.setdefault(tuple(word for word in run.overrides if word != seed), {})
        if run.score is not None:
            of_setting[seed] = run.score
    return dict(zip(_what_differs([*scores]), scores.values(), strict=True))


def _settings_table(found: Mapping[str, Mapping[str, Any]], scored: str) -> str:
    formats = {"n": "d", "mean": ".4f", "sd": ".4f", "difference": "+.4f", "low": "+.4f", "high": "+.4f", "pairs": "d"}
    table = [["setting", "n", scored, "sd", "difference", "from", "to", "pairs"]]
    for name, numbers in found.items():
        table.append([name, *(_shown(numbers[key], form) for key, form in formats.items())])
    explained = (
        "difference: to the first setting, of runs with the same seed; from, to: its 95 % interval (Student's t)"
    )
    return f"{text_table(table)}\n{explained}"


def _shown(number: float, form: str) -> str:
    return "" if math.isnan(number) else format(number, form)


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list({name: None for row in rows for name in row}))
        writer.writeheader()
        writer.writerows(rows)
