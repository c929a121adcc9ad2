"""After a sweep (``-m``): one table of all runs, best first, in the sweep's folder and on the screen.

Where runs differ by their seed alone, a second table has one row per setting. Beside the entry points this is the only
file that Hydra calls: it is a Hydra callback, named in conf/_run.yaml.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra.experimental.callback import Callback

from uniformer_pose.progress import text_table

_SEED = "seed="


class SweepRun(NamedTuple):
    """One run of a sweep: its number, its overrides, and its metrics (none where it failed)."""

    number: str
    overrides: list[str]
    metrics: dict[str, Any]


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
        table = [["run", "overrides", "AP", ""]]
        for row, label in zip(rows, labels, strict=True):
            part = f"{row['images']} of {row['of']} images" if row.get("partial") else ""
            table.append([row["run"], label, row.get("AP", "failed"), part])
        sys.stdout.write(f"{text_table(table)}\nwritten to {folder / 'summary.csv'}\n")
        self._compare(folder, runs)

    def _compare(self, folder: Path, runs: Iterable[SweepRun]) -> None:
        scores: dict[tuple[str, ...], dict[str, float]] = {}
        for run in sorted(runs, key=lambda run: _order(run.number)):
            (seed, *_) = [word for word in run.overrides if word.startswith(_SEED)] or [""]
            of_setting = scores.setdefault(tuple(word for word in run.overrides if word != seed), {})
            if run.metrics.get("AP") is not None:
                of_setting[seed] = run.metrics["AP"]
        if max(map(len, scores.values())) < 2:
            return
        from uniformer_pose.seed_statistics import compare_settings  # needs scipy, which takes its time

        labels = _what_differs([[*words] for words in scores])
        found = compare_settings(dict(zip(labels, scores.values(), strict=True)))
        _write_csv(folder / "settings.csv", [{"setting": name} | asdict(score) for name, score in found.items()])
        table = [["setting", "n", "AP", "sd", "difference", "95 % interval", "pairs"]]
        for name, score in found.items():
            interval = f"{score.low:+.4f} to {score.high:+.4f}" if not math.isnan(score.low) else ""
            numbers = (f"{score.mean:.4f}", f"{score.sd:.4f}", f"{score.difference:+.4f}")
            shown = ["" if "nan" in number else number for number in numbers]
            table.append([name, str(score.n), *shown, interval, str(score.pairs or "")])
        explained = (
            "difference: to the first setting, over runs of the same seed; each interval for itself (Student's t)"
        )
        sys.stdout.write(f"\n{text_table(table)}\n{explained}\nwritten to {folder / 'settings.csv'}\n")


def sweep_runs(folder: Path) -> list[SweepRun]:
    """The runs below ``folder``, best first."""
    runs = []
    for overrides_file in folder.glob("*/.hydra/overrides.yaml"):
        run = overrides_file.parent.parent
        overrides = yaml.safe_load(overrides_file.read_text(encoding="utf-8")) or []
        metrics_file = run / "metrics.json"
        metrics = json.loads(metrics_file.read_text(encoding="utf-8")) if metrics_file.is_file() else {}
        runs.append(SweepRun(run.name, [str(override).removeprefix("++") for override in overrides], metrics))
    return sorted(runs, key=_best_first)


def _best_first(run: SweepRun) -> tuple[float, int, str]:
    score = run.metrics.get("AP")  # None: NaN
    return (2.0 if score is None else -float(score), *_order(run.number))


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


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list({name: None for row in rows for name in row}))
        writer.writeheader()
        writer.writerows(rows)
